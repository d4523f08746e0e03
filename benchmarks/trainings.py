"""Articles' trainings: `kerascls train` against the loops of keras_loop.py and torch_loop.py, each in its own process.

As a program, `python -m benchmarks.trainings NAME FILE.npz`, it writes a data set's arrays for the loops, so that they
need not know TFDS: uint8 `x_train`, `x_test`, int32 `y_train`, `y_test`.
"""

import argparse
import csv
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import REPOSITORY, Measurement, NotRun, extrapolated, run_child, run_loop
from benchmarks.plan import SIDES, TRAININGS, Settings, Training

LONGEST_WHOLE_SECONDS = 120  # a baseline that would train for longer is extrapolated from blocks
TINY_BLOCK_STEPS = 10


def describe(name: str, settings: Settings) -> dict[str, Any]:
    training = TRAININGS[name]
    train = _article(training)
    data = _data_name(training, settings) or "the folder that --avp names"
    conditions = [
        f"data: {data}",
        f"the loops: batch {train.batch_size}, {training.epochs or train.epochs} epochs, {train.optimizer}, learning "
        f"rate {train.learning_rate:g}",
    ]
    method = (
        "Ours trains whole, each turn with another seed; its seconds of training hold features, validation and the "
        f"saving of epochs, those of the loops {'validation' if training.validated else 'none of these'}."
    )
    if not settings.full:
        method += (
            f" Extrapolated: a loop that would train for over {LONGEST_WHOLE_SECONDS} s is timed by a block of steps "
            "a turn, after warm-up, times its steps; its accuracy is not measured."
        )
        conditions.append(f"a block has {training.block:,} steps")
    return {
        "title": training.title,
        "stated_accuracy": training.accuracy,
        "ratio_of": "seconds",
        "sides": {
            "ours": f"`{' '.join(['kerascls train', training.recipe, *sets(training)])}`",
            **({"bf16": "ours, features.precision = bf16"} if training.bf16 else {}),
            **SIDES,
        },
        "conditions": conditions,
        "method": method,
    }


def turn(
    name: str, settings: Settings, number: int, before: list[dict[str, Measurement]]
) -> list[dict[str, Measurement]]:
    """One training of ours and one of each loop, whole or a block; every second turn in the opposite order."""
    training = TRAININGS[name]
    data = arrays_file(training, settings)
    measured: dict[str, Measurement] = {}
    sides = ["ours", *(["bf16"] if training.bf16 else []), *SIDES]
    for side in sides[:: -1 if number % 2 else 1]:
        try:
            if side in ("ours", "bf16"):
                measured[side] = ours(training, settings, number, side == "bf16")
            else:
                ran = before and "not_run" not in before[0][side]
                known = before[0][side].get("extrapolated", False) if ran else None
                measured[side] = loop(side, name, data, settings, number, known)
        except NotRun as error:
            measured[side] = {"not_run": str(error)}
    return [{side: measured[side] for side in sides}]


def ours(training: Training, settings: Settings, seed: int, bf16: bool = False) -> Measurement:
    """A whole `kerascls train`, read from its run folder."""
    name = f"{Path(training.recipe).name}-{training.epochs}-{seed}"
    run = settings.folder / (f"{name}-bf16" if bf16 else name)
    command = ["-m", "kerascls", "train", training.recipe, "--seed", seed, "--out", run, "--quiet", "--no-fallback"]
    command += [*sets(training), *(["--set", "features.precision=bf16"] if bf16 else [])]
    if training.epochs:
        command += ["--epochs", training.epochs]
    if not training.data or settings.tiny:
        command += ["--data", settings.avp.resolve() if not training.data else training.stand_in]
    if settings.tiny:
        command += ["--epochs", 1, "--set", "train.warmup_epochs=0"]
    if settings.data_dir and not settings.tiny:
        command += ["--data-dir", settings.data_dir]
    # A cache of its own: no features that an earlier turn has computed.
    cache = str(settings.folder / f"{run.name}-cache")
    _, cost = run_child(command, settings.folder, settings.seconds_left, KERASCLS_CACHE=cache)
    return {**read_run(run), **cost}


def sets(training: Training) -> list[str]:
    return [word for setting in training.settings for word in ("--set", setting)]


def read_run(run: Path) -> Measurement:
    """What a run folder says of its training: seconds of features and epochs, accuracy of what was kept, images."""
    with (run / "history.csv").open(encoding="utf-8") as file:
        epochs = [float(row["seconds"]) for row in csv.DictReader(file)]
    splits = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["splits"]
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return {
        "seconds": sum(epochs) + manifest.get("features", {}).get("seconds", 0.0),
        "accuracy": (splits.get("test") or splits["validation"])["accuracy"],
        "images": manifest["data"]["examples"]["train"] * len(epochs),
        "epochs": len(epochs),
    }


def loop(side: str, name: str, data: Path, settings: Settings, seed: int, extrapolate: bool | None) -> Measurement:
    """A plain loop, whole or extrapolated from a block; a block decides where that is not known yet."""
    if side == "torch" and importlib.util.find_spec("torch") is None:
        raise NotRun("PyTorch is not installed: `pip install '.[bench]'`.")
    training = TRAININGS[name]
    epochs = 1 if settings.tiny else training.epochs or None
    arguments = [training.network or name, data, "--seed", seed, *(["--epochs", epochs] if epochs else [])]
    if not settings.full and extrapolate is not False:
        steps = TINY_BLOCK_STEPS if settings.tiny else training.block
        block = run_loop(f"{side}_loop", *arguments, "--block", steps, seconds_left=settings.seconds_left)
        whole = extrapolated(block, block["steps_of_all"], block["images_of_all"])
        if extrapolate or whole["seconds"] > LONGEST_WHOLE_SECONDS:
            return whole
    return run_loop(f"{side}_loop", *arguments, seconds_left=settings.seconds_left)


def _article(training: Training) -> Any:
    from kerascls.config import load_config

    return load_config(training.article).train


def _data_name(training: Training, settings: Settings) -> str:
    return training.stand_in if settings.tiny and training.data else training.data


def arrays_file(training: Training, settings: Settings) -> Path:
    """What the loops read: a .npz, made once a run of the benchmarks, or the folder of images."""
    if not training.data:
        if settings.avp is None:
            raise NotRun(
                "its folder was not named: `--avp DIR` with train/ and validation/, each alien/ and predator/."
            )
        if not (settings.avp / "train").is_dir() or not (settings.avp / "validation").is_dir():
            raise NotRun("the folder of `--avp` has no train/ and validation/.")
        return settings.avp.resolve()
    name = _data_name(training, settings)
    file = settings.folder / f"{name}.npz"
    if not file.is_file():
        more = [settings.data_dir] if settings.data_dir and not settings.tiny else []
        run_child(["-m", "benchmarks.trainings", name, file, *more], REPOSITORY, settings.seconds_left)
    return file


def loop_arguments() -> dict[str, Any]:
    """What both loops take on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=TRAININGS)
    parser.add_argument("data", type=Path, help="a .npz of x_train, y_train, x_test, y_test; for avp a folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="in place of the article's")
    parser.add_argument("--block", type=int, metavar="STEPS", help="time that many steps, after warm-up")
    return vars(parser.parse_args())


def write_arrays(name: str, file: str, data_dir: str | None = None) -> None:
    import numpy as np

    from kerascls.datasets import load_dataset
    from kerascls.files import atomic

    splits = load_dataset(name, data_dir).splits
    arrays = {f"{letter}_{split}": values for split in ("train", "test") for letter, values in _xy(splits[split])}
    with atomic(Path(file)) as temporary:
        np.savez(temporary, **arrays)


def _xy(split: Any) -> list[tuple[str, Any]]:
    return [("x", split.images), ("y", split.labels)]


if __name__ == "__main__":
    from kerascls.errors import KerasclsError

    try:
        write_arrays(*sys.argv[1:])
    except KerasclsError as error:
        sys.exit(f"Error: {error}")

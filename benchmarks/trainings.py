"""Articles' trainings: `kerascls train` against the loops of keras_loop.py and torch_loop.py, each in its own process.

Where an article reports a test accuracy, each side's epochs are timed one by one and scored at their end, outside the
clock: the seconds until that accuracy is first reached compare the sides, and the schedules' whole seconds stand
beside.

As a program, `python -m benchmarks.trainings NAME FILE.npz` writes a data set's arrays for the loops, so that they need
not know TFDS: uint8 `x_train`, `x_test`, int32 `y_train`, `y_test`.
"""

import argparse
import csv
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    REPOSITORY,
    Measurement,
    NotRun,
    extrapolated,
    reached,
    run_child,
    run_loop,
    scheduled,
)
from benchmarks.plan import ARTICLE, SIDES, TRAININGS, Settings, Training
from kerascls.recipes.load import load_config

LONGEST_WHOLE_SECONDS = 120  # a baseline that would train for longer is extrapolated from blocks
TINY_BLOCK_STEPS = 10


METHOD = (
    "Every turn trains each side with another seed. A side's seconds are those of its epochs' steps; those of kerascls "
    "hold the saving of every epoch's model too. At the end of each epoch the model is scored on the test images with "
    "the clock stopped, which chooses nothing. Extrapolated: not all epochs of the schedule were run; the rest is "
    "counted at the mean of those after the first, or, where no accuracy is stated and a loop would train for over "
    f"{LONGEST_WHOLE_SECONDS} s, at that of a block of steps after warm-up."
)


def describe(name: str, settings: Settings) -> dict[str, Any]:
    training = TRAININGS[name]
    train, own = _article(training), load_config(training.recipe).train
    data = _data_name(training, settings) or "the folder that --avp names"
    epochs = training.epochs or train.epochs
    conditions = [
        f"data: {data}",
        f"the loops: batch {train.batch_size}, {epochs} epochs, {train.optimizer}, learning rate "
        f"{train.learning_rate:g}",
    ]
    if training.accuracy:
        conditions.append(
            f"ours: batch {own.batch_size}, {own.epochs} epochs, {own.optimizer}, learning rate up to "
            f"{own.learning_rate:g} and down to 0, tuned for this on validation data"
        )
        conditions.append(f"the loops run {training.least} to {training.longest} of their epochs")
        if load_config(training.article).model.options.get("initializer") == "pytorch":
            conditions.append("the loop in Keras begins by Keras' own initialisation")
    elif not settings.full:
        conditions.append(f"a block has {training.block:,} steps; the loops' seconds hold validation, ours features")
    if training.settings:
        conditions.append("ours runs the frozen backbone once on each view of an image, the loops in every epoch")
    return {
        "title": training.title,
        "stated_accuracy": training.accuracy,
        "ratio_of": "seconds",
        "sides": {
            "ours": f"`{' '.join(['kerascls train', training.recipe, *sets(training)])}`",
            **({"bf16": "ours, features.precision = bf16"} if training.bf16 else {}),
            **({ARTICLE: f"`kerascls train {training.article}`"} if training.accuracy else {}),
            **SIDES,
        },
        "conditions": conditions,
        "method": METHOD,
    }


def turn(
    name: str, settings: Settings, number: int, before: list[dict[str, Measurement]]
) -> list[dict[str, Measurement]]:
    """One training of ours and one of each loop; every second turn in the opposite order."""
    training = TRAININGS[name]
    data = arrays_file(training, settings)
    measured: dict[str, Measurement] = {}
    sides = list(describe(name, settings)["sides"])
    for side in sides[:: -1 if number % 2 else 1]:
        try:
            if side in ("ours", "bf16"):
                measured[side] = ours(training, training.recipe, data, settings, number, side == "bf16")
            elif side == ARTICLE:
                measured[side] = ours(training, training.article, data, settings, number)
            elif training.accuracy:
                measured[side] = epochs_of_loop(side, name, data, settings, number)
            else:
                ran = before and "not_run" not in before[0][side]
                known = before[0][side].get("extrapolated", False) if ran else None
                measured[side] = loop(side, name, data, settings, number, known)
        except NotRun as error:
            measured[side] = {"not_run": str(error)}
    return [{side: measured[side] for side in sides}]


def ours(training: Training, recipe: str, data: Path, settings: Settings, seed: int, bf16: bool = False) -> Measurement:
    """A `kerascls train` of `recipe`, read from its run folder: whole, but for the article's where it is longer."""
    name = f"{recipe.replace('/', '-')}-{training.epochs}-{seed}"
    run = settings.folder / (f"{name}-bf16" if bf16 else name)
    command = ["-m", "kerascls", "train", recipe, "--seed", seed, "--out", run, "--quiet", "--no-fallback"]
    command += [*sets(training), *(["--set", "features.precision=bf16"] if bf16 else [])]
    epochs = training.epochs or load_config(recipe).train.epochs  # of the schedule
    if training.accuracy:
        command += ["--set", "train.save_epochs=true", "--set", "data.validation=0"]
    if recipe == training.article and training.accuracy:
        command += ["--epochs", 1 if settings.tiny else training.longest]
    elif training.epochs or settings.tiny:
        epochs = 1 if settings.tiny else training.epochs
        command += ["--epochs", epochs]
    if not training.data or settings.tiny:
        command += ["--data", settings.avp.resolve() if not training.data else training.stand_in]
    if settings.data_dir and not settings.tiny:
        command += ["--data-dir", settings.data_dir]
    # A cache of its own: no features that an earlier turn has computed.
    cache = str(settings.folder / f"{run.name}-cache")
    _, cost = run_child(command, settings.folder, settings.seconds_left, KERASCLS_CACHE=cache)
    found = {**read_run(run), **cost}
    if not training.accuracy:
        return found
    scores = run_loop("score", run, data, seconds_left=settings.seconds_left)
    found["epoch_accuracies"] = scores["epoch_accuracies"]
    return reached(scheduled(found, epochs), training.accuracy)


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
        "epoch_seconds": epochs,
    }


def epochs_of_loop(side: str, name: str, data: Path, settings: Settings, seed: int) -> Measurement:
    """A plain loop, epoch by epoch, until it reaches the stated accuracy."""
    training = TRAININGS[name]
    longest, least = (1, 1) if settings.tiny else (training.longest, training.least)
    epochs = 1 if settings.tiny else training.epochs or _article(training).epochs
    if settings.full:
        longest, least = max(longest, epochs), epochs
    _check_installed(side)
    arguments = [name, data, "--seed", seed, "--epochs", longest, "--least", least, "--until", training.accuracy]
    found = run_loop(f"{side}_loop", *arguments, seconds_left=settings.seconds_left)
    found["images"] *= len(found["epoch_seconds"])
    spent = found.pop("fit_seconds") - sum(found["epoch_seconds"])  # on scoring
    found["process_seconds"] -= spent
    return reached(scheduled(found, epochs), training.accuracy)


def loop(side: str, name: str, data: Path, settings: Settings, seed: int, extrapolate: bool | None) -> Measurement:
    """A plain loop, whole or extrapolated from a block; a block decides where that is not known yet."""
    _check_installed(side)
    training = TRAININGS[name]
    epochs = 1 if settings.tiny else training.epochs or None
    arguments = [training.network or name, data, "--seed", seed, *(["--epochs", epochs] if epochs else [])]
    if not settings.full and extrapolate is not False:
        steps = TINY_BLOCK_STEPS if settings.tiny else training.block
        block = run_loop(f"{side}_loop", *arguments, "--block", steps, seconds_left=settings.seconds_left)
        whole = extrapolated(block, block["steps_of_all"], block["images_of_all"])
        if extrapolate or whole["seconds"] > LONGEST_WHOLE_SECONDS:
            return whole
    whole = run_loop(f"{side}_loop", *arguments, seconds_left=settings.seconds_left)
    whole["images"] *= len(whole["epoch_seconds"])
    return scheduled(whole, len(whole["epoch_seconds"]))


def _check_installed(side: str) -> None:
    if side == "torch" and importlib.util.find_spec("torch") is None:
        raise NotRun("PyTorch is not installed: `pip install '.[bench]'`.")


def _article(training: Training) -> Any:
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
    parser.add_argument("--until", type=float, metavar="ACCURACY", help="end with the first epoch that has it")
    parser.add_argument("--least", type=int, default=1, metavar="EPOCHS", help="but run at least that many")
    parser.add_argument("--block", type=int, metavar="STEPS", help="time that many steps, after warm-up")
    return vars(parser.parse_args())


def write_arrays(name: str, file: str, data_dir: str | None = None) -> None:
    import numpy as np

    from kerascls.data.loading import load_dataset
    from kerascls.system.atomic_files import atomic

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

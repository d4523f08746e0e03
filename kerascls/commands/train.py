"""`kerascls train`."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kerascls.commands._command import Command
from kerascls.commands._options import data_dir_option, parse_seeds, recipe_and_data, refuse_extra
from kerascls.commands._output import announce
from kerascls.system.json_files import json_text


@click.command(
    "train",
    cls=Command,
    context_settings={"allow_extra_args": True},
    examples=(
        "kerascls train my_photos",
        "kerascls train mnist_cnn --data digits --epochs 3 --set train.learning_rate=0.01",
    ),
)
@click.argument("recipe", required=False)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a recipe's key: train.epochs=3.")
@click.option("--epochs", type=click.IntRange(1), help="Same as --set train.epochs=N.")
@click.option("--batch-size", type=click.IntRange(1), help="Same as --set train.batch_size=N.")
@click.option("--seed", type=click.IntRange(0), help="Same as --set train.seed=N.")
@click.option("--seeds", metavar="N,N,...", help="Train once a seed; mean and range at the end.")
@click.option("--data", metavar="DATA", help="Other data: a name, FOLDER, tfds:NAME, FILE.npz or ./my_data.py.")
@data_dir_option
@click.option(
    "--devices", metavar="WHICH", help="auto, cpu, gpu, gpu:0,1, mirrored or cpu:0,1. Same as --set devices.devices=..."
)
@click.option("--deterministic", is_flag=True, help="A GPU's run too repeats to the bit, as a CPU's always does.")
@click.option("--no-fallback", is_flag=True, help="Missing data is an error, never replaced by embedded data.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run folder; must not exist.  [default: the next free name under saved_models/]",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with a run that was killed or interrupted, to the numbers that it would have had.",
)
@click.option("--json", "as_json", is_flag=True, help='End with one line {"run": ..., "test": ...}.')
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--log-steps", type=click.IntRange(1), default=None, metavar="N", help="A line every N steps as well.")
@click.option("--profile", is_flag=True, help="Measure first where the time of a step goes: profile.json, and a table.")
@click.pass_context
def command(
    context: click.Context,
    recipe: str | None,
    sets: Sequence[str],
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    seeds: str | None,
    data: str | None,
    data_dir: str | None,
    devices: str | None,
    deterministic: bool,
    no_fallback: bool,
    out: Path | None,
    resume: Path | None,
    as_json: bool,
    quiet: bool,
    log_steps: int | None,
    profile: bool,
) -> None:
    """Train RECIPE, score its test split, and write a run folder.

    RECIPE is a name from `kerascls list`, the path of a .toml file, or a folder of images, which means the recipe
    `folder` with --data FOLDER; so does --data FOLDER alone. The run's path is the last line of stdout (with --seeds,
    mean and range are).
    """
    from kerascls.recipes.load import parse_sets

    refuse_extra(context)
    if recipe is None and resume is None and data is None:
        raise click.UsageError("Missing argument 'RECIPE'.")
    if resume is not None and (out is not None or seeds is not None or profile):
        raise click.UsageError("--resume goes on with one run as it is: leave out --out, --seeds and --profile.")
    if recipe is not None or resume is None:
        recipe, data = recipe_and_data(recipe, data)
    if seeds is not None and (seed is not None or out is not None):
        raise click.UsageError("--seeds names its runs itself: leave out --seed and --out.")
    overrides = parse_sets(sets)
    if deterministic:
        overrides.setdefault("devices", {})["deterministic"] = True
    settings: dict[str, Any] = dict(
        data=data,
        epochs=epochs,
        batch_size=batch_size,
        devices=devices,
        overrides=overrides,
        data_dir=data_dir,
        fallback=not no_fallback,
        quiet=quiet,
        log_steps=log_steps or 0,
        profile=profile,
        command=_command_line(),
        offer=_offer,
    )
    if seeds is not None:
        status = _train_seeds(recipe, parse_seeds(seeds), settings, as_json)
    else:
        status = _train(recipe, dict(settings, seed=seed, out=out, resume=resume), as_json)
    if status == "interrupted":
        raise KeyboardInterrupt


def _train(recipe: str | None, settings: dict[str, Any], as_json: bool) -> str:
    """Trains once, and prints the result. Returns its status."""
    from kerascls.training.train import train

    result = train(recipe, **settings)
    if as_json:
        click.echo(json_text(_json_of(result)))
    else:
        _report(result, settings["quiet"])
        click.echo(str(result.path))
    return result.status


def _train_seeds(recipe: str, seeds: Sequence[int], settings: dict[str, Any], as_json: bool) -> str:
    """Trains once per seed, and prints each result, and mean and range. Returns the last one's status."""
    from kerascls.training.seeds import train_seeds

    def tell(result: Any) -> None:
        if not as_json:
            _report(result, settings["quiet"])

    trained = train_seeds(recipe, seeds, tell=tell, **settings)
    accuracy = trained.accuracy
    if as_json:
        click.echo(json_text({"runs": [_json_of(result) for result in trained.results], "accuracy": accuracy}))
    elif accuracy:
        click.echo(
            f"{trained.split} accuracy over {len(trained.scored)} seeds: mean {accuracy['mean']:.4f}, "
            f"range {accuracy['min']:.4f} to {accuracy['max']:.4f}"
        )
    return trained.status


def _offer(run: Path, how_far: str) -> bool:
    """Whether to resume a run that was ended: asks on a terminal, else reports how to resume it and says no."""
    ended = f"{run}, of the same recipe, was ended {how_far}"
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        return click.confirm(f"{ended}. Go on with it?", default=True, err=True)
    click.echo(
        f"{ended}: `kerascls train --resume {shlex.quote(str(run))}` goes on with it. A new one begins.", err=True
    )
    return False


def _json_of(result: Any) -> dict[str, Any]:
    return {"run": str(result.path), "test": result.test, "validation": result.validation}


def _report(result: Any, quiet: bool) -> None:
    if result.status == "interrupted":
        kept = f"Epoch {result.kept_epoch} is kept" + (" and scored" if result.scores else ", not yet scored")
        kept = kept if result.kept_epoch else "Nothing scored yet"
        resume = f"`kerascls train --resume {shlex.quote(str(result.path))}` continues from there"
        click.echo(f"Interrupted {result.interrupted}. {kept}; {resume}.", err=True)
    split, scores = "test" if result.test else "validation", result.scores
    if quiet or scores is None:
        return
    from kerascls.inference.report import accuracy_by_class, chosen_by, largest_class
    from kerascls.runs.run import Run

    announce(result.notice)
    click.echo(
        f"{split} accuracy {scores['accuracy']:.4f}, loss {scores['loss']:.4f}, balanced accuracy "
        f"{scores['balanced_accuracy']:.4f} ({scores['examples']:,} images)"
    )
    if line := largest_class(scores):
        click.echo(line)
    if lines := accuracy_by_class(scores):
        click.echo(f"accuracy by class:\n{lines}")
    for file, what in (
        ("model.keras", f"the trained model: epoch {result.kept_epoch}{chosen_by(Run(result.path))}"),
        ("metrics.json", "all scores"),
        ("history.csv", "every epoch"),
        ("curves.png", "learning curves"),
        ("confusion.png", "confusion matrix"),
        ("most_wrong.png", "the most wrong images"),
        ("splits.csv", "every file's split and class"),
        ("skipped.csv", "files left out, with the reason"),
    ):
        if (result.path / file).exists():
            click.echo(f"  {result.path / file}  {what}")


def _command_line() -> str:
    """The command as typed, an absolute path cut to its last part: runs hold no path of this machine."""

    def short(word: str) -> str:
        head, equals, tail = word.rpartition("=")
        return head + equals + (os.path.basename(tail.rstrip("/\\")) if os.path.isabs(tail) else tail)

    return shlex.join(["kerascls", *map(short, sys.argv[1:])])

"""`kerascls sweep`."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from kerascls.commands._command import Command
from kerascls.commands._options import data_dir_option, parse_seeds, recipe_and_data, refuse_extra
from kerascls.system.json_files import json_text


@click.command(
    "sweep",
    cls=Command,
    context_settings={"allow_extra_args": True},
    examples=(
        "kerascls sweep mnist_cnn --data digits --epochs 2 --set train.learning_rate=0.003,0.01",
        "kerascls sweep mnist_cnn --data digits --epochs 2 --set train.batch_size=32,64 --folds 3",
    ),
)
@click.argument("recipe")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE,...", help="Try each value: train.epochs=3,10.")
@click.option("--folds", type=click.IntRange(2), help="Validate on each of so many parts of the train split in turn.")
@click.option("--seeds", metavar="N,N,...", help="Train every combination once a seed.")
@click.option("--epochs", type=click.IntRange(1), help="Same as --set train.epochs=N.")
@click.option("--data", metavar="DATA", help="Other data: a name, FOLDER, tfds:NAME, FILE.npz or ./my_data.py.")
@data_dir_option
@click.option("--devices", metavar="WHICH", help="As `kerascls train` takes it.")
@click.option("--no-fallback", is_flag=True, help="Missing data is an error, never replaced by embedded data.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="The table of all trainings; must not exist.  [default: saved_models/sweep-RECIPE.csv]",
)
@click.option("--json", "as_json", is_flag=True, help="The combinations as one JSON list, best first.")
@click.option("--quiet", is_flag=True, help="No line a training.")
@click.pass_context
def command(
    context: click.Context,
    recipe: str,
    sets: Sequence[str],
    folds: int | None,
    seeds: str | None,
    epochs: int | None,
    data: str | None,
    data_dir: str | None,
    devices: str | None,
    no_fallback: bool,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train every combination of --set values of RECIPE and compare them on validation data.

    The test split is not touched. With features.views in the recipe, all share the same features of the backbone. The
    last line is the command that trains the best. Its accuracy here is a little too good: it and its epoch were chosen
    on the same images.
    """
    refuse_extra(context)
    recipe, data = recipe_and_data(recipe, data)
    from kerascls.training.grid import parse_grid
    from kerascls.training.sweep import sweep as run_sweep
    from kerascls.training.sweep import table

    grid = parse_grid(sets)
    result = run_sweep(
        recipe,
        grid,
        folds=folds or 0,
        seeds=parse_seeds(seeds) if seeds is not None else None,
        data=data,
        epochs=epochs,
        devices=devices,
        data_dir=data_dir,
        fallback=not no_fallback,
        out=out,
        tell=None if quiet else lambda trial: _report(trial, grid),
    )
    best = result.summary()
    if as_json:
        click.echo(json_text(best))
    elif best:
        click.echo(table(result))
        click.echo(f"{result.path}  every training", err=True)
        if best[0]["accuracy"]:
            given = {"--data": data, "--data-dir": data_dir, "--epochs": epochs, "--seeds": seeds, "--devices": devices}
            click.echo(_train_command(recipe, best[0]["settings"], given, no_fallback))
    if result.status == "interrupted":
        raise KeyboardInterrupt


def _report(trial: Any, grid: Mapping[str, Sequence[Any]]) -> None:
    """A trial in one line: the settings that vary, and its scores or its error."""
    from kerascls.training.grid import as_sets

    differs = {key: value for key, value in trial.settings.items() if len(grid[key]) > 1}
    fold = f"fold {trial.fold + 1}" if trial.fold is not None else ""
    where = ", ".join(filter(None, [as_sets(differs), fold, f"seed {trial.seed}"]))
    answer = trial.error or f"validation accuracy {trial.accuracy:.4f}, loss {trial.loss:.4f}"
    click.echo(f"{where}: {answer}", err=True)


def _train_command(recipe: str, settings: Mapping[str, Any], given: Mapping[str, Any], no_fallback: bool) -> str:
    """The command that trains the recipe with these settings, and with the options that were given."""
    from kerascls.training.grid import as_sets

    if "train.epochs" in settings:
        given = {**given, "--epochs": None}
    options = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    words = shlex.join(["kerascls", "train", recipe, *options, *["--no-fallback"] * no_fallback])
    return f"{words} {as_sets(settings)}".rstrip()

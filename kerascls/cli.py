"""The command line. A body parses, calls one library function, and prints; nothing heavy is imported before it runs.

Results go to stdout, progress and warnings to stderr.
"""

import itertools
import json
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click

from kerascls import errors
from kerascls.errors import ConfigError, KerasclsError
from kerascls.system.json_files import json_text
from kerascls.system.status import shown
from kerascls.version import __version__

EXPORT_FORMATS = (
    *("keras", "saved_model", "h5", "weights"),
    *("litert", "litert_float16", "litert_int8", "onnx", "openvino"),
)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Command(click.Command):
    """A command that says on a terminal what it is doing, and whose help begins with `examples`."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = examples

    def format_help(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("".join(f"$ {example}\n" for example in self.examples))
        formatter.write_paragraph()
        super().format_help(context, formatter)

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        typed = list(arguments)  # Click takes what it parses out of the list
        try:
            return super().parse_args(context, arguments)
        except click.NoSuchOption as error:
            known = {name for parameter in self.params for name in parameter.opts}
            near = [name for name in error.possibilities or () if name != "--help"]
            error.possibilities = _usual(error.option_name, typed, known) or near
            raise

    def invoke(self, context: click.Context) -> Any:
        with shown(self.name, wanted=not context.params.get("quiet")):
            return super().invoke(context)


def _usual(option: str, typed: Sequence[str], known: Collection[str]) -> list[str]:
    """What another tool's `option` is called here, with the value that was typed: the option of that name among the
    `known`, else a --set line; [] where there is none."""
    from kerascls.recipes.catalog import USUAL_KEYS

    key = USUAL_KEYS.get(option.lstrip("-").lower().replace("-", "_"))
    if key is None or "--set" not in known:
        return []
    words = [word.partition("=") for word in typed] + [("VALUE", "", "")]
    at, equals, value = next((i, equals, value) for i, (name, equals, value) in enumerate(words) if name == option)
    value = value if equals else "".join(words[at + 1])
    value = "VALUE" if value.startswith("-") else value
    own = f"--{key.partition('.')[2].replace('_', '-')}"
    return [f"{own} {value}" if own in known else f"--set {key}={value}"]


class _FormatType(click.Choice):
    """A format of an export, by the names of other tools only with a hint."""

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        if value in self.choices:
            return value
        from kerascls.recipes.catalog import USUAL_FORMATS, nearest

        hint = nearest(value, self.choices, USUAL_FORMATS)
        self.fail(f"{value!r} is not one of {', '.join(self.choices)}.{hint}", param, context)


class _Commands(click.Group):
    command_class = _Command


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, package_name="kerascls")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """From a data set to a trained, scored, exported and reloaded Keras image classifier.

    \b
    kerascls train mnist_cnn
    kerascls predict saved_models/mnist_cnn three.png
    """


data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Where TFDS keeps prepared data.  [default: $TFDS_DATA_DIR, else TFDS's own]"
)
names_option = click.option(
    "--class-names", metavar="FILE|A,B,...", help="Names of a model without a card: a,b,c, or a file of one a line."
)
range_option = click.option(
    "--pixel-range", metavar="LOW,HIGH", help="That such a model takes pixels in: 0,1 or -1,1.  [default: 0,255]"
)
trust_option = click.option(
    "--trust", is_flag=True, help="Load a SavedModel although its operations may reach files, network or Python."
)


@cli.command(
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
def train(
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
    from kerascls.training.train import train as train_recipe

    _no_more(context)
    if recipe is None and resume is None and data is None:
        raise click.UsageError("Missing argument 'RECIPE'.")
    if resume is not None and (out is not None or seeds is not None or profile):
        raise click.UsageError("--resume goes on with one run as it is: leave out --out, --seeds and --profile.")
    if recipe is not None or resume is None:
        recipe, data = _recipe_and_data(recipe, data)
    if seeds is not None and (seed is not None or out is not None):
        raise click.UsageError("--seeds names its runs itself: leave out --seed and --out.")
    overrides = parse_sets(sets)
    if deterministic:
        overrides.setdefault("devices", {})["deterministic"] = True
    common: dict[str, Any] = dict(
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
    results = []
    for one in _parse_seeds(seeds) if seeds is not None else [seed]:
        suffix = f"-seed{one}" if seeds is not None else ""
        result = train_recipe(recipe, seed=one, out=out, resume=resume, name_suffix=suffix, **common)
        results.append(result)
        if not as_json:
            _tell_result(result, quiet)
        if result.status == "interrupted":
            break
    scored = [result for result in results if result.scores is not None]
    if seeds is None:
        answer: dict[str, Any] = _told(results[0])
    else:
        accuracies = [result.accuracy for result in scored]
        answer = {
            "runs": [_told(result) for result in results],
            "accuracy": {"mean": sum(accuracies) / len(accuracies), "min": min(accuracies), "max": max(accuracies)}
            if accuracies
            else None,
        }
        if accuracies and not as_json:
            split = "test" if scored[0].test else "validation"
            click.echo(
                f"{split} accuracy over {len(accuracies)} seeds: mean {answer['accuracy']['mean']:.4f}, "
                f"range {min(accuracies):.4f} to {max(accuracies):.4f}"
            )
    if as_json:
        click.echo(json_text(answer))
    elif seeds is None:
        click.echo(str(results[0].path))
    if results[-1].status == "interrupted":
        raise KeyboardInterrupt


def _no_more(context: click.Context) -> None:
    """Refuses what stands behind the recipe; usually it is data."""
    if context.args:
        word = shlex.quote(context.args[0])
        raise click.UsageError(f"Got unexpected extra argument ({context.args[0]}). Data is named by --data {word}")


def _recipe_and_data(recipe: str | None, data: str | None) -> tuple[str, str | None]:
    """A folder in the place of a recipe, or without one, is trained on by the recipe `folder`. Other data needs one."""
    from kerascls.data.loading import is_data, is_folder
    from kerascls.recipes.catalog import is_recipe

    if recipe is not None and (is_recipe(recipe) or not is_data(recipe)):
        return recipe, data
    if recipe is not None and data is not None:
        raise click.UsageError(f"{recipe} is data: leave out --data, or name a recipe.")
    data = recipe or data
    if not is_data(data) or is_folder(data):
        return "folder", data
    raise click.UsageError(
        f"Missing argument 'RECIPE' to train on {data}, as in `kerascls train mnist_cnn --data {shlex.quote(data)}`."
    )


def _offer(run: Path, how_far: str) -> bool:
    """Whether to go on with a run that was ended; asked on a terminal, told elsewhere."""
    ended = f"{run}, of the same recipe, was ended {how_far}"
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        return click.confirm(f"{ended}. Go on with it?", default=True, err=True)
    click.echo(
        f"{ended}: `kerascls train --resume {shlex.quote(str(run))}` goes on with it. A new one begins.", err=True
    )
    return False


def _told(result: Any) -> dict[str, Any]:
    return {"run": str(result.path), "test": result.test, "validation": result.validation}


def _tell_result(result: Any, quiet: bool) -> None:
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

    _announce(result.notice)
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


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise click.UsageError(f"--seeds takes different whole numbers, as in 0,1,2. Received: {text!r}")
    return seeds


@cli.command(
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
def sweep(
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
    _no_more(context)
    recipe, data = _recipe_and_data(recipe, data)
    from kerascls.training.grid import as_sets, parse_grid
    from kerascls.training.sweep import sweep as run_sweep
    from kerascls.training.sweep import table

    grid = parse_grid(sets)

    def tell(trial: Any) -> None:
        differs = {key: value for key, value in trial.settings.items() if len(grid[key]) > 1}
        fold = f"fold {trial.fold + 1}" if trial.fold is not None else ""
        where = ", ".join(filter(None, [as_sets(differs), fold, f"seed {trial.seed}"]))
        answer = trial.error or f"validation accuracy {trial.accuracy:.4f}, loss {trial.loss:.4f}"
        click.echo(f"{where}: {answer}", err=True)

    result = run_sweep(
        recipe,
        grid,
        folds=folds or 0,
        seeds=_parse_seeds(seeds) if seeds is not None else None,
        data=data,
        epochs=epochs,
        devices=devices,
        data_dir=data_dir,
        fallback=not no_fallback,
        out=out,
        tell=None if quiet else tell,
    )
    best = result.summary()
    if as_json:
        click.echo(json_text(best))
    elif best:
        click.echo(table(result))
        click.echo(f"{result.path}  every training", err=True)
        if best[0]["accuracy"]:
            settings = best[0]["settings"]
            given = {
                "--data": data,
                "--data-dir": data_dir,
                "--epochs": None if "train.epochs" in settings else epochs,
                "--seeds": seeds,
                "--devices": devices,
            }
            options = [part for name, value in given.items() if value is not None for part in (name, str(value))]
            words = shlex.join(["kerascls", "train", recipe, *options, *["--no-fallback"] * no_fallback])
            click.echo(f"{words} {as_sets(settings)}".rstrip())
    if result.status == "interrupted":
        raise KeyboardInterrupt


@cli.command(
    examples=(
        "kerascls evaluate saved_models/mnist_cnn",
        "kerascls evaluate saved_models/mnist_cnn --data my_digits --json",
    ),
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--data", metavar="DATA", help="Other data than the run's: a name, FOLDER, tfds:NAME, FILE.npz or ./my_data.py."
)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="The scores as one JSON object.")
@names_option
@range_option
def evaluate(
    run: Path,
    data: str | None,
    split: str,
    data_dir: str | None,
    as_json: bool,
    class_names: str | None,
    pixel_range: str | None,
) -> None:
    """Score RUN, a run or a model file: loss, accuracy, and precision, recall and F1 of every class.

    Draws learning curves, confusion matrix and the most wrong images into the run's folder. Images of other data that
    RUN was trained or validated on are left out of its scores, and counted. A model file is scored on --data, an export
    in its run's folder on the run's data too.
    """
    from kerascls.data.dataset import skipped_lines
    from kerascls.inference.evaluate import evaluate as evaluate_run
    from kerascls.inference.report import seen_lines, table

    evaluation = evaluate_run(run, data, split, data_dir, class_names=class_names, pixel_range=pixel_range)
    for line in (evaluation.notice, evaluation.not_drawn, evaluation.note):
        _announce(line)
    for line in [*skipped_lines(evaluation.skipped), *seen_lines(evaluation)]:
        click.echo(_printable(line), err=True)
    if as_json:
        click.echo(json_text(evaluation.as_json()))
        return
    click.echo(table(evaluation))
    click.echo()
    for picture in evaluation.pictures:
        click.echo(f"drawn: {picture}", err=True)


@cli.command(
    examples=(
        "kerascls predict saved_models/mnist_cnn seven.png --invert",
        "kerascls predict saved_models/mnist_cnn my_digits --csv answers.csv",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=str))
@click.option("--top-k", type=click.IntRange(1), default=3, show_default=True, help="Names an image.")
@click.option("--invert", is_flag=True, help="Turn black into white first, for dark ink on white paper.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Write a table as well.")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the images, titled with their percentages.",
)
@click.option("--data", metavar="DATA", help="Examples of a data set in place of FILES, with their true names.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--count", type=click.IntRange(1), default=9, show_default=True, help="Examples of --data.")
@data_dir_option
@names_option
@range_option
@trust_option
def predict(
    model: Path,
    files: Sequence[str],
    top_k: int,
    invert: bool,
    as_json: bool,
    csv_file: Path | None,
    plot_file: Path | None,
    data: str | None,
    split: str,
    count: int,
    data_dir: str | None,
    class_names: str | None,
    pixel_range: str | None,
    trust: bool,
) -> None:
    """Name the images in FILES (files, folders, URLs, or - for stdin) with MODEL.

    MODEL is a run folder, a .keras, .h5 or .tflite file, or a SavedModel folder. An image that cannot be read costs no
    other; the command then exits 1 at its end. The same command goes on with a --csv table that was interrupted.
    """
    if bool(files) == bool(data):
        raise click.UsageError("Give FILES or --data NAME" + (", not both." if files else "."))
    from kerascls.inference.predict import as_json as json_line
    from kerascls.inference.predict import as_text
    from kerascls.inference.predict import predict as predict_images

    batches = predict_images(
        model,
        files,
        top_k=top_k,
        invert=invert,
        csv_file=csv_file,
        plot_file=plot_file,
        data=data,
        split=split,
        count=count,
        data_dir=data_dir,
        trust=trust,
        class_names=class_names,
        pixel_range=pixel_range,
        tell=lambda line: click.echo(_printable(line), err=True),
    )
    for answers in batches:
        # A batch in one go: a line at a time costs as much as reading a small image.
        for failed, group in itertools.groupby(answers, lambda answer: answer.prediction.error is not None):
            lines = [json_line(answer.prediction) if as_json else as_text(answer) for answer in group]
            click.echo(_printable("\n".join(lines)), err=failed and not as_json)


@cli.command(
    examples=(
        "kerascls explain saved_models/mnist_cnn seven.png --invert",
        "kerascls explain saved_models/mnist_cnn my_digits --class 8 --out maps",
    ),
)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=str))
@click.option("--class", "class_name", metavar="NAME", help="Explain this class in place of the most probable one.")
@click.option("--invert", is_flag=True, help="Turn black into white first, for dark ink on white paper.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The pictures' folder.  [default: here]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@names_option
@range_option
def explain(
    run: Path,
    files: Sequence[str],
    class_name: str | None,
    invert: bool,
    out: Path | None,
    as_json: bool,
    class_names: str | None,
    pixel_range: str | None,
) -> None:
    """Draw where RUN sees its answer in each image of FILES (files, folders, URLs, -): a heat map over it.

    RUN is a run folder, or a .keras or .h5 file. Each image becomes NAME_explained.png. One that cannot be read costs
    no other; the command then exits 1 at its end.
    """
    from kerascls.inference.explain import as_json as json_line
    from kerascls.inference.explain import as_text
    from kerascls.inference.explain import explain as explain_images
    from kerascls.inference.inputs import named_images

    def each(explanation: Any) -> None:
        line = json_line(explanation) if as_json else as_text(explanation)
        click.echo(_printable(line), err=explanation.error is not None and not as_json)

    def tell(line: str) -> None:
        click.echo(_printable(line), err=True)

    images = named_images(files, tell)
    stated = {"class_names": class_names, "pixel_range": pixel_range}
    done = explain_images(run, images, out or ".", class_name, invert=invert, **stated, each=each, tell=tell)
    if failed := sum(explanation.error is not None for explanation in done):
        raise KerasclsError(f"{failed} of {len(done)} images could not be read.")


@cli.command(
    examples=(
        "kerascls export saved_models/mnist_cnn --format saved_model",
        "kerascls export saved_models/mnist_cnn --all",
    ),
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=_FormatType(EXPORT_FORMATS),
    default="saved_model",
    show_default=True,
    help="weights is architecture JSON with weights HDF5.",
)
@click.option("--all", "all_", is_flag=True, help="Every format whose packages are installed.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to; must not exist.  [default: under RUN/exports]")
@click.option(
    "--images", metavar="DIR", help="A folder of more images to compare on, in folders named by their classes."
)
@click.option("--calibration", metavar="DIR", help="A folder of images for litert_int8.  [default: training images]")
@click.option(
    "--data", metavar="DATA", help="Where the run's data is by now; litert_float16 and _int8 are tried on it."
)
@data_dir_option
def export(
    run: Path,
    format_: str,
    all_: bool,
    out: Path | None,
    images: str | None,
    calibration: str | None,
    data: str | None,
    data_dir: str | None,
) -> None:
    """Write RUN's model in another format, proven to answer alike in a fresh process."""
    from kerascls.exporting.export import Exporter, export_all, headings, row

    if all_ and out is not None:
        raise click.UsageError("--all writes under RUN/exports: leave out --out.")
    exporter = Exporter(run, images, calibration, data, data_dir)
    _announce(exporter.notice)
    if all_:
        click.echo(headings())
        failed = export_all(exporter, lambda name, found: click.echo(row(name, found)))
    else:
        exported = exporter.export(format_, out)
        click.echo(
            f"{exported.examples} images answered in a fresh process: largest difference {exported.max_difference:g}"
        )
        click.echo(str(exported.path))
    for line in exporter.unread:
        click.echo(f"left out: {line}", err=True)
    if all_ and failed:
        raise failed


@cli.command(
    examples=(
        "kerascls adopt foreign.keras --class-names cat,dog --pixel-range 0,1 --out cats_and_dogs.keras",
        "kerascls adopt foreign.keras --class-names names.txt --resize center_crop --out cropped.keras",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--class-names",
    required=True,
    metavar="FILE|A,B,...",
    help="In the order of the outputs: a,b,c, or a file of one a line. Of one sigmoid, the class of 0 and that of 1.",
)
@range_option
@click.option("--image-shape", metavar="H,W,C", help="Of a model that takes images of any size.")
@click.option(
    "--resize",
    type=click.Choice(["stretch", "nearest", "center_crop"]),
    default="stretch",
    show_default=True,
    help="How images of other sizes come to the model's.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .keras or .h5 file to write.")
def adopt(
    model: Path, class_names: str, pixel_range: str | None, image_shape: str | None, resize: str, out: Path
) -> None:
    """Write MODEL, a .keras or .h5 file of others, with its class names and range of pixels.

    The file that is written takes pixels from 0 to 255 and answers probabilities, as kerascls' own do: evaluate --data,
    predict, explain, export and serve work on it.
    """
    from kerascls.exporting.adopt import adopt as adopt_model

    shape = None
    if image_shape is not None:
        parts = image_shape.split(",")
        if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
            raise click.UsageError(
                f"--image-shape takes height, width and channels, as 224,224,3. Received: {image_shape}"
            )
        shape = [int(part) for part in parts]
    path, notice = adopt_model(
        model, out, class_names=class_names, pixel_range=pixel_range, image_shape=shape, resize=resize
    )
    _announce(notice)
    click.echo(_printable(str(path)))


@cli.command(
    examples=(
        "kerascls serve saved_models/mnist_cnn",
        "kerascls serve --model digits=saved_models/mnist_cnn --model more=saved_models/released/mnist_cnn_bn",
    ),
)
@click.argument("model", metavar="[RUN_OR_EXPORT]", required=False, type=click.Path(path_type=Path))
@click.option("--model", "models", multiple=True, metavar="NAME=PATH", help="Serve this run or export too, as NAME.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0 takes a free one.")
@click.option("--name", help="The model's name in URLs.  [default: the run's]")
@click.option("--max-batch", type=click.IntRange(1), default=32, show_default=True, help="Images of a batch.")
@click.option(
    "--max-delay-ms", type=click.FloatRange(0), default=5, show_default=True, help="That an image waits for others."
)
@click.option(
    "--max-queue", type=click.IntRange(1), default=256, show_default=True, help="Images under way; beyond it, 429."
)
@click.option("--max-body-mb", type=click.FloatRange(0, min_open=True), default=16, show_default=True, help="Else 413.")
@click.option("--max-pixels", type=click.IntRange(1), default=25_000_000, show_default=True, help="Else 413.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds for a request to arrive, and again for an image to be answered.",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of https://shop.example ask too, from a browser; * for all pages.  [default: none]",
)
@trust_option
def serve(
    model: Path | None,
    models: Sequence[str],
    host: str,
    port: int,
    name: str | None,
    max_batch: int,
    max_delay_ms: float,
    max_queue: int,
    max_body_mb: float,
    max_pixels: int,
    timeout: float,
    allow_origins: Sequence[str],
    trust: bool,
) -> None:
    """Serve RUN_OR_EXPORT over HTTP: TensorFlow Serving's REST API, uploads, metrics, and a page to try it on.

    SIGTERM and Ctrl-C stop it when what it took is answered. It needs pip install 'kerascls[serve]'.
    """
    from kerascls.serving.limits import Limits
    from kerascls.serving.server import serve as serve_model

    limits = Limits(max_batch, max_delay_ms / 1000, max_queue, int(max_body_mb * 1e6), max_pixels, timeout)
    pairs = [one.partition("=") for one in models]
    for word, _, path in pairs:
        if not (word and path):
            raise click.UsageError(f"--model takes NAME=PATH, as digits=saved_models/mnist_cnn. Received: {word!r}")
    if model is None and not models:
        raise click.UsageError("Give RUN_OR_EXPORT, or --model NAME=PATH once or several times.")
    if model is None and name is not None:
        raise click.UsageError("--name is RUN_OR_EXPORT's: leave it out, since --model names its own.")
    serve_model(
        model,
        host,
        port,
        name=name,
        models=[(word, path) for word, _, path in pairs],
        limits=limits,
        allow_origins=allow_origins,
        trust=trust,
        tell=click.echo,
        warn=_announce,
    )


@cli.command(
    examples=(
        "kerascls inspect saved_models/mnist_cnn",
        "kerascls inspect foreign.keras --json",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def inspect(model: Path, as_json: bool) -> None:
    """Say what MODEL is, and whether it would be loaded, without running any of it.

    MODEL is what `kerascls predict` takes: layers, parameters, class names, signatures, versions, the SHA-256 of its
    files, and the operations that need --trust. TensorFlow is not imported.
    """
    from kerascls.formats.inspect import inspect as inspect_model
    from kerascls.formats.inspect import table

    found = inspect_model(model)
    click.echo(_printable(json_text(found) if as_json else table(found)))


@cli.command(
    examples=(
        "kerascls summary mnist_cnn",
        "kerascls summary saved_models/mnist_cnn --json",
    ),
)
@click.argument("what", metavar="RECIPE_OR_RUN")
@click.option("--json", "as_json", is_flag=True, help="Counts and layers as one JSON object.")
def summary(what: str, as_json: bool) -> None:
    """Show a model's layers and parameters: a recipe's, a run's or a model file's."""
    from kerascls.inference.summary import summary as summarise

    found = summarise(what)
    table = found.pop("table")
    click.echo(
        json.dumps(found) if as_json else f"{table}\n{found['total']:,} parameters, {found['trainable']:,} trainable"
    )


@cli.command(
    context_settings={"allow_extra_args": True},
    examples=(
        "kerascls show digits",
        "kerascls show my_photos --augmented",
    ),
)
@click.argument("what", metavar="RECIPE_OR_DATA")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a recipe's key, as `train` takes it.")
@click.option("--data", metavar="DATA", help="Other data than the recipe's: a name, FOLDER, tfds:NAME or FILE.npz.")
@click.option("--augmented", is_flag=True, help="Draw the images after the recipe's augmentation.")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The picture.  [default: NAME.png here]",
)
@data_dir_option
@click.pass_context
def show(
    context: click.Context,
    what: str,
    sets: Sequence[str],
    data: str | None,
    augmented: bool,
    plot_file: Path | None,
    data_dir: str | None,
) -> None:
    """Show a data set: image shape, class map, counts, and a picture of nine samples; of a folder, what is left out.

    With --augmented or --set, a FOLDER is shown as the recipe `folder` trains on it.
    """
    _no_more(context)
    from kerascls.data.dataset import skipped_lines
    from kerascls.data.show import show as show_data
    from kerascls.data.show import table
    from kerascls.recipes.load import parse_sets
    from kerascls.system.names import folder_name

    stem = Path(what.removeprefix("tfds:").replace("/", "-").replace(":", "-")).stem
    default = folder_name(what) if Path(what).is_dir() else stem
    picture = plot_file or Path(f"{default}{'-augmented' if augmented else ''}.png")
    shown = show_data(what, picture, data_dir, augmented, data, parse_sets(sets))
    click.echo(table(shown))
    for line in [*skipped_lines(shown.skipped), *shown.notes]:
        click.echo(line, err=True)
    click.echo(f"drawn: {shown.picture}", err=True)


class _ShareType(click.ParamType):
    """A count, or a fraction below 1."""

    name = "count or fraction"

    def convert(self, value: Any, param: Any, context: Any) -> int | float:
        try:
            return int(value)
        except ValueError:
            try:
                return float(value)
            except ValueError:
                self.fail(f"{value!r} is neither a count, as 60, nor a fraction, as 0.8.", param, context)


@cli.command(
    examples=(
        "kerascls split my_photos my_data",
        "kerascls split my_photos counted --train 6 --validation 2 --classes bear,chimp",
    ),
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--train", type=_ShareType(), default="0.8", show_default=True, metavar="N", help="Of each class.")
@click.option("--validation", type=_ShareType(), default="0.1", show_default=True, metavar="N", help="Likewise.")
@click.option("--order", type=click.Choice(["name", "random"]), default="name", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of --order random.")
@click.option("--classes", metavar="NAME,NAME,...", help="Keep only these; bear finds 009.bear and renames it.")
@click.option("--link", is_flag=True, help="Symbolic links in place of copies.")
def split(
    source: Path,
    destination: Path,
    train: int | float,
    validation: int | float,
    order: str,
    seed: int,
    classes: str | None,
    link: bool,
) -> None:
    """Copy SOURCE, a folder of class folders, to DESTINATION/train, validation and test.

    --train and --validation are counts of each class (60 and 10) or fractions (0.8 and 0.1); the rest is test.
    DESTINATION/splits.csv says what went where. Files that are no images are left out.
    """
    from kerascls.data.dataset import skipped_lines
    from kerascls.data.split_folder import split_folder, table

    names = [name.strip() for name in classes.split(",")] if classes is not None else []
    result = split_folder(source, destination, train, validation, order=order, seed=seed, classes=names, link=link)
    for line in skipped_lines(result.skipped):
        click.echo(line, err=True)
    if result.moved:
        few = "1 file lies" if result.moved == 1 else f"{result.moved:,} files lie"
        click.echo(f"{few} in the split of an equal file, in place of that which is theirs by order", err=True)
    click.echo(table(result))
    click.echo(_printable(str(result.path)))


@cli.command(
    "list",
    examples=(
        "kerascls list",
        "kerascls list | grep resnet",
    ),
)
def list_() -> None:
    """List recipes, models, data sets and augmentations."""
    from kerascls.recipes.catalog import (
        configs_dir,
        dataset_files,
        first_sentence,
        model_files,
        policy_options,
        policy_sentences,
        recipe_names,
    )

    recipes = {name: configs_dir() / f"{name}.toml" for name in recipe_names()}
    for title, files in (("recipes", recipes), ("models", model_files()), ("data sets", dataset_files())):
        click.echo(f"{title}:")
        for name, path in files.items():
            click.echo(f"  {name:<28}{first_sentence(path)}")
    click.echo(
        f"  {'tfds:NAME':<28}Any image-classification data set of TensorFlow Datasets.\n"
        f"  {'FILE.npz':<28}Arrays x_train, y_train, x_test, y_test of your own."
    )
    click.echo("augmentations, for augment.policy:")
    for name, sentence in policy_sentences().items():
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in policy_options()[name].items())
        click.echo(f"  {name:<28}{sentence}\n  {'':<26}{options}")


@cli.command(
    examples=(
        "kerascls new my_recipe",
        "kerascls new my_network --from cifar_cnn",
    ),
)
@click.argument("name")
@click.option("--from", "source", default="mnist_cnn", show_default=True, help="The recipe to begin from.")
def new(name: str, source: str) -> None:
    """Write NAME.toml, a commented recipe of your own."""
    from kerascls.recipes.new import new_recipe

    path = new_recipe(name, source)
    click.echo(f"Edit it, then: kerascls train {path}", err=True)
    click.echo(str(path))


@cli.command(
    "features",
    examples=(
        "kerascls features",
        "kerascls features --clear",
    ),
)
@click.option("--clear", "clear_all", is_flag=True, help="Remove all that no process works on.")
def features_(clear_all: bool) -> None:
    """List or clear the cache: backbone features, of recipes with features.views, and what folders of images hold.

    It lies in $KERASCLS_CACHE, else ~/.cache/kerascls, and takes at most $KERASCLS_CACHE_MB megabytes (20,000): what
    was not used for longest goes first.
    """
    from kerascls.system.cache import clear, table

    if clear_all:
        count, size = clear()
        click.echo(f"removed: {count} entries, {size / 1e6:,.1f} MB", err=True)
    click.echo(table())


@cli.command(
    "devices",
    examples=(
        "kerascls devices",
        "kerascls devices --json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def devices_(as_json: bool) -> None:
    """Say what TensorFlow sees here, and what each choice of `kerascls train --devices` would be."""
    from kerascls.devices import survey

    found = survey()
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"here: {', '.join(found['devices'])}")
    for choice, answer in found["choices"].items():
        device = answer.get("device")
        shown = (
            f"{device['count']} {device['kind']} ({device['name']}), strategy {device['strategy']}, precision auto is "
            f"{device['precision']}, {'deterministic' if device['deterministic'] else 'not deterministic'}"
            if device
            else answer["error"]
        )
        click.echo(f"{choice:<10}{shown}")


@cli.command(
    examples=(
        "kerascls env",
        "kerascls env > bug_report.txt",
    ),
)
def env() -> None:
    """Print versions and devices, for a bug report."""
    from kerascls.devices import environment

    for key, value in environment().items():
        click.echo(f"{key}: {value}")


def _printable(text: str) -> str:
    """`text` without what a terminal could not show or would obey: a file name's bytes outside UTF-8, and escapes."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def _announce(notice: str | None) -> None:
    if notice:
        click.echo(notice, err=True)


def _command_line() -> str:
    """The command as typed, an absolute path cut to its last part: runs hold no path of this machine."""

    def short(word: str) -> str:
        head, equals, tail = word.rpartition("=")
        return head + equals + (os.path.basename(tail.rstrip("/\\")) if os.path.isabs(tail) else tail)

    return shlex.join(["kerascls", *map(short, sys.argv[1:])])


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line: one line on stderr for an error, and the exit codes of errors.py."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, for who calls them; `python -W` and PYTHONWARNINGS show them
    if hasattr(sys.stdout, "reconfigure"):  # a path's bytes that are not UTF-8 go to a pipe as they are
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code."""
    debug = "--debug" in arguments
    disabled, outer, errors.command = logging.root.manager.disable, errors.command, True
    logging.disable(max(disabled, logging.ERROR))  # of libraries: what matters is raised, and told by us
    try:
        cli.main(list(arguments), prog_name="kerascls", standalone_mode=False)
        return 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # the reader of stdout has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        _say_error(error)
        return error.exit_code if isinstance(error, KerasclsError) else 1
    finally:
        logging.disable(disabled)
        errors.command = outer


def _say_error(error: Exception) -> None:
    if isinstance(error, KerasclsError):
        message = str(error)
        if not isinstance(error, ConfigError):
            message = " ".join(message.split())
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    elif isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":  # of TensorFlow
        message = "Out of memory. Lower train.batch_size or data.image_shape."
    else:
        first = (str(error).strip().splitlines() or [""])[0]
        message = f"Unexpected {type(error).__name__}: {first[:300]} This is a bug; `kerascls --debug ...` shows where."
    print(_printable(f"Error: {message}"), file=sys.stderr)


if __name__ == "__main__":
    main()

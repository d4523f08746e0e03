"""`kerascls evaluate`."""

from pathlib import Path

import click

from kerascls.commands._command import Command
from kerascls.commands._options import data_dir_option, names_option, range_option
from kerascls.commands._output import announce, printable_text
from kerascls.system.json_files import json_text


@click.command(
    "evaluate",
    cls=Command,
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
def command(
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
        announce(line)
    for line in [*skipped_lines(evaluation.skipped), *seen_lines(evaluation)]:
        click.echo(printable_text(line), err=True)
    if as_json:
        click.echo(json_text(evaluation.as_json()))
        return
    click.echo(table(evaluation))
    click.echo()
    for picture in evaluation.pictures:
        click.echo(f"drawn: {picture}", err=True)

"""`kerascls predict`."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import click

from kerascls.commands._command import Command
from kerascls.commands._options import data_dir_option, names_option, range_option, trust_option
from kerascls.commands._output import printable_text


@click.command(
    "predict",
    cls=Command,
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
def command(
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
        tell=lambda line: click.echo(printable_text(line), err=True),
    )
    for answers in batches:
        # A batch in one go: a line at a time costs as much as reading a small image.
        for failed, group in itertools.groupby(answers, lambda answer: answer.prediction.error is not None):
            lines = [json_line(answer.prediction) if as_json else as_text(answer) for answer in group]
            click.echo(printable_text("\n".join(lines)), err=failed and not as_json)

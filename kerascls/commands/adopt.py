"""`kerascls adopt`."""

from pathlib import Path

import click

from kerascls.commands._command import Command
from kerascls.commands._options import range_option
from kerascls.commands._output import announce, printable_text


@click.command(
    "adopt",
    cls=Command,
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
def command(
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
    announce(notice)
    click.echo(printable_text(str(path)))

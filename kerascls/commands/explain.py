"""`kerascls explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kerascls.commands._command import Command
from kerascls.commands._options import names_option, range_option
from kerascls.commands._output import printable_text
from kerascls.errors import KerasclsError


@click.command(
    "explain",
    cls=Command,
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
def command(
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
        click.echo(printable_text(line), err=explanation.error is not None and not as_json)

    def tell(line: str) -> None:
        click.echo(printable_text(line), err=True)

    images = named_images(files, tell)
    stated = {"class_names": class_names, "pixel_range": pixel_range}
    done = explain_images(run, images, out or ".", class_name, invert=invert, **stated, each=each, tell=tell)
    if failed := sum(explanation.error is not None for explanation in done):
        raise KerasclsError(f"{failed} of {len(done)} images could not be read.")

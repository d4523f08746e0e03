"""`kerascls split`."""

from pathlib import Path
from typing import Any

import click

from kerascls.commands._command import Command
from kerascls.commands._output import printable_text


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


@click.command(
    "split",
    cls=Command,
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
def command(
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
    click.echo(printable_text(str(result.path)))

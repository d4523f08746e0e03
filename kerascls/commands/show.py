"""`kerascls show`."""

from collections.abc import Sequence
from pathlib import Path

import click

from kerascls.commands._command import Command
from kerascls.commands._options import data_dir_option, refuse_extra


@click.command(
    "show",
    cls=Command,
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
def command(
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
    refuse_extra(context)
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

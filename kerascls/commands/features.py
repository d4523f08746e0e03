"""`kerascls features`."""

import click

from kerascls.commands._command import Command


@click.command(
    "features",
    cls=Command,
    examples=(
        "kerascls features",
        "kerascls features --clear",
    ),
)
@click.option("--clear", "clear_all", is_flag=True, help="Remove all that no process works on.")
def command(clear_all: bool) -> None:
    """List or clear the cache: backbone features, of recipes with features.views, and what folders of images hold.

    It lies in $KERASCLS_CACHE, else ~/.cache/kerascls, and takes at most $KERASCLS_CACHE_MB megabytes (20,000): what
    was not used for longest goes first.
    """
    from kerascls.system.cache import clear, table

    if clear_all:
        count, size = clear()
        click.echo(f"removed: {count} entries, {size / 1e6:,.1f} MB", err=True)
    click.echo(table())

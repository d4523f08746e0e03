"""`kerascls new`."""

import click

from kerascls.commands._command import Command


@click.command(
    "new",
    cls=Command,
    examples=(
        "kerascls new my_recipe",
        "kerascls new my_network --from cifar_cnn",
    ),
)
@click.argument("name")
@click.option("--from", "source", default="mnist_cnn", show_default=True, help="The recipe to begin from.")
def command(name: str, source: str) -> None:
    """Write NAME.toml, a commented recipe of your own."""
    from kerascls.recipes.new import new_recipe

    path = new_recipe(name, source)
    click.echo(f"Edit it, then: kerascls train {path}", err=True)
    click.echo(str(path))

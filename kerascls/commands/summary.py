"""`kerascls summary`."""

import json

import click

from kerascls.commands._command import Command


@click.command(
    "summary",
    cls=Command,
    examples=(
        "kerascls summary mnist_cnn",
        "kerascls summary saved_models/mnist_cnn --json",
    ),
)
@click.argument("what", metavar="RECIPE_OR_RUN")
@click.option("--json", "as_json", is_flag=True, help="Counts and layers as one JSON object.")
def command(what: str, as_json: bool) -> None:
    """Show a model's layers and parameters: a recipe's, a run's or a model file's."""
    from kerascls.inference.summary import summary as summarise

    found = summarise(what)
    table = found.pop("table")
    click.echo(
        json.dumps(found) if as_json else f"{table}\n{found['total']:,} parameters, {found['trainable']:,} trainable"
    )

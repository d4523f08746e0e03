"""`kerascls devices`."""

import json

import click

from kerascls.commands._command import Command


@click.command(
    "devices",
    cls=Command,
    examples=(
        "kerascls devices",
        "kerascls devices --json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(as_json: bool) -> None:
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

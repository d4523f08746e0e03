"""`kerascls env`."""

import click

from kerascls.commands._command import Command


@click.command(
    "env",
    cls=Command,
    examples=(
        "kerascls env",
        "kerascls env > bug_report.txt",
    ),
)
def command() -> None:
    """Print versions and devices, for a bug report."""
    from kerascls.devices import environment

    for key, value in environment().items():
        click.echo(f"{key}: {value}")

"""`kerascls inspect`."""

from pathlib import Path

import click

from kerascls.commands._command import Command
from kerascls.commands._output import printable_text
from kerascls.system.json_files import json_text


@click.command(
    "inspect",
    cls=Command,
    examples=(
        "kerascls inspect saved_models/mnist_cnn",
        "kerascls inspect foreign.keras --json",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(model: Path, as_json: bool) -> None:
    """Say what MODEL is, and whether it would be loaded, without running any of it.

    MODEL is what `kerascls predict` takes: layers, parameters, class names, signatures, versions, the SHA-256 of its
    files, and the operations that need --trust. TensorFlow is not imported.
    """
    from kerascls.formats.inspect import inspect as inspect_model
    from kerascls.formats.inspect import table

    found = inspect_model(model)
    click.echo(printable_text(json_text(found) if as_json else table(found)))

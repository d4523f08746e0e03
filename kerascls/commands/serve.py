"""`kerascls serve`."""

from collections.abc import Sequence
from pathlib import Path

import click

from kerascls.commands._command import Command
from kerascls.commands._options import trust_option
from kerascls.commands._output import announce


@click.command(
    "serve",
    cls=Command,
    examples=(
        "kerascls serve saved_models/mnist_cnn",
        "kerascls serve --model digits=saved_models/mnist_cnn --model more=saved_models/released/mnist_cnn_bn",
    ),
)
@click.argument("model", metavar="[RUN_OR_EXPORT]", required=False, type=click.Path(path_type=Path))
@click.option("--model", "models", multiple=True, metavar="NAME=PATH", help="Serve this run or export too, as NAME.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0 takes a free one.")
@click.option("--name", help="The model's name in URLs.  [default: the run's]")
@click.option("--max-batch", type=click.IntRange(1), default=32, show_default=True, help="Images of a batch.")
@click.option(
    "--max-delay-ms", type=click.FloatRange(0), default=5, show_default=True, help="That an image waits for others."
)
@click.option(
    "--max-queue", type=click.IntRange(1), default=256, show_default=True, help="Images under way; beyond it, 429."
)
@click.option("--max-body-mb", type=click.FloatRange(0, min_open=True), default=16, show_default=True, help="Else 413.")
@click.option("--max-pixels", type=click.IntRange(1), default=25_000_000, show_default=True, help="Else 413.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds for a request to arrive, and again for an image to be answered.",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of https://shop.example ask too, from a browser; * for all pages.  [default: none]",
)
@trust_option
def command(
    model: Path | None,
    models: Sequence[str],
    host: str,
    port: int,
    name: str | None,
    max_batch: int,
    max_delay_ms: float,
    max_queue: int,
    max_body_mb: float,
    max_pixels: int,
    timeout: float,
    allow_origins: Sequence[str],
    trust: bool,
) -> None:
    """Serve RUN_OR_EXPORT over HTTP: TensorFlow Serving's REST API, uploads, metrics, and a page to try it on.

    SIGTERM and Ctrl-C stop it when what it took is answered. It needs pip install 'kerascls[serve]'.
    """
    from kerascls.serving.limits import Limits
    from kerascls.serving.server import serve as serve_model

    limits = Limits(max_batch, max_delay_ms / 1000, max_queue, int(max_body_mb * 1e6), max_pixels, timeout)
    pairs = [one.partition("=") for one in models]
    for word, _, path in pairs:
        if not (word and path):
            raise click.UsageError(f"--model takes NAME=PATH, as digits=saved_models/mnist_cnn. Received: {word!r}")
    if model is None and not models:
        raise click.UsageError("Give RUN_OR_EXPORT, or --model NAME=PATH once or several times.")
    if model is None and name is not None:
        raise click.UsageError("--name is RUN_OR_EXPORT's: leave it out, since --model names its own.")
    serve_model(
        model,
        host,
        port,
        name=name,
        models=[(word, path) for word, _, path in pairs],
        limits=limits,
        allow_origins=allow_origins,
        trust=trust,
        tell=click.echo,
        warn=announce,
    )

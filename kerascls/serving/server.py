"""A server for one model or several: TensorFlow Serving's REST API, uploads, metrics, and a page to try them on."""

import contextlib
import math
import re
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import uvicorn

from kerascls.errors import OutputError
from kerascls.images.files import Upload, encode_png
from kerascls.inference.classifier import Classifier
from kerascls.inference.loading import load
from kerascls.serving.app import App
from kerascls.serving.cross_origin import CrossOrigin, checked_origin
from kerascls.serving.limits import PATIENCE, Connection, Limits
from kerascls.serving.served import Served
from kerascls.system.status import doing


def serve(
    model: str | Path | None,
    host: str = "127.0.0.1",
    port: int = 8501,
    *,
    name: str | None = None,
    models: Sequence[tuple[str, str | Path]] = (),
    limits: Limits | None = None,
    allow_origins: Sequence[str] = (),
    trust: bool = False,
    tell: Callable[[str], None] = print,
    warn: Callable[[str], None] = print,
) -> None:
    """Serves one model or several until SIGTERM or Ctrl-C, and then finishes what it took.

    Args:
        model, trust: as `load` takes them; no model where `models` has all.
        host, port: where to listen; port 0 takes a free one.
        name: the model's in URLs, `/v1/models/NAME`. Defaults to `default_name(model)`.
        models: further ones, each as (name, model). The first of all is the page's and that of /predict.
        limits: what is taken, see `Limits`; images under way and batches are each model's own.
        allow_origins: origins whose pages may ask, as "https://shop.example"; "*" for all. None by default.
        tell: takes the line with the address, once requests are taken.
        warn: takes what must be said before any answer, if anything.

    Raises:
        OutputError: the address cannot be had.
        ModelError, RunError: as `load`.
    """
    limits = limits or Limits()
    named = [*([(name or default_name(model), model)] if model is not None else []), *models]
    names = [name for name, _ in named]
    _check_names(names)
    for origin in allow_origins:
        checked_origin(origin)
    with contextlib.closing(_bound(host, port)) as listener:
        served = []
        for name, path in named:
            classifier = load(path, trust)
            if classifier.notice:
                warn(f"{name}: {classifier.notice}" if len(named) > 1 else classifier.notice)
            folder = Path(path).resolve().name
            served.append(Served(classifier, name, folder if folder.isdigit() else "1"))
            with doing("warming up"):
                warm_up(classifier, limits.max_batch)
        config = _config(CrossOrigin(App(served, limits).gate, allow_origins), limits)
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        with doing(""):  # until a signal stops it
            answer = "answers" if len(names) == 1 else "answer"
            _run(_Server(config, lambda: tell(f"{', '.join(names)} {answer} at {address}")), listener)


def _check_names(names: Sequence[str]) -> None:
    """Raises OutputError where models cannot be told apart by these names in URLs, or there are none."""
    if not names:
        raise OutputError("There is no model to serve. Give RUN_OR_EXPORT or --model NAME=PATH.")
    for i, name in enumerate(names):
        if not re.fullmatch(r"[^/:\s]+", name):
            raise OutputError(f"A model's name in URLs has no slash, colon or space. Received: {name!r}")
        if name in names[:i]:
            raise OutputError(f"Two models are named {name!r}. Give each a name of its own: --model NAME=PATH")


def _config(app: CrossOrigin, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=min(PATIENCE, limits.timeout),
        timeout_graceful_shutdown=math.ceil(2 * limits.timeout),
    )


class _Server(uvicorn.Server):
    """Calls `started` when it listens."""

    def __init__(self, config: uvicorn.Config, when_started: Callable[[], None]):
        super().__init__(config)
        self._when_started = when_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_started()


def _run(server: _Server, listener: socket.socket) -> None:
    if threading.current_thread() is not threading.main_thread():
        server.run([listener])
        return
    # uvicorn raises the signal that ended it once more. SIGTERM is how a server is told to stop: no failure.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run([listener])
    finally:
        signal.signal(signal.SIGTERM, before)


def default_name(model: str | Path) -> str:
    """The name of a run or of a file without its suffix; of an export, its run's.

    >>> default_name("saved_models/mnist_cnn/exports/saved_model/1")
    'mnist_cnn'
    """
    path = Path(model).resolve()
    if "exports" in path.parts[1:]:
        path = Path(*path.parts[: len(path.parts) - 1 - path.parts[::-1].index("exports")])
    elif path.name.isdigit():  # a version folder
        path = path.parent
    return re.sub(r"[/:\s\ud800-\udfff]", "_", path.stem if path.is_file() else path.name) or "model"


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OutputError(
            f"Cannot listen at {host} port {port}: {error.strerror}. Give --host or --port another value."
        ) from None
    return listener


def warm_up(classifier: Classifier, max_batch: int) -> None:
    """Traces what the first requests would wait for: decoding a PNG and a JPEG, batches of one and of the most."""
    import io

    from PIL import Image

    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    classifier.read([Upload(jpeg.getvalue()), Upload(encode_png(np.zeros((8, 8, 3), np.uint8)))])
    for size in {1, max_batch}:
        classifier.probabilities(np.zeros((size, *classifier.image_shape), np.uint8), size)

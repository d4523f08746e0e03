"""A server for one model: TensorFlow Serving's REST API, uploads, metrics, and a page to try it on."""

import base64
import contextlib
import dataclasses
import hashlib
import html
import math
import re
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import tf_serving
from kerascls.batching import Batcher
from kerascls.card import border_sides
from kerascls.errors import Busy, DataError, KerasclsError, ModelError, OutputError, TooLarge
from kerascls.explain import heat_maps, overlay
from kerascls.formats import Upload, encode_png
from kerascls.json_files import json_text
from kerascls.load import Classifier, Prediction, load
from kerascls.status import doing

try:
    import prometheus_client
    import python_multipart  # noqa: F401  Starlette reads forms by it
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route

    from kerascls.cross_origin import CrossOrigin, checked_origin
    from kerascls.limits import PATIENCE, Connection, Gate, Limits
except ImportError as missing:
    raise ModelError(f"kerascls serve needs {missing.name}, which is missing: pip install 'kerascls[serve]'") from None

PAGE = Path(__file__).with_name("page.html")
PATHS = ("/", "/healthz", "/metrics", "/predict", "/explain")  # told apart in metrics; all under /v1/ are one
_IN_PLACE = 1 << 16  # bytes of JSON that take less time to be parsed than a thread takes to be woken


def serve(
    model: str | Path,
    host: str = "127.0.0.1",
    port: int = 8501,
    *,
    name: str | None = None,
    limits: Limits | None = None,
    allow_origins: Sequence[str] = (),
    trust: bool = False,
    tell: Callable[[str], None] = print,
    warn: Callable[[str], None] = print,
) -> None:
    """Serves a model until SIGTERM or Ctrl-C, and then finishes what it took.

    Args:
        model, trust: as `load` takes them.
        host, port: where to listen; port 0 takes a free one.
        name: the model's in URLs, `/v1/models/NAME`. Defaults to `default_name(model)`.
        limits: what is taken, see `Limits`.
        allow_origins: origins whose pages may ask, as "https://shop.example"; "*" for all. None by default.
        tell: takes the line with the address, once requests are taken.
        warn: takes what must be said before any answer, if anything.

    Raises:
        OutputError: the address cannot be had.
        ModelError, RunError: as `load`.
    """
    limits = limits or Limits()
    name = name or default_name(model)
    if not re.fullmatch(r"[^/:\s]+", name):
        raise OutputError(f"A model's name in URLs has no slash, colon or space. Received: {name!r}")
    for origin in allow_origins:
        checked_origin(origin)
    with contextlib.closing(_bound(host, port)) as listener:
        classifier = load(model, trust)
        if classifier.notice:
            warn(classifier.notice)
        folder = Path(model).resolve().name
        app = CrossOrigin(make_app(classifier, name, folder if folder.isdigit() else "1", limits), allow_origins)
        with doing("warming up"):
            warm_up(classifier, limits.max_batch)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=min(PATIENCE, limits.timeout),
            timeout_graceful_shutdown=math.ceil(2 * limits.timeout),
        )
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        with doing(""):  # until it is told to stop
            _run(_Server(config, lambda: tell(f"{name} answers at {address}")), listener)


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


# The app


@dataclasses.dataclass(frozen=True)
class _Picture:
    """An uploaded image on its way through the batcher."""

    upload: Upload
    invert: bool = False


class _Metrics:
    """What /metrics has, in a registry of its own."""

    def __init__(self, app: "_App"):
        self.registry = prometheus_client.CollectorRegistry()
        new = {"registry": self.registry}
        self.requests = prometheus_client.Counter("kerascls_requests", "Requests answered.", ["path", "status"], **new)
        self.seconds = prometheus_client.Histogram(
            "kerascls_request_seconds", "From a request's headers to the end of its answer.", ["path"], **new
        )
        self.batches = prometheus_client.Histogram(
            "kerascls_batch_images", "Images of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), **new
        )
        under_way = prometheus_client.Gauge("kerascls_images_under_way", "Images taken and not yet answered.", **new)
        under_way.set_function(lambda: app.batcher.under_way)
        held = prometheus_client.Gauge("kerascls_held_bytes", "Bytes of request bodies in memory.", **new)
        held.set_function(lambda: app.gate.held)

    def report(self, path: str, status: int, seconds: float) -> None:
        known = path if path in PATHS else "/v1/" if path.startswith("/v1/") else "other"
        self.requests.labels(known, str(status)).inc()
        self.seconds.labels(known).observe(seconds)


def make_app(classifier: Classifier, name: str, version: str = "1", limits: Limits | None = None) -> Any:
    """The ASGI app that serves `classifier` as model `name`. It loads nothing and takes no models."""
    return _App(classifier, name, version, limits or Limits()).gate


class _App:
    def __init__(self, classifier: Classifier, name: str, version: str, limits: Limits):
        self.classifier, self.name, self.version, self.limits = classifier, name, version, limits
        self.metrics = _Metrics(self)
        self.batcher = Batcher(
            self._read,
            lambda images: classifier.probabilities(images, limits.max_batch),
            max_batch=limits.max_batch,
            max_delay=limits.max_delay,
            max_queue=limits.max_queue,
            timeout=limits.timeout,
            observe=self.metrics.batches.observe,
        )
        self._page, self._policy = _page(classifier, name)
        told = (HTTPException, KerasclsError, TimeoutError, ClientDisconnect, Exception)
        starlette = Starlette(
            routes=[
                Route("/", self.page),
                Route("/healthz", self.healthz),
                Route("/metrics", self.show_metrics),
                Route("/predict", self.predict, methods=["POST"]),
                Route("/explain", self.explain, methods=["POST"]),
                Route("/v1/{rest:path}", self.v1, methods=["GET", "POST"]),
            ],
            exception_handlers={kind: _told for kind in told},
            lifespan=self._lifespan,
        )
        self.gate = Gate(starlette, limits, self.metrics.report)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self.batcher.start()
        yield
        await self.batcher.stop()

    def _read(self, items: Sequence[_Picture | np.ndarray]) -> list[np.ndarray | DataError]:
        """Pixels `image_shape` of encoded images, and of pixels of any size."""
        out: list[Any] = [self.classifier.resize(i[None])[0] if isinstance(i, np.ndarray) else None for i in items]
        for invert in (False, True):
            chosen = [i for i, item in enumerate(items) if isinstance(item, _Picture) and item.invert == invert]
            if chosen:
                read = self.classifier.read([items[i].upload for i in chosen], invert)
                for i, answer in zip(chosen, read, strict=True):
                    out[i] = answer
        return out

    async def page(self, _: Request) -> Response:
        return Response(self._page, media_type="text/html", headers={"Content-Security-Policy": self._policy})

    async def healthz(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def show_metrics(self, _: Request) -> Response:
        text = prometheus_client.generate_latest(self.metrics.registry)
        return Response(text, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    async def predict(self, request: Request) -> Response:
        """An upload's names, as `kerascls predict --json` has them."""
        upload, invert, top_k = await self._uploaded(request)
        prediction, _ = await self._answer(upload, invert, top_k)
        return _json(self._described(prediction))

    async def explain(self, request: Request) -> Response:
        """An upload's names, what the model saw of it, and the heat map over it: PNGs `image_shape` as data: URLs."""
        upload, invert, top_k = await self._uploaded(request)
        prediction, pixels = await self._answer(upload, invert, top_k)
        heat_map = note = None
        try:
            heat = await self.batcher.in_model_thread(lambda: heat_maps(self.classifier, pixels[None])[0])
            heat_map = _data_url(overlay(pixels, heat))
        except ModelError as error:  # it has no layers to look into
            note = str(error)
        answer = self._described(prediction)
        return _json({**answer, "seen": _data_url(pixels), "heat_map": heat_map, "note": note})

    async def _uploaded(self, request: Request) -> tuple[Upload, bool, int]:
        """The image, as a form's only file or as the whole body; `invert` and `top` of form or query."""
        options: Any = request.query_params
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form(max_files=1, max_fields=8) as form:
                files = [value for value in form.values() if isinstance(value, UploadFile)]
                if not files:
                    raise DataError("The form has no file. Send one: curl -F image=@photo.jpg")
                encoded, name = await files[0].read(), files[0].filename or "the image"
                options = {**options, **{key: value for key, value in form.items() if isinstance(value, str)}}
        else:
            encoded, name = await request.body(), "the image"
        top = str(options.get("top", tf_serving.TOP))
        if not re.fullmatch(r"[1-9]\d{0,5}", top):
            raise DataError(f"`top` must be a whole number of names, at least 1. Received: {top[:80]!r}")
        invert = str(options.get("invert", "")).lower() in ("1", "true", "on", "yes")
        return Upload(encoded, name, self.limits.max_pixels), invert, int(top)

    async def _answer(self, upload: Upload, invert: bool, top_k: int) -> tuple[Prediction, np.ndarray]:
        (answer,) = await self.batcher.answer([_Picture(upload, invert)])
        if isinstance(answer, DataError):
            raise answer
        pixels, row = answer
        border = self.classifier.card.border
        differs = border is not None and border_sides(pixels[None])[0] != border
        return self.classifier.name_answers([upload.name], row[None], top_k, [differs])[0], pixels

    def _described(self, prediction: Prediction) -> dict[str, Any]:
        top = [{"label": name, "probability": probability} for name, probability in prediction.top]
        answer = {"file": prediction.file, "label": prediction.label, "probability": prediction.probability, "top": top}
        if prediction.other_polarity:
            answer["warning"] = f"Training images had {self.classifier.card.border} borders, this one has not."
        return answer

    async def v1(self, request: Request) -> Response:
        """TensorFlow Serving's API."""
        path = request.url.path
        asked = tf_serving.PATH.fullmatch(path)
        verb = (asked["rest"] or "").lower() if asked else None
        if asked is None or (request.method == "POST") != verb.startswith(":"):
            raise DataError(f"Malformed request: {request.method} {path}")
        if asked["name"] != self.name:
            raise HTTPException(404, f"Servable not found for request: Latest({asked['name']})")
        if asked["version"] not in (None, self.version):
            raise HTTPException(404, f"Servable not found for request: Specific({self.name}, {asked['version']})")
        if asked["label"]:
            raise DataError(f"Unrecognized servable version label: {asked['label']}")
        card = self.classifier.card
        if verb == "":
            return _json(tf_serving.status(self.version))
        if verb == "/metadata":
            return _json(
                tf_serving.metadata(self.name, self.version, card.image_shape[2], len(card.class_names)),
            )
        if verb != ":predict":
            raise DataError(f"The model has no signature for {verb[1:]}. Ask for :predict.")
        body = await request.body()
        parse = lambda: tf_serving.parse(body, card.image_shape[2])  # noqa: E731
        question = parse() if len(body) <= _IN_PLACE else await self.batcher.in_thread(parse)
        rows = await self._rows(question.inputs)
        return _json(tf_serving.answer(question, rows, card.class_names))

    async def _rows(self, inputs: Sequence[bytes | np.ndarray]) -> np.ndarray:
        if len(inputs) > self.limits.max_queue:
            raise TooLarge(f"A request may have {self.limits.max_queue} images. Received: {len(inputs)}")
        items = [
            _Picture(Upload(one, f"image {i}", self.limits.max_pixels)) if isinstance(one, bytes) else one
            for i, one in enumerate(inputs)
        ]
        answers = await self.batcher.answer(items)
        for answer in answers:
            if isinstance(answer, DataError):
                raise answer
        return np.stack([row for _, row in answers])


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # NaN is written as NaN, as TensorFlow Serving writes it.
    return Response(json_text(content), status, headers, "application/json")


async def _told(_: Request, error: Exception) -> Response:
    """Every error as {"error": ...}, with the status that says whose fault it is."""
    if isinstance(error, HTTPException):
        return _json({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, Busy):
        return _json({"error": str(error)}, 429, {"Retry-After": "1"})
    if isinstance(error, TimeoutError):
        return _json({"error": "The image was not answered in time."}, 504)
    if isinstance(error, ClientDisconnect):
        return _json({"error": "The client has gone."}, 499)  # for /metrics: nobody reads it
    if isinstance(error, KerasclsError):
        return _json({"error": str(error)}, 413 if isinstance(error, TooLarge) else 400)
    return _json({"error": f"Unexpected {type(error).__name__}. This is a bug of the server."}, 500)


# Pictures and the page


def _data_url(image: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"


def _page(classifier: Classifier, name: str) -> tuple[str, str]:
    """The page, and the policy by which a browser loads and sends nothing but by the page's own text to this server."""
    text = PAGE.read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        inline = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    height, width, _ = classifier.image_shape
    facts = f"{len(classifier.class_names)} names, from images of {width} x {height} pixels"
    for word, value in (("MODEL_NAME", name), ("MODEL_FACTS", facts), ("MODEL_NOTICE", classifier.notice or "")):
        text = text.replace(word, html.escape(value))
    return text, policy

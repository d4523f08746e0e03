"""A server for one model or several: TensorFlow Serving's REST API, uploads, metrics, and a page to try them on."""

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
import prometheus_client
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kerascls.errors import Busy, DataError, KerasclsError, ModelError, OutputError, TooLarge
from kerascls.formats.card import border_sides
from kerascls.images.files import Upload, encode_png
from kerascls.inference.explain import heat_maps, overlay
from kerascls.inference.loading import Classifier, Prediction, load
from kerascls.serving import tf_serving
from kerascls.serving.batching import Batcher
from kerascls.serving.cross_origin import CrossOrigin, checked_origin
from kerascls.serving.limits import ASKED_MODEL, PATIENCE, Connection, Gate, Limits
from kerascls.system.json_files import json_text
from kerascls.system.status import doing

PAGE = Path(__file__).with_name("page.html")
PATHS = ("/", "/healthz", "/metrics", "/models", "/predict", "/explain")  # told apart in metrics
_IN_PLACE = 1 << 16  # bytes of JSON that take less time to be parsed than a thread takes to be woken


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
    if not named:
        raise OutputError("There is no model to serve. Give RUN_OR_EXPORT or --model NAME=PATH.")
    names = [name for name, _ in named]
    for i, name in enumerate(names):
        if not re.fullmatch(r"[^/:\s]+", name):
            raise OutputError(f"A model's name in URLs has no slash, colon or space. Received: {name!r}")
        if name in names[:i]:
            raise OutputError(f"Two models are named {name!r}. Give each a name of its own: --model NAME=PATH")
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
        app = CrossOrigin(_App(served, limits).gate, allow_origins)
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
            answer = "answers" if len(names) == 1 else "answer"
            _run(_Server(config, lambda: tell(f"{', '.join(names)} {answer} at {address}")), listener)


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
        self.by_model = len(app.models) > 1  # then a label says which
        label = ["model"] if self.by_model else []
        self.registry = prometheus_client.CollectorRegistry()
        new = {"registry": self.registry}
        self.requests = prometheus_client.Counter(
            "kerascls_requests", "Requests answered.", ["path", "status", *label], **new
        )
        self.seconds = prometheus_client.Histogram(
            "kerascls_request_seconds", "From a request's headers to the end of its answer.", ["path"], **new
        )
        self.batches = prometheus_client.Histogram(
            "kerascls_batch_images", "Images of a batch.", label, buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), **new
        )
        under_way = prometheus_client.Gauge(
            "kerascls_images_under_way", "Images taken and not yet answered.", label, **new
        )
        for name, model in app.models.items():
            self.of(under_way, name).set_function(lambda model=model: model.batcher.under_way)
        held = prometheus_client.Gauge("kerascls_held_bytes", "Bytes of request bodies in memory.", **new)
        held.set_function(lambda: app.gate.held)

    def of(self, metric: Any, name: str) -> Any:
        return metric.labels(name) if self.by_model else metric

    def report(self, path: str, status: int, seconds: float, model: str) -> None:
        known = path if path in PATHS else "/v1/" if path.startswith("/v1/") else "other"
        self.requests.labels(known, str(status), *([model] if self.by_model else [])).inc()
        self.seconds.labels(known).observe(seconds)


def make_app(classifier: Classifier, name: str, version: str = "1", limits: Limits | None = None) -> Any:
    """The ASGI app that serves `classifier` as model `name`. It loads nothing and takes no models."""
    return _App([Served(classifier, name, version)], limits or Limits()).gate


@dataclasses.dataclass(frozen=True)
class Served:
    """A model with its name and version in URLs."""

    classifier: Classifier
    name: str
    version: str = "1"


class _Model:
    """A served model with the queue of its images."""

    def __init__(self, served: Served, limits: Limits, observe: Callable[[int], None]):
        self.classifier, self.name, self.version = served.classifier, served.name, served.version
        self.batcher = Batcher(
            self._read,
            lambda images: self.classifier.probabilities(images, limits.max_batch),
            max_batch=limits.max_batch,
            max_delay=limits.max_delay,
            max_queue=limits.max_queue,
            timeout=limits.timeout,
            observe=observe,
        )

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


class _App:
    def __init__(self, served: Sequence[Served], limits: Limits):
        self.limits = limits
        observe = lambda name: lambda size: self.metrics.of(self.metrics.batches, name).observe(size)  # noqa: E731
        self.models = {one.name: _Model(one, limits, observe(one.name)) for one in served}
        self.first = next(iter(self.models.values()))
        self.metrics = _Metrics(self)
        self._page, self._policy = _page(served)
        told = (HTTPException, KerasclsError, TimeoutError, ClientDisconnect, Exception)
        starlette = Starlette(
            routes=[
                Route("/", self.page),
                Route("/healthz", self.healthz),
                Route("/metrics", self.show_metrics),
                Route("/models", self.list_models),
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
        for model in self.models.values():
            await model.batcher.start()
        yield
        for model in self.models.values():
            await model.batcher.stop()

    def _named(self, request: Request, name: str, error: str) -> _Model:
        if name not in self.models:
            raise HTTPException(404, f"{error} Served: {', '.join(self.models)}")
        request.scope[ASKED_MODEL] = name
        return self.models[name]

    async def page(self, _: Request) -> Response:
        return Response(self._page, media_type="text/html", headers={"Content-Security-Policy": self._policy})

    async def healthz(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def show_metrics(self, _: Request) -> Response:
        text = prometheus_client.generate_latest(self.metrics.registry)
        return Response(text, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    async def list_models(self, _: Request) -> Response:
        """What is served: of each model its name, version, image shape and number of classes."""
        cards = [(model, model.classifier.card) for model in self.models.values()]
        return _json(
            {
                "models": [
                    {
                        "name": model.name,
                        "version": model.version,
                        "image_shape": list(card.image_shape),
                        "classes": len(card.class_names),
                    }
                    for model, card in cards
                ]
            }
        )

    async def predict(self, request: Request) -> Response:
        """An upload's names, as `kerascls predict --json` has them."""
        model, upload, invert, top_k = await self._uploaded(request)
        prediction, _ = await self._answer(model, upload, invert, top_k)
        return _json(_described(model, prediction))

    async def explain(self, request: Request) -> Response:
        """An upload's names, what the model saw of it, and the heat map over it: PNGs `image_shape` as data: URLs."""
        model, upload, invert, top_k = await self._uploaded(request)
        prediction, pixels = await self._answer(model, upload, invert, top_k)
        heat_map = note = None
        try:
            heat = await model.batcher.in_model_thread(lambda: heat_maps(model.classifier, pixels[None])[0])
            heat_map = _data_url(overlay(pixels, heat))
        except ModelError as error:  # it has no layers to look into
            note = str(error)
        answer = _described(model, prediction)
        return _json({**answer, "seen": _data_url(pixels), "heat_map": heat_map, "note": note})

    async def _uploaded(self, request: Request) -> tuple[_Model, Upload, bool, int]:
        """The image, as a form's only file or as the whole body; `model`, `invert` and `top` of form or query."""
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
        asked = str(options.get("model", self.first.name))
        model = self._named(request, asked, f"No model is named {asked[:80]!r}.")
        return model, Upload(encoded, name, self.limits.max_pixels), invert, int(top)

    async def _answer(self, model: _Model, upload: Upload, invert: bool, top_k: int) -> tuple[Prediction, np.ndarray]:
        (answer,) = await model.batcher.answer([_Picture(upload, invert)])
        if isinstance(answer, DataError):
            raise answer
        pixels, row = answer
        border = model.classifier.card.border
        differs = border is not None and border_sides(pixels[None])[0] != border
        return model.classifier.name_answers([upload.name], row[None], top_k, [differs])[0], pixels

    async def v1(self, request: Request) -> Response:
        """TensorFlow Serving's API."""
        path = request.url.path
        asked = tf_serving.PATH.fullmatch(path)
        verb = (asked["rest"] or "").lower() if asked else None
        if asked is None or (request.method == "POST") != verb.startswith(":"):
            raise DataError(f"Malformed request: {request.method} {path}")
        model = self._named(request, asked["name"], f"Servable not found for request: Latest({asked['name']})")
        if asked["version"] not in (None, model.version):
            raise HTTPException(404, f"Servable not found for request: Specific({model.name}, {asked['version']})")
        if asked["label"]:
            raise DataError(f"Unrecognized servable version label: {asked['label']}")
        card = model.classifier.card
        if verb == "":
            return _json(tf_serving.status(model.version))
        if verb == "/metadata":
            return _json(
                tf_serving.metadata(model.name, model.version, card.image_shape[2], len(card.class_names)),
            )
        if verb != ":predict":
            raise DataError(f"The model has no signature for {verb[1:]}. Ask for :predict.")
        body = await request.body()
        parse = lambda: tf_serving.parse(body, card.image_shape[2])  # noqa: E731
        question = parse() if len(body) <= _IN_PLACE else await model.batcher.in_thread(parse)
        rows = await self._rows(model, question.inputs)
        return _json(tf_serving.answer(question, rows, card.class_names))

    async def _rows(self, model: _Model, inputs: Sequence[bytes | np.ndarray]) -> np.ndarray:
        if len(inputs) > self.limits.max_queue:
            raise TooLarge(f"A request may have {self.limits.max_queue} images. Received: {len(inputs)}")
        items = [
            _Picture(Upload(one, f"image {i}", self.limits.max_pixels)) if isinstance(one, bytes) else one
            for i, one in enumerate(inputs)
        ]
        answers = await model.batcher.answer(items)
        for answer in answers:
            if isinstance(answer, DataError):
                raise answer
        return np.stack([row for _, row in answers])


def _described(model: _Model, prediction: Prediction) -> dict[str, Any]:
    top = [{"label": name, "probability": probability} for name, probability in prediction.top]
    answer = {"file": prediction.file, "label": prediction.label, "probability": prediction.probability, "top": top}
    if prediction.other_polarity:
        answer["warning"] = f"Training images had {model.classifier.card.border} borders, this one has not."
    return answer


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


def _page(served: Sequence[Served]) -> tuple[str, str]:
    """The page, with a choice where there are several models, and the policy by which a browser loads and sends nothing
    but by the page's own text to this server."""
    text = PAGE.read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        inline = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    told = []
    for one in served:
        height, width, _ = one.classifier.image_shape
        facts = f"{len(one.classifier.class_names)} names, from images of {width} x {height} pixels"
        told.append([html.escape(part) for part in (one.name, facts, one.classifier.notice or "")])
    options = "".join(
        f'<option data-facts="{facts}" data-notice="{notice}">{name}</option>' for name, facts, notice in told
    )
    choice = f'<label for="model">Model</label> <select id="model">{options}</select>' if len(told) > 1 else ""
    words = dict(zip(("CHOICE", "NAME", "FACTS", "NOTICE"), (choice, *told[0]), strict=True))
    return re.sub("MODEL_(CHOICE|NAME|FACTS|NOTICE)", lambda found: words[found[1]], text), policy

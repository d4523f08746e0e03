"""The server's ASGI application: routes, uploads and metrics."""

import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import prometheus_client
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kerascls.errors import DataError, KerasclsError, ModelError, TooLarge
from kerascls.images.borders import border_sides
from kerascls.images.files import Upload
from kerascls.inference.classifier import Classifier, Prediction
from kerascls.inference.heat_maps import heat_maps, overlay
from kerascls.serving import tf_serving
from kerascls.serving.limits import ASKED_MODEL, Gate, Limits
from kerascls.serving.page import page_of
from kerascls.serving.responses import answer_error, data_url, json_response
from kerascls.serving.served import Model, Picture, Served

PATHS = ("/", "/healthz", "/metrics", "/models", "/predict", "/explain")  # told apart in metrics
_IN_PLACE = 1 << 16  # bytes of JSON that take less time to be parsed than a thread takes to be woken


class _Metrics:
    """What /metrics has, in a registry of its own."""

    def __init__(self, app: "App"):
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
    return App([Served(classifier, name, version)], limits or Limits()).gate


class App:
    def __init__(self, served: Sequence[Served], limits: Limits):
        self.limits = limits
        observe = lambda name: lambda size: self.metrics.of(self.metrics.batches, name).observe(size)  # noqa: E731
        self.models = {one.name: Model(one, limits, observe(one.name)) for one in served}
        self.first = next(iter(self.models.values()))
        self.metrics = _Metrics(self)
        self.page_of, self._policy = page_of(served)
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
            exception_handlers={kind: answer_error for kind in told},
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

    def _named(self, request: Request, name: str, error: str) -> Model:
        if name not in self.models:
            raise HTTPException(404, f"{error} Served: {', '.join(self.models)}")
        request.scope[ASKED_MODEL] = name
        return self.models[name]

    async def page(self, _: Request) -> Response:
        return Response(self.page_of, media_type="text/html", headers={"Content-Security-Policy": self._policy})

    async def healthz(self, _: Request) -> Response:
        return json_response({"status": "ok"})

    async def show_metrics(self, _: Request) -> Response:
        text = prometheus_client.generate_latest(self.metrics.registry)
        return Response(text, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    async def list_models(self, _: Request) -> Response:
        """What is served: of each model its name, version, image shape and number of classes."""
        cards = [(model, model.classifier.card) for model in self.models.values()]
        return json_response(
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
        return json_response(_described(model, prediction))

    async def explain(self, request: Request) -> Response:
        """An upload's names, what the model saw of it, and the heat map over it: PNGs `image_shape` as data: URLs."""
        model, upload, invert, top_k = await self._uploaded(request)
        prediction, pixels = await self._answer(model, upload, invert, top_k)
        heat_map = note = None
        try:
            heat = await model.batcher.in_model_thread(lambda: heat_maps(model.classifier, pixels[None])[0])
            heat_map = data_url(overlay(pixels, heat))
        except ModelError as error:  # it has no layers to look into
            note = str(error)
        answer = _described(model, prediction)
        return json_response({**answer, "seen": data_url(pixels), "heat_map": heat_map, "note": note})

    async def _uploaded(self, request: Request) -> tuple[Model, Upload, bool, int]:
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

    async def _answer(self, model: Model, upload: Upload, invert: bool, top_k: int) -> tuple[Prediction, np.ndarray]:
        (answer,) = await model.batcher.answer([Picture(upload, invert)])
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
            return json_response(tf_serving.status(model.version))
        if verb == "/metadata":
            return json_response(
                tf_serving.metadata(model.name, model.version, card.image_shape[2], len(card.class_names)),
            )
        if verb != ":predict":
            raise DataError(f"The model has no signature for {verb[1:]}. Ask for :predict.")
        body = await request.body()
        parse = lambda: tf_serving.parse(body, card.image_shape[2])  # noqa: E731
        question = parse() if len(body) <= _IN_PLACE else await model.batcher.in_thread(parse)
        rows = await self._rows(model, question.inputs)
        return json_response(tf_serving.answer(question, rows, card.class_names))

    async def _rows(self, model: Model, inputs: Sequence[bytes | np.ndarray]) -> np.ndarray:
        if len(inputs) > self.limits.max_queue:
            raise TooLarge(f"A request may have {self.limits.max_queue} images. Received: {len(inputs)}")
        items = [
            Picture(Upload(one, f"image {i}", self.limits.max_pixels)) if isinstance(one, bytes) else one
            for i, one in enumerate(inputs)
        ]
        answers = await model.batcher.answer(items)
        for answer in answers:
            if isinstance(answer, DataError):
                raise answer
        return np.stack([row for _, row in answers])


def _described(model: Model, prediction: Prediction) -> dict[str, Any]:
    top = [{"label": name, "probability": probability} for name, probability in prediction.top]
    answer = {"file": prediction.file, "label": prediction.label, "probability": prediction.probability, "top": top}
    if prediction.other_polarity:
        answer["warning"] = f"Training images had {model.classifier.card.border} borders, this one has not."
    return answer

"""TensorFlow Serving's REST API, version 1: what its requests mean and what its answers look like.

https://www.tensorflow.org/tfx/serving/api_rest. The signatures are those of an exported SavedModel, so that a client
cannot tell which of the two servers answers.
"""

import base64
import binascii
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerascls.errors import DataError
from kerascls.formats.saved_model import TOP
from kerascls.images.kinds import refusal

PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<rest>/metadata|:predict|:classify|:regress)?",
    re.IGNORECASE,
)
_STANDARD = str.maketrans({"-": "+", "_": "/", **dict.fromkeys(" \t\n\v\f\r")})
INPUTS = {"serving_default": "image_bytes", "pixels": "images", "serve": "images"}  # of each signature


@dataclasses.dataclass(frozen=True)
class Question:
    """A predict request: `inputs` are encoded images, or uint8 arrays (height, width, channels) of pixels."""

    inputs: list[bytes] | list[np.ndarray]
    in_rows: bool


def parse(body: bytes, channels: int) -> Question:
    """The body of a predict request, in row format (`instances`) or column format (`inputs`).

    Args:
        channels: of the model's images.

    Raises:
        DataError: it is not JSON, not such a request, or its values are not of the signature's type and shape.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise DataError("Expected a JSON object with either 'instances' (row format) or 'inputs' (column format).")
    signature = request.get("signature_name") or "serving_default"
    if not isinstance(signature, str) or signature not in INPUTS:
        raise DataError(
            f'Serving signature name: "{signature}" not found in signature def. It has: {", ".join(INPUTS)}'
        )
    name = INPUTS[signature]
    in_rows = "instances" in request
    if in_rows:
        values = request["instances"]
        if isinstance(values, list) and any(_is_object(value) for value in values):
            values = [_only(value, name) for value in values]
    else:
        values = request["inputs"]
        if _is_object(values):
            values = _only(values, name)
    if not isinstance(values, list) or not values:
        raise DataError(f"Input {name} must be a list of at least one image. Received: {_shown(values)}")
    if signature == "serving_default":
        return Question([_bytes(value, i) for i, value in enumerate(values)], in_rows)
    return Question(_pixels(values, channels), in_rows)


def _is_object(value: Any) -> bool:
    """A JSON object that is not an encoded string."""
    return isinstance(value, dict) and set(value) != {"b64"}


def _only(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or set(value) != {name}:
        raise DataError(f"Expected an object with the key {name!r} alone. Received: {_shown(value)}")
    return value[name]


def _bytes(value: Any, i: int) -> bytes:
    if isinstance(value, dict):
        value = value.get("b64")
        if isinstance(value, str):
            return _unescaped(value, i)
    elif isinstance(value, str):
        encoded = value.encode("utf-8", "surrogatepass")
        if encoded and refusal(encoded, ""):
            head = ", without what stands up to the comma" if value.startswith("data:") else ""
            raise DataError(f'image {i}: is not an image, but text. Send {{"b64": "..."}}, the file in base64{head}.')
        return encoded
    raise DataError(f'Image {i}: expected {{"b64": "..."}}, the image file in base64. Received: {_shown(value)}')


def _unescaped(value: str, i: int) -> bytes:
    """Base64 as TensorFlow Serving takes it (absl::Base64Unescape): white space anywhere, padding or none; the
    alphabet of URLs too, which some clients write."""
    text = value.translate(_STANDARD)
    if text.startswith("data:"):
        raise DataError(f"Image {i}: b64 is a data: URL. Leave out what stands up to the comma, and the comma.")
    if text.startswith(("b'", 'b"')):
        raise DataError(f"Image {i}: b64 is Python's text of bytes, b'...'. Send base64.b64encode(data).decode().")
    text = text.rstrip("=.")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"Image {i}: b64 is not base64: {error}") from None


def _pixels(values: list, channels: int) -> list[np.ndarray]:
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        raise DataError("Images of a request must have the same shape (height, width, channels).") from None
    if array.ndim != 4 or array.shape[-1] != channels or 0 in array.shape:
        raise DataError(f"Images must be (batch, height, width, {channels}). Received: {array.shape}")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise DataError("Pixels must be whole numbers in [0, 255].")
    return list(array.astype(np.uint8))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def answer(question: Question, rows: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """The response to a predict request, from probabilities float32 `(n, num_classes)`.

    >>> rows = np.array([[0.25, 0.75]], np.float32)
    >>> answer(Question([b""], True), rows, ["cat", "dog"])["predictions"][0]["top_labels"]
    ['dog', 'cat']
    >>> answer(Question([b""], False), rows, ["cat", "dog"])["outputs"]["label"]
    ['dog']
    """
    best = np.argsort(-rows, axis=1, kind="stable")[:, :TOP]
    outputs = {
        "probabilities": rows.tolist(),
        "label": [class_names[ids[0]] for ids in best],
        "top_labels": [[class_names[i] for i in ids] for ids in best],
        "top_probabilities": np.take_along_axis(rows, best, 1).tolist(),
    }
    if not question.in_rows:
        return {"outputs": outputs}
    each = zip(*outputs.values(), strict=True)
    return {"predictions": [dict(zip(outputs, values, strict=True)) for values in each]}


def status(version: str) -> dict[str, Any]:
    """The response to a model status request: the one version, which is there."""
    available = {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return {"model_version_status": [available]}


def metadata(name: str, version: str, channels: int, num_classes: int) -> dict[str, Any]:
    """The response to a metadata request: the signatures of an exported SavedModel, as its protobufs say them."""

    def tensor(kind: str, tensor_name: str, *shape: int) -> dict[str, Any]:
        sizes = [{"size": str(size), "name": ""} for size in shape]
        return {"dtype": kind, "tensor_shape": {"dim": sizes, "unknown_rank": False}, "name": tensor_name}

    def signature(entrance: str, call: str) -> dict[str, Any]:
        key = INPUTS[entrance]
        is_bytes = entrance == "serving_default"
        shape = (-1,) if is_bytes else (-1, -1, -1, channels)
        top = min(TOP, num_classes)
        return {
            "inputs": {key: tensor("DT_STRING" if is_bytes else "DT_UINT8", f"{entrance}_{key}:0", *shape)},
            "outputs": {
                "label": tensor("DT_STRING", f"{call}:0", -1),
                "probabilities": tensor("DT_FLOAT", f"{call}:1", -1, num_classes),
                "top_labels": tensor("DT_STRING", f"{call}:2", -1, top),
                "top_probabilities": tensor("DT_FLOAT", f"{call}:3", -1, top),
            },
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }

    calls = {
        "serving_default": "StatefulPartitionedCall_2",
        "pixels": "StatefulPartitionedCall",
        "serve": "StatefulPartitionedCall_1",
    }
    signatures = {entrance: signature(entrance, call) for entrance, call in calls.items()}
    return {
        "model_spec": {"name": name, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }

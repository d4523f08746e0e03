"""The server's JSON answers, those of errors among them."""

import base64
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kerascls.errors import Busy, KerasclsError, TooLarge
from kerascls.images.files import encode_png
from kerascls.system.json_files import json_text


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # NaN is written as NaN, as TensorFlow Serving writes it.
    return Response(json_text(content), status, headers, "application/json")


# Pictures and the page


def data_url(image: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"


async def answer_error(_: Request, error: Exception) -> Response:
    """Every error as {"error": ...}, with the status that says whose fault it is."""
    if isinstance(error, HTTPException):
        return json_response({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, Busy):
        return json_response({"error": str(error)}, 429, {"Retry-After": "1"})
    if isinstance(error, TimeoutError):
        return json_response({"error": "The image was not answered in time."}, 504)
    if isinstance(error, ClientDisconnect):
        return json_response({"error": "The client has gone."}, 499)  # for /metrics: nobody reads it
    if isinstance(error, KerasclsError):
        return json_response({"error": str(error)}, 413 if isinstance(error, TooLarge) else 400)
    return json_response({"error": f"Unexpected {type(error).__name__}. This is a bug of the server."}, 500)

"""Pages of other origins that may ask the server (CORS, of the Fetch standard): none unless they were named."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response

from kerascls.errors import ConfigError

REMEMBERED = 600  # seconds that a browser may go by an answer to a preflight


def checked_origin(origin: str) -> str:
    """An origin as browsers send it, or "*" for every one. Raises ConfigError for what no browser sends."""
    if origin in ("*", "null"):
        return origin
    try:
        parts = urlsplit(origin)
        whole = bool(parts.scheme and parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(
            "An allowed origin is a scheme, a host and, if it is not the scheme's own, a port, as https://shop.example "
            f"or http://localhost:3000; or * for all. Received: {origin!r}"
        )
    default = {"http": ":80", "https": ":443"}.get(parts.scheme.lower(), "")
    return f"{parts.scheme}://{parts.netloc}".lower().removesuffix(default or "\0")


class CrossOrigin:
    """The layer around an ASGI app that tells browsers which origins' pages may read its answers, errors too."""

    def __init__(self, app: Any, origins: Sequence[str]):
        self.app = app
        self.origins = frozenset(map(checked_origin, origins))
        self.for_all = "*" in self.origins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not self.origins:
            await self.app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        origin = asked.get(b"origin", b"").decode("latin-1")
        allowed = self.for_all or origin.lower() in self.origins
        told = {} if not origin or not allowed else {"Access-Control-Allow-Origin": "*" if self.for_all else origin}
        if scope["method"] == "OPTIONS" and origin and b"access-control-request-method" in asked:
            await self._preflight(asked, origin, allowed, told)(scope, receive, send)
            return
        told |= {"Access-Control-Expose-Headers": "Retry-After"} if told else {}
        told |= {} if self.for_all else {"Vary": "Origin"}  # caches must not give one origin's answer to another

        async def send_told(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode("latin-1")) for name, value in told.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        await self.app(scope, receive, send_told)

    def _preflight(self, asked: dict[bytes, bytes], origin: str, allowed: bool, told: dict[str, str]) -> Response:
        vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        if not allowed:
            error = f"Pages of {origin[:200]} may not ask this server. It was not given that --allow-origin."
            return JSONResponse({"error": error}, 403, {"Vary": vary})
        told = {**told, "Access-Control-Allow-Methods": "GET, POST", "Vary": vary}
        told["Access-Control-Max-Age"] = str(REMEMBERED)
        if headers := asked.get(b"access-control-request-headers"):
            told["Access-Control-Allow-Headers"] = headers.decode("latin-1")
        if b"access-control-request-private-network" in asked:
            told["Access-Control-Allow-Private-Network"] = "true"
        return Response(None, 204, told)

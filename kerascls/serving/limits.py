"""What a server takes from strangers: how much, for how long, and from how many at once."""

import asyncio
import dataclasses
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ASKED_MODEL = "kerascls.model"  # the key of a request's scope under which the app says which model is asked
HELD_BODIES = 8  # bodies of the largest size that may be in memory at a time; many more of a usual size
HEAD_BYTES = 1 << 16  # of a request's first line and headers
PATIENCE = 10.0  # seconds for them to arrive, between requests, and for a client to read what it is sent
CONNECTIONS = 500  # below the 1,024 files that a process may usually open


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one server takes.

    Attributes:
        max_batch: images of a batch.
        max_delay: seconds that a decoded image waits for others to share its batch.
        max_queue: images under way, of all clients; beyond it stands 429.
        max_body: bytes of a request; beyond it stands 413.
        max_pixels: of an image, told by its header before anything is decoded; beyond it stands 413.
        timeout: seconds for a request to arrive (408), and again for an image to be answered (504).
    """

    max_batch: int = 32
    max_delay: float = 0.005
    max_queue: int = 256
    max_body: int = 16_000_000
    max_pixels: int = 25_000_000
    timeout: float = 30.0


class Gate:
    """The outermost ASGI layer: bounds the bodies in memory, reports every request, and lets no exception out.

    `report(path, status, seconds, model)` is called when a request is answered.
    """

    def __init__(self, app: Any, limits: Limits, report: Callable[[str, int, float, str], None]):
        self.app, self.limits, self.report = app, limits, report
        self.held = 0  # bytes of the bodies of all requests under way

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, taken = time.perf_counter(), 0, 0
        until = asyncio.get_running_loop().time() + self.limits.timeout
        if scope["path"] != "/" and scope["path"].endswith("/"):  # a redirect would name the host behind a proxy
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
        unpack = _Gzip(self.limits.max_body) if encoding in ("gzip", "x-gzip") else None

        async def receive_bounded() -> Any:
            nonlocal taken
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The request did not arrive within {self.limits.timeout:g} s.") from None
            size = len(message.get("body", b""))
            if unpack is not None and message["type"] == "http.request":
                body = unpack(message.get("body", b""), not message.get("more_body", False))
                message = {**message, "body": body}
                size = max(size, len(body))
            taken += size
            self.held += size
            if taken > self.limits.max_body:
                raise self._too_large()
            if self.held > HELD_BODIES * self.limits.max_body:
                raise HTTPException(503, "Too much is being uploaded at once. Try again.", {"Retry-After": "1"})
            return message

        async def send_noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            declared = headers.get(b"content-length", b"0")
            if encoding not in ("identity", "gzip", "x-gzip"):
                error = f"A body of Content-Encoding {encoding[:80]!r} is not taken. Send gzip, or the body as it is."
                refused = JSONResponse({"error": error}, 415, {"Accept-Encoding": "gzip"})
                await refused(scope, receive, send_noted)
            elif declared.isdigit() and int(declared[:20]) > self.limits.max_body:  # before a byte is read
                error = self._too_large()
                await JSONResponse({"error": error.detail}, error.status_code)(scope, receive, send_noted)
            else:
                await self.app(scope, receive_bounded, send_noted)
        except Exception as error:
            # The client was told by the app's handler; whoever runs the server reads a line, not a traceback.
            first = (str(error).strip().splitlines() or [""])[0]
            print(f"Error: {scope['path'][:200]!r}: {type(error).__name__}: {first[:300]}", file=sys.stderr, flush=True)
        finally:
            self.held -= taken
            self.report(scope["path"], status, time.perf_counter() - began, scope.get(ASKED_MODEL, ""))

    def _too_large(self) -> HTTPException:
        return _too_large(self.limits.max_body)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The request is larger than {most:,} bytes, the most that is taken.")


class _Gzip:
    """A gzip body unpacked as it comes, to at most `most` bytes: of a bomb no more than that is ever made."""

    def __init__(self, most: int):
        self.most, self.made = most, 0
        self._member = zlib.decompressobj(31)
        self._begun = False

    def __call__(self, data: bytes, last: bool) -> bytes:
        parts = []
        try:
            while data:
                if self._member.eof:  # one member may follow another
                    self._member, self._begun = zlib.decompressobj(31), False
                self._begun = True
                parts.append(self._member.decompress(data, self.most - self.made + 1))
                self.made += len(parts[-1])
                if self.made > self.most:
                    raise _too_large(self.most)
                data = self._member.unused_data or self._member.unconsumed_tail
        except zlib.error:
            raise HTTPException(400, "The body is not gzip, as its Content-Encoding says, or is damaged.") from None
        if last and self._begun and not self._member.eof:
            raise HTTPException(400, "The gzip body is cut short.")
        return b"".join(parts)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with bounds that it lacks: on headers that never end, and on clients that stop reading.

    uvicorn bounds idle connections by `timeout_keep_alive`, which is the bound here too; a body is bounded by `Gate`.
    What is left of a body when its request was refused is read and dropped for as long, so that a client that sends
    before it reads sees why.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        self._start("head")

    def connection_lost(self, exc: Exception | None) -> None:
        for which in list(self._timers):
            self._stop(which)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._start("head")
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop("head")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_head:  # the rest of a refused body
            self._start("head")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start("write")

    def resume_writing(self) -> None:
        self._stop("write")
        super().resume_writing()

    def _start(self, which: str) -> None:
        if which not in self._timers:
            self._timers[which] = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def _stop(self, which: str) -> None:
        if which in self._timers:
            self._timers.pop(which).cancel()

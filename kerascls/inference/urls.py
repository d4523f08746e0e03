"""Fetches an image from a URL within limits of size and time."""

import io
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from kerascls.errors import DataError, TooLarge
from kerascls.images.files import Held

URLS = ("http://", "https://")
URL_BYTES = 100_000_000  # of an image that is fetched; photographs have a tenth
URL_SECONDS = 30  # for all of it, names and redirects included
URL_SILENCE = 10  # seconds that a server may send nothing
URL_REDIRECTS = 5


def is_url(word: str) -> bool:
    """Whether it is an address that `fetch` takes; a scheme is the same in any case."""
    return word.lower().startswith(URLS)


def at_url(address: str) -> Held:
    """The image at an address, which is fetched when it is read."""
    return Held(address, lambda: fetch(address))


# URLs


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = URL_REDIRECTS

    def redirect_request(self, request: Any, file: Any, code: int, message: str, headers: Any, address: str) -> Any:
        if not is_url(address):
            raise urllib.error.URLError(f"it leads to {address[:100]}")
        return super().redirect_request(request, file, code, message, headers, address)


def fetch(address: str) -> bytes:
    """What is at an address, at most URL_BYTES within URL_SECONDS, by at most URL_REDIRECTS redirects.

    Raises:
        DataError: it cannot be had within these limits.
    """
    until = time.monotonic() + URL_SECONDS
    answer: list[bytes | DataError] = []
    # In a thread of its own, since neither looking up a name nor reading headers can be given a time for the whole.
    thread = threading.Thread(target=lambda: answer.append(_download(address, until)), daemon=True)
    thread.start()
    thread.join(URL_SECONDS)
    if not answer:
        raise DataError(f"{address}: did not arrive within {URL_SECONDS} seconds.")
    if isinstance(answer[0], DataError):
        raise answer[0]
    return answer[0]


def _download(address: str, until: float) -> bytes | DataError:
    try:
        quoted = urllib.parse.quote(address, safe="%/:?#[]@!$&'()*+,;=~")
        request = urllib.request.Request(quoted, headers={"User-Agent": "kerascls", "Accept": "image/*"})
        content = io.BytesIO()
        with urllib.request.build_opener(_Redirects).open(request, timeout=min(URL_SILENCE, URL_SECONDS)) as response:
            while part := response.read1(1 << 16):
                content.write(part)
                if content.tell() > URL_BYTES:
                    return TooLarge(f"{address}: is larger than {URL_BYTES:,} bytes, the most that are fetched.")
                if time.monotonic() > until:
                    break  # which has been told by now
            missing = response.length  # of what the server had announced
        if missing:
            return DataError(f"{address}: cannot be fetched: the answer was cut off.")
        return content.getvalue()
    except urllib.error.HTTPError as error:
        further = 300 <= error.code < 400 and error.headers.get("Location")
        reason = f"it leads to {further[:100]}" if further else f"the server answers {error.code} {error.reason}"
    except Exception as error:  # of sockets, TLS, addresses
        cause = getattr(error, "reason", None) or error
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return DataError(f"{address}: cannot be fetched: {reason.splitlines()[0].strip()}.")

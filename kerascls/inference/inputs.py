"""What a caller may give to be named: paths, folders, URLs, bytes, file objects, PIL images, arrays; nothing else.

All of it becomes paths, and `formats.Held` and `formats.Upload`, which stand where a path would, so that one road reads
them all.
"""

import collections
import io
import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.folder_listing import is_system
from kerascls.data.loading import natural_key
from kerascls.errors import DataError, TooLarge
from kerascls.images.files import MAX_BYTES, Held, Upload, as_png
from kerascls.images.kinds import SUFFIXES, UNREAD_KINDS, unread_suffix

URLS = ("http://", "https://")
URL_BYTES = 100_000_000  # of an image that is fetched; photographs have a tenth
URL_SECONDS = 30  # for all of it, names and redirects included
URL_SILENCE = 10  # seconds that a server may send nothing
URL_REDIRECTS = 5

TAKEN = (
    "An image is a path, a URL, bytes, a file object, a PIL image, or a uint8 array (height, width) or (height, width, "
    "1, 3 or 4); several are a list of these, or an array (n, height, width, 1, 3 or 4)."
)


def given_images(given: Any) -> Iterator[str | Held | Upload]:
    """Each image of what `Classifier.predict` takes, in order, as the roads read it; a folder stands for its images.

    What is in memory is copied when its turn comes, so that a generator may fill one array again and again. Nothing is
    opened before the whole of a list, or the next of an iterator, is known to be something that is taken.

    Raises:
        DataError: it is something else, or a folder without images.
    """
    items = _items(given)
    if isinstance(items, list | tuple):
        for item in items:
            _check(_plain(item))
    for i, item in enumerate(map(_plain, items)):
        _check(item)
        if isinstance(item, str | os.PathLike):
            path = os.fspath(item)
            if is_url(path):
                yield at_url(path)
            elif os.path.isdir(path):
                yield from image_files([path])
            else:
                yield path
        else:
            yield _held(item, f"image {i}")


def is_url(word: str) -> bool:
    """Whether it is an address that `fetch` takes; a scheme is the same in any case."""
    return word.lower().startswith(URLS)


def at_url(address: str) -> Held:
    """The image at an address, which is fetched when it is read."""
    return Held(address, lambda: fetch(address))


def image_files(paths: Sequence[str | Path], tell: Callable[[str], None] = lambda line: None) -> list[str]:
    """Files as given; of a folder, all files below it with an image's suffix, in natural order, hidden ones left out.

    `tell` takes a line for each folder with files of other suffixes: how many of each kind are passed over.

    Raises:
        DataError: a path does not exist, or a folder has no images.
    """
    files: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            before, passed_over = len(files), collections.Counter()
            for file in _files_below(str(path)):
                if file.lower().endswith(SUFFIXES):
                    files.append(file)
                else:
                    passed_over[_kind_by_name(file)] += 1
            if len(files) == before:
                raise DataError(
                    f"Folder {path} has no images. Expected files ending in {', '.join(SUFFIXES)}. "
                    f"Received: {_counted(passed_over) or 'no files'}"
                )
            if passed_over:
                tell(f"Passed over in {path}: {_counted(passed_over)}")
        elif not path.exists():
            raise DataError(f"Image {path} does not exist.")
        else:
            files.append(str(path))
    return files


def named_images(
    words: Sequence[str | Path], tell: Callable[[str], None] = lambda line: None
) -> list[str | Held | Upload]:
    """As a command line names them: `image_files`, addresses, and `-` for the image on stdin."""
    found: list[str | Held | Upload] = []
    for word in map(os.fspath, words):
        if word == "-":
            if sys.stdin is None:
                raise DataError("- stands for the image on stdin, which is closed. Name a file, or pipe one into it.")
            found.append(_held(sys.stdin.buffer, "-"))
        else:
            found += [at_url(word)] if is_url(word) else image_files([word], tell)
    return found


def _kind_by_name(file: str) -> str:
    return unread_suffix(file) or os.path.splitext(file)[1].lower() or "without a suffix"


def _counted(kinds: collections.Counter[str]) -> str:
    """How many files of each kind there are, images first, and what to do about those."""
    images = [kind for kind in sorted(kinds) if kind in UNREAD_KINDS]
    others = sorted(kinds.keys() - images, key=lambda kind: (-kinds[kind], kind))
    told = [f"{kinds[kind]:,} {kind}" for kind in [*images, *others[:8]]]
    if len(others) > 8:
        told.append(f"{sum(kinds[kind] for kind in others[8:]):,} of other kinds")
    advice = f" kerascls does not read {', '.join(images)}: convert them to JPEG or PNG." if images else ""
    return f"{', '.join(told)}.{advice}" if told else ""


def _files_below(folder: str) -> Iterator[str]:
    """Files in the natural order of their whole paths, a folder's names at a time: keys of all take much memory."""
    waiting = [os.path.join(folder, "")]  # folders end in a slash; recursion would end in folders nested deeply
    while waiting:
        path = waiting.pop()
        if not path.endswith("/"):
            if os.path.isfile(path):
                yield path
            continue
        try:
            names = {entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in os.scandir(path)}
        except OSError as error:
            raise DataError(f"Folder {path[:-1]} cannot be read: {error.strerror}.") from None
        seen = sorted((name for name in names if not is_system(name.rstrip("/"))), key=natural_key, reverse=True)
        waiting += [path + name for name in seen]


# What is in memory


def _items(given: Any) -> Iterable[Any]:
    """The single images of what was given."""
    if _is_array(given):
        array = _array(given)
        if array.ndim == 4 or (array.ndim == 1 and array.dtype.kind in "OU"):  # a batch; paths of a table's column
            return list(array)
        return [given]
    if isinstance(given, Iterable) and not _is_single(given) and not isinstance(given, Mapping):
        return given
    return [given]


def _plain(item: Any) -> Any:
    """The bytes or text of what holds them as an array without dimensions, as TensorFlow's strings do; else itself."""
    if _is_array(item) and (array := _array(item)).ndim == 0 and array.dtype.kind in "OUS":
        return array.item()
    return item


def _is_single(item: Any) -> bool:
    taken = isinstance(item, str | os.PathLike | bytes | bytearray | memoryview | Held | Upload)
    return taken or _is_pil(item) or callable(getattr(item, "read", None))


def _is_pil(item: Any) -> bool:
    return "PIL.Image" in sys.modules and isinstance(item, sys.modules["PIL.Image"].Image)


def _is_array(item: Any) -> bool:
    return hasattr(item, "__array__") and not isinstance(item, str | bytes) and not _is_pil(item)


def _array(item: Any) -> np.ndarray:
    """A NumPy array, a TensorFlow tensor, or whatever else NumPy can see, without a copy."""
    try:
        return np.asarray(item)
    except Exception:  # a tensor of a graph, or on a GPU: each library has its own
        raise _not_taken(f"{type(item).__name__} without numbers") from None


def _check(item: Any) -> None:
    """Raises DataError for what is no image, before anything is done with it."""
    if isinstance(item, os.PathLike) and str(item).startswith(("http:/", "https:/")):
        raise DataError(f"A URL is given as text; a path has lost one of its slashes. Received: {item}")
    if isinstance(item, os.PathLike) and not isinstance(os.fspath(item), str):
        raise _not_taken("a path of bytes")
    if not _is_array(item):
        if not _is_single(item):
            raise _not_taken(f"{type(item).__name__} {item!r:.60}")
        return
    array = _array(item)
    received = f"{array.dtype} array {array.shape}"
    if array.dtype.kind == "f":
        raise DataError(
            "Arrays of floats are not taken, as their range is not known: (255 * x).round().astype('uint8') if it is "
            f"0 to 1, x.round().astype('uint8') if it is 0 to 255. Received: {received}"
        )
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise _not_taken(received)
    if not array.size:
        raise DataError(f"An image has at least one pixel. Received: {received}")


def _not_taken(received: str) -> DataError:
    return DataError(f"{TAKEN} Received: {received}")


def _held(item: Any, name: str) -> Held | Upload:
    """What is in memory, as of now. What is wrong with it is told when it is read, as of a file."""
    if isinstance(item, Held | Upload):
        return item
    if isinstance(item, bytes | bytearray | memoryview):
        content = bytes(item)
    elif _is_array(item):
        array = _array(item)
        array = np.array(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
        return Held(name, lambda: _array_png(array))
    else:
        given_name = getattr(item, "filename", None) or getattr(item, "name", None)
        name = given_name if isinstance(given_name, str) and name != "-" else name
        try:
            content = _png(item) if _is_pil(item) else _content(item)
        except Exception as error:  # whatever Pillow's plugins and a caller's objects raise
            told = f"{name}: cannot be read: {(str(error) or type(error).__name__).splitlines()[0].rstrip('.')}."

            def refuse() -> bytes:
                raise DataError(told)

            return Held(name, refuse)
    return Held(name, lambda: content)


def _content(file: Any) -> bytes:
    """All that a file object gives from where it stands, a pipe's too, which gives it in pieces."""
    content = bytearray()
    while part := file.read(MAX_BYTES + 1 - len(content)):
        if not isinstance(part, bytes):
            hint = "open it with 'rb'" if isinstance(part, str) else "expected bytes"
            raise DataError(f"its read() gives {type(part).__name__}: {hint}")
        content += part
        if len(content) > MAX_BYTES:
            raise DataError(f"it is larger than {MAX_BYTES:,} bytes, the most that are read")
    return bytes(content)


def _png(image: Any) -> bytes:
    """A PIL image as the PNG that is read in its place: turned as its EXIF says where its file would be."""
    from PIL import ImageOps

    if image.format in (None, "JPEG", "MPO"):
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:  # damaged EXIF, which costs no image
            pass
    return as_png(image)


def _array_png(array: np.ndarray) -> bytes:
    from PIL import Image

    return as_png(Image.fromarray(array))


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

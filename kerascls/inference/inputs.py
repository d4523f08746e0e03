"""What a caller may give to be named: paths, folders, URLs, bytes, file objects, PIL images, arrays; nothing else.

All of it becomes paths, and `formats.Held` and `formats.Upload`, which stand where a path would, so that one road reads
them all.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.errors import DataError
from kerascls.images.files import MAX_BYTES, Held, Upload, as_png
from kerascls.images.find import image_files
from kerascls.inference.urls import at_url, is_url

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
            yield held(item, f"image {i}")


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


def held(item: Any, name: str) -> Held | Upload:
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


def named_images(
    words: Sequence[str | Path], tell: Callable[[str], None] = lambda line: None
) -> list[str | Held | Upload]:
    """As a command line names them: `image_files`, addresses, and `-` for the image on stdin."""
    found: list[str | Held | Upload] = []
    for word in map(os.fspath, words):
        if word == "-":
            if sys.stdin is None:
                raise DataError("- stands for the image on stdin, which is closed. Name a file, or pipe one into it.")
            found.append(held(sys.stdin.buffer, "-"))
        else:
            found += [at_url(word)] if is_url(word) else image_files([word], tell)
    return found

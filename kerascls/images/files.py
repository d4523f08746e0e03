"""Image files before they are decoded, without TensorFlow: their bytes, and what is refused at once."""

import dataclasses
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.errors import DataError, TooLarge
from kerascls.images.kinds import HEAD_BYTES, SUFFIXES, image_kind, refusal, unread_kind, unread_suffix
from kerascls.images.tiff import tiff_refusal, to_8_bits

MAX_PIXELS = 178_956_970  # of one image; Pillow's own limit for a decompression bomb
MAX_SIDE = 100_000  # pixels; the resizing of wider ones would hold a row for each row of the result
LONGEST = 100  # where an image is longer than so many times its other side, "cover" resizes its middle alone
MAX_BYTES = 1 << 30  # of one file
EXIF_HEAD = 1 << 17  # bytes of a JPEG searched for its orientation; the segment must lie in its first 64 KiB or so


@dataclasses.dataclass(frozen=True)
class Upload:
    """Bytes from a stranger, which stand where a path would: its `str` is the name that errors have.

    An image of more than `max_pixels` is refused by its header, and one whose header cannot be read as well.
    """

    encoded: bytes
    name: str = "the image"
    max_pixels: int = MAX_PIXELS

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Held:
    """An image that stands where a path would: `read` gives its encoded bytes, or raises DataError.

    Its `str` is the name that errors have.
    """

    name: str
    read: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name


def read_encoded(path: str | Path | Upload | Held) -> bytes:
    """Encoded bytes, ready for `decode`: a TIFF comes as the PNG that Pillow makes, all else as it is.

    Raises:
        DataError: the file cannot be read, is empty, or is not an image.
        TooLarge: it has more than MAX_PIXELS pixels, or than the upload's own limit.
    """
    if isinstance(path, Upload):
        return checked_bytes(path.name, path.encoded, path.max_pixels)
    return checked_bytes(path, path.read() if isinstance(path, Held) else read_bytes(path))


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """A file's bytes as they are, the first `most` of them if given.

    Raises:
        DataError: it cannot be read, or is no file: a pipe would never end, and a device is not asked. A whole number
            is no path either: Python would take it for an open file's and close that.
        TooLarge: it has more than MAX_BYTES and looks like an image.
    """
    if not isinstance(path, str | os.PathLike):
        raise DataError(f"A path is text or a Path. Received: {type(path).__name__} {path!r:.60}")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path}: is not a file, but a folder, a pipe, a socket or a device.")
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES if most is None else most)
            if most is not None or image_kind(head) is None:
                return head
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise TooLarge(f"{path}: is larger than {MAX_BYTES:,} bytes, the most that are read.")
            return head + file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError:  # a byte of 0
        raise DataError(f"{path}: is not a path: it has a character of code 0.") from None


def looks_like_image(path: str | Path) -> bool:
    """Whether a file means to be an image, of a kind that is read or not: by its suffix, or by its first bytes."""
    if str(path).lower().endswith(SUFFIXES) or unread_suffix(path):
        return True
    try:
        head = read_bytes(path, HEAD_BYTES)
    except DataError:
        return False
    return image_kind(head) is not None or unread_kind(head) is not None


def stored_as(path: str | Path) -> tuple[int, bool]:
    """Bits a channel of an image file, 8 or 16, and whether it has transparent pixels, by its header; (8, False) where
    that cannot be read."""
    from PIL import Image

    try:
        head = read_bytes(path, HEAD_BYTES)
        with Image.open(path) as image:
            wide = image.mode.startswith(("I", "F")) or (image_kind(head) == "png" and head[24] == 16)
            return 16 if wide else 8, image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    except Exception:  # Pillow raises whatever its plugins raise
        return 8, False


def checked_bytes(path: str | Path, encoded: bytes, max_pixels: int | None = None) -> bytes:
    """`read_encoded` of bytes that were read already; `path` names them in errors, `max_pixels` is an upload's."""
    if reason := refusal(encoded, path):
        expected = "" if unread_kind(encoded, path) else " Expected PNG, JPEG, BMP, GIF, WebP or TIFF."
        raise DataError(f"{path}: {reason}.{expected}")
    kind = image_kind(encoded)
    if kind == "tiff" and (reason := tiff_refusal(encoded)):
        raise DataError(f"{path}: {reason}.")
    return _through_pillow(path, encoded, kind, max_pixels)


def _through_pillow(path: str | Path, encoded: bytes, kind: str, max_pixels: int | None) -> bytes:
    """Refuses a decompression bomb by its header; hands a TIFF on as PNG, all else as it is."""
    from PIL import Image

    most = min(max_pixels or MAX_PIXELS, MAX_PIXELS)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            size = f"{image.width} x {image.height} pixels"
            if image.width * image.height > most:
                raise TooLarge(f"{path}: has {size}. At most {most:,} are read.")
            if max(image.size) > MAX_SIDE:
                raise TooLarge(f"{path}: has {size}. At most {MAX_SIDE:,} a side are read.")
            # TensorFlow decodes every frame before it gives the first: a GIF's to a byte a pixel, a WebP's to four.
            frames = getattr(image, "n_frames", 1) if kind == "webp" else 1
            all_pixels = _gif_pixels(encoded) // 4 if kind == "gif" else image.width * image.height * frames
            if all_pixels > most:
                raise TooLarge(f"{path}: is an animation of too many frames of {size}. Keep its first alone.")
            if kind != "tiff":
                return encoded
            image.load()  # turned as its orientation says
            return as_png(to_8_bits(image, encoded))
    except TooLarge:
        raise
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Image.DecompressionBombError:
        raise TooLarge(f"{path}: has more pixels than {most:,}, the most that are read.") from None
    except Exception as error:  # Pillow raises whatever its plugins raise
        if kind == "tiff" or max_pixels is not None:
            reason = "its header cannot be read" if isinstance(error, Image.UnidentifiedImageError) else error
            raise DataError(f"{path}: does not decode as {kind}: {reason}.") from None
        return encoded  # Pillow reads no header that TensorFlow could not: `decode` has the last word


def as_png(image: Any) -> bytes:
    """A PIL image as PNG, of its own mode where PNG has it; of an animation, the picture that it stands at.

    Raises:
        DataError: its mode does not say which value is white.
    """
    if image.mode in ("I", "F"):
        raise DataError(f"its mode {image.mode} does not say which value is white: make it 'L' or 'RGB'")
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=0)
    return written.getvalue()


def _gif_pixels(encoded: bytes) -> int:
    """Pixels of all frames of a GIF, by the headers of its blocks (GIF89a, 18 to 24), as far as it goes."""

    def colours(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    pixels, at = 0, 13 + colours(encoded[10])
    while at + 10 < len(encoded) and encoded[at] in b"!,":
        if encoded[at] == ord(","):  # left, top, width, height, flags, colours, the size of codes; then its data
            width, height = (int.from_bytes(encoded[at + i : at + i + 2], "little") for i in (5, 7))
            pixels += width * height
            at += 11 + colours(encoded[at + 9])
        else:  # a label; then its data
            at += 2
        while at < len(encoded) and encoded[at]:  # blocks that begin with their length, up to an empty one
            at += 1 + encoded[at]
        at += 1
    return pixels


def encode_png(image: np.ndarray) -> bytes:
    """A uint8 `(height, width, 1 or 3)` array as PNG bytes, which `decode` turns into the same array."""
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(written, "PNG")
    return written.getvalue()

"""Image files before they are decoded, without TensorFlow: their kinds, their bytes, and what is refused at once."""

import dataclasses
import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np

from kerascls.errors import DataError, TooLarge

MAX_PIXELS = 178_956_970  # of one image; Pillow's own limit for a decompression bomb
MAX_BYTES = 1 << 30  # of a file; as many pixels in a TIFF of four channels take 0.7 of it
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


def image_kind(encoded: bytes) -> str | None:
    """`png`, `jpeg`, `gif`, `bmp`, `webp` or `tiff` by the first bytes; None for anything else."""
    if encoded[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if encoded[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if encoded[:4] == b"GIF8":
        return "gif"
    if encoded[:2] == b"BM":
        return "bmp"
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "webp"
    if encoded[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    return None


def read_encoded(path: str | Path | Upload) -> bytes:
    """A file's or upload's bytes, ready for `decode`: a TIFF comes as the PNG that Pillow makes, all else as it is.

    Raises:
        DataError: the file cannot be read, is empty, or is not an image.
        TooLarge: it has more than MAX_PIXELS pixels, or than the upload's own limit.
    """
    if isinstance(path, Upload):
        return checked_bytes(path.name, path.encoded, path.max_pixels)
    return checked_bytes(path, read_bytes(path))


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes as they are, or a pipe's to its end.

    Raises:
        DataError: it cannot be read.
        TooLarge: it has more than MAX_BYTES, as a device may have without end.
    """
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            bounded = stat.S_ISREG(state.st_mode) and state.st_size <= MAX_BYTES
            encoded = file.read() if bounded else file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    if len(encoded) > MAX_BYTES:
        raise TooLarge(f"{path}: has more than {MAX_BYTES:,} bytes, the most of an image that are read.")
    return encoded


def checked_bytes(path: str | Path, encoded: bytes, max_pixels: int | None = None) -> bytes:
    """`read_encoded` of bytes that were read already; `path` names them in errors, `max_pixels` is an upload's."""
    kind = image_kind(encoded)
    if kind is None:
        what = "is empty" if not encoded else "is not an image"
        raise DataError(f"{path}: {what}. Expected PNG, JPEG, BMP, GIF, WebP or TIFF.")
    return _through_pillow(path, encoded, kind, max_pixels)


def _through_pillow(path: str | Path, encoded: bytes, kind: str, max_pixels: int | None) -> bytes:
    """Refuses a decompression bomb by its header; hands a TIFF on as PNG, all else as it is."""
    from PIL import Image

    most = min(max_pixels or MAX_PIXELS, MAX_PIXELS)
    warnings.filterwarnings("ignore", module="PIL")  # of bombs, where our own limit decides, and of damaged EXIF
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.width * image.height > most:
                raise TooLarge(f"{path}: has {image.width} x {image.height} pixels. At most {most:,} are read.")
            if kind != "tiff":
                return encoded
            if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
                image = image.convert("RGB")
            written = io.BytesIO()
            image.save(written, "PNG", compress_level=0)
            return written.getvalue()
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise TooLarge(f"{path}: has more pixels than {most:,}, the most that are read.") from None
    except Exception as error:  # Pillow raises whatever its plugins raise
        if kind == "tiff" or max_pixels is not None:
            reason = "its header cannot be read" if isinstance(error, Image.UnidentifiedImageError) else error
            raise DataError(f"{path}: does not decode as {kind}: {reason}.") from None
        return encoded  # Pillow reads no header that TensorFlow could not: `decode` has the last word


def encode_png(image: np.ndarray) -> bytes:
    """A uint8 `(height, width, 1 or 3)` array as PNG bytes, which `decode` turns into the same array."""
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(written, "PNG")
    return written.getvalue()

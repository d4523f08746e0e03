"""The road of `images` without TensorFlow: from a file to pixels by Pillow and NumPy.

A LiteRT model answers through this one, in a fraction of the time that TensorFlow takes to be imported. `images` is the
road and this its copy: the tests hold one against the other over every kind of file. The same bits come out, of a JPEG
where Pillow's libjpeg decodes as TensorFlow's does (else they differ by 1 or so); what cannot be done alike is refused.
"""

import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kerascls.errors import DataError
from kerascls.images.files import EXIF_HEAD, LONGEST, Upload, read_encoded
from kerascls.images.kinds import image_kind


def read_batch(
    paths: Sequence[str | Path | Upload],
    image_shape: tuple[int, int, int],
    background: tuple[int, int, int] = (255, 255, 255),
    rule: str = "stretch",
) -> list[np.ndarray | DataError]:
    """As `images.read_batch`: of each file, in order, its pixels or what is wrong with it."""
    out: list[np.ndarray | DataError] = []
    for path in paths:
        try:
            out.append(read_pixels(path, image_shape, background, rule))
        except DataError as error:
            out.append(error)
    return out


def read_pixels(
    path: str | Path | Upload,
    image_shape: tuple[int, int, int],
    background: tuple[int, int, int] = (255, 255, 255),
    rule: str = "stretch",
) -> np.ndarray:
    """A file as uint8 `image_shape`. Raises DataError, naming the file, if it cannot be."""
    encoded = read_encoded(path)
    try:
        decoded = decode(encoded, background)
    except _NotAlike as refused:
        raise DataError(f"{path}: is {refused}, which only a model that TensorFlow opens reads.") from None
    except Exception:  # Pillow raises whatever its plugins raise
        raise DataError(f"{path}: does not decode as {image_kind(encoded)}: it is cut short or damaged.") from None
    height, width, channels = image_shape
    return resize(to_channels(decoded, channels), height, width, rule)


class _NotAlike(Exception):
    """What a file is, of which Pillow cannot give the pixels that TensorFlow gives."""


def decode(encoded: bytes, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """As `images.decode`: one encoded PNG, JPEG, BMP, GIF or WebP as RGB, uint8 `(height, width, 3)`."""
    kinds = {"jpeg": _jpeg, "png": _png, "gif": _gif, "bmp": _bmp, "webp": _webp}
    image = kinds[image_kind(encoded)](encoded)
    if image.shape[-1] == 4:
        alpha = image[..., 3:].astype(np.int32)
        over = alpha * image[..., :3] + (255 - alpha) * np.array(background, np.int32)
        return ((over + 127) // 255).astype(np.uint8)
    return image if image.shape[-1] == 3 else image.repeat(3, -1)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """As `images.to_channels`: (299 R + 587 G + 114 B + 500) // 1000."""
    if channels == 3:
        return image
    return ((image.astype(np.int32) @ np.array([299, 587, 114]) + 500) // 1000).astype(np.uint8)[..., None]


# Size


def resize(image: np.ndarray, height: int, width: int, rule: str = "stretch") -> np.ndarray:
    """As `images.resize`, of one image: uint8 `(h, w, C)` to `(height, width, C)`."""
    h, w = image.shape[:2]
    if (h, w) == (height, width) and rule != "center_crop":
        return image
    if rule == "stretch":
        return _bilinear(image, height, width)
    if rule == "nearest":
        rows, columns = (2 * np.arange(height) + 1) * h // (2 * height), (2 * np.arange(width) + 1) * w // (2 * width)
        return image[rows[:, None], columns]
    share = {"cover": 1.0, "center_crop": 8 / 7}[rule]
    high, wide = round(height * share), round(width * share)
    rows, columns = min(h, LONGEST * w), min(w, LONGEST * h)
    top, left = (h - rows) // 2, (w - columns) // 2
    image, h, w = image[top : top + rows, left : left + columns], rows, columns
    size = (high, w * high // h) if high * w >= wide * h else (h * wide // w, wide)
    top, left = (round((have - wanted) / 2) for have, wanted in zip(size, (height, width), strict=True))
    return _bilinear(image, *size)[top : top + height, left : left + width]


def _bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """With antialias, rounded half to even. Sums go the way of TensorFlow's ScaleAndTranslate, in float32 and in its
    order (rows first, then columns, tap by tap), so that the same bits come out."""
    exact = _gather(_gather(image, height).swapaxes(0, 1), width).swapaxes(0, 1)
    return np.clip(np.round(exact), 0, 255).astype(np.uint8)


def _gather(image: np.ndarray, size: int) -> np.ndarray:
    """The first axis brought to `size`, float32: each line a weighted sum of neighbours."""
    starts, weights = _spans(len(image), size)
    out = np.zeros((size, *image.shape[1:]), np.float32)
    for tap in range(weights.shape[1]):
        lines = np.minimum(starts + tap, len(image) - 1)  # its weight is 0 where there is none
        out += weights[:, tap, None, None] * image[lines].astype(np.float32)
    return out


def _spans(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `size` sums begins among `length` lines, and its weights: a triangle of float32, sum 1."""
    one = np.float32(1)
    scale = np.float32(size) / np.float32(length)
    inverse = one / scale
    reach = max(inverse, one)  # of the triangle: antialias when the image shrinks
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * inverse
    first = np.ceil(centres - reach - np.float32(0.5)).astype(np.int64).clip(0, length - 1)
    last = np.floor(centres + reach - np.float32(0.5)).astype(np.int64).clip(0, length - 1)
    taps = np.arange(int((last - first).max()) + 1)
    lines = first[:, None] + taps
    distance = np.abs((lines.astype(np.float32) + np.float32(0.5) - centres[:, None]) * (one / reach))
    weights = np.where(lines <= last[:, None], np.maximum(one - distance, np.float32(0)), np.float32(0))
    total = np.zeros(size, np.float32)
    for tap in taps:  # in order, as TensorFlow adds them
        total += weights[:, tap]
    return first, weights * (one / total)[:, None]


# Kinds


def _opened(encoded: bytes):
    from PIL import Image

    image = Image.open(io.BytesIO(encoded))
    image.load()
    return image


def _jpeg(encoded: bytes) -> np.ndarray:
    image = _opened(encoded)
    pixels = np.asarray(image)
    if image.mode == "CMYK":  # as TensorFlow mixes it: Adobe's files hold it inverted, and Pillow inverts all
        cmy, k = 255 - pixels[..., :3].astype(np.int32), 255 - pixels[..., 3:].astype(np.int32)
        mixed = k * cmy // 255 if "adobe" in image.info else (255 - k) * (255 - cmy) // 255
        pixels = mixed.astype(np.uint8)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    orientation = _exif_orientation(encoded[:EXIF_HEAD])
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def _exif_orientation(head: bytes) -> int:
    """Orientation, 1 to 8, from a JPEG's APP1 segment; 1 where there is none or it is damaged."""
    at = 2
    while head[at : at + 2] != b"\xff\xe1" or head[at + 4 : at + 10] != b"Exif\0\0":
        if head[at : at + 1] != b"\xff" or head[at + 1 : at + 2] == b"\xda" or at + 4 >= len(head):
            return 1
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    tiff = at + 10
    order = "little" if head[tiff : tiff + 1] == b"I" else "big"

    def u16(where: int) -> int:
        return int.from_bytes(head[where : where + 2].ljust(2, b"\0"), order)

    directory = tiff + u16(tiff + (4 if order == "little" else 6))
    for entry in range(directory + 2, directory + 2 + 12 * min(u16(directory), 512), 12):
        if u16(entry) == 0x0112:
            return u16(entry + 8) if 1 <= u16(entry + 8) <= 8 else 1
    return 1


def _png(encoded: bytes) -> np.ndarray:
    from PIL import Image

    Image.open(io.BytesIO(encoded)).verify()  # checksums, which `load` passes over
    depth, colours = encoded[24], encoded[25]
    chunks = dict(_chunks(encoded))
    if b"IEND" not in chunks:
        raise ValueError("cut short")
    key = chunks.get(b"tRNS")
    image = _opened(encoded)
    if colours in (3, 4, 6):  # palettes, gray with alpha, colour with alpha
        return np.asarray(image.convert("RGB" if colours == 3 and key is None else "RGBA"))
    pixels = np.asarray(image)
    pixels = pixels.astype(np.uint8) * 255 if image.mode == "1" else pixels
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    narrow = (pixels >> 8).astype(np.uint8) if pixels.dtype != np.uint8 else pixels
    narrow = narrow.repeat(3 // narrow.shape[-1], -1)
    if key is None:
        return narrow
    if depth == 16 and colours == 2:
        raise _NotAlike("a PNG of 16-bit colours, one of them transparent")
    levels = np.array(struct.unpack(f">{len(key) // 2}H", key))
    clear = pixels == (levels if depth >= 8 else levels * (255 // (2**depth - 1)))
    alpha = np.where(clear.all(-1, keepdims=True), 0, 255).astype(np.uint8)
    return np.concatenate([narrow, alpha], -1)


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of a PNG's whole chunks."""
    at = 8
    while at + 12 + (length := int.from_bytes(encoded[at : at + 4], "big")) <= len(encoded):
        yield encoded[at + 4 : at + 8], encoded[at + 8 : at + 8 + length]
        at += 12 + length


def _gif(encoded: bytes) -> np.ndarray:
    from PIL import Image

    image = Image.open(io.BytesIO(encoded))
    if image.tile[0][1] != (0, 0, *image.size):
        raise _NotAlike("a GIF whose first picture leaves a part of its canvas bare")
    rgba = np.asarray(image.convert("RGBA"))
    return rgba[..., :3] * (rgba[..., 3:] > 0)  # TensorFlow makes what is transparent black


def _webp(encoded: bytes) -> np.ndarray:
    image = _opened(encoded)
    return np.asarray(image if image.mode in ("RGB", "RGBA") else image.convert("RGBA"))


def _bmp(encoded: bytes) -> np.ndarray:
    """By hand, since Pillow takes kinds that TensorFlow does not, and other bytes for alpha."""
    start, header, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", encoded, 10)
    if header < 40 or not (bits in (1, 4, 8) and compression == 0 or bits in (24, 32) and compression in (0, 3)):
        raise ValueError("not a kind of BMP that is read")
    stride = (width * bits + 31) // 32 * 4
    if bits > 8 and len(encoded) - start - stride * abs(height) > 3:
        raise ValueError("more bytes than pixels, which TensorFlow refuses")
    rows = np.frombuffer(encoded, np.uint8, stride * abs(height), start).reshape(abs(height), stride)
    rows = rows[::-1] if height > 0 else rows
    if bits <= 8:
        colours = struct.unpack_from("<I", encoded, 46)[0] or 1 << bits
        table = np.frombuffer(encoded, np.uint8, 4 * colours, 14 + header).reshape(-1, 4)[:, 2::-1]
        shifts = np.arange(8 - bits, -1, -bits)
        ids = (rows[..., None] >> shifts & (1 << bits) - 1).reshape(abs(height), -1)[:, :width]
        return table[ids]
    pixels = rows[:, : width * bits // 8].reshape(abs(height), width, -1)
    has_alpha = compression == 3 and header >= 56 and struct.unpack_from("<I", encoded, 66)[0]
    return pixels[..., [2, 1, 0, 3]] if has_alpha else pixels[..., 2::-1]

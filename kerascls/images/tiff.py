"""TIFF files to 8 bits a sample by Pillow: what is read by a stated rule, and what is refused by its mode.

Unsigned integers of 16 and 12 bits keep their 8 highest, as 16-bit PNGs do, and 32-bit floats go from 0 to 1. Whether
Pillow's pixels are right depends on byte order, mode, planes and compression together; `_mode_unread` lists what was
found right, and no more. Pillow clips and swaps some others without a word.
"""

import struct
from typing import Any

import numpy as np

from kerascls.errors import DataError

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _SUBDIRECTORIES, _FORMAT = 258, 259, 262, 277, 284, 330, 339
_SUBSAMPLING, _DNG_VERSION = 530, 50706
_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
_COLOURS = {
    **{0: "gray, 0 is white", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"},
    **{9: "ICC LAB", 10: "ITU LAB", 32844: "LogL", 32845: "LogLuv"},
}
_SENSOR = (32803, 34892)  # colour filter array and linear raw: a camera's own pixels
_MOST_READ = 64  # entries of a tag, and directories below the first


def tiff_refusal(encoded: bytes) -> str | None:
    """Why a TIFF is not read, by its first directory; None where Pillow is to decode it."""
    tags = _directory(encoded)
    if not tags:
        return "does not decode as tiff: its header cannot be read"
    below = [_directory(encoded, at) for at in tags.get(_SUBDIRECTORIES, ())]
    raw = any(one.get(_PHOTOMETRIC, (0,))[0] in _SENSOR for one in (tags, *below))
    if raw or _DNG_VERSION in tags:
        return "is camera RAW, which kerascls does not read: convert it to JPEG or PNG"
    mode = _mode_unread(tags, encoded)
    return mode and f"is a TIFF of {mode}, which kerascls does not read: convert it to PNG, or to 8 bits a sample"


def to_8_bits(image: Any, encoded: bytes) -> Any:
    """A TIFF that Pillow opened as an image that a PNG of 8 bits a sample or less can hold.

    Raises:
        DataError: floats that are not all in [0, 1]; its message has no file's name.
    """
    from PIL import Image

    tags = _directory(encoded)
    if image.mode == "RGB" and tags.get(_PHOTOMETRIC) == (6,) and tags.get(_COMPRESSION, (1,)) == (1,):
        raise DataError("is a TIFF of YCbCr, which this Pillow does not read: update it, or convert the image to PNG.")
    if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        return image
    if image.mode in ("La", "PA"):  # gray premultiplied by alpha, and a palette with alpha
        return image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("CMYK", "YCbCr"):
        return image.convert("RGB")
    white_is_zero = tags.get(_PHOTOMETRIC, (1,))[0] == 0
    if image.mode in ("I;16", "I;16B"):
        samples = np.asarray(image)
        narrow = (samples >> (tags.get(_BITS, (16,))[0] - 8)).astype(np.uint8)
        return Image.fromarray(255 - narrow if white_is_zero else narrow)
    if image.mode == "F":
        samples = np.asarray(image)
        low, high = samples.min(), samples.max()
        if not (low >= 0 and high <= 1):  # NaN and infinity too
            span = f"from {low:g} to {high:g}" if np.isfinite([low, high]).all() else "that are not all finite"
            raise DataError(
                f"is a TIFF of floats {span}, which are read from 0 to 1: scale them to that, or "
                "convert it to 8 or 16 bits."
            )
        return Image.fromarray(np.rint((1 - samples if white_is_zero else samples) * 255).astype(np.uint8))
    raise DataError(f"is a TIFF of Pillow's mode {image.mode}, which kerascls does not read: convert it to PNG.")


def _mode_unread(tags: dict[int, tuple[int, ...]], encoded: bytes) -> str | None:
    """The mode in words, if it is none of those whose pixels Pillow gives right."""
    bits, formats = set(tags.get(_BITS, (1,))), set(tags.get(_FORMAT, (1,)))
    (photometric, *_), (samples, *_) = tags.get(_PHOTOMETRIC, (1,)), tags.get(_SAMPLES, (1,))
    big_endian, compressed = encoded[:2] == b"MM", tags.get(_COMPRESSION, (1,))[0] != 1
    in_planes = tags.get(_PLANES, (1,))[0] == 2 and samples > 1
    subsampled = photometric == 6 and not _is_jpeg(tags) and set(tags.get(_SUBSAMPLING, (2, 2))) != {1}
    depth = max(bits) if len(bits) == 1 and not subsampled and encoded[:4] != b"MM\0+" else None
    one_gray = photometric in (0, 1) and samples == 1
    if formats == {1} and depth is not None and depth <= 8:
        most = {0: 1, 1: 2, 2: 4 if in_planes else 6, 3: 2, 5: 4 if in_planes else 6, 6: 3}
        read = samples <= most.get(photometric, 0) and (not in_planes or photometric in (2, 5))
    elif formats == {1} and depth == 16:
        read = one_gray and not (big_endian and photometric == 0)
        read = read or (photometric in (2, 5) and samples <= 4 and not in_planes)
    elif formats == {1} and depth == 12:
        read = one_gray and photometric == 1 and not big_endian
    else:
        read = formats == {3} and depth == 32 and one_gray and not (big_endian and compressed)
    if read:
        return None
    kind = " and ".join(_FORMATS.get(one, "samples") for one in sorted(formats))
    more = [_COLOURS.get(photometric, f"colours {photometric}"), f"{samples} samples" if samples > 1 else ""]
    more += ["in planes" if in_planes else "", "subsampled" if subsampled else ""]
    more += ["big-endian" if big_endian else "", "BigTIFF" if encoded[2:4] in (b"+\0", b"\0+") else ""]
    more += ["compressed" if compressed else ""]
    return f"{'-, '.join(map(str, sorted(bits)))}-bit {kind} ({', '.join(filter(None, more))})"


def _is_jpeg(tags: dict[int, tuple[int, ...]]) -> bool:
    return tags.get(_COMPRESSION, (1,))[0] in (6, 7)


def _directory(encoded: bytes, at: int | None = None) -> dict[int, tuple[int, ...]]:
    """Whole numbers of the tags of a directory, the first one or that at `at`, as far as it goes."""
    order = "<" if encoded[:2] == b"II" else ">"
    big = encoded[2:4] in (b"+\0", b"\0+")
    word, room = ("Q", 8) if big else ("I", 4)
    found: dict[int, tuple[int, ...]] = {}
    try:
        if at is None:
            (at,) = struct.unpack_from(order + word, encoded, room)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), encoded, at)
        first = at + (8 if big else 2)
        for entry in range(first, first + min(count, 4096) * (4 + 2 * room), 4 + 2 * room):
            tag, kind, length = struct.unpack_from(f"{order}HH{word}", encoded, entry)
            fmt = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
            if fmt is None or not length:
                continue
            values = f"{order}{min(length, _MOST_READ)}{fmt}"
            place = entry + 4 + room
            if length * struct.calcsize(fmt) > room:
                (place,) = struct.unpack_from(order + word, encoded, place)
            found.setdefault(tag, struct.unpack_from(values, encoded, place))
    except (struct.error, OverflowError):
        pass
    return found

"""What images hold, as digests: by them equal images are known, and those that a run has seen.

An image in a file is known by the SHA-256 of the file's bytes, one in an array by that of its pixels, at the image
shape that is trained on.
"""

import concurrent.futures
import hashlib
from typing import Any

import numpy as np

from kerascls.system import machine

_STRIP = 1 << 24  # bytes of pixels that a thread takes at once


def of_pixels(images: Any) -> np.ndarray:
    """SHA-256 of each image's pixels, S32 `(n,)`.

    Args:
        images: uint8 array `(n, height, width, channels)`, or what looks like one.
    """
    each = max(1, _STRIP // int(np.prod(images.shape[1:])))

    def strip(start: int) -> list[bytes]:
        return [hashlib.sha256(row).digest() for row in np.ascontiguousarray(images[start : start + each])]

    with concurrent.futures.ThreadPoolExecutor(machine.cores()) as pool:
        rows = [digest for part in pool.map(strip, range(0, len(images), each)) for digest in part]
    return np.array(rows, "S32")

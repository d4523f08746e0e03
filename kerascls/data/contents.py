"""What images hold, as digests: by them equal images are known, and those that a run has seen.

An image in a file is known by the SHA-256 of the file's bytes, one in an array by that of its pixels, at the image
shape that is trained on.
"""

import concurrent.futures
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import devices
from kerascls.errors import RunError
from kerascls.runs.run import Run
from kerascls.system.atomic_files import atomic

SEEN = "seen.bin"  # a run's file of the digests of its training and validation images
KEPT = 16  # bytes of each: 20 MB for ImageNet, and chance makes no two alike
_STRIP = 1 << 24  # bytes of pixels that a thread takes at once


def of_pixels(images: Any) -> np.ndarray:
    """SHA-256 of each image's pixels, S32 `(n,)`.

    Args:
        images: uint8 array `(n, height, width, channels)`, or what looks like one.
    """
    each = max(1, _STRIP // int(np.prod(images.shape[1:])))

    def strip(start: int) -> list[bytes]:
        return [hashlib.sha256(row).digest() for row in np.ascontiguousarray(images[start : start + each])]

    with concurrent.futures.ThreadPoolExecutor(devices.cores()) as pool:
        rows = [digest for part in pool.map(strip, range(0, len(images), each)) for digest in part]
    return np.array(rows, "S32")


@dataclasses.dataclass(frozen=True)
class Seen:
    """The images that a run was trained or validated on.

    Attributes:
        kind: "files" or "pixels", of which the digests are.
        digests: the first bytes of each image's, S16 `(n,)`, ascending.
    """

    kind: str
    digests: np.ndarray

    @classmethod
    def of(cls, kind: str, *contents: np.ndarray) -> "Seen":
        return cls(kind, np.unique(np.concatenate(contents).astype(f"S{KEPT}")))

    def has(self, contents: np.ndarray) -> np.ndarray:
        """Of each digest, whether it is among them: bool `(n,)`."""
        return np.isin(contents.astype(f"S{KEPT}"), self.digests)

    def write(self, folder: Path) -> None:
        with atomic(folder / SEEN) as temporary:
            temporary.write_bytes(self.digests.tobytes())


def seen_by(run: Run) -> Seen | None:
    """What a run has seen; None where it does not say, as one of an earlier version, or one without that file.

    Raises:
        RunError: its file is damaged.
    """
    kind, path = run.manifest["data"].get("contents"), run.path / SEEN
    if kind not in ("files", "pixels") or not path.is_file():
        return None
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from None
    if not raw or len(raw) % KEPT:
        raise RunError(
            f"{path} is damaged: it has {len(raw)} bytes, no multiple of {KEPT}. Put it back, or remove it: then "
            "evaluate says that what the run has seen is not known."
        )
    return Seen(kind, np.frombuffer(raw, f"S{KEPT}"))

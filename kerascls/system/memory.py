"""Memory: what this process may use, whether images fit, and arrays that are shared where a copy would cost as much."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.errors import DataError

ALIGNMENT = 64  # bytes; TensorFlow 2.21 aborts the process on an array that it shares and that begins elsewhere
OTHERS = 1 << 30  # bytes that TensorFlow, a small network and its batches take beside the images
UNKNOWN = 8 << 30  # of a machine that does not say
_PART = 64 << 20  # bytes of images that are copied at a time where they must be


def check(what: str, needed: int, advice: str, held: int = 0) -> None:
    """Raises DataError if `needed` bytes more do not fit beside the `held` bytes of images that are there already.

    Of all that the process may use, images take three quarters at most, and leave 1 GiB.

    Args:
        what: subject of the sentence that says so.
        advice: a sentence on what to do.
    """
    total, free = machine()
    container = container_limit()
    limit = total if container is None else min(total, container)
    usable = max(0, min(limit * 3 // 4, limit - OTHERS))
    if held + needed > usable:
        whose = "machine" if limit == total else "container"
        beside = f" beside the {held / 2**30:,.1f} GiB of the images" if held else ""
        raise DataError(
            f"{what} need {needed / 2**30:,.1f} GiB of memory{beside}; at most {usable / 2**30:.1f} GiB of this "
            f"{whose}'s {limit / 2**30:.1f} is used. {advice}"
        )
    if needed > free:
        raise DataError(
            f"{what} need {needed / 2**30:,.1f} GiB of memory; {free / 2**30:.1f} GiB is free at present. Close other "
            f"programs. {advice}"
        )


def fits(needed: int) -> bool:
    """Whether `check` lets so many bytes pass."""
    try:
        check("", needed, "")
    except DataError:
        return False
    return True


def machine() -> tuple[int, int]:
    """Bytes of this machine's memory, and those that are free or can be freed, swap included."""
    import psutil

    try:
        found = psutil.virtual_memory()
        return found.total, found.available + psutil.swap_memory().free
    except (OSError, ValueError, RuntimeError):
        return UNKNOWN, UNKNOWN


def container_limit(root: Path = Path("/")) -> int | None:
    """The least limit, in bytes, of this process's control groups and of those around them; None without any."""
    groups = group_numbers("memory", "memory.max", "memory.limit_in_bytes", root=root)
    return min((limit for limits in groups for limit in limits), default=None)


def group_numbers(controller: str, version_2: str, *version_1: str, root: Path = Path("/")) -> Iterator[list[int]]:
    """Whole numbers of a file of this process's control groups and of those around them, a list a group.

    Inside a container the groups' names may be those of its host, so the top of what is mounted is asked as well. A
    group that has the word "max" there has no limit and is left out.

    Args:
        controller: "memory" or "cpu".
        version_2, version_1: the file of cgroup v2, and the files that have the same numbers in v1.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            top, files = root / "sys/fs/cgroup", (version_2,)
        elif controller in controllers.split(","):
            top, files = root / "sys/fs/cgroup" / controller, version_1
        else:
            continue
        parts = name.strip("/").split("/")
        for depth in range(len(parts) + 1):
            folder = top.joinpath(*parts[:depth])
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
                yield [int(number) for file in files for number in (folder / file).read_text().split()]


# Arrays


def empty(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    """An array, not filled, that TensorFlow can share."""
    if min(shape, default=0) < 0:
        raise ValueError("negative dimensions are not allowed")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    begin = -raw.ctypes.data % ALIGNMENT
    return raw[begin : begin + size].view(dtype).reshape(shape)


def can_be_shared(array: np.ndarray) -> bool:
    """Whether TensorFlow can use the array's own memory on a CPU."""
    return array.ctypes.data % ALIGNMENT == 0 and array.flags.c_contiguous and array.flags.writeable


def shareable(images: "np.ndarray | Rows") -> np.ndarray:
    """`images` themselves, or a copy, such that TensorFlow can share them."""
    if isinstance(images, np.ndarray) and can_be_shared(images):
        return images
    copy, done = empty(images.shape, images.dtype), 0
    for part in parts(images):
        copy[done : done + len(part)] = part
        done += len(part)
    return copy


def parts(images: "np.ndarray | Rows") -> Iterator[np.ndarray]:
    """All of `images` one after another, some at a time."""
    step = max(1, _PART // max(1, images[:1].nbytes))
    for at in range(0, len(images), step):
        yield images[at : at + step]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array that others share. Looks like the array of those rows; an index copies what is asked for.

    Attributes:
        array: `(m, ...)`.
        at: int64 `(n,)`, the rows' places in `array`.
    """

    array: np.ndarray
    at: np.ndarray

    @classmethod
    def of(cls, images: "np.ndarray | Rows", chosen: np.ndarray) -> "Rows":
        """Those at positions `chosen` of `images`."""
        return cls(images.array, images.at[chosen]) if isinstance(images, Rows) else cls(images, np.asarray(chosen))

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.at), *self.array.shape[1:])

    @property
    def nbytes(self) -> int:
        return len(self) * math.prod(self.array.shape[1:]) * self.array.itemsize

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, at: Any) -> np.ndarray:
        if isinstance(at, tuple):  # of several axes, which NumPy knows best; all rows are copied for it
            return np.asarray(self)[at]
        return self.array[self.at[at]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Rows of a shared array are copied where an array of their own is asked for.")
        return np.asarray(self.array[self.at], dtype)

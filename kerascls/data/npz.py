"""Arrays from a Keras-style .npz file."""

import contextlib
import dataclasses
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.dataset import Dataset, Split, fit_arrays
from kerascls.errors import DataError
from kerascls.system.memory import check, empty, shareable

MOST_CLASSES = 100_000  # a stray label of billions would otherwise become billions of classes
_READ = 1 << 20  # bytes at a time: zipfile makes an object of what it reads, whatever it is read into
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def load_npz(path: Path, image_shape: tuple[int, int, int] | None, resize: str) -> Dataset:
    """x_train, y_train and, where there, x_test, y_test, x_validation (or x_val) and y_validation (or y_val).

    Images are uint8 `(n, h, w)` or `(n, h, w, 1 or 3)`; labels whole numbers `(n,)` or `(n, 1)` from 0; an array
    `class_names` of strings names them (else "0", "1", ...). Nothing pickled is read.

    Raises:
        DataError: the file is missing, damaged, or has other contents.
    """
    if not path.is_file():
        raise DataError(f"Data file {path} does not exist.")
    headers = _headers(path)
    _check_memory(path, headers, image_shape)
    splits = {}
    for suffix, split in _SPLITS.items():
        if f"x_{suffix}" in headers:
            if f"y_{suffix}" not in headers:
                raise DataError(f"{path} has x_{suffix} and no y_{suffix}.")
            x, y = (_read(path, headers[f"{axis}_{suffix}"]) for axis in "xy")
            splits[split] = _split(path, suffix, x, y, image_shape, resize)
            del x  # of another shape than the split's, it need not wait for the next
    if "train" not in splits and "test" not in splits:
        raise DataError(
            f"{path} must have x_train and y_train (and x_test, y_test), as Keras' data sets do. "
            f"Received: {', '.join(headers) or 'nothing'}"
        )
    listed = _read(path, headers["class_names"]) if "class_names" in headers else None
    given = listed is not None
    if given and (listed.ndim != 1 or listed.dtype.kind != "U"):
        raise DataError(f"{path}: class_names must be a list of names as text. Received: {listed.dtype} {listed.shape}")
    count = max(int(split.labels.max(initial=0)) for split in splits.values()) + 1
    if given and len(listed) < count:
        raise DataError(f"{path}: class_names has {len(listed)} names; labels up to {count - 1} need {count}.")
    if count > MOST_CLASSES:
        raise DataError(f"{path}: labels must be below {MOST_CLASSES:,}. Received: {count - 1:,}. Number them from 0.")
    names = tuple(str(name) for name in listed) if given else tuple(str(i) for i in range(count))
    if len(set(names)) != len(names):
        raise DataError(f"{path}: class_names has a name twice.")
    return Dataset(path.name, "npz", names, splits, names_given=given)


@dataclasses.dataclass(frozen=True)
class _Header:
    """What an array declares of itself."""

    name: str
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def images(self) -> bool:
        return self.name.startswith("x_") and self.dtype == np.uint8


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (DataError, MemoryError):
        raise
    except Exception as error:  # NumPy and zipfile raise whatever a damaged file leads them to
        raise DataError(f"{path} is not a whole .npz file of plain arrays, as np.savez writes: {error}") from None


def _headers(path: Path) -> dict[str, _Header]:
    """Of the arrays that are images, labels and names."""
    with _opened(path) as archive:
        members = archive.namelist()
        strange = [name for name in members if not name.endswith(".npy")]
        if strange:
            raise DataError(f"{path} has entries that are not arrays: {', '.join(strange[:5])}.")
        names = [name.removesuffix(".npy") for name in members]
        wanted = [name for name in names if name == "class_names" or name.startswith(("x_", "y_"))]
        headers = {}
        for name in wanted:
            with archive.open(f"{name}.npy") as member:
                headers[name] = _header(name, member)
            if headers[name].dtype.hasobject:
                raise DataError(
                    f"{path}: {name} holds pickled Python objects, which are never read. Expected an array of numbers "
                    "or of text."
                )
        return headers


def _header(name: str, member: Any) -> _Header:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return _Header(name, *read(member))


def _check_memory(path: Path, headers: dict[str, _Header], image_shape: tuple[int, ...] | None) -> None:
    """Raises DataError where the arrays do not fit, before any is read: a small file may be packed of huge ones.

    Where images are brought to another shape, or lie the other way round, one split at a time stands beside its copy.
    """
    kept, beside = 0, [0]
    for header in headers.values():
        shape = header.shape if len(header.shape) == 4 else (*header.shape, 1)
        if header.images and image_shape is not None and shape[1:] != tuple(image_shape):
            kept += shape[0] * math.prod(image_shape)
            beside.append(header.size)
        else:
            kept += header.size
            beside.append(header.size if header.images and header.fortran else 0)
    check(f"{path}: its arrays", kept + max(beside), "Make a folder of images of it, which is read while it trains.")


def _read(path: Path, header: _Header) -> np.ndarray:
    """An array; of images, one that TensorFlow can share, which NumPy's own reader does not make."""
    with _opened(path) as archive, archive.open(f"{header.name}.npy") as member:
        if not header.images:
            return np.lib.format.read_array(member, allow_pickle=False)
        _header(header.name, member)
        array = empty(header.shape[::-1] if header.fortran else header.shape)
        rest = memoryview(array.reshape(-1))
        while rest:
            count = member.readinto(rest[:_READ])
            if not count:
                raise ValueError(f"{header.name} ends {len(rest):,} bytes too early")
            rest = rest[count:]
        return shareable(array.T) if header.fortran else array


def _split(
    path: Path, suffix: str, x: np.ndarray, y: np.ndarray, image_shape: tuple[int, int, int] | None, resize: str
) -> Split:
    if x.ndim == 3:
        x = x[..., None]
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise DataError(
            f"{path}: x_{suffix} must be uint8 in [0, 255], (n, height, width) or (n, height, width, 1 or 3). "
            f"Received: {x.dtype} {x.shape}{_as_uint8(x)}"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != len(x):
        raise DataError(
            f"{path}: y_{suffix} must be {len(x)} whole numbers, one an image. Received: {y.dtype} {y.shape}"
            f"{_as_whole(y)}"
        )
    if len(y) and y.min() < 0:
        raise DataError(f"{path}: y_{suffix} must be 0 or more. Received: {y.min()}")
    return Split.of(fit_arrays(x, image_shape, resize), y)


def _as_uint8(x: np.ndarray) -> str:
    """How images of another type become uint8; "" where that is not known."""
    if x.dtype.kind == "b":
        return ". Store 255 * x.astype('uint8')."
    if x.dtype.kind not in "iuf" or not x.size:
        return ""
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        return f", of which {np.count_nonzero(~np.isfinite(x)):,} values are NaN or infinite. Find out why."
    low, high = x.min(), x.max()
    if low < 0 or high > 255:
        return f" from {low:g} to {high:g}. Bring them to [0, 255]."
    scale = "255 * x" if x.dtype.kind == "f" and high <= 1 else "x"
    return f" from {low:g} to {high:g}. Store np.round({scale}).astype('uint8')."


def _as_whole(y: np.ndarray) -> str:
    """How labels of another form become whole numbers; "" where that is not known."""
    if y.ndim == 2 and y.dtype.kind in "iufb" and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        return ", one-hot. Store y.argmax(1)."
    if y.ndim == 1 and y.dtype.kind in "fb" and (y == np.round(y)).all():
        return ". Store y.astype('int64')."
    if y.ndim == 1 and y.dtype.kind in "US":
        return ". Store class_names, y = np.unique(y, return_inverse=True)."
    return ""

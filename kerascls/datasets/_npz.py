"""Arrays from a Keras-style .npz file."""

import math
import zipfile
from pathlib import Path

import numpy as np

from kerascls.datasets import Dataset, Split, check_memory, fit_arrays, memory
from kerascls.errors import DataError

MOST_CLASSES = 100_000  # a stray label of billions would otherwise become billions of classes
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
    arrays = _read(path)
    splits = {}
    for suffix, split in _SPLITS.items():
        if f"x_{suffix}" not in arrays:
            continue
        if f"y_{suffix}" not in arrays:
            raise DataError(f"{path} has x_{suffix} and no y_{suffix}.")
        splits[split] = _split(path, suffix, arrays[f"x_{suffix}"], arrays[f"y_{suffix}"], image_shape, resize)
    if "train" not in splits and "test" not in splits:
        raise DataError(
            f"{path} must have x_train and y_train (and x_test, y_test), as Keras' data sets do. "
            f"Received: {', '.join(arrays) or 'nothing'}"
        )
    given = "class_names" in arrays
    if given and (arrays["class_names"].ndim != 1 or arrays["class_names"].dtype.kind != "U"):
        raise DataError(
            f"{path}: class_names must be a list of names as text. Received: "
            f"{arrays['class_names'].dtype} {arrays['class_names'].shape}"
        )
    count = max(int(split.labels.max(initial=0)) for split in splits.values()) + 1
    if given and len(arrays["class_names"]) < count:
        raise DataError(
            f"{path}: class_names has {len(arrays['class_names'])} names; labels up to {count - 1} need {count}."
        )
    if count > MOST_CLASSES:
        raise DataError(f"{path}: labels must be below {MOST_CLASSES:,}. Received: {count - 1:,}. Number them from 0.")
    names = tuple(str(name) for name in arrays["class_names"]) if given else tuple(str(i) for i in range(count))
    if len(set(names)) != len(names):
        raise DataError(f"{path}: class_names has a name twice.")
    return Dataset(path.name, "npz", names, splits, names_given=given)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays that are images, labels and names. What they declare is held against the memory before any is read:
    a small file may be packed of huge ones."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            strange = [name for name in members if not name.endswith(".npy")]
            if strange:
                raise DataError(f"{path} has entries that are not arrays: {', '.join(strange[:5])}.")
            wanted = [name for name in members if name == "class_names.npy" or name.startswith(("x_", "y_"))]
            sizes = [_declared_bytes(path, archive, name) for name in wanted]
            if sum(sizes) > memory() // 2:
                raise DataError(
                    f"{path}: its arrays need {sum(sizes) / 2**30:,.1f} GiB; at most half of this machine's "
                    f"{memory() / 2**30:.1f} GiB is used. Make a folder of images of it."
                )
        with np.load(path, allow_pickle=False) as file:
            return {name.removesuffix(".npy"): file[name.removesuffix(".npy")] for name in wanted}
    except DataError:
        raise
    except Exception as error:  # NumPy and zipfile raise whatever a damaged file leads them to
        raise DataError(f"{path} is not a whole .npz file of plain arrays, as np.savez writes: {error}") from None


def _declared_bytes(path: Path, archive: zipfile.ZipFile, name: str) -> int:
    """What the header of an array says that it takes. Raises DataError for objects, which would be unpickled."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    if dtype.hasobject:
        raise DataError(
            f"{path}: {name.removesuffix('.npy')} holds pickled Python objects, which are never read. Expected an "
            "array of numbers or of text."
        )
    return math.prod(shape) * dtype.itemsize


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
    check_memory(path.name, len(x), image_shape or x.shape[1:])
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

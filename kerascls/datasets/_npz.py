"""Arrays from a Keras-style .npz file."""

from pathlib import Path

import numpy as np

from kerascls.datasets import Dataset, Split, check_memory, fit_arrays
from kerascls.errors import DataError

MOST_CLASSES = 100_000
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
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # NumPy and zipfile raise whatever a damaged file leads them to
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {error}") from None
    strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if strange:
        raise DataError(f"{path} has entries that are not arrays: {', '.join(strange)}.")
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
    if count > MOST_CLASSES:
        raise DataError(
            f"{path} has labels up to {count - 1}, which would be as many classes; at most {MOST_CLASSES:,} are taken. "
            "Number the classes from 0."
        )
    if given and len(arrays["class_names"]) < count:
        raise DataError(
            f"{path}: class_names has {len(arrays['class_names'])} names; labels up to {count - 1} need {count}."
        )
    names = tuple(str(name) for name in arrays["class_names"]) if given else tuple(str(i) for i in range(count))
    if len(set(names)) != len(names):
        raise DataError(f"{path}: class_names has a name twice.")
    return Dataset(path.name, "npz", names, splits, names_given=given)


def _split(
    path: Path, suffix: str, x: np.ndarray, y: np.ndarray, image_shape: tuple[int, int, int] | None, resize: str
) -> Split:
    if x.ndim == 3:
        x = x[..., None]
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise DataError(
            f"{path}: x_{suffix} must be uint8 in [0, 255], (n, height, width) or (n, height, width, 1 or 3). "
            f"Received: {x.dtype} {x.shape}"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != len(x):
        raise DataError(
            f"{path}: y_{suffix} must be {len(x)} whole numbers, one an image. Received: {y.dtype} {y.shape}"
        )
    if len(y) and y.min() < 0:
        raise DataError(f"{path}: y_{suffix} must be 0 or more. Received: {y.min()}")
    check_memory(path.name, len(x), image_shape or x.shape[1:])
    return Split.of(fit_arrays(x, image_shape, resize), y)

"""Data sets as uint8 arrays with class names. `datasets/<name>.py` is the data set `<name>`.

Such a file has `class_names`, `image_shape` and `load(root, download, image_shape, background)`, which returns a
`Dataset`; a user's `./my_data.py` is the same. `datasets/_*.py` read other kinds: any TFDS name, a .npz file.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kerascls.catalog import dataset_files
from kerascls.config import Config, load_config
from kerascls.errors import DataError, DataMissing, KerasclsError
from kerascls.runs import fallback_notice


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one split.

    Attributes:
        images: uint8 array `(n, height, width, channels)` in [0, 255].
        labels: int32 array `(n,)`, positions in the data set's `class_names`.
        positions: int64 array `(n,)`, each example's position in the split as published; names it in pictures.
    """

    images: np.ndarray
    labels: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray) -> "Split":
        """Labels may be of any whole type, positions count from 0."""
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(f"Labels must be whole numbers (n,). Received: {labels.dtype} {labels.shape}")
        if len(labels) and not -(2**31) <= int(labels.min()) <= int(labels.max()) < 2**31:
            raise DataError(f"Labels must be below 2**31. Received: {labels.min()} to {labels.max()}")
        return cls(images, labels.astype(np.int32), np.arange(len(labels)))

    def take(self, chosen: np.ndarray) -> "Split":
        return Split(self.images[chosen], self.labels[chosen], self.positions[chosen])

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set. `splits` has "train", "validation" and "test", those of them that it is published with.

    `source` says where it came from, without any path of this machine. `names_given` is False where the names are
    only the label numbers as text.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    names_given: bool = True

    def __post_init__(self) -> None:
        for name in self.class_names:
            if not isinstance(name, str) or not name or not name.isprintable():
                raise DataError(f"{self.name}: a class name must be printable text, not empty. Received: {name!r}")
        if not isinstance(self.name, str) or not self.name:
            raise DataError(f"A data set's name must be text. Received: {self.name!r}")
        if len(set(self.class_names)) != len(self.class_names):
            raise DataError(f"{self.name} has a class name twice.")
        shapes = {split.images.shape[1:] for split in self.splits.values()}
        for name, split in self.splits.items():
            if not len(split):
                raise DataError(f"{self.name}: split {name} has no images.")
            if (
                split.images.dtype != np.uint8
                or split.images.ndim != 4
                or split.images.shape[-1] not in (1, 3)
                or 0 in split.images.shape
            ):
                raise DataError(
                    f"{self.name}: {name} images must be uint8 (n, height, width, 1 or 3). "
                    f"Received: {split.images.dtype} {split.images.shape}"
                )
            if not len(split.images) == len(split.labels) == len(split.positions):
                raise DataError(f"{self.name}: {name} has {len(split.images)} images and {len(split.labels)} labels.")
            if split.labels.min() < 0 or split.labels.max() >= len(self.class_names):
                raise DataError(
                    f"{self.name}: {name} labels must be in [0, {len(self.class_names)}). "
                    f"Received: {split.labels.min()} to {split.labels.max()}"
                )
        if len(shapes) != 1:
            raise DataError(f"{self.name}: its splits have images of different shapes, {sorted(shapes)}.")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return next(iter(self.splits.values())).images.shape[1:]

    def fingerprint(self) -> str:
        """SHA-256 of the class names and of every split's images and labels."""
        digest = hashlib.sha256(repr((self.class_names, self.image_shape)).encode())
        for name in sorted(self.splits):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.splits[name].images))
            digest.update(np.ascontiguousarray(self.splits[name].labels))
        return digest.hexdigest()


def load_dataset(
    name: str,
    root: str | None = None,
    download: bool = True,
    image_shape: tuple[int, int, int] | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Dataset:
    """Loads a data set into memory.

    Args:
        name: a file's name under `datasets/`, `tfds:NAME`, a Keras-style `FILE.npz`, or `./my_data.py`.
        root: where TFDS keeps prepared data; None for TFDS_DATA_DIR, then TFDS's own default.
        download: whether data that is not prepared may be downloaded.
        image_shape: (height, width, channels) to bring images to, by `images`' rules; None for the data's own.
        background: RGB under transparent pixels.

    Raises:
        DataMissing: it is not prepared here and cannot be downloaded.
        DataError: it does not exist, is damaged, or is not for image classification.
    """
    root = root or os.environ.get("TFDS_DATA_DIR")  # TFDS reads it once, when it is imported
    if root and not Path(root).is_dir():
        raise DataError(f"Data folder {root} does not exist. It was named by --data-dir or TFDS_DATA_DIR.")
    if name.startswith("tfds:"):
        from kerascls.datasets._tfds import load_tfds

        return load_tfds(name.removeprefix("tfds:"), root, download, image_shape, background)
    if name.endswith(".npz"):
        from kerascls.datasets._npz import load_npz

        return load_npz(Path(name), image_shape)
    try:
        dataset = dataset_module(name).load(
            root=root, download=download, image_shape=image_shape, background=background
        )
    except KerasclsError:
        raise
    except (Exception, SystemExit) as error:
        if not name.endswith(".py"):
            raise
        raise DataError(f"{name}: load() failed: {type(error).__name__}: {error}") from None
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name}: load() must return a kerascls.datasets.Dataset. Received: {type(dataset).__name__}")
    return dataset


def load_recipe_data(
    recipe: str, tables: Mapping[str, Mapping[str, Any]], data_dir: str | None, fallback: bool
) -> tuple[Config, Dataset]:
    """A recipe as it will be trained, and its data as published. The fallback is taken, and announced, only here.

    Args:
        recipe: its name, or the path of a .toml file.
        tables: laid over the recipe's.
        data_dir: where TFDS keeps prepared data.
        fallback: whether the recipe's may be taken. It never is where the user named data or a place for it: a
            data.name in `tables`, `data_dir`, or TFDS_DATA_DIR.
    """
    config = load_config(recipe, tables)
    allowed = (
        fallback
        and config.fallback.data
        and "name" not in tables.get("data", {})
        and data_dir is None
        and not os.environ.get("TFDS_DATA_DIR")
    )

    def loaded(config: Config) -> Dataset:
        return load_dataset(
            config.data.name,
            data_dir,
            image_shape=tuple(config.data.image_shape) or None,
            background=tuple(config.data.background),
        )

    try:
        return config, loaded(config)
    except DataMissing as error:
        if not allowed:
            embedded = config.fallback.data
            hint = f" `--data {embedded}` trains on the embedded data set." if embedded else ""
            raise DataMissing(f"{error}{hint}") from None
    config = load_config(recipe, tables, use_fallback=True)
    print(fallback_notice(config.fallback_for, config.data.name), file=sys.stderr, flush=True)
    return config, loaded(config)


def dataset_module(name: str) -> ModuleType:
    """The Python module behind a data set's name, or behind a user's path."""
    if not name.endswith(".py"):
        if name not in dataset_files():
            raise DataError(f"No data set is named {name!r}. Known: {', '.join(dataset_files())}.")
        return importlib.import_module(f"kerascls.datasets.{name}")
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise DataError(f"{name} cannot be imported: {type(error).__name__}: {error}") from None
    for needed in ("load", "class_names", "image_shape"):
        if not hasattr(module, needed):
            raise DataError(f"{name} has no `{needed}`, which every data set file needs.")
    return module


def describe_dataset(name: str) -> tuple[tuple[str, ...], tuple[int, int, int] | None]:
    """Class names and image shape of a data set (None where images vary), without its images where that can be."""
    if name.startswith("tfds:"):
        from kerascls.datasets._tfds import describe_tfds

        return describe_tfds(name.removeprefix("tfds:"))
    if name.endswith(".npz"):
        dataset = load_dataset(name)
        return dataset.class_names, dataset.image_shape
    module = dataset_module(name)
    return tuple(module.class_names), tuple(module.image_shape)


def fit_arrays(images: np.ndarray, image_shape: tuple[int, int, int] | None) -> np.ndarray:
    """uint8 `(n, h, w, 1 or 3)` brought to `image_shape` by `images`' rules; as it is where None or equal."""
    if image_shape is None or images.shape[1:] == tuple(image_shape):
        return images
    import tensorflow as tf

    from kerascls import images as road

    height, width, channels = image_shape
    out = np.empty((len(images), *image_shape), np.uint8)
    for at in range(0, len(images), 256):
        batch = tf.constant(images[at : at + 256])
        batch = tf.repeat(batch, 3, axis=-1) if batch.shape[-1] == 1 else batch
        out[at : at + 256] = road.resize(road.to_channels(batch, channels), height, width)
    return out


def check_memory(name: str, examples: int, image_shape: tuple[int, int, int]) -> None:
    """Raises DataError if the images would fill over half of this machine's memory."""
    needed = examples * int(np.prod(image_shape))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30
    if needed > total // 2:
        raise DataError(
            f"{name}: {examples:,} images of {tuple(image_shape)} need {needed / 2**30:.1f} GiB; at most half "
            f"of this machine's {total / 2**30:.1f} GiB is used. Lower data.image_shape."
        )

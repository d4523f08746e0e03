"""Data sets as uint8 arrays with class names. `datasets/<name>.py` is the data set `<name>`.

Such a file has `class_names`, `image_shape` and `load(...)`, which returns a `Dataset`. `load` takes, by keyword, those
of root, download, image_shape, background and resize that it has a use for; what it returns is brought to the
image shape that was asked for. A user's `./my_data.py` is the same. `datasets/_*.py` read other kinds: a folder of
images, any TFDS name, a .npz file.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from kerascls.data.contents import of_pixels
from kerascls.errors import DataError, DataMissing, KerasclsError, printable
from kerascls.recipes.catalog import dataset_files
from kerascls.recipes.checks import TABLES, data_fault
from kerascls.recipes.schema import Config, Data, load_config
from kerascls.runs.run import fallback_notice
from kerascls.system.memory import Rows, check, empty, parts, shareable
from kerascls.system.status import doing

if TYPE_CHECKING:
    from kerascls.data.folder import FileImages


_NUMBERS = re.compile(r"(\d+)")
SKIPPED_TOLD = 10  # files left out that are named on a screen


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one split.

    Attributes:
        images: uint8 array `(n, height, width, channels)` in [0, 255], or what looks like one: `memory.Rows` of an
            array that splits share, or `FileImages`, which reads what is asked for.
        labels: int32 array `(n,)`, positions in the data set's `class_names`.
        positions: int64 array `(n,)`, each example's position in the split as published; names it in pictures.
        origin: the files that the images come from, whether they are kept decoded or not; None where there are none.
    """

    images: "np.ndarray | Rows | FileImages"
    labels: np.ndarray
    positions: np.ndarray
    origin: "FileImages | None" = None

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
        """The examples at positions `chosen`. Images in memory are shared, not copied."""
        origin = None if self.origin is None else self.origin.only(chosen)
        images = origin if self.streamed else Rows.of(self.images, chosen)
        taken = Split(images, self.labels[chosen], self.positions[chosen], origin)
        if "contents" in self.__dict__:
            taken.__dict__["contents"] = self.contents[chosen]  # is not computed again
        return taken

    @property
    def kind(self) -> str:
        """Of what `contents` are: "files" or "pixels"."""
        return "pixels" if self.origin is None else "files"

    @functools.cached_property
    def contents(self) -> np.ndarray:
        """SHA-256 of each example's file, or of its pixels where there are no files: S32 `(n,)`."""
        return of_pixels(self.images) if self.origin is None else np.array(self.origin.contents, "S32")

    def path_of(self, i: int) -> str:
        """What lines call an example: its file's path in the data set, or its position in the split as published."""
        return f"no. {self.positions[i]}" if self.origin is None else self.origin.names[i]

    @property
    def streamed(self) -> bool:
        """Whether images are read from their files when they are asked for."""
        return self.origin is not None and self.images is self.origin

    def name_of(self, i: int) -> str:
        """What pictures call it: the path's last part."""
        return Path(self.path_of(i)).name

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set. `splits` has "train", "validation" and "test", those of them that it is published with.

    A folder without splits has "all" alone, which `split.with_all_splits` divides. `source` says where the data came
    from, without any path of this machine. `names_given` is False where the names are only the label numbers as text.
    Names are kept in NFC, since two that look alike are one class. `skipped` are files that were left out, each with
    the reason; `notes` are lines on what else is odd about it.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    names_given: bool = True
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.class_names:
            if not isinstance(name, str) or not name or not name.isprintable():
                raise DataError(f"{self.name}: a class name must be printable text, not empty. Received: {name!r}")
        object.__setattr__(self, "class_names", tuple(map(nfc, self.class_names)))
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
        """SHA-256 of the class names, the image shape, and every split's images (or files) and labels."""
        digest = hashlib.sha256(repr((self.class_names, self.image_shape)).encode())
        for name in sorted(self.splits):
            split = self.splits[name]
            digest.update(name.encode())
            if split.origin is None:
                for images in parts(split.images):
                    digest.update(np.ascontiguousarray(images))
                digest.update(np.ascontiguousarray(split.labels))
            else:  # in any order, under any names
                for content, label in sorted(zip(split.origin.contents, split.labels.tolist(), strict=True)):
                    digest.update(content + label.to_bytes(4, "little"))
        return digest.hexdigest()


def in_batches(images: "np.ndarray | Rows | FileImages", size: int, start: int = 0) -> Iterator[np.ndarray]:
    """All from position `start` on, in order, `size` at a time; those in files are decoded ahead."""
    if not isinstance(images, np.ndarray | Rows):
        yield from images.batches(size, start)
        return
    for at in range(start, len(images), size):
        yield images[at : at + size]


def spread(count: int, most: int) -> np.ndarray:
    """Positions of at most `most` of `count` examples, int `(n,)`, spread evenly from the first to the last.

    >>> spread(9, 3).tolist(), spread(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))


def load_dataset(
    name: str,
    root: str | None = None,
    download: bool = True,
    image_shape: tuple[int, int, int] | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    resize: str = "stretch",
    cache_mb: int = Data.cache_mb,
    on_bad_image: str = Data.on_bad_image,
    max_bad_share: float = Data.max_bad_share,
    classes: Sequence[str] = (),
) -> Dataset:
    """Loads a data set into memory; of a folder that is larger than `cache_mb`, only what is there.

    Args:
        name: a file's name under `datasets/`, a folder of class folders, `tfds:NAME`, a Keras-style `FILE.npz`, or
            `./my_data.py`.
        root: where TFDS keeps prepared data; None for TFDS_DATA_DIR, then TFDS's own default.
        download: whether data that is not prepared may be downloaded.
        image_shape: (height, width, channels) to bring images to, by `images`' rules; None for the data's own.
        background: RGB under transparent pixels.
        resize: how images are brought to `image_shape`, see `images.resize`.
        cache_mb: megabytes that a folder's decoded images may take.
        on_bad_image, max_bad_share: what becomes of a folder's images that cannot be read, see `config.Data`.
        classes: names that the caller expects, if any: a folder's folders of such names are its classes, and it may
            have some of them, where a folder has all that can be trained on otherwise.

    Raises:
        DataMissing: it is not prepared here and cannot be downloaded.
        DataError: it does not exist, is damaged, or is not for image classification.
    """
    if not name:
        raise DataError("This recipe takes any data and brings none. Give --data FOLDER, a folder of class folders.")
    root = root or os.environ.get("TFDS_DATA_DIR")  # TFDS reads it once, when it is imported
    if root and not Path(root).is_dir():
        raise DataError(f"Data folder {root} does not exist. It was named by --data-dir or TFDS_DATA_DIR.")
    if name.startswith("tfds:"):
        from kerascls.data.tfds import load_tfds

        with doing(f"reading {name}"):
            return load_tfds(name.removeprefix("tfds:"), root, download, image_shape, background, resize)
    if name.endswith(".npz"):
        from kerascls.data.npz import load_npz

        with doing(f"reading {Path(name).name}"):
            return load_npz(Path(name), image_shape, resize)
    if is_folder(name):
        from kerascls.data.folder import load_folder

        kept = (image_shape, background, resize, cache_mb)
        dataset = load_folder(Path(name), *kept, on_bad_image, max_bad_share, classes)
        if not classes:
            _check_trainable(dataset)
        return dataset
    load = dataset_module(name).load
    offered = {
        "root": root,
        "download": download,
        "image_shape": image_shape,
        "background": background,
        "resize": resize,
    }
    try:
        with doing(f"reading {name}"):
            dataset = load(**{key: offered[key] for key in inspect.signature(load).parameters if key in offered})
    except KerasclsError:
        raise
    except (Exception, SystemExit) as error:
        if not name.endswith(".py"):
            raise
        raise DataError(f"{name}: load() failed: {type(error).__name__}: {error}") from None
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name}: load() must return a kerascls.datasets.Dataset. Received: {type(dataset).__name__}")
    as_it_is = "resize" in inspect.signature(load).parameters or resize != "center_crop"
    rest = {**vars(dataset)}
    splits = dict(rest.pop("splits"))
    del dataset  # so that each split's images go as soon as they are brought to their shape
    copies = [len(split) * math.prod(image_shape or split.images.shape[1:]) for split in splits.values()]
    held = sum(split.images.nbytes for split in splits.values())
    check(f"{rest['name']}: copies of its images", max(copies), f"Return fewer from {name}.", held)
    for key in splits:
        images = splits[key].images
        if not (as_it_is and tuple(image_shape or images.shape[1:]) == images.shape[1:]):
            images = fit_arrays(images, image_shape, resize)
        splits[key] = dataclasses.replace(splits[key], images=shareable(images))
        del images
    return Dataset(splits=splits, **rest)


def is_folder(name: str) -> bool:
    """Whether a data set's name means a folder of images: one that is there, and no data set of ours."""
    return name not in dataset_files() and not name.startswith("tfds:") and Path(name).is_dir()


def is_data(name: str) -> bool:
    """Whether a name means data, or a file that might: a folder, a file, a data set of ours, or tfds:NAME."""
    return name in dataset_files() or name.startswith("tfds:") or Path(name).exists()


def load_config_data(config: Data, data_dir: str | None = None) -> Dataset:
    """The data that a recipe's `[data]` states.

    Raises:
        DataError: it is not what `data.classes` asks for; else as `load_dataset`.
    """
    dataset = load_dataset(
        config.name,
        data_dir,
        image_shape=tuple(config.image_shape) or None,
        background=tuple(config.background),
        resize=config.resize,
        cache_mb=config.cache_mb,
        on_bad_image=config.on_bad_image,
        max_bad_share=config.max_bad_share,
        classes=config.classes,
    )
    _check_trainable(dataset)
    if not config.classes:
        return dataset
    if sorted(map(nfc, config.classes)) != sorted(dataset.class_names):
        raise DataError(
            f"{dataset.name} must have the classes {', '.join(config.classes)}. Received: "
            f"{', '.join(dataset.class_names[:20])}. `--set 'data.classes=[]'` takes whatever there is."
        )
    return rename(dataset, tuple(config.classes))


def _called(dataset: Dataset) -> str:
    return f"Folder {dataset.name}" if dataset.source == "folder" else dataset.name


def _check_trainable(dataset: Dataset) -> None:
    """Raises DataError if there is nothing to learn, or a class that other splits have and train has not."""
    counts = {
        name: np.bincount(split.labels, minlength=len(dataset.class_names)) for name, split in dataset.splits.items()
    }
    used = np.flatnonzero(sum(counts.values()))
    if len(used) < 2:
        table = next((file for file, _ in dataset.skipped if file.lower().endswith(TABLES)), None)
        hint = f" {printable(table)} is not read: labels come from the names of folders." if table else ""
        raise DataError(
            f"{_called(dataset)} has images of one class alone, {dataset.class_names[used[0]]}. A classifier needs at "
            f"least two.{hint}"
        )
    without = [dataset.class_names[i] for i in used if "train" in counts and not counts["train"][i]]
    if without and dataset.source == "folder":
        raise DataError(
            f"{_called(dataset)}: train/ has no image of {', '.join(without[:5])}, which other splits have."
        )


def rename(dataset: Dataset, class_names: tuple[str, ...]) -> Dataset:
    """The data set with its labels renumbered to `class_names`, by name; every class that has examples is there."""
    ids = positions(class_names, dataset.class_names)
    splits = {
        name: dataclasses.replace(split, labels=ids[split.labels].astype(np.int32))
        for name, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, class_names=class_names, splits=splits, names_given=True)


def positions(class_names: Sequence[str], of: Sequence[str]) -> np.ndarray:
    """The place of each name among `class_names`, int64 `(n,)`, -1 where it is not there; names in any Unicode form.

    >>> positions(["a", "caf\u00e9"], ["cafe\u0301", "b"]).tolist()
    [1, -1]
    """
    places = {nfc(name): i for i, name in enumerate(class_names)}
    return np.array([places.get(nfc(name), -1) for name in of])


def skipped_lines(skipped: Sequence[tuple[str, str]], where: str = "") -> list[str]:
    """A line for each file that was left out, `left out: FILE: REASON`; of many, the first ten and how many more."""
    lines = [f"left out: {printable(file)}: {printable(reason)}" for file, reason in skipped[:SKIPPED_TOLD]]
    more = len(skipped) - len(lines)
    return [*lines, f"left out: {more:,} more{where}"] if more else lines


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

    try:
        return config, load_config_data(config.data, data_dir)
    except DataMissing as error:
        if not allowed:
            embedded = config.fallback.data
            hint = f" `--data {embedded}` trains on the embedded data set." if embedded else ""
            raise DataMissing(f"{error}{hint}") from None
    config = load_config(recipe, tables, use_fallback=True)
    print(fallback_notice(config.fallback_for, config.data.name), file=sys.stderr, flush=True)
    return config, load_config_data(config.data, data_dir)


def dataset_module(name: str) -> ModuleType:
    """The Python module behind a data set's name, or behind a user's path."""
    if not name.endswith(".py"):
        if name not in dataset_files():
            raise DataError(data_fault(name))
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


def describe_dataset(name: str, classes: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[int, int, int] | None]:
    """Class names and image shape of a data set (None where images vary), without its images where that can be.

    `classes` is as `load_dataset` takes it.
    """
    if name.startswith("tfds:"):
        from kerascls.data.tfds import describe_tfds

        return describe_tfds(name.removeprefix("tfds:"))
    if name.endswith(".npz"):
        dataset = load_dataset(name)
        return dataset.class_names, dataset.image_shape
    if is_folder(name):
        from kerascls.data.folder_listing import list_folder

        return list_folder(Path(name), classes).class_names, None
    module = dataset_module(name)
    return tuple(module.class_names), tuple(module.image_shape)


def fit_arrays(images: np.ndarray, image_shape: tuple[int, int, int] | None, resize: str = "stretch") -> np.ndarray:
    """uint8 `(n, h, w, 1 or 3)` brought to `image_shape`, their own where None, by `images`' rules."""
    image_shape = images.shape[1:] if image_shape is None else tuple(image_shape)
    if images.shape[1:] == image_shape and resize != "center_crop":
        return images
    import tensorflow as tf

    from kerascls.images import decode as road

    height, width, channels = image_shape
    out = empty((len(images), *image_shape))
    for at in range(0, len(images), 256):
        batch = tf.constant(images[at : at + 256])
        batch = tf.repeat(batch, 3, axis=-1) if batch.shape[-1] == 1 else batch
        out[at : at + 256] = road.resize(road.to_channels(batch, channels), height, width, resize)
    return out


def nfc(text: str) -> str:
    """`text` in the form in which names are compared: macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", text)


def folder_name(root: str | Path) -> str:
    """What a folder is called, as it was typed: a link by its own name; `.` by that of the folder that it is."""
    return Path(os.path.abspath(root)).name or "root"


def natural_key(text: str) -> list[str | int]:
    """Sorts `10` after `9`, and a number before all that may stand in its place, the end too.

    >>> sorted(["b10", "b9", "a", "b"], key=natural_key)
    ['a', 'b9', 'b10', 'b']
    """
    parts: list[str | int] = _NUMBERS.split(text + "\0")
    parts[1::2] = map(int, parts[1::2])
    return parts


def check_memory(name: str, examples: int, image_shape: tuple[int, ...]) -> None:
    """Raises DataError if so many images of a data set, of all its splits, do not fit into memory."""
    check(
        f"{name}: {examples:,} images of {tuple(image_shape)}",
        examples * math.prod(image_shape),
        "Lower data.image_shape, or make a folder of images of it, which is read while it trains.",
    )

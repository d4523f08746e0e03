"""A data set: named splits of images and labels."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerascls.data.contents import of_pixels
from kerascls.errors import DataError, printable
from kerascls.system.memory import Rows, check, empty, parts

if TYPE_CHECKING:
    from kerascls.data.folder import FileImages
from kerascls.system.names import nfc

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


def fit_arrays(images: np.ndarray, image_shape: tuple[int, int, int] | None, resize: str = "stretch") -> np.ndarray:
    """uint8 `(n, h, w, 1 or 3)` brought to `image_shape`, their own where None, by `images`' rules."""
    image_shape = images.shape[1:] if image_shape is None else tuple(image_shape)
    if images.shape[1:] == image_shape and resize != "center_crop":
        return images
    import tensorflow as tf

    from kerascls.images.resize import resize as resized
    from kerascls.images.resize import to_channels

    height, width, channels = image_shape
    out = empty((len(images), *image_shape))
    for at in range(0, len(images), 256):
        batch = tf.constant(images[at : at + 256])
        batch = tf.repeat(batch, 3, axis=-1) if batch.shape[-1] == 1 else batch
        out[at : at + 256] = resized(to_channels(batch, channels), height, width, resize)
    return out


def check_memory(name: str, examples: int, image_shape: tuple[int, ...]) -> None:
    """Raises DataError if so many images of a data set, of all its splits, do not fit into memory."""
    check(
        f"{name}: {examples:,} images of {tuple(image_shape)}",
        examples * math.prod(image_shape),
        "Lower data.image_shape, or make a folder of images of it, which is read while it trains.",
    )

"""Folders of images: `train/`, `validation/` and `test/` of class folders, or plain class folders.

Every file is read and decoded once before training, so what cannot be read is left out with its reason, and never
met in the middle of an epoch. Decoded images stay in memory where they fit; else they are read again when needed. What
was learnt is kept (`_index`), so that a folder that is opened again costs what has changed in it.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kerascls.data.dataset import Dataset, Split, rename
from kerascls.data.folder_index import Index, Rule, digests, readable, store_pixels
from kerascls.data.folder_listing import MOST_NAMED, Listing, list_folder
from kerascls.data.folder_opening import BATCH, decoded_before, examine
from kerascls.errors import DataError, printable
from kerascls.images.files import checked_bytes, read_bytes
from kerascls.images.kinds import image_kind
from kerascls.system.json_files import json_text
from kerascls.system.memory import Rows, fits
from kerascls.system.names import folder_name, natural_key, nfc
from kerascls.system.read_ahead import ahead
from kerascls.system.status import doing


@dataclasses.dataclass(frozen=True, eq=False)
class FileImages:
    """Images that stay in their files. Looks like a uint8 array `(n, height, width, channels)`; an index reads.

    Attributes:
        root: the folder.
        names: paths below it.
        contents: SHA-256 of each file, 32 bytes.
        checksums: `images.checksum` of each file.
        image_shape, background, resize: as `images.read_pixels` takes them.
    """

    root: Path
    names: tuple[str, ...]
    contents: tuple[bytes, ...]
    checksums: tuple[int, ...]
    image_shape: tuple[int, int, int]
    background: tuple[int, int, int]
    resize: str

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.names), *self.image_shape)

    def only(self, chosen: np.ndarray) -> "FileImages":
        """Those at positions `chosen`, unread."""
        fields = {key: tuple(getattr(self, key)[i] for i in chosen) for key in ("names", "contents", "checksums")}
        return dataclasses.replace(self, **fields)

    def on_canvas(self, height: int, width: int) -> "FileImages":
        """The same files, each covering `(height, width)`, its centre cut out."""
        return dataclasses.replace(self, image_shape=(height, width, self.image_shape[2]), resize="cover")

    def __getitem__(self, at: int | slice | np.ndarray) -> np.ndarray:
        """uint8 `image_shape` of one position, `(k, *image_shape)` of several.

        Raises:
            DataError: a file is gone or was changed since the folder was read.
        """
        if isinstance(at, int | np.integer):
            return self._read([at])[0]
        chosen = np.arange(len(self))[at]
        out = np.empty((len(chosen), *self.image_shape), np.uint8)
        done = 0
        for _, images in ahead(chosen, BATCH, self._read):
            out[done : done + len(images)] = images
            done += len(images)
        return out

    def batches(self, size: int, start: int = 0) -> Iterator[np.ndarray]:
        """All from position `start` on, in order, uint8 `(size, *image_shape)` at a time, decoded ahead. Raises as
        reading them does."""
        for _, images in ahead(range(start, len(self)), size, self._read):
            yield np.stack(images)

    def decoded(self) -> np.ndarray:
        """All of them, uint8 `(n, *image_shape)`; what an earlier training decoded is not read again."""
        rule = self.image_shape, self.background, self.resize
        contents = np.frombuffer(b"".join(self.contents), np.uint8).reshape(-1, 32)
        pixels, there = decoded_before(self.root, rule, contents)
        if not there.all():
            missing = np.flatnonzero(~there)
            done = 0
            for images in self.only(missing).batches(BATCH):
                pixels[missing[done : done + len(images)]] = images
                done += len(images)
            store_pixels(self.root, rule, contents, pixels)
        return pixels

    def encoded(self, i: int) -> bytes:
        """The bytes of file `i` as `images.decode` takes them; what `__getitem__` raises.

        What it holds is compared with what it held when the folder was read, as `images.encoded_file` does.
        """
        path = self.root / self.names[i]
        raw = read_bytes(path)
        if hashlib.sha256(raw).digest() != self.contents[i]:
            raise DataError(f"{path}: was changed since the folder was read.")
        return checked_bytes(path, raw) if image_kind(raw) == "tiff" else raw  # it is what was checked

    def _read(self, positions: Sequence[int]) -> list[np.ndarray]:
        from kerascls.images.read import read_batch

        paths = [self.root / self.names[i] for i in positions]
        places = dict(zip(paths, positions, strict=True))
        read = lambda path: self.encoded(places[path])  # noqa: E731
        images = read_batch(paths, self.image_shape, self.background, self.resize, read)
        for image in images:
            if isinstance(image, DataError):
                raise image
        return images


def load_folder(
    root: Path,
    image_shape: tuple[int, int, int] | None,
    background: tuple[int, int, int],
    resize: str,
    cache_mb: int,
    on_bad_image: str,
    max_bad_share: float,
    classes: Sequence[str] = (),
) -> Dataset:
    """Reads a folder of images. What is bad costs its file and a line in `skipped`.

    Args:
        image_shape: (height, width, channels) to bring the images to.
        cache_mb: the decoded images are kept where they take at most so many megabytes (10**6 bytes).
        on_bad_image: "skip" or "error", for files that look like images and cannot be read.
        max_bad_share: of such files among those that look like images, rounded up to whole files.
        classes: names that the caller expects, if any, see `_layout.list_folder`.

    Raises:
        DataError: an image is bad, or more are than may be; there are no class folders, or no `image_shape` is given;
            what `list_folder` raises.
    """
    if image_shape is None:
        raise DataError(
            f"Folder {root} may have images of many sizes. Say which size to bring them to: "
            "--set 'data.image_shape=[64, 64, 3]'"
        )
    with doing(f"listing {folder_name(root)}"):
        listing = list_folder(root, classes)
    files = [file for entries in listing.splits.values() for file, _ in entries]
    rule = tuple(image_shape), tuple(background), resize
    size = math.prod(image_shape) * len(files)
    kept = size <= cache_mb * 10**6 and fits(size)
    index, pixels = examine(root, files, rule, kept, stop=on_bad_image == "error")
    found = _find(root, listing, index, rule, pixels, stop=on_bad_image == "error")
    skipped = [*found.without, *listing.skipped, *found.skipped]  # many files would hide a lost class
    if not found.splits:
        _check_bad(root, found.bad, len(found.bad), max_bad_share)
        first = f" The first of {len(skipped)}: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"Folder {root} has no image that can be read.{first}")
    used = set(np.concatenate([np.unique(split.labels) for split in found.splits.values()]).tolist())
    names = tuple(name for i, name in enumerate(listing.class_names) if i in used)
    _check_lost(root, found.bad, names, classes)
    _check_bad(root, found.bad, sum(map(len, found.splits.values())) + len(found.bad), max_bad_share)
    dataset = Dataset(
        folder_name(root), "folder", listing.class_names, found.splits, skipped=tuple(skipped), notes=listing.notes
    )
    return dataset if len(names) == len(listing.class_names) else rename(dataset, names)


@dataclasses.dataclass
class _Found:
    """What a folder's splits hold.

    Attributes:
        splits: those with images that can be read.
        skipped: files that cannot be read, each with the reason.
        bad: those of them that look like images, each with the reason and its class.
        without: class folders without an image that can be read, each with that as the reason.
    """

    splits: dict[str, Split] = dataclasses.field(default_factory=dict)
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    bad: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    without: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def _find(root: Path, listing: Listing, index: Index, rule: Rule, pixels: np.ndarray | None, stop: bool) -> _Found:
    """The splits of a folder whose files are examined.

    Raises:
        DataError: an image is bad, and `stop` says that none may be.
    """
    found = _Found()
    at = taken = 0  # of all files, and of those that can be read
    for split, entries in listing.splits.items():
        rows = index.rows[at : at + len(entries)]
        for i in np.flatnonzero(~readable(rows)).tolist():
            file, class_name = entries[i]
            reason = index.reason(at + i)
            found.skipped.append((file, reason))
            if rows["image"][i]:
                found.bad.append((file, reason, class_name))
        if found.bad and stop:
            raise DataError(
                f"Folder {root}: {_first_of(found.bad)}. Repair or remove it, or leave out what cannot be read: "
                "--set data.on_bad_image=skip"
            )
        good = np.flatnonzero(readable(rows))
        chosen = [entries[i] for i in good.tolist()]
        if chosen:
            origin = FileImages(
                root,
                tuple(file for file, _ in chosen),
                tuple(digests(rows["content"][good])),
                tuple(rows["checksum"][good].tolist()),
                *rule,
            )
            images = origin if pixels is None else Rows(pixels, np.arange(taken, taken + len(chosen)))
            found.splits[split] = Split(images, _labels(chosen, listing), np.arange(len(chosen)), origin)
        found.without += _folders_without(split, entries, {class_name for _, class_name in chosen})
        at, taken = at + len(entries), taken + len(chosen)
    return found


def _labels(entries: Sequence[tuple[str, str]], listing: Listing) -> np.ndarray:
    ids = {name: i for i, name in enumerate(listing.class_names)}
    return np.array([ids[class_name] for _, class_name in entries], np.int32)


def _folders_without(split: str, entries: Sequence[tuple[str, str]], classes: set[str]) -> list[tuple[str, str]]:
    """The class folders of `entries` whose class is not among `classes`, those with an image that can be read."""
    depth = 1 if split == "all" else 2
    folders = {"/".join(file.split("/")[:depth]) for file, class_name in entries if class_name not in classes}
    return [(folder, "has no image that can be read") for folder in sorted(folders, key=natural_key)]


def _first_of(bad: Sequence[tuple[str, str, str]]) -> str:
    """The first few of files and reasons, each reason by its first sentence."""
    return "; ".join(f"{printable(file)}: {reason.split('. ')[0].rstrip('.')}" for file, reason, _ in bad[:3])


def _check_bad(root: Path, bad: list[tuple[str, str, str]], images: int, max_bad_share: float) -> None:
    if len(bad) > math.ceil(max_bad_share * images):
        needed = math.ceil(1000 * len(bad) / images) / 1000
        raise DataError(
            f"Folder {root}: {len(bad):,} of {images:,} images cannot be read, and data.max_bad_share = "
            f"{max_bad_share:g} allows {math.ceil(max_bad_share * images):,}. The first: {_first_of(bad)}. Repair or "
            f"remove them, or go on without them: --set data.max_bad_share={needed:g}"
        )


def _check_lost(root: Path, bad: list[tuple[str, str, str]], names: tuple[str, ...], classes: Sequence[str]) -> None:
    """Raises DataError for classes that have images, and none that can be read, unless `classes` leave them out."""
    of_class: dict[str, list[tuple[str, str, str]]] = {}
    readable, expected = set(names), set(map(nfc, classes))
    for file, reason, name in bad:
        if name not in readable and (not classes or name in expected):
            of_class.setdefault(name, []).append((file, reason, name))
    if of_class:
        lost = "; ".join(
            f"{name} ({len(files):,} images; {_first_of(files[:1])})" for name, files in [*of_class.items()][:3]
        )
        raise DataError(
            f"Folder {root}: no image can be read of {len(of_class):,} of {len(of_class) + len(names):,} classes: "
            f"{lost}. Convert or repair them, or leave the class out on purpose: data.classes = "
            f"{json_text(names) if len(names) <= MOST_NAMED else '[...]'}"
        )

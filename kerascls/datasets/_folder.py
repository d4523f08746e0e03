"""Folders of images: `train/`, `validation/` and `test/` of class folders, or plain class folders.

Every file is read and decoded once before training, so what cannot be read is left out with its reason, and never
met in the middle of an epoch. Decoded images stay in memory where they fit; else they are read again when needed.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kerascls import devices
from kerascls.datasets import Dataset, Split, natural_key
from kerascls.errors import DataError, printable
from kerascls.formats import checked_bytes, image_kind, looks_like_image, read_bytes
from kerascls.status import doing

SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
SPLITS_FILE = "splits.csv"  # which `kerascls split` writes beside the splits
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # that systems leave in folders, as they do hidden files
_CHUNK = 256  # files between two looks at the results; bounds what waits in memory
_BATCH = 32  # of them that one call into TensorFlow decodes


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds, by names alone.

    `splits` has, for each split ("all" for plain class folders), pairs of a file's path below the folder and its
    class, classes and files in natural order. `skipped` are names that are neither, with the reason.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[tuple[str, str]]]
    skipped: list[tuple[str, str]]


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
            return self._pixels(at)
        chosen = np.arange(len(self))[at]
        out = np.empty((len(chosen), *self.image_shape), np.uint8)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(chosen), _CHUNK):
                for i, pixels in enumerate(pool.map(self._pixels, chosen[start : start + _CHUNK]), start):
                    out[i] = pixels
        return out

    def encoded(self, i: int) -> bytes:
        """The bytes of file `i` as `images.decode` takes them; what `__getitem__` raises.

        What it holds is compared with what it held when the folder was read, as `images.encoded_file` does.
        """
        path = self.root / self.names[i]
        raw = read_bytes(path)
        if hashlib.sha256(raw).digest() != self.contents[i]:
            raise DataError(f"{path}: was changed since the folder was read.")
        return checked_bytes(path, raw) if image_kind(raw) == "tiff" else raw  # it is what was checked

    def _pixels(self, i: int) -> np.ndarray:
        from kerascls.images import decoded_pixels

        path = self.root / self.names[i]
        return decoded_pixels(path, self.encoded(i), self.image_shape, self.background, self.resize)


def load_folder(
    root: Path,
    image_shape: tuple[int, int, int] | None,
    background: tuple[int, int, int],
    resize: str,
    cache_mb: int,
    on_bad_image: str,
    max_bad_share: float,
) -> Dataset:
    """Reads a folder of images. What is bad costs its file and a line in `skipped`.

    Args:
        image_shape: (height, width, channels) to bring the images to.
        cache_mb: the decoded images are kept where they take at most so many megabytes (10**6 bytes).
        on_bad_image: "skip" or "error", for files that look like images and cannot be read.
        max_bad_share: of such files among those that look like images, rounded up to whole files.

    Raises:
        DataError: an image is bad, or more are than may be; there are no class folders, fewer than two classes, a class
            without training images, or no `image_shape` is given.
    """
    if image_shape is None:
        raise DataError(
            f"Folder {root} may have images of many sizes. Say which size to bring them to: "
            "--set 'data.image_shape=[64, 64, 3]'"
        )
    with doing(f"listing {root.name}"):
        listing = list_folder(root)
    devices.start()
    count = sum(len(entries) for entries in listing.splits.values())
    kept = int(np.prod(image_shape)) * count <= cache_mb * 10**6
    skipped, bad = list(listing.skipped), []
    splits = {}
    with doing(f"reading {root.name}", count) as progress:
        for split, entries in listing.splits.items():
            pixels = np.empty((len(entries) if kept else 0, *image_shape), np.uint8)
            files, labels, contents, checksums = [], [], [], []
            for (file, class_name), answer in _read_all(root, entries, image_shape, background, resize):
                progress.step()
                if isinstance(answer, DataError):
                    skipped.append((file, str(answer).removeprefix(f"{root / file}: ")))
                    if looks_like_image(root / file):
                        bad.append(skipped[-1])
                        if on_bad_image == "error":
                            raise DataError(
                                f"Folder {root}: {_told(bad)}. Repair or remove it, or leave out what cannot be read: "
                                "--set data.on_bad_image=skip"
                            )
                    continue
                content, checksum, image = answer
                if kept:
                    pixels[len(files)] = image
                files.append(file)
                contents.append(content)
                checksums.append(checksum)
                labels.append(listing.class_names.index(class_name))
            if files:
                of_files = tuple(files), tuple(contents), tuple(checksums)
                origin = FileImages(root, *of_files, image_shape, background, resize)
                images = pixels[: len(files)] if kept else origin
                splits[split] = Split(images, np.array(labels, np.int32), np.arange(len(files)), origin)
            lost = {class_name for _, class_name in entries} - {listing.class_names[i] for i in labels}
            above = "" if split == "all" else f"{split}/"
            skipped += [(above + name, "has no image that can be read") for name in sorted(lost, key=natural_key)]
    readable = sum(map(len, splits.values()))
    _check_bad(root, bad, readable + len(bad), max_bad_share)
    _check_classes(root, listing.class_names, splits, skipped)
    used = set(np.concatenate([np.unique(split.labels) for split in splits.values()]).tolist())
    dataset = Dataset(root.resolve().name, "folder", listing.class_names, splits, skipped=tuple(skipped))
    if len(used) == len(listing.class_names):
        return dataset
    from kerascls.datasets import rename

    return rename(dataset, tuple(name for i, name in enumerate(listing.class_names) if i in used))


def _read_all(
    root: Path,
    entries: list[tuple[str, str]],
    image_shape: tuple[int, int, int],
    background: tuple[int, int, int],
    resize: str,
) -> Iterator[tuple[tuple[str, str], "tuple[bytes, int, np.ndarray] | DataError"]]:
    """Each entry with its file's SHA-256, checksum and pixels, or with what is wrong with it; in order, in parallel."""
    from kerascls.images import checksum, read_batch

    def read(batch: list[tuple[str, str]]) -> "list[tuple[bytes, int, np.ndarray] | DataError]":
        sums = {}

        def checked(path: Path) -> bytes:
            raw = read_bytes(path)
            sums[path] = hashlib.sha256(raw).digest(), int(checksum(raw))
            return checked_bytes(path, raw)

        paths = [root / file for file, _ in batch]
        answers = read_batch(paths, image_shape, background, resize, checked)
        return [
            answer if isinstance(answer, DataError) else (*sums[path], answer)
            for path, answer in zip(paths, answers, strict=True)
        ]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(entries), _CHUNK):
            chunk = entries[start : start + _CHUNK]
            batches = [chunk[at : at + _BATCH] for at in range(0, len(chunk), _BATCH)]
            yield from zip(chunk, itertools.chain.from_iterable(pool.map(read, batches)), strict=True)


def _told(bad: list[tuple[str, str]]) -> str:
    """The first few of files and reasons, each reason by its first sentence."""
    return "; ".join(f"{printable(file)}: {reason.split('. ')[0].rstrip('.')}" for file, reason in bad[:3])


def _check_bad(root: Path, bad: list[tuple[str, str]], images: int, max_bad_share: float) -> None:
    if len(bad) > math.ceil(max_bad_share * images):
        needed = math.ceil(1000 * len(bad) / images) / 1000
        raise DataError(
            f"Folder {root}: {len(bad):,} of {images:,} images cannot be read, and data.max_bad_share = "
            f"{max_bad_share:g} allows {math.ceil(max_bad_share * images):,}. The first: {_told(bad)}. Repair or "
            f"remove them, or go on without them: --set data.max_bad_share={needed:g}"
        )


def _check_classes(
    root: Path, names: tuple[str, ...], splits: dict[str, Split], skipped: list[tuple[str, str]]
) -> None:
    if not splits:
        first = f" The first of {len(skipped)} files: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"Folder {root} has no image that can be read.{first}")
    used = np.unique(np.concatenate([split.labels for split in splits.values()]))
    if len(used) < 2:
        raise DataError(
            f"Folder {root} has images of one class alone, {names[used[0]]}. A classifier needs at least two class "
            "folders."
        )
    train = splits.get("train")
    without = [names[i] for i in used if train is not None and not (train.labels == i).any()]
    if without:
        raise DataError(f"Folder {root}: train/ has no image of {', '.join(without[:5])}, which other splits have.")


# Listing


def list_folder(root: Path) -> Listing:
    """Classes and files of a folder, by names alone: no file is opened.

    Hidden names and what systems leave in folders are left out silently, links are followed, and files may lie at any
    depth below their class's folder.

    Raises:
        DataError: it has no class folders, or splits beside classes.
    """
    children = _visible(root)
    folders = {child.name: child for child in children if child.is_dir()}
    lost = [child.name for child in children if not child.is_dir() and child.name != SPLITS_FILE]
    skipped = [(name, "lies in no class folder") for name in lost]
    of_split: dict[str, list[Path]] = {}
    for name, folder in folders.items():
        if name.lower() in SPLIT_NAMES:
            of_split.setdefault(SPLIT_NAMES[name.lower()], []).append(folder)
    with_classes = [
        folder for both in of_split.values() for folder in both if any(c.is_dir() for c in _visible(folder))
    ]
    if not with_classes:  # a class may be called `train`
        of_split = {}
    others = [name for name in folders if name.lower() not in SPLIT_NAMES]
    if of_split and others:
        raise DataError(
            f"Folder {root} has {', '.join(folder.name for folder in with_classes)} beside {', '.join(others[:5])}. "
            "Expected train, validation and test, each with class folders, or class folders alone."
        )
    twice = [both for both in of_split.values() if len(both) > 1]
    if twice:
        raise DataError(f"Folder {root} has {' and '.join(f.name for f in twice[0])}, which mean the same. Join them.")
    if of_split:
        classes = {}
        for split, (folder,) in of_split.items():
            inside = _visible(folder)
            skipped += [(f"{folder.name}/{c.name}", "lies in no class folder") for c in inside if not c.is_dir()]
            classes[split] = {child.name: f"{folder.name}/{child.name}" for child in inside if child.is_dir()}
    else:
        classes = {"all": {name: name for name in folders}}
    names = sorted({name for each in classes.values() for name in each}, key=natural_key)
    splits = {}
    for split, each in classes.items():
        entries = []
        for name in names:
            if name in each:
                files = list(_files(root, each[name]))
                if not files:
                    skipped.append((each[name], "has no files"))
                entries += [(file, name) for file in sorted(files, key=natural_key)]
        if entries:
            splits[split] = entries
    filled = {name for entries in splits.values() for _, name in entries}
    if not filled:
        raise DataError(
            f"Folder {root} has no class folders with images. Expected one folder a class (or train, validation and "
            f"test, each with class folders). Received: {', '.join(child.name for child in children[:5]) or 'nothing'}"
        )
    odd = next((name for name in sorted(filled) if not name.isprintable()), None)
    if odd is not None:
        raise DataError(f"Folder {root}: a class folder's name must be printable text. Received: {odd!r}")
    return Listing(tuple(name for name in names if name in filled), splits, skipped)


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(
            (child for child in folder.iterdir() if not child.name.startswith(".") and child.name not in _LITTER),
            key=lambda child: natural_key(child.name),
        )
    except OSError as error:
        raise DataError(f"Folder {folder} cannot be read: {error.strerror}.") from None


def _files(root: Path, below: str) -> Iterator[str]:
    """Paths of the files under `root / below`, at any depth. Links are followed, but each real folder is read once: two
    links that go in loops have as many ways through them as there are numbers."""
    seen: set[tuple[int, int]] = set()
    waiting = collections.deque([below])  # recursion would end in folders that are nested deeply
    while waiting:
        folder = waiting.popleft()
        inside = _visible(root / folder)
        state = os.stat(root / folder)
        if (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        for child in inside:
            path = f"{folder}/{child.name}"
            if child.is_dir():
                waiting.append(path)
            else:
                yield path

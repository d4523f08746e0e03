"""Folders of images: `train/`, `validation/` and `test/` of class folders, or plain class folders.

Every file is read and decoded once before training, so what cannot be read is left out with its reason, and never
met in the middle of an epoch. Decoded images stay in memory where they fit; else they are read again when needed.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kerascls import devices
from kerascls.datasets import Dataset, Split, natural_key
from kerascls.errors import DataError

SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
SPLITS_FILE = "splits.csv"  # which `kerascls split` writes beside the splits
_CHUNK = 256  # files between two looks at the results; bounds what waits in memory


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
        image_shape, background, resize: as `images.read_pixels` takes them.
    """

    root: Path
    names: tuple[str, ...]
    contents: tuple[bytes, ...]
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
        names, contents = tuple(self.names[i] for i in chosen), tuple(self.contents[i] for i in chosen)
        return dataclasses.replace(self, names=names, contents=contents)

    def on_canvas(self, height: int, width: int) -> "FileImages":
        """The same files, each covering `(height, width)`, its centre cut out."""
        return dataclasses.replace(self, image_shape=(height, width, self.image_shape[2]), resize="cover")

    def __getitem__(self, at: int | slice | np.ndarray) -> np.ndarray:
        """uint8 `image_shape` of one position, `(k, *image_shape)` of several.

        Raises:
            DataError: a file is gone or was changed since the folder was read.
        """
        if isinstance(at, int | np.integer):
            return self._read(self.names[at])
        names = self.names[at] if isinstance(at, slice) else [self.names[i] for i in np.asarray(at)]
        out = np.empty((len(names), *self.image_shape), np.uint8)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(names), _CHUNK):
                for i, pixels in enumerate(pool.map(self._read, names[start : start + _CHUNK]), start):
                    out[i] = pixels
        return out

    def _read(self, name: str) -> np.ndarray:
        from kerascls.images import read_pixels

        return read_pixels(self.root / name, self.image_shape, self.background, self.resize)


def load_folder(
    root: Path,
    image_shape: tuple[int, int, int] | None,
    background: tuple[int, int, int],
    resize: str,
    cache_mb: int,
) -> Dataset:
    """Reads a folder of images.

    Args:
        image_shape: (height, width, channels) to bring the images to.
        cache_mb: the decoded images are kept where they take at most so many megabytes (10**6 bytes).

    Raises:
        DataError: there are no class folders, fewer than two classes, a class without training images, or no
            `image_shape` is given.
    """
    if image_shape is None:
        raise DataError(
            f"Folder {root} may have images of many sizes. Say which size to bring them to: "
            "--set 'data.image_shape=[64, 64, 3]'"
        )
    listing = list_folder(root)
    devices.start()
    count = sum(len(entries) for entries in listing.splits.values())
    kept = int(np.prod(image_shape)) * count <= cache_mb * 10**6
    skipped = list(listing.skipped)
    splits = {}
    progress = tqdm(total=count, unit=" files", desc=f"reading {root.name}", delay=2, leave=False, disable=None)
    with progress:
        for split, entries in listing.splits.items():
            pixels = np.empty((len(entries) if kept else 0, *image_shape), np.uint8)
            files, labels, contents = [], [], []
            for (file, class_name), answer in _read_all(root, entries, image_shape, background, resize):
                progress.update()
                if isinstance(answer, DataError):
                    skipped.append((file, str(answer).removeprefix(f"{root / file}: ")))
                    continue
                content, image = answer
                if kept:
                    pixels[len(files)] = image
                files.append(file)
                contents.append(content)
                labels.append(listing.class_names.index(class_name))
            if files:
                origin = FileImages(root, tuple(files), tuple(contents), image_shape, background, resize)
                images = pixels[: len(files)] if kept else origin
                splits[split] = Split(images, np.array(labels, np.int32), np.arange(len(files)), origin)
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
) -> Iterator[tuple[tuple[str, str], "tuple[bytes, np.ndarray] | DataError"]]:
    """Each entry with its file's SHA-256 and pixels, or with what is wrong with it; in order, in parallel."""
    from kerascls.images import checked_bytes, decoded_pixels, read_bytes

    def read(entry: tuple[str, str]) -> "tuple[bytes, np.ndarray] | DataError":
        path = root / entry[0]
        try:
            raw = read_bytes(path)
            pixels = decoded_pixels(path, checked_bytes(path, raw), image_shape, background, resize)
        except DataError as error:
            return error
        return hashlib.sha256(raw).digest(), pixels

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(entries), _CHUNK):
            chunk = entries[start : start + _CHUNK]
            yield from zip(chunk, pool.map(read, chunk), strict=True)


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

    Hidden names are left out silently, links are followed, and files may lie at any depth below their class's folder.

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
                files = list(_files(root, each[name], ()))
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
            (child for child in folder.iterdir() if not child.name.startswith(".")),
            key=lambda child: natural_key(child.name),
        )
    except OSError as error:
        raise DataError(f"Folder {folder} cannot be read: {error.strerror}.") from None


def _files(root: Path, below: str, seen: tuple[str, ...]) -> Iterator[str]:
    """Paths of the files under `root / below`, at any depth. `seen` are the real folders above, against loops."""
    real = os.path.realpath(root / below)
    if real in seen:
        return
    for child in _visible(root / below):
        path = f"{below}/{child.name}"
        if child.is_dir():
            yield from _files(root, path, (*seen, real))
        else:
            yield path

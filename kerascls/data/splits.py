"""Splitting what a data set does not split itself: stratified, seeded, the same every time."""

import collections
import dataclasses
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerascls.data.folder_listing import SPLITS_FILE, list_folder
from kerascls.data.loading import Dataset, Split, nfc
from kerascls.errors import ConfigError, DataError, OutputError, printable
from kerascls.images.files import read_bytes
from kerascls.images.kinds import HEAD_BYTES, refusal
from kerascls.recipes.catalog import nearest
from kerascls.recipes.checks import data_fault
from kerascls.system.atomic_files import atomic, free_name, write_csv
from kerascls.system.status import doing

SPLIT_SEED = 0  # not the run's seed: runs that differ in seed are scored on the same examples


def hold_out(labels: np.ndarray, count: int, seed: int = SPLIT_SEED) -> np.ndarray:
    """Positions of `count` examples to hold out, each class in its share of the whole.

    Shares are rounded down, and the classes with the largest fractions get one more until `count` is reached.

    Args:
        labels: int array of shape `(n,)`.
        count: int in `[0, n]`.
        seed: int.

    Returns:
        int64 array of shape `(count,)`, ascending.

    >>> hold_out(np.array([0, 0, 0, 0, 1, 1]), 3).shape
    (3,)
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * count / len(labels)
    shares = np.floor(exact).astype(int)
    more = np.argsort(shares - exact, kind="stable")[: count - shares.sum()]
    shares[more] += 1
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = [generator.permutation(members)[:share] for members, share in zip(_members(labels), shares, strict=True)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """The positions of each class's examples, ascending, class after class."""
    if not len(labels):
        return []
    by_class = np.argsort(labels, kind="stable")
    return np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)


def with_all_splits(dataset: Dataset, validation: int | float | str, test: int | float = 0.1) -> Dataset:
    """The data set with the splits that training needs.

    What is missing is held out of train; a folder without splits ("all") is divided. Equal images go to the same split,
    and the names of files have no say.

    Args:
        validation: for a data set without a validation split: a count, a fraction below 1 (of what there is before
            anything is held out), 0 for none; "test" takes the test split itself, whatever there is, and holds
            nothing out.
        test: likewise for a data set without a test split.

    Raises:
        DataError: there is no train split, or too few examples are left to train on.
    """
    splits = dict(dataset.splits)
    if "all" in splits:
        splits["train"] = splits.pop("all")
    if "train" not in splits:
        raise DataError(f"{dataset.name} has no train split. It has: {', '.join(splits)}")
    whole = len(splits["train"])

    def divide(name: str, share: int | float) -> None:
        count = share if isinstance(share, int) else max(1, round(share * whole))
        splits["train"], splits[name] = _divide(dataset.name, splits["train"], count, f"data.{name}")

    if "test" not in splits and test:
        divide("test", test)
    if validation == "test":
        if "test" not in splits:
            raise DataError(f'{dataset.name} has no test split for data.validation = "test".')
        splits["validation"] = splits["test"]
    elif "validation" not in splits and validation:
        divide("validation", validation)
    return dataclasses.replace(dataset, splits=splits)


def _divide(name: str, split: Split, count: int, what: str) -> tuple[Split, Split]:
    """`split` without about `count` examples, and those: to the image, but that equal ones stay together."""
    labels, groups = _by_content(split)
    if count >= len(split):
        raise DataError(
            f"{name}: {what} takes {count} of {len(split)} training images, which leaves none to train on. "
            f"Lower {what}."
        )
    different = max(min(count, 1), round(count * len(labels) / len(split)))
    if different >= len(labels):  # almost all are equal: they cannot but be torn apart, which `equal_images` tells
        labels, groups, different = split.labels, np.arange(len(split)), count
    held = np.isin(groups, hold_out(labels, different))
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def _by_content(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The label of each different content, and which of them each example has."""
    _, firsts, groups = np.unique(split.contents, return_index=True, return_inverse=True)
    if split.kind == "pixels":  # in the order in which they come; files in that of contents, so that names have no say
        order = np.argsort(firsts)
        firsts, groups = firsts[order], np.argsort(order)[groups]
    return split.labels[firsts], groups


def folds_of(split: Split, folds: int, seed: int = SPLIT_SEED) -> np.ndarray:
    """The fold of each example, int64 `(n,)` in [0, folds): each class dealt out evenly, equal images together."""
    labels, groups = _by_content(split)
    generator = np.random.Generator(np.random.PCG64(seed))
    by_class = np.concatenate([generator.permutation(members) for members in _members(labels)])
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold[groups]


def equal_images(dataset: Dataset) -> list[str]:
    """Lines on equal images where they mislead: those of other splits that are in train too, and those under two
    labels; each with how many there are, and the first."""
    first = next((name for name in ("train", "all") if name in dataset.splits), next(iter(dataset.splits)))
    splits = {first: dataset.splits[first], **dataset.splits}
    if splits.get("validation") is splits.get("test"):  # data.validation = "test"
        splits.pop("validation", None)
    starts = np.cumsum([0, *map(len, splits.values())])
    labels = np.concatenate([split.labels for split in splits.values()])
    contents = np.concatenate([split.contents for split in splits.values()])
    _, firsts, groups = np.unique(contents, return_index=True, return_inverse=True)
    firsts = firsts[groups]  # the first that is equal to each, in train if any is there

    def told(i: int) -> str:
        name = list(splits)[np.searchsorted(starts, i, "right") - 1]
        path = printable(splits[name].path_of(i - starts[list(splits).index(name)]))
        return path if splits[name].kind == "files" else f"{path} of {name}"

    lines = []
    for name, start in zip(splits, starts, strict=False):
        shared = start + np.flatnonzero(firsts[start : start + len(splits[name])] < starts[1])
        if first == "train" != name and len(shared):
            lines.append(
                f"{len(shared):,} of {len(splits[name]):,} {name} images are in train too, which flatters the scores: "
                f"{told(shared[0])} is {told(firsts[shared[0]])}, for one"
            )
    if len(other := np.flatnonzero(labels != labels[firsts])):
        one, two = firsts[other[0]], other[0]
        lines.append(
            f"{len(other):,} image{' is' if len(other) == 1 else 's are'} under another label too: {told(one)} is "
            f"{dataset.class_names[labels[one]]}, and {told(two)}, which is equal to it, "
            f"{dataset.class_names[labels[two]]}"
        )
    return lines


# Folders: `kerascls split`

_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class SplitFolder:
    """A folder that `split_folder` wrote.

    Attributes:
        path: the folder.
        counts: files by class and split, `{"bear": {"train": 60, "validation": 10, "test": 32}}`.
        skipped: files that were left out, with the reason.
        moved: files that lie in the split of an equal one, in place of that which is theirs by order.
    """

    path: Path
    counts: dict[str, dict[str, int]]
    skipped: list[tuple[str, str]]
    moved: int = 0


def split_folder(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    train: int | float = 0.8,
    validation: int | float = 0.1,
    *,
    order: str = "name",
    seed: int = 0,
    classes: Sequence[str] = (),
    link: bool = False,
) -> SplitFolder:
    """Copies a folder of class folders to `destination`/train, validation and test; each class is split on its own.

    Equal files, of any classes, go where the first of them goes, and count there. `destination`/splits.csv has a row a
    file: split, class, and the path below `source`.

    Args:
        train, validation: files of each class, as counts (int) or as fractions (float below 1); the rest is test.
        order: "name" takes files by name, in natural order; "random" shuffles them first, by `seed`.
        classes: those to keep, all if empty. A class is named as its folder, or without the folder's leading number
            (`bear` for `009.bear`), and is called so in `destination`.
        link: symbolic links to the files in place of copies.

    Raises:
        ConfigError: `train` and `validation` cannot be.
        DataError: `source` has no class folders, or splits already; a class is unknown or has too few images.
        OutputError: `destination` exists or cannot be written. Nothing is left behind.

    >>> result = kerascls.split("my_photos", "my_data", train=0.8, validation=0.1)
    >>> result.counts["bear"]
    {'train': 16, 'validation': 2, 'test': 2}
    """
    source, destination = Path(source), Path(destination)
    _check_shares(train, validation)
    if order not in ("name", "random"):
        raise ConfigError(f"order must be name or random. Received: {order!r}")
    if os.path.lexists(destination):
        raise OutputError(f"{destination} exists already. Remove it, or choose another place.")
    if destination.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{destination} lies inside {source}. Choose a place outside of it.")
    if source.exists() and not source.is_dir():
        raise DataError(data_fault(str(source)) or f"{source} is no folder. Expected a folder with one folder a class.")
    with doing(f"listing {source.name}"):
        listing = list_folder(source, classes, lambda names: f"--classes {shlex.quote(','.join(names))}")
    if "all" not in listing.splits:
        raise DataError(f"Folder {source} is split already: it has {', '.join(listing.splits)}.")
    wanted = _find_classes(source, listing.class_names, classes)
    images: dict[str, list[str]] = {name: [] for name in wanted}
    skipped = list(listing.skipped)
    with doing(f"looking at {source.name}", len(listing.splits["all"]), "files") as progress:
        for file, folder in listing.splits["all"]:
            progress.step()
            if folder in wanted:
                reason = _not_an_image(source / file)
                if reason is None:
                    images[folder].append(file)
                else:
                    skipped.append((file, reason))
    counts = {wanted[folder]: _counts(len(files), train, validation) for folder, files in images.items()}
    few = [name for name, parts in counts.items() if parts["train"] < 1 or min(parts.values()) < 0]
    if few:
        told = ", ".join(f"{name} ({sum(counts[name].values())})" for name in few[:5])
        raise DataError(
            f"Folder {source} has too few images of {told}: train takes {train}, validation {validation}. Lower them, "
            "or leave classes out with --classes."
        )
    rows, moved, home = [], 0, {}
    content = _equal_files(source, [file for files in images.values() for file in files])
    copies = collections.Counter(content.get(file, file) for files in images.values() for file in files)
    with atomic(destination) as temporary, doing(f"filling {destination.name}", copies.total()) as progress:
        for folder, files in images.items():
            places = np.arange(len(files))
            if order == "random":  # each class by itself, so that leaving one out changes no other
                places = np.random.Generator(np.random.PCG64(seed)).permutation(places)
            contents = [content.get(file, file) for file in files]
            alike = collections.Counter(contents)
            left = collections.Counter(counts[wanted[folder]])  # that each split still takes
            left.subtract(home[each] for each in contents if each in home)
            for each in (contents[place] for place in places):
                if each not in home:
                    home[each] = next(split for split in _SPLITS if left[split] > 0)
                    left[home[each]] -= alike[each]
            by_order = np.empty(len(files), object)
            by_order[places] = [split for split, count in counts[wanted[folder]].items() for _ in range(count)]
            counts[wanted[folder]] = {split: sum(home[each] == split for each in contents) for split in _SPLITS}
            for file, split, planned in zip(files, map(home.get, contents), by_order, strict=True):
                progress.step()
                moved += split != planned and copies[content.get(file, file)] > 1
                rows.append((split, wanted[folder], file))
                target = temporary / split / wanted[folder] / file.partition("/")[2]
                target = free_name(target)  # a class may have two folders, whose names are one in NFC
                target.parent.mkdir(parents=True, exist_ok=True)
                if link:
                    target.symlink_to((source / file).resolve())
                else:
                    shutil.copyfile(source / file, target)
        rows.sort(key=lambda row: _SPLITS.index(row[0]))  # stable: classes and files stay in natural order
        write_csv(temporary / SPLITS_FILE, ("split", "class", "file"), rows)
    return SplitFolder(destination, counts, skipped, moved)


def _equal_files(source: Path, files: Sequence[str]) -> dict[str, bytes]:
    """The SHA-256 of files that are as long as another: no others can be equal."""
    lengths = {file: (source / file).stat().st_size for file in files}
    common = collections.Counter(lengths.values())
    found = {}
    with doing(f"comparing the files of {source.name}", len(files), "files") as progress:
        for file in files:
            progress.step()
            if common[lengths[file]] > 1:
                found[file] = hashlib.sha256(read_bytes(source / file)).digest()
    return found


def _check_shares(train: int | float, validation: int | float) -> None:
    counts = isinstance(train, int) and isinstance(validation, int) and train >= 1 and validation >= 0
    fractions = isinstance(train, float) and (isinstance(validation, float) or validation == 0)
    if not counts and not (fractions and 0 < train < 1 and 0 <= validation < 1 and train + validation <= 1 + 1e-9):
        raise ConfigError(
            "train and validation must be two counts, as 60 and 10, or two fractions that make at most 1, as 0.8 and "
            f"0.1; the rest is test. Received: {train} and {validation}"
        )


def _counts(files: int, train: int | float, validation: int | float) -> dict[str, int]:
    """Files in each split. Fractions are rounded at their ends, so that they never take more than there is.

    >>> _counts(7, 0.5, 0.5)
    {'train': 4, 'validation': 3, 'test': 0}
    """
    first = train if isinstance(train, int) else round(train * files)
    both = train + validation if isinstance(train, int) else round((train + validation) * files)
    return {"train": first, "validation": both - first, "test": files - both}


def _find_classes(source: Path, folders: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Each class folder to keep, and what its class is called."""
    if not classes:
        return {folder: folder for folder in folders}
    found: dict[str, str] = {}
    for name in map(nfc, classes):
        short = {folder: re.sub(r"^\d+\.(?=.)", "", folder) for folder in folders}
        matching = [name] if name in short else [folder for folder in folders if short[folder] == name]
        if not matching:
            known = [*folders, *short.values()]
            raise DataError(f"Folder {source} has no class {name!r}.{nearest(name, known)} It has {len(folders)}.")
        if len(matching) > 1:
            raise DataError(f"Folder {source} has {' and '.join(matching)}: class {name!r} may be any of them.")
        if matching[0] in found:
            raise DataError(f"Class {matching[0]} is asked for twice, as {found[matching[0]]!r} and as {name!r}.")
        found[matching[0]] = name
    return {folder: found[folder] for folder in folders if folder in found}


def _not_an_image(path: Path) -> str | None:
    """Why a file is left out, by its first bytes; None for an image."""
    try:
        head = read_bytes(path, HEAD_BYTES)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ").removesuffix(".")
    return refusal(head, path)


def table(result: SplitFolder) -> str:
    """Counts by class and split, as `kerascls split` prints them."""
    whole = {split: sum(parts[split] for parts in result.counts.values()) for split in _SPLITS}
    lines = [f"{'train':>10}{'validation':>12}{'test':>8}  class"]
    for name, row in [*result.counts.items(), ("all", whole)]:
        lines.append(f"{row['train']:>10,}{row['validation']:>12,}{row['test']:>8,}  {name}")
    return "\n".join(lines)


split = split_folder  # as `kerascls.split`, the name of its command

"""Copies a folder of class folders into train, validation and test."""

import collections
import dataclasses
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kerascls.data.folder_listing import SPLITS_FILE, Listing, list_folder
from kerascls.errors import ConfigError, DataError, OutputError
from kerascls.images.files import read_bytes
from kerascls.images.kinds import HEAD_BYTES, refusal
from kerascls.recipes.catalog import nearest
from kerascls.recipes.data_names import data_fault
from kerascls.system.atomic_files import atomic, free_name, write_csv
from kerascls.system.names import nfc
from kerascls.system.status import doing

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
    _check_places(source, destination)
    with doing(f"listing {source.name}"):
        listing = list_folder(source, classes, lambda names: f"--classes {shlex.quote(','.join(names))}")
    if "all" not in listing.splits:
        raise DataError(f"Folder {source} is split already: it has {', '.join(listing.splits)}.")
    wanted = _find_classes(source, listing.class_names, classes)
    images, skipped = _find_images(source, listing, wanted)
    planned = {folder: _counts(len(files), train, validation) for folder, files in images.items()}
    few = [folder for folder, parts in planned.items() if parts["train"] < 1 or min(parts.values()) < 0]
    if few:
        named = ", ".join(f"{wanted[folder]} ({len(images[folder])})" for folder in few[:5])
        raise DataError(
            f"Folder {source} has too few images of {named}: train takes {train}, validation {validation}. Lower them, "
            "or leave classes out with --classes."
        )
    split_of, moved = _deal(images, planned, _equal_files(source, images), None if order == "name" else seed)
    rows = [(split_of[file], wanted[folder], file) for folder, files in images.items() for file in files]
    _fill(destination, source, rows, link)
    counts = {name: dict.fromkeys(_SPLITS, 0) for name in map(wanted.get, images)}
    for split, name, _ in rows:
        counts[name][split] += 1
    return SplitFolder(destination, counts, [*listing.skipped, *skipped], moved)


def _check_places(source: Path, destination: Path) -> None:
    if os.path.lexists(destination):
        raise OutputError(f"{destination} exists already. Remove it, or choose another place.")
    if destination.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{destination} lies inside {source}. Choose a place outside of it.")
    if source.exists() and not source.is_dir():
        raise DataError(data_fault(str(source)) or f"{source} is no folder. Expected a folder with one folder a class.")


def _find_images(
    source: Path, listing: Listing, wanted: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """The images of each wanted class folder, and its other files, each with the reason to skip it."""
    images: dict[str, list[str]] = {folder: [] for folder in wanted}
    skipped = []
    with doing(f"looking at {source.name}", len(listing.splits["all"]), "files") as progress:
        for file, folder in listing.splits["all"]:
            progress.step()
            if folder in wanted:
                reason = _not_an_image(source / file)
                if reason is None:
                    images[folder].append(file)
                else:
                    skipped.append((file, reason))
    return images, skipped


def _deal(
    images: Mapping[str, Sequence[str]],
    planned: Mapping[str, Mapping[str, int]],
    content: Mapping[str, bytes],
    seed: int | None,
) -> tuple[dict[str, str], int]:
    """The split of each file, and how many are moved: they lie with an equal file, not where their order puts them.

    Args:
        images: files by class folder.
        planned: files in each split, by class folder.
        content: the SHA-256 of files that may be equal.
        seed: shuffles each class; None takes files by name.
    """
    split_of: dict[str, str] = {}
    home: dict[str | bytes, str] = {}  # the split of each content
    moved = 0
    copies = collections.Counter(content.get(file, file) for files in images.values() for file in files)
    for folder, files in images.items():
        places = np.arange(len(files))
        if seed is not None:  # each class by itself, so that leaving one out changes no other
            places = np.random.Generator(np.random.PCG64(seed)).permutation(places)
        contents = [content.get(file, file) for file in files]
        alike = collections.Counter(contents)
        left = collections.Counter(planned[folder])  # that each split still takes
        left.subtract(home[each] for each in contents if each in home)
        for each in (contents[place] for place in places):
            if each not in home:
                home[each] = next(split for split in _SPLITS if left[split] > 0)
                left[home[each]] -= alike[each]
        by_order = np.empty(len(files), object)
        by_order[places] = [split for split, count in planned[folder].items() for _ in range(count)]
        for file, each, split in zip(files, contents, by_order, strict=True):
            split_of[file] = home[each]
            moved += home[each] != split and copies[each] > 1
    return split_of, moved


def _fill(destination: Path, source: Path, rows: Sequence[tuple[str, str, str]], link: bool) -> None:
    """Copies, or links, each file to its place, and writes splits.csv; `rows` are split, class and file."""
    with atomic(destination) as temporary, doing(f"filling {destination.name}", len(rows)) as progress:
        for split, class_name, file in rows:
            progress.step()
            target = temporary / split / class_name / file.partition("/")[2]
            target = free_name(target)  # a class may have two folders, whose names are one in NFC
            target.parent.mkdir(parents=True, exist_ok=True)
            if link:
                target.symlink_to((source / file).resolve())
            else:
                shutil.copyfile(source / file, target)
        rows = sorted(rows, key=lambda row: _SPLITS.index(row[0]))  # stable: classes and files stay in natural order
        write_csv(temporary / SPLITS_FILE, ("split", "class", "file"), rows)


def _equal_files(source: Path, images: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """The SHA-256 of files that are as long as another: no others can be equal."""
    files = [file for files in images.values() for file in files]
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

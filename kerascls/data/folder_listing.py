"""How a folder of images is understood, by names alone: its splits, its classes and their files.

What a folder means is settled here, and refused where it may mean two things. No file is opened.
"""

import collections
import dataclasses
import os
import posixpath
import re
import shlex
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from kerascls.errors import DataError, printable
from kerascls.images.kinds import SUFFIXES, unread_suffix
from kerascls.recipes.catalog import names_beside, nearest
from kerascls.system.json_files import json_text
from kerascls.system.names import is_system, natural_key, nfc

SPLITS_FILE = "splits.csv"  # which `kerascls split` writes beside the splits
_WORDS = {  # what split folders are called, without case, separators, numbers and fillers
    "train": r"train|training|trn|trainval|traindev",
    "validation": r"val|valid|validation|validate|validating|eval|evaluation|dev|devel|development",
    "test": r"test|tests|testing|tst|holdout|heldout",
}
_FILLERS = r"(?:data|dataset|set|split|images?|imgs?|pics?|pictures?|photos?|samples?|examples?|folder|dir|files?)"
_NAMED = {
    split: re.compile(rf"{_FILLERS}*(?:{words}){_FILLERS}*") for split, words in _WORDS.items()
}  # held against a name without separators, so that Train_Data, trainset and images-train-2017 are found
MOST_NAMED = 20  # class names in a command that an error spells out
_EXPECTED = "Expected train, validation and test, each with class folders, or class folders alone."


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        class_names: in NFC, so that names that look alike are one class.
        splits: for each split ("all" for plain class folders), pairs of a file's path below the folder and its class,
            classes and files in natural order.
        skipped: names that are neither, with the reason; folders of classes first, which many files would hide.
        notes: what may be meant otherwise, in lines.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[tuple[str, str]]]
    skipped: list[tuple[str, str]]
    notes: tuple[str, ...] = ()


def split_meant(names: Sequence[str]) -> dict[str, str]:
    """Those of some folders' names that mean a split, with the split. What all of them share has no say.

    >>> split_meant(["Train_Data", "TestImages", "valid", "invalid", "contest"])
    {'Train_Data': 'train', 'TestImages': 'test', 'valid': 'validation'}
    >>> split_meant(["seg_train", "seg_test"])
    {'seg_train': 'train', 'seg_test': 'test'}
    """
    words = {name: _words(name) for name in names}
    shared = set.intersection(*map(set, words.values())) if len(names) > 1 else set()
    meant = {}
    for name, parts in words.items():
        for rest in ("".join(parts), "".join(part for part in parts if part not in shared)):
            found = [split for split, pattern in _NAMED.items() if pattern.fullmatch(rest)]
            if found:
                meant[name] = found[0]
                break
    return meant


def _words(name: str) -> list[str]:
    """`Train_Data2` as train, data: parted at separators, digits, and where a capital begins."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    return re.findall(r"[^\W\d_]+", parted.casefold())


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


class _Tree:
    """Names in a folder and below, each folder read once."""

    def __init__(self, root: Path):
        self.root = root
        self._read: dict[str, tuple[list[str], list[str]]] = {}

    def inside(self, below: str = "") -> tuple[list[str], list[str]]:
        """Names of the folders and of the files in a folder, in any order, without what systems leave there."""
        if below not in self._read:
            folders, files = [], []
            path = self.root / below
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        if not is_system(entry.name):
                            (folders if _is_folder(entry) else files).append(entry.name)
            except OSError as error:
                near = "" if path.exists() else nearest(str(path), names_beside(str(path)))
                raise DataError(f"Folder {path} cannot be read: {error.strerror}.{near}") from None
            self._read[below] = folders, files
        return self._read[below]

    def files(self, below: str) -> list[str]:
        """Paths of the files below a folder, at any depth, in natural order. Links are followed, but each real folder
        is read once: two links that go in loops have as many ways through them as there are numbers."""
        found: list[str] = []
        seen: set[tuple[int, int]] = set()
        waiting = collections.deque([below])  # recursion would end in folders that are nested deeply
        while waiting:
            folder = waiting.popleft()
            folders, files = self.inside(folder)
            state = os.stat(self.root / folder)
            if (state.st_dev, state.st_ino) not in seen:
                seen.add((state.st_dev, state.st_ino))
                waiting += [f"{folder}/{name}" for name in sorted(folders, key=natural_key)]
                found += [f"{folder}/{name}" for name in files]
            self._read.pop(folder)  # of a million files, names alone take much memory
        return sorted(found, key=natural_key)


def _as_set(names: Sequence[str]) -> str:
    return "--set " + shlex.quote(f"data.classes={json_text(names)}")


def list_folder(root: Path, known: Collection[str] = (), option: Callable[[Sequence[str]], str] = _as_set) -> Listing:
    """Classes and files of a folder, by names alone: no file is opened.

    Hidden names and what systems leave in folders are left out silently, links are followed, and files may lie at any
    depth below their class's folder.

    Args:
        known: class names that the caller expects, if any. Where folders are called so, they are the classes, whatever
            their names or what lies in them may mean otherwise.
        option: what states them on a command line, for errors.

    Raises:
        DataError: it has no class folders, or may be meant otherwise: splits beside classes, the folder above a data
            set, splits under other names.
    """
    tree = _Tree(root)
    folders, files = (sorted(names, key=natural_key) for names in tree.inside())
    known = {nfc(name) for name in known}
    skipped = [(name, "lies in no class folder") for name in files if name != SPLITS_FILE]
    of_split = {} if _expected(folders, known) else _splits(tree, folders, option)
    if of_split:
        classes: dict[str, list[str]] = {}
        for split, folder in of_split.items():
            inside, lost = (sorted(names, key=natural_key) for names in tree.inside(folder))
            skipped += [(f"{folder}/{name}", "lies in no class folder") for name in lost]
            classes[split] = [f"{folder}/{name}" for name in inside]
        skipped += [(name, "has no images") for name in folders if name not in of_split.values()]
    else:
        classes = {"all": folders}
    splits, empty = {}, []
    for split, paths in classes.items():
        entries = []
        for path in sorted(paths, key=lambda path: natural_key(nfc(path))):
            found = tree.files(path)
            if not found:
                empty.append((path, "has no files"))
            entries += [(file, nfc(path.rpartition("/")[2])) for file in found]
        if entries:
            splits[split] = entries
    filled = {name for entries in splits.values() for _, name in entries}
    if not filled:
        raise DataError(_nothing(root, folders, files))
    odd = next((name for name in sorted(filled) if not name.isprintable()), None)
    if odd is not None:
        raise DataError(f"Folder {root}: a class folder's name must be printable text. Received: {odd!r}")
    notes: list[str] = []
    if not _expected(filled, known):
        if not of_split and len(folders) > 1 and len(meant := split_meant(folders)) == len(folders):
            notes.append(
                f"{_listed(folders)} are taken for classes, since images lie in them. If they are splits "
                f"({', '.join(meant.values())}), put their images into one folder a class"
            )
        for split, entries in splits.items():
            notes += _check_level(root, of_split.get(split, ""), [file for file, _ in entries], option)
    return Listing(tuple(sorted(filled, key=natural_key)), splits, [*empty, *skipped], tuple(notes))


def _expected(names: Iterable[str], known: set[str]) -> bool:
    names = {nfc(name) for name in names}
    return bool(known) and (names <= known or known <= names)


def _nothing(root: Path, folders: list[str], files: list[str]) -> str:
    """What to say of a folder without class folders that have files."""
    said = (
        f"Folder {root} has no class folders with images. Expected one folder a class (or train, validation and test, "
        f"each with class folders). Received: {', '.join(map(printable, [*folders, *files][:5])) or 'nothing'}"
    )
    if any(map(_is_image, files)):
        above = os.path.normpath(root / "..")
        said += (
            f". If {os.path.basename(os.path.abspath(root))} is one class of several, name the folder above: {above}"
        )
    return said


def _is_image(path: str) -> bool:
    """By its name alone."""
    return path.lower().endswith(SUFFIXES) or unread_suffix(path) is not None


def _splits(tree: _Tree, folders: list[str], option: Callable[[Sequence[str]], str]) -> dict[str, str]:
    """The folder of each split; empty where the folders are classes.

    Raises:
        DataError: there are other folders beside splits, or two for one split.
    """
    meant = split_meant(folders)
    # A class may be called `train`: then images lie in it, and not only a stray one beside class folders.
    with_classes = [name for name in meant if sum(map(_is_image, tree.inside(name)[1])) < len(tree.inside(name)[0])]
    if not with_classes:
        return {}
    of_split: dict[str, list[str]] = {}
    for name, split in meant.items():
        of_split.setdefault(split, []).append(name)
    others = [name for name in folders if name not in meant]
    if others and (len(of_split) == 1 or any(_is_image(file) for name in others for file in tree.files(name))):
        hint = f" Move {_listed(others)} elsewhere."
        for name, below in _by_class(tree.files(with_classes[0]), "").items() if len(with_classes) == 1 else ():
            folder, counts = _inner(name, below)
            if len(counts) > 1:
                hint = f" {folder} has no images of its own but {_counted(counts)}: did you mean {tree.root / folder}?"
        raise DataError(
            f"Folder {tree.root} has {_listed(with_classes)} beside {_listed(others)}. {_EXPECTED}{hint}"
            f"{_if_classes(folders, option)}"
        )
    for split, both in of_split.items():
        if len(both) > 1:
            raise DataError(f"Folder {tree.root} has {_listed(both)}, which mean the same, {split}. Join them.")
    return {split: name for split, (name,) in of_split.items()}


def _check_level(root: Path, split: str, files: list[str], option: Callable[[Sequence[str]], str]) -> list[str]:
    """Whether classes are where they seem to be, one level below the folder, or below its split.

    Returns:
        lines to tell, where another level is likely.

    Raises:
        DataError: it is more than likely.
    """
    by_class = _by_class(files, split)
    names = [name.rpartition("/")[2] for name in by_class]
    inner = {name: found for name, below in by_class.items() if len((found := _inner(name, below))[1]) > 1}
    if not inner or split and len(names) > 1:  # what splits hold are classes
        return []
    best = max(inner, key=lambda name: sum(inner[name][1].values()))
    folder, counts = inner[best]
    has = f"{folder} has no images of its own but {_counted(counts)}"
    of_splits = next((found for found in inner.values() if len(split_meant([*found[1]])) == len(found[1])), None)
    if of_splits and not split:
        folder, counts = of_splits
        raise DataError(f"Folder {root}: {folder} has {_counted(counts)}, as splits are: did you mean {root / folder}?")
    if any(name in below for name, below in by_class.items()):
        return [f"{has}: all are of class {best}. If those are the classes: {root / folder}"]
    one = f"Folder {root} has images of one class alone, {names[0]}. " if len(names) == 1 else f"Folder {root}: "
    if split:
        raise DataError(f"{one}{has}. If those are the classes, move them up into {split}.")
    say = _if_classes(names, option)
    within = [{path.split("/")[1] for path in below} for below in by_class.values()]
    if len(names) > 1 and len(within[0]) > 1 and all(each == within[0] for each in within):
        raise DataError(
            f"Folder {root} has {_listed(names)}, each with {_listed(sorted(within[0], key=natural_key))} and no "
            f"images of its own. If they are splits, rename them train, validation and test.{say}"
        )
    raise DataError(f"{one}{has}: did you mean {root / folder}?{say if len(names) > 1 else ''}")


def _if_classes(names: Sequence[str], option: Callable[[Sequence[str]], str]) -> str:
    """What to do where folders are the classes, for errors."""
    return f" If {_listed(names)} are the classes, say so: {option(names if len(names) <= MOST_NAMED else ['...'])}"


def _by_class(files: Iterable[str], split: str) -> dict[str, collections.Counter[str]]:
    """For each class folder, each folder in it that has images, itself among them, and how many; of any files where
    no name is that of an image."""
    folders: dict[bool, collections.Counter[str]] = {True: collections.Counter(), False: collections.Counter()}
    for file in files:
        folders[_is_image(file)][file.rpartition("/")[0]] += 1
    by_class: dict[str, collections.Counter[str]] = {}
    for folder, count in (folders[True] or folders[False]).items():
        depth = 2 if split else 1
        by_class.setdefault("/".join(folder.split("/")[:depth]), collections.Counter())[folder] = count
    return by_class


def _inner(name: str, below: collections.Counter[str]) -> tuple[str, collections.Counter[str]]:
    """The deepest folder under which all of a class's images lie, and how many are in each of its folders; in none
    where some lie in itself."""
    common = posixpath.commonpath(below) if len(below) > 1 else next(iter(below), name)
    folders: collections.Counter[str] = collections.Counter()
    if common not in below:
        for folder, count in below.items():
            folders[folder[len(common) + 1 :].partition("/")[0]] += count
    return common, folders


def _counted(folders: collections.Counter[str]) -> str:
    """`folders cat (700) and dog (699)`, the first few of them."""
    return f"folders {_listed(f'{name} ({folders[name]:,})' for name in sorted(folders, key=natural_key))}"


def _listed(names: Iterable[str], most: int = 5) -> str:
    """`a, b and c`; of many, the first few and how many more.

    >>> _listed("abc"), _listed("abcdefgh", 2)
    ('a, b and c', 'a, b and 6 more')
    """
    shown = [printable(name) for name in names]
    if len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most:,} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)

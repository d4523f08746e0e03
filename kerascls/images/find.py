"""Finds the image files below the paths that a user gives."""

import collections
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kerascls.errors import DataError
from kerascls.images.kinds import SUFFIXES, UNREAD_KINDS, unread_suffix
from kerascls.system.names import is_system, natural_key


def image_files(paths: Sequence[str | Path], tell: Callable[[str], None] = lambda line: None) -> list[str]:
    """Files as given; of a folder, all files below it with an image's suffix, in natural order, hidden ones left out.

    `tell` takes a line for each folder with files of other suffixes: how many of each kind are passed over.

    Raises:
        DataError: a path does not exist, or a folder has no images.
    """
    files: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            before, passed_over = len(files), collections.Counter()
            for file in _files_below(str(path)):
                if file.lower().endswith(SUFFIXES):
                    files.append(file)
                else:
                    passed_over[_kind_by_name(file)] += 1
            if len(files) == before:
                raise DataError(
                    f"Folder {path} has no images. Expected files ending in {', '.join(SUFFIXES)}. "
                    f"Received: {_counted(passed_over) or 'no files'}"
                )
            if passed_over:
                tell(f"Passed over in {path}: {_counted(passed_over)}")
        elif not path.exists():
            raise DataError(f"Image {path} does not exist.")
        else:
            files.append(str(path))
    return files


def _kind_by_name(file: str) -> str:
    return unread_suffix(file) or os.path.splitext(file)[1].lower() or "without a suffix"


def _counted(kinds: collections.Counter[str]) -> str:
    """How many files of each kind there are, images first, and what to do about those."""
    images = [kind for kind in sorted(kinds) if kind in UNREAD_KINDS]
    others = sorted(kinds.keys() - images, key=lambda kind: (-kinds[kind], kind))
    told = [f"{kinds[kind]:,} {kind}" for kind in [*images, *others[:8]]]
    if len(others) > 8:
        told.append(f"{sum(kinds[kind] for kind in others[8:]):,} of other kinds")
    advice = f" kerascls does not read {', '.join(images)}: convert them to JPEG or PNG." if images else ""
    return f"{', '.join(told)}.{advice}" if told else ""


def _files_below(folder: str) -> Iterator[str]:
    """Files in the natural order of their whole paths, a folder's names at a time: keys of all take much memory."""
    waiting = [os.path.join(folder, "")]  # folders end in a slash; recursion would end in folders nested deeply
    while waiting:
        path = waiting.pop()
        if not path.endswith("/"):
            if os.path.isfile(path):
                yield path
            continue
        try:
            names = {entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in os.scandir(path)}
        except OSError as error:
            raise DataError(f"Folder {path[:-1]} cannot be read: {error.strerror}.") from None
        seen = sorted((name for name in names if not is_system(name.rstrip("/"))), key=natural_key, reverse=True)
        waiting += [path + name for name in seen]

"""The cache: what a frozen backbone computed once, and what folders of images were found to hold.

An entry is a folder named by what it depends on, with `key.json`. One of features has `features.npy`, float32
`(n, *feature_shape)`; rows are appended to `features.part` as they are computed, so what was interrupted goes on from
there. What those of folders have, `datasets/_index.py` says. All share one limit.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from kerascls.errors import ConfigError, DataError, OutputError
from kerascls.system.atomic_files import alone, write_json
from kerascls.system.json_files import fault, read_json

CACHE_MB = 20_000  # 10**6 bytes, where KERASCLS_CACHE_MB says nothing: ResNet50's features of 2.4 million images
FEATURES, FOLDERS = "features", "folders"  # kinds of entries, and the folders that they lie in
_PART, _DONE, _KEY, _LOCKS = "features.part", "features.npy", "key.json", "locks"


def cache_folder() -> Path:
    """$KERASCLS_CACHE, else $XDG_CACHE_HOME/kerascls, else ~/.cache/kerascls."""
    given = os.environ.get("KERASCLS_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kerascls"


def cache_limit() -> int:
    """Bytes, from $KERASCLS_CACHE_MB."""
    text = os.environ.get("KERASCLS_CACHE_MB", str(CACHE_MB))
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"KERASCLS_CACHE_MB must be a whole number of megabytes. Received: {text!r}")
    return int(text) * 10**6


@dataclasses.dataclass(frozen=True)
class Entry:
    """One folder of the cache."""

    path: Path

    @classmethod
    def of(cls, key: dict[str, Any], kind: str = FEATURES) -> "Entry":
        text = json.dumps(key, sort_keys=True)
        return cls(cache_folder() / kind / hashlib.sha256(text.encode()).hexdigest()[:20])

    @property
    def lock(self) -> Path:
        """Beside the entries, so that it stays when one goes: who waits for it then has the same as who comes later."""
        return self.path.parent / _LOCKS / self.path.name

    @property
    def complete(self) -> bool:
        return (self.path / _DONE).is_file()

    @property
    def files(self) -> list[os.stat_result]:
        """What its files are, but for those that another process removes meanwhile."""
        found = []
        with contextlib.suppress(OSError):
            for file in self.path.iterdir():
                with contextlib.suppress(OSError):
                    found.append(file.stat())
        return found

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.st_size for file in self.files)

    @property
    def used(self) -> float:
        """When it was last read or written, in seconds since 1970."""
        return max((file.st_mtime for file in self.files), default=0.0)

    def about(self) -> dict[str, Any]:
        """Its key.json: what it depends on, and for people `what` and `images`. {} if that is damaged."""
        try:
            told = read_json((self.path / _KEY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {} if fault(told, {"view?": int}) else told

    def describe(self, about: dict[str, Any]) -> None:
        """Writes what `about` tells."""
        write_json(self.path / _KEY, about)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes; a second one waits, and says so."""
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(alone(self.lock, "Another process computes these features: waiting for it."))
                self.path.mkdir(exist_ok=True)
            except OSError as error:
                raise _cannot_write(self.path, error) from None
            yield

    @contextlib.contextmanager
    def appending(self, shape: tuple[int, ...], key: dict[str, Any], chunk: int) -> Iterator[tuple[Any, int]]:
        """A file to append rows to, and how many it has: whole chunks, whatever was cut off. Complete at the end."""
        part = self.path / _PART
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        head, row = header.getvalue(), 4 * math.prod(shape[1:])
        try:
            self.describe(key)
            with part.open("r+b" if part.exists() else "w+b") as file:
                if file.read(len(head)) != head:
                    file.seek(0)
                    file.write(head)
                done = max(0, part.stat().st_size - len(head)) // row // chunk * chunk
                file.seek(len(head) + done * row)
                file.truncate()
                yield file, done
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path / _DONE)
        except OSError as error:
            raise _cannot_write(self.path, error) from None

    def read(self, shape: tuple[int, ...]) -> np.ndarray:
        """The rows, mapped to the file.

        Raises:
            DataError: they are not what was written.
        """
        try:
            rows = np.load(self.path / _DONE, mmap_mode="r", allow_pickle=False)
            self.touch()
        except (OSError, ValueError) as error:
            raise DataError(
                f"Cached features {self.path} are damaged ({error}). `kerascls features --clear`."
            ) from None
        if rows.shape != shape or rows.dtype != np.float32:
            raise DataError(f"Cached features {self.path} are damaged. `kerascls features --clear` removes them.")
        return rows

    def touch(self) -> None:
        """It was used now: the entry that was not for longest goes first."""
        with contextlib.suppress(OSError):
            os.utime(self.path / _KEY)

    def remove(self) -> bool:
        """Whether it could be: one that a process works on stays."""
        try:
            self.lock.parent.mkdir(exist_ok=True)
            with filelock.FileLock(self.lock).acquire(timeout=0):
                shutil.rmtree(self.path, ignore_errors=True)
        except (filelock.Timeout, OSError):
            return False
        return not self.path.exists()


def _cannot_write(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"Features cannot be kept in {path.parent}: {reason}. Set KERASCLS_CACHE to a folder with room, or leave out "
        "features.views."
    )


def entries() -> list[Entry]:
    """All of the cache, the one used last first."""
    folders = [folder for kind in (FEATURES, FOLDERS) if (folder := cache_folder() / kind).is_dir()]
    found = [Entry(path) for folder in folders for path in folder.iterdir() if path.name != _LOCKS and path.is_dir()]
    used = [(entry.used, entry) for entry in found if entry.files]
    return [entry for _, entry in sorted(used, key=lambda one: -one[0])]


def make_room(size: int, *wanted: Entry) -> None:
    """Removes entries, those not used for longest first, until the `wanted` ones, `size` bytes together, are within the
    limit. None of them is removed for another.

    Raises:
        OutputError: it cannot be, whatever is removed.
    """
    limit = cache_limit()
    if size > limit:
        raise OutputError(
            f"Features would take {size / 1e6:,.0f} MB, and the cache is limited to {limit / 1e6:,.0f}. Set "
            "KERASCLS_CACHE_MB higher, lower features.views, or leave it out."
        )
    others = [entry for entry in entries() if entry not in wanted]
    total = sum(entry.size for entry in others)
    while others and total + size > limit:
        oldest = others.pop()
        taken = oldest.size
        if oldest.remove():
            total -= taken


def clear() -> tuple[int, int]:
    """Removes what no process works on. Returns how many entries were removed, and how many bytes."""
    sizes = [(entry.size, entry.remove()) for entry in entries()]
    return sum(removed for _, removed in sizes), sum(size for size, removed in sizes if removed)


def table() -> str:
    """What the cache holds, a line an entry, as `kerascls features` prints it."""
    found = entries()
    total = sum(entry.size for entry in found)
    lines = [f"{cache_folder()}: {total / 1e6:,.1f} of {cache_limit() / 1e6:,.0f} MB"]
    for entry in found:
        about = entry.about()
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        told = [about.get("what", entry.path.name), f"{about.get('images', '?')} images"]
        if entry.path.parent.name == FEATURES:
            told.insert(1, f"view {about.get('view', 0) + 1}")
            told.append(about.get("precision", "?") + ("" if entry.complete else "  (not complete)"))
        lines.append(f"{entry.size / 1e6:>10,.1f} MB  {day}  {', '.join(told)}")
    return "\n".join(lines)

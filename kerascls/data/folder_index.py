"""What the last opening of a folder learnt of its files, kept in the cache, so that the next one reads what changed.

A folder has an index: of each file its state (size, times, inode), its SHA-256 and checksum, and why it is no image, if
it is none. For each size and rule by which its images were decoded and kept in memory, it also has their pixels, by
content. Both are bound to the code that made them. What is damaged, of other code or cannot be written is gone without:
nothing here raises for the sake of the cache.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerascls.errors import OutputError, printable
from kerascls.system.atomic_files import atomic
from kerascls.system.cache import FOLDERS, Entry, cache_limit, make_room
from kerascls.system.names import folder_name

TICK = 20_000_000  # ns; a file system's clock goes by steps of at most 10 ms
_COARSE_TICK = 2_000_000_000  # ns; of those that tell times in whole seconds, FAT's in two
_FREE_SHARE = 4  # what is written must leave so many times its size free
_ROW = np.dtype(
    [
        ("state", "<i8", 4),
        ("content", "u1", 32),
        ("checksum", "<i8"),
        ("reason", "<i4"),
        ("image", "?"),
    ]
)
_INDEX, _PIXELS = "index.npz", "pixels.npz"
READABLE = -1  # as a row's `reason`

State = tuple[int, int, int, int]
Rule = tuple[tuple[int, int, int], tuple[int, int, int], str]  # image shape, background, rule of resizing
UNSETTLED: State = (-1, 0, 0, 0)  # of a file of which nothing lasting can be said


def state_of(path: str | os.PathLike) -> State:
    """By which a file is known not to have changed: size, times of writing and of change (ns), inode. A program can set
    the first time, and no program the second (but for Windows, where it is the time of creation)."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return UNSETTLED
    inode = found.st_ino if found.st_ino < 2**63 else found.st_ino - 2**64  # of some network drives
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, inode


def states_before_reading(paths: Sequence[str | os.PathLike]) -> list[State]:
    """The state of each file, taken before it is read; `UNSETTLED` where a change meanwhile might leave no trace in it,
    since the last one is not older than a tick of the file system's clock.

    Waits for a tick of a fine clock where that makes a difference.
    """
    states = [state_of(path) for path in paths]
    now = time.time_ns()
    if wait := max((until - now for until in map(_settled_from, states) if 0 < until - now <= TICK), default=0):
        time.sleep(wait / 1e9)
        states = [state_of(path) for path in paths]
        now = time.time_ns()
    return [state if _settled_from(state) <= now else UNSETTLED for state in states]


def _settled_from(state: State) -> int:
    """When, in ns, another change would show in a state."""
    changed = state[2 if os.name == "posix" else 1]
    return changed + (TICK if changed % 10**9 else _COARSE_TICK)


def readable(rows: np.ndarray) -> np.ndarray:
    """Of an index's rows, which are images, bool `(n,)`."""
    return rows["reason"] == READABLE


@dataclasses.dataclass(eq=False)
class Index:
    """What is known of a folder's files.

    Attributes:
        root: the folder.
        names: paths below it.
        rows: of each file what was learnt: `content` (SHA-256), `checksum`, `reason` (a position in `reasons`, or
            READABLE), `image` (whether it looks like one).
        known: whether that still holds, bool `(n,)`.
        reasons: why files could not be read.
    """

    root: Path
    names: list[str]
    rows: np.ndarray
    known: np.ndarray
    reasons: list[str]
    changed: bool = True

    @classmethod
    def of(cls, root: Path, names: list[str]) -> "Index":
        """Of the files `names` below `root`: what an earlier opening learnt, of those that are as they were."""
        cache_limit()  # raises what is wrong with it before a long pass, not after
        rows = np.zeros(len(names), _ROW)
        rows["reason"] = READABLE
        index = cls(root, names, rows, np.zeros(len(names), bool), [])
        if found := _opened(_entry(root, "files"), _INDEX):
            index._take(found)
        return index

    def _take(self, found: dict[str, np.ndarray]) -> None:
        """Takes over what is still true of what was written."""
        was, told, rows = _parted(found["names"]), _parted(found["reasons"]), found["rows"]
        states = np.array([state_of(f"{self.root}{os.sep}{name}") for name in self.names], np.int64).reshape(-1, 4)
        if was == self.names:
            here, there = np.arange(len(was)), np.arange(len(was))
        else:
            place = {name: i for i, name in enumerate(was)}
            there = np.array([place.get(name, -1) for name in self.names], np.int64)
            here = np.flatnonzero(there >= 0)
            there = there[here]
        same = (states[here] == rows["state"][there]).all(1) & (states[here, 0] >= 0)
        self.rows[here[same]] = rows[there[same]]
        self.known[here[same]] = True
        self.reasons = told
        self.changed = was != self.names or not same.all()

    def learn(self, i: int, state: State, content: bytes, checksum: int) -> None:
        """File `i` can be read, and holds `content`."""
        self.rows[i] = (state, np.frombuffer(content, np.uint8), checksum, READABLE, True)
        self.known[i] = state != UNSETTLED
        self.changed = True

    def refuse(self, i: int, state: State, reason: str, image: bool) -> None:
        """File `i` cannot be read, which holds as long as its `state` does: UNSETTLED for a `reason` that may pass."""
        reason = reason.replace("\0", " ")  # by which they are parted
        if reason not in self._places:
            self._places[reason] = len(self.reasons)
            self.reasons.append(reason)
        self.rows[i] = (state, 0, 0, self._places[reason], image)
        self.known[i] = state != UNSETTLED
        self.changed = True

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {reason: i for i, reason in enumerate(self.reasons)}

    def reason(self, i: int) -> str | None:
        """Why file `i` cannot be read; None where it can."""
        at = self.rows["reason"][i]
        return None if at == READABLE else self.reasons[at]

    def keep(self) -> None:
        """Writes what is known, if anything of it is new."""
        if not self.changed:
            return
        chosen = np.flatnonzero(self.known)
        names = self.names if len(chosen) == len(self.names) else [self.names[i] for i in chosen]
        arrays = {"names": _joined(names), "rows": self.rows[chosen], "reasons": _joined(self.reasons)}
        about = {"what": f"files of {printable(folder_name(self.root))}", "images": len(names)}
        self.changed = not _write(_entry(self.root, "files"), _INDEX, arrays, about)


def stored_pixels(root: Path, rule: Rule) -> tuple[np.ndarray, np.ndarray] | None:
    """SHA-256 `(n, 32)` and pixels `(n, *image_shape)` of what was decoded by `rule` before; None where nothing was."""
    found = _opened(_entry(root, rule), _PIXELS)
    return None if found is None else (found["contents"], found["pixels"])


def store_pixels(root: Path, rule: Rule, contents: np.ndarray, pixels: np.ndarray) -> None:
    """Keeps them for `stored_pixels`, in place of those that were there."""
    size = "x".join(map(str, pixels.shape[1:]))
    about = {"what": f"pixels of {printable(folder_name(root))} at {size}", "images": len(pixels)}
    _write(_entry(root, rule), _PIXELS, {"contents": contents, "pixels": pixels}, about)


def rows_of(wanted: np.ndarray, contents: np.ndarray) -> np.ndarray:
    """The row of `contents` that has each of `wanted`, both `(n, 32)`; -1 where none has."""
    place = {content: i for i, content in enumerate(digests(contents))}
    return np.array([place.get(content, -1) for content in digests(wanted)], np.int64)


def digests(contents: np.ndarray) -> list[bytes]:
    """Rows of `(n, 32)`, each as bytes."""
    joined = contents.tobytes()
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def _entry(root: Path, kind: object) -> Entry:
    return Entry.of({"folder": os.path.realpath(root), "kind": kind}, FOLDERS)


def _opened(entry: Entry, name: str) -> dict[str, np.ndarray] | None:
    """An archive's arrays; None where it is missing, of other code, or damaged, which the CRC of each array tells."""
    try:
        with open(entry.path / name, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if archive["made_by"].tobytes().decode() != made_by():
                return None
            found = {key: archive[key] for key in archive.files}
    except Exception:  # zipfile, zlib and NumPy have many for what is damaged
        return None
    entry.touch()
    return found


def _write(entry: Entry, name: str, arrays: dict[str, np.ndarray], about: dict[str, object]) -> bool:
    """Whether it could be written. Of several writers the last one's stays."""
    size = sum(array.nbytes for array in arrays.values())
    try:
        entry.path.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(entry.path).free < _FREE_SHARE * size:
            return False
        make_room(size, entry)
        entry.describe(about)
        with atomic(entry.path / name) as temporary:
            np.savez(temporary, made_by=np.frombuffer(made_by().encode(), np.uint8), **arrays)
    except (OSError, OutputError):
        return False
    return True


def _joined(texts: Sequence[str]) -> np.ndarray:
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogatepass"), np.uint8)


def _parted(joined: np.ndarray) -> list[str]:
    return joined.tobytes().decode("utf-8", "surrogatepass").split("\0") if len(joined) else []


@functools.cache
def made_by() -> str:
    """What decides whether a file can be read, and its pixels: kerascls' code, TensorFlow's and Pillow's versions."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    versions = []
    for package in ("tensorflow", "tensorflow-cpu", "pillow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join([digest.hexdigest(), *versions])

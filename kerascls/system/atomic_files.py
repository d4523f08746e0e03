"""Files and folders: written whole or not at all, whatever ends the process, and by one process at a time."""

import contextlib
import csv
import ctypes
import errno
import io
import itertools
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from kerascls.errors import OutputError
from kerascls.system.json_files import json_text

TEMPORARY = "kerascls-"  # how a folder's name begins, behind a dot, in which something is being written
_OURS = re.compile(rf"\.{TEMPORARY}[0-9a-f]{{8}}-[a-z0-9_]{{8}}")  # with machine and chance; no name of a user's own
DAY = 24 * 60 * 60  # seconds


@contextlib.contextmanager
def atomic(path: Path, replace_folder: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it (over a file that stands there) if the block ends well.

    What is written may be a file or a folder; a folder replaces one that stands there only with `replace_folder`.
    Nothing is left behind if the block raises, and what a writer that was killed left is cleared by the next one in
    the same folder. The file's bytes are on the disk before the name is.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OutputError(f"Cannot write {path}: it is a device or a pipe. Expected a file's name.")
    clear_left(path.parent)
    try:
        folder, lock = _temporary_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    temporary = folder / path.name
    try:
        yield temporary
        if temporary.is_dir() and path.exists() and not replace_folder:
            raise OutputError(f"{path} exists already. Remove it, or choose another place.")
        for file in [temporary] if temporary.is_file() else sorted(temporary.rglob("*")):
            if file.is_file() and not file.is_symlink():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        replacing = replace_folder and temporary.is_dir() and path.exists()
        if not (replacing and _exchange(temporary, path)):
            if replacing:
                os.replace(path, folder / "replaced")  # goes with the temporary folder
            os.replace(temporary, path)  # fails where another process has made such a folder by now
        sync_folder(path.parent)
    except BrokenPipeError:  # of stdout, while a table is written beside it
        raise
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _temporary_folder(parent: Path) -> tuple[Path, int | None]:
    """A new one, and the descriptor by which this process holds it; None where folders cannot be held."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{TEMPORARY}{_host()}-", dir=parent))
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # it was taken for a dead writer's meanwhile
            lock = _held(folder)
            if lock is None or folder.exists():
                return folder, lock
            os.close(lock)


def clear_left(folder: Path, others: bool = False) -> None:
    """Removes what writers that were killed left in `folder`: what no process holds any more. What other machines left
    goes after a day, or with `others`, since on some network drives a lock is not seen by others."""
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if _OURS.fullmatch(entry.name)]
    except OSError:  # it may be written all the same
        return
    for left in found:
        with contextlib.suppress(OSError):
            old = time.time() - left.stat().st_mtime > DAY
            if not (others or old or left.name.startswith(f".{TEMPORARY}{_host()}-")):
                continue
            lock = _held(left)
            if lock is not None or old:  # without locks of folders, as on Windows, none is younger that nobody fills
                shutil.rmtree(left, ignore_errors=True)
            if lock is not None:
                os.close(lock)


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _held(folder: Path, wait: bool = False) -> int | None:
    """A descriptor by which this process holds a folder until it ends; None where the system has no such locks
    (Windows, some network drives).

    Raises:
        BlockingIOError: another process has it, and this one does not `wait`.
        OSError: it cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        return None
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return lock


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Alone among the processes that ask for the same folder; the others wait."""
    lock = _held(folder, wait=True)
    if lock is None:
        with alone(folder / ".kerascls.lock", f"Another process writes into {folder}: waiting for it."):
            yield
        return
    try:
        yield
    finally:
        os.close(lock)


def _exchange(one: Path, other: Path) -> bool:
    """Whether two names were exchanged at once, so that no kill comes between: Linux alone, not on all drives."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of renameat2(2)
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error of a place that cannot be written, by the name that it would have had."""
    said = re.search(r"errno = (\d+)", str(error))  # HDF5 has no other way to tell
    reason = os.strerror(int(said[1])) if said else error.strerror or error
    parts = [part for part in Path(path).parts if not part.startswith(f".{TEMPORARY}")]
    return OutputError(f"Cannot write {Path(*parts)}: {reason}.")


@contextlib.contextmanager
def alone(lock: Path, waiting: str | None) -> Iterator[None]:
    """Alone among all processes that take the file `lock`, made where it is not there. A second one says `waiting` on
    stderr, and waits; a lock ends with its process, however that ends.

    Raises:
        filelock.Timeout: another process has it, and `waiting` is None.
        OSError: it cannot be written.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        if waiting is None:
            raise
        print(waiting, file=sys.stderr, flush=True)
        held.acquire()
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOLCK):  # of a network drive without locks
            raise
    try:
        yield
    finally:
        held.release()


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Bytes of file names that are not UTF-8 are written as they are."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def write_json(path: Path, value: Any) -> None:
    write_text(path, _indented(value) + "\n")


def _indented(value: Any, margin: str = "\n") -> str:
    """JSON by lines, but that a list or table of numbers stands on one: a confusion matrix has a line a class."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    if all(item is None or isinstance(item, int | float) for item in inside):
        return json_text(value, allow_nan=False)
    deeper = margin + "  "
    if isinstance(value, dict):
        lines = [f"{json_text(str(key))}: {_indented(value[key], deeper)}" for key in value]
        return "{" + deeper + ("," + deeper).join(lines) + margin + "}"
    return "[" + deeper + ("," + deeper).join(_indented(item, deeper) for item in value) + margin + "]"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Bytes of file names that are not UTF-8 are written as they are."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.writelines(map(csv_line, itertools.chain([columns], rows)))


def csv_line(row: Sequence[Any]) -> str:
    """A row as `csv.reader` reads it back. Python's writer leaves a carriage return unquoted, which ends a row."""
    written = io.StringIO()
    quoting = csv.QUOTE_ALL if any("\r" in str(cell) for cell in row) else csv.QUOTE_MINIMAL
    csv.writer(written, lineterminator="\n", quoting=quoting).writerow(row)
    return written.getvalue()


def free_name(path: Path) -> Path:
    """`path`, or the first of `path`-2, `path`-3, ... that does not exist."""
    candidate, count = path, 1
    while candidate.exists():
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")
    return candidate

"""The table of answers that `predict --csv` writes: as it goes, taken over where it was interrupted."""

import contextlib
import csv
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from kerascls.errors import OutputError
from kerascls.formats.registry import model_files
from kerascls.inference.classifier import Prediction
from kerascls.system import machine
from kerascls.system.atomic_files import atomic, csv_line

BATCH_SIZE = 32  # rows that are kept together: an answer's last bits depend on its batch


class Table:
    """A CSV of file, label, probability, label_1..k, probability_1..k, error that grows as answers come.

    Its rows go to a partial file beside `path`, each behind what its file was known by, and to `path` when all are
    there, so no half table ever has that name. The partial file's name holds a key of model and options: the same
    command finds it again, another does not. It stays behind when the command is killed or fails, once a whole batch is
    in it.
    """

    def __init__(self, path: Path, top_k: int, key: str, tell: Callable[[str], None]):
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "a device or a pipe"
            raise OutputError(f"Cannot write {path}: it is {what}. Expected a file's name.")
        self.path, self.top_k, self.tell = path, top_k, tell
        self.partial = path.with_name(f"{path.name}.{key}.partial")
        self.rows = self.kept = 0
        self.release: Callable[[], None] | None = None
        self.finished = False
        self._head = _csv([["known_by", *columns(top_k)]])

    def __enter__(self) -> "Table":
        while True:
            try:
                self.file = open(self.partial, "a+b")
            except OSError as error:
                raise self._cannot(error) from None
            self.release = _lock(self.file)
            if self.release is None:
                self.file.close()
                raise OutputError(f"Cannot write {self.path}: another kerascls is writing {self.partial}. Wait for it.")
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self.file.fileno()), os.stat(self.partial)):
                    return self
            self.file.close()  # another one gave it its last name between the two
            self.release()

    def resume(self, files: Sequence[Any]) -> int:
        """Keeps the rows, from the first on, that answer `files` in their order, and drops all behind them.

        Whole batches are kept, so that the rest is answered in the batches of an uninterrupted command, to the bit. A
        file that is not the one that was answered, or not as it was, is answered again, and so are all behind it; so
        is what is no file, as a URL is.

        Returns:
            How many files are answered.
        """
        end = 0
        try:
            self.file.seek(0)
            if self.file.read(len(self._head)) == self._head:
                for rows, ((known_by, row), file) in enumerate(zip(self._read_rows(), files, strict=False), 1):
                    if not isinstance(file, str) or (row[0], known_by) != (file, _known_by(file)):
                        break
                    if rows % BATCH_SIZE == 0 or rows == len(files):
                        end, self.kept = self.file.tell(), rows
            self.file.truncate(end)
            if not end:
                self.file.write(self._head)
            self.file.flush()
        except OSError as error:
            raise self._cannot(error) from None
        self.rows = self.kept
        if self.kept:
            self.tell(f"{self.kept:,} of {len(files):,} answers are taken over from {self.partial}")
        return self.kept

    def resumed(self) -> Iterator[list[Prediction]]:
        """The rows that `resume` kept, in batches."""
        self.file.seek(len(self._head))
        rows = itertools.islice(self._read_rows(), self.kept)
        while batch := list(itertools.islice(rows, BATCH_SIZE)):
            yield [self._prediction(row) for _, row in batch]

    def write(self, predictions: Sequence[Prediction]) -> None:
        try:
            self.file.write(_csv([_known_by(one.file), *row_of(one, self.top_k)] for one in predictions))
            self.file.flush()
        except OSError as error:
            raise self._cannot(error) from None
        self.rows += len(predictions)

    def finish(self) -> None:
        """Writes the table, whole or not at all."""
        self.file.seek(len(self._head))
        with atomic(self.path) as temporary, temporary.open("wb") as file:
            file.write(_csv([columns(self.top_k)]))
            count = 0
            for _, row in self._read_rows():
                file.write(_csv([row]))
                count += 1
            if count != self.rows:
                raise OutputError(f"Cannot write {self.path}: {self.partial} was changed meanwhile. Remove it.")
        try:
            self.partial.unlink(missing_ok=True)
        except (
            PermissionError
        ):  # Windows removes no open file; elsewhere another process could take it up once it is closed
            self.file.close()
            self.partial.unlink(missing_ok=True)
        self.finished = True

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):  # rows that a full disk did not take; `write` has told of it
            self.file.close()
        if not self.finished and self.rows:
            self.tell(f"{self.rows:,} answers are kept in {self.partial}; the same command goes on behind them.")
        elif not self.finished:
            self.partial.unlink(missing_ok=True)
        self.release()

    def _cannot(self, error: OSError) -> OutputError:
        return OutputError(f"Cannot write {self.path}: {error.strerror or error}.")

    def _read_rows(self) -> Iterator[tuple[str, list[str]]]:
        """What their files were known by, and whole rows, from where the partial file stands, up to the first that is
        cut or damaged; it then stands behind one."""
        while line := self.file.readline():
            while line.count(b'"') % 2 and (more := self.file.readline()):  # a name may hold the end of a line
                line += more
            try:
                ((known_by, *row),) = csv.reader([line.decode("utf-8", "surrogateescape")], strict=True)
                self._prediction(row)
            except (csv.Error, ValueError, IndexError):
                return
            if not line.endswith(b"\n") or len(row) != len(columns(self.top_k)):
                return
            yield known_by, row

    def _prediction(self, row: Sequence[str]) -> Prediction:
        if row[-1]:
            return Prediction(row[0], error=row[-1])
        names, probabilities = row[3 : 3 + self.top_k], map(float, row[3 + self.top_k : -1])
        return Prediction(row[0], row[1], float(row[2]), tuple(zip(names, probabilities, strict=True)))


def table_key(model: str | Path, top_k: int, invert: bool, *stated: str) -> str:
    """Twelve digits that stand for all that a table's numbers depend on besides the files: model, options, versions."""
    digest = hashlib.sha256(
        json.dumps([top_k, invert, BATCH_SIZE, machine.versions(), *stated], sort_keys=True).encode()
    )
    for file in model_files(model):
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]


def columns(top_k: int) -> list[str]:
    ranks = range(1, top_k + 1)
    return [
        "file",
        "label",
        "probability",
        *(f"label_{i}" for i in ranks),
        *(f"probability_{i}" for i in ranks),
        "error",
    ]


def row_of(prediction: Prediction, top_k: int) -> list[Any]:
    if prediction.error is not None:
        return [prediction.file, "", "", *[""] * 2 * top_k, prediction.error]
    names, probabilities = zip(*prediction.top, strict=True)
    return [prediction.file, prediction.label, prediction.probability, *names, *probabilities, ""]


def _known_by(file: str) -> str:
    """What tells a file from another that may take its name, and from itself once it is changed."""
    try:
        about = os.stat(file)
    except (OSError, ValueError):  # it is not there; that is its answer
        return "-"
    return ".".join(f"{part:x}" for part in (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    """Bytes of file names that are not UTF-8 are written as they are."""
    return "".join(map(csv_line, rows)).encode("utf-8", "surrogateescape")


def _lock(file: BinaryIO) -> Callable[[], None] | None:
    """Holds an open file against other processes until it is closed: what is to be called then, or None where another
    one has it. Nothing holds it on a network drive without locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        lock = filelock.FileLock(f"{file.name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return None

        def release() -> None:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

        return release
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        pass
    return lambda: None

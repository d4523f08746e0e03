"""Predicting image files and examples of a data set, to lines, CSV and pictures."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kerascls import devices
from kerascls.datasets import load_dataset, natural_key
from kerascls.errors import DataError, KerasclsError, OutputError
from kerascls.load import Classifier, Prediction, load, model_files
from kerascls.runs import sync_folder, write_csv
from kerascls.split import with_all_splits

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff")  # of files in folders
MOST_PLOTTED = 64  # images in one picture
BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Answer:
    """A prediction with the pixels that the model saw, and the true name where it is known.

    `pixels` is None where the file could not be read, or its answer was taken over from an interrupted table.
    """

    prediction: Prediction
    pixels: np.ndarray | None = None
    truth: str | None = None


def predict(
    model: str | Path,
    files: Sequence[str | Path] = (),
    *,
    top_k: int = 3,
    invert: bool = False,
    csv_file: Path | None = None,
    plot_file: Path | None = None,
    data: str | None = None,
    split: str = "test",
    count: int = 9,
    data_dir: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[list[Answer]]:
    """Answers for files and folders, or for examples of a data set, a batch at a time, in order.

    Memory does not grow with the number of files, but for their names.

    Args:
        model: as `load` takes it.
        files: files and folders, see `image_files`; none if `data` is given.
        top_k: names an image, at most the number of classes.
        invert: turn black into white first.
        csv_file: a table to write, see `Table`. An interrupted one is gone on with, and its answers come first.
        plot_file: a picture to draw of the first images.
        data, split, count, data_dir: a data set, its split, and how many examples of it.
        tell: takes each line that is to be told beside the answers.

    Raises:
        KerasclsError: when all is answered, if an image could not be read.
    """
    found = image_files(files) if data is None else []
    classifier = load(model)
    if classifier.notice:
        tell(classifier.notice)
    top_k = min(top_k, len(classifier.class_names))
    if data is None:
        answers = _predict_files(classifier, model, found, top_k, invert, csv_file, tell)
    else:
        answers = _predict_dataset(classifier, data, split, count, top_k, invert, csv_file, data_dir)
    shown: list[Answer] = []
    seen = failed = taken_over = other_polarity = 0
    for batch in answers:
        seen += len(batch)
        failed += sum(answer.prediction.error is not None for answer in batch)
        taken_over += sum(answer.pixels is None and answer.prediction.error is None for answer in batch)
        other_polarity += sum(answer.prediction.other_polarity for answer in batch)
        if plot_file is not None:
            shown += batch[: MOST_PLOTTED - len(shown)]
        yield batch
    if other_polarity:
        side, other = ("dark", "light") if classifier.card.border == "dark" else ("light", "dark")
        have = f"image{'s have' if other_polarity > 1 else ' has'}"
        of_these = " (of those answered now)" if taken_over else ""  # a table does not tell it of the others
        tell(
            f"Warning: {other_polarity} {have} a {other} border{of_these}; the training images had {side} ones. "
            + ("Leave out --invert." if invert else "Try --invert.")
        )
    if plot_file is not None:
        plot([_with_pixels(classifier, answer, invert) for answer in shown], plot_file)
        tell(f"drawn: {plot_file}" + (f" (the first {len(shown)})" if len(shown) < seen else ""))
    if failed:
        raise KerasclsError(f"{failed} of {seen} images could not be read.")


def image_files(paths: Sequence[str | Path]) -> list[str]:
    """Files as given; of a folder, all files below it with an image's suffix, in natural order, hidden ones left out.

    Raises:
        DataError: a path does not exist, or a folder has no images.
    """
    files: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = list(_images_below(str(path)))
            if not found:
                raise DataError(f"Folder {path} has no images. Expected files ending in {', '.join(SUFFIXES)}.")
            files += found
        elif not path.exists():
            raise DataError(f"Image {path} does not exist.")
        else:
            files.append(str(path))
    return files


def _images_below(folder: str) -> Iterator[str]:
    """Files in the natural order of their whole paths, a folder's names at a time: keys of all take much memory."""
    try:
        names = {entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in os.scandir(folder)}
    except OSError as error:
        raise DataError(f"Folder {folder} cannot be read: {error.strerror}.") from None
    for name in sorted(names, key=natural_key):
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if name.endswith("/"):
            yield from _images_below(path[:-1])
        elif name.lower().endswith(SUFFIXES) and os.path.isfile(path):
            yield path


def _predict_files(
    classifier: Classifier,
    model: str | Path,
    files: list[str],
    top_k: int,
    invert: bool,
    csv_file: Path | None,
    tell: Callable[[str], None],
) -> Iterator[list[Answer]]:
    def fresh(rest: list[str]) -> Iterator[list[Answer]]:
        for batch in classifier.batches(rest, top_k, invert, BATCH_SIZE):
            yield [Answer(prediction, pixels) for prediction, pixels in batch]

    if csv_file is None:
        yield from fresh(files)
        return
    with Table(csv_file, top_k, table_key(model, top_k, invert), tell) as table:
        done = table.take_over(files)
        yield from table.taken_over()
        for batch in fresh(files[done:]):
            table.write([answer.prediction for answer in batch])
            yield batch
        table.finish()


def _predict_dataset(
    classifier: Classifier,
    name: str,
    split: str,
    count: int,
    top_k: int,
    invert: bool,
    csv_file: Path | None,
    data_dir: str | None,
) -> Iterator[list[Answer]]:
    """The first `count` examples of a data set's split, with their true names."""
    card = classifier.card
    dataset = load_dataset(name, data_dir, image_shape=card.image_shape, background=card.background, resize=card.resize)
    if split not in dataset.splits and not {"train", "all"}.isdisjoint(dataset.splits):
        dataset = with_all_splits(dataset, 0.1)
    if split not in dataset.splits:
        raise DataError(f"{dataset.name} has no {split} split. It has: {', '.join(dataset.splits)}")
    chosen = dataset.splits[split]
    chosen = chosen.take(np.arange(min(count, len(chosen))))
    images = 255 - chosen.images[:] if invert else chosen.images[:]
    names = [f"{dataset.name}:{split}:{position}" for position in chosen.positions]
    predictions = classifier.name_answers(names, classifier.probabilities(images), top_k)
    if csv_file is not None:
        write_csv(csv_file, _columns(top_k), [_row(prediction, top_k) for prediction in predictions])
    truths = [dataset.class_names[label] for label in chosen.labels]
    yield [Answer(*each) for each in zip(predictions, images, truths, strict=True)]


# Lines


def as_json(prediction: Prediction) -> str:
    """One line: {"file", "label", "probability", "top"} or {"file", "error"}."""
    if prediction.error is not None:
        return json.dumps({"file": prediction.file, "error": prediction.error}, ensure_ascii=False)
    return json.dumps(
        {
            "file": prediction.file,
            "label": prediction.label,
            "probability": prediction.probability,
            "top": [{"label": name, "probability": p} for name, p in prediction.top],
        },
        ensure_ascii=False,
    )


def as_text(answer: Answer) -> str:
    """One line for people."""
    prediction = answer.prediction
    if prediction.error is not None:
        return f"{prediction.file}: {prediction.error}"
    names = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.top)
    truth = f"   (is {answer.truth})" if answer.truth is not None else ""
    return f"{prediction.file}: {names}{truth}"


# Tables


class Table:
    """A CSV of file, label, probability, label_1..k, probability_1..k, error that grows as answers come.

    Its rows go to a partial file beside `path`, which takes the name `path` when all are there, so no half table
    ever has it. The partial file's name holds a key of model and options: the same command finds it again, another
    does not. It stays behind when the command is killed or fails, once a whole batch is in it.
    """

    def __init__(self, path: Path, top_k: int, key: str, tell: Callable[[str], None]):
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "a device or a pipe"
            raise OutputError(f"Cannot write {path}: it is {what}. Expected a file's name.")
        self.path, self.top_k, self.tell = path, top_k, tell
        self.partial = path.with_name(f"{path.name}.{key}.partial")
        self.rows = self.kept = 0
        self.finished = False
        self._head = _csv([_columns(top_k)])

    def __enter__(self) -> "Table":
        try:
            self.file = open(self.partial, "a+b")
        except OSError as error:
            raise self._cannot(error) from None
        if not _lock(self.file):
            self.file.close()
            raise OutputError(f"Cannot write {self.path}: another kerascls is writing {self.partial}. Wait for it.")
        return self

    def take_over(self, files: Sequence[str]) -> int:
        """Keeps the rows, from the first on, that answer `files` in their order, and drops all behind them.

        Whole batches are kept, so that the rest is answered in the batches of an uninterrupted command, to the bit. A
        file that changed after the last row was written is answered again, and so are all behind it.

        Returns:
            How many files are answered.
        """
        written = os.fstat(self.file.fileno()).st_mtime_ns
        end = 0
        try:
            self.file.seek(0)
            if self.file.read(len(self._head)) == self._head:
                for rows, (row, file) in enumerate(zip(self._read_rows(), files, strict=False), 1):  # noqa: B007
                    if row[0] != file or os.stat(file).st_mtime_ns > written:
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

    def taken_over(self) -> Iterator[list[Answer]]:
        """The answers of the rows that were taken over, in batches."""
        self.file.seek(len(self._head))
        rows = itertools.islice(self._read_rows(), self.kept)
        while batch := list(itertools.islice(rows, BATCH_SIZE)):
            yield [Answer(self._prediction(row)) for row in batch]

    def write(self, predictions: Sequence[Prediction]) -> None:
        try:
            self.file.write(_csv(_row(prediction, self.top_k) for prediction in predictions))
            self.file.flush()
        except OSError as error:
            raise self._cannot(error) from None
        self.rows += len(predictions)

    def finish(self) -> None:
        """Gives the table its name; its bytes are on the disk before the name is."""
        try:
            os.fsync(self.file.fileno())
            os.replace(self.partial, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise self._cannot(error) from None
        self.finished = True

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):  # rows that a full disk did not take; `write` has told of it
            self.file.close()
        if not self.finished and self.rows:
            self.tell(f"{self.rows:,} answers are kept in {self.partial}; the same command goes on behind them.")
        elif not self.finished:
            self.partial.unlink(missing_ok=True)

    def _cannot(self, error: OSError) -> OutputError:
        return OutputError(f"Cannot write {self.path}: {error.strerror or error}.")

    def _read_rows(self) -> Iterator[list[str]]:
        """Whole rows from where the file stands, up to the first that is cut or damaged; it then stands behind one."""
        while line := self.file.readline():
            while line.count(b'"') % 2 and (more := self.file.readline()):  # a name may hold the end of a line
                line += more
            try:
                (row,) = csv.reader([line.decode("utf-8", "surrogateescape")], strict=True)
                self._prediction(row)
            except (csv.Error, ValueError, IndexError):
                return
            if not line.endswith(b"\n") or len(row) != len(_columns(self.top_k)):
                return
            yield row

    def _prediction(self, row: Sequence[str]) -> Prediction:
        if row[-1]:
            return Prediction(row[0], error=row[-1])
        names, probabilities = row[3 : 3 + self.top_k], map(float, row[3 + self.top_k : -1])
        return Prediction(row[0], row[1], float(row[2]), tuple(zip(names, probabilities, strict=True)))


def table_key(model: str | Path, top_k: int, invert: bool) -> str:
    """Twelve digits that stand for all that a table's numbers depend on besides the files: model, options, versions."""
    digest = hashlib.sha256(json.dumps([top_k, invert, BATCH_SIZE, devices.versions()], sort_keys=True).encode())
    for file in model_files(model):
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]


def _columns(top_k: int) -> list[str]:
    ranks = range(1, top_k + 1)
    return [
        "file",
        "label",
        "probability",
        *(f"label_{i}" for i in ranks),
        *(f"probability_{i}" for i in ranks),
        "error",
    ]


def _row(prediction: Prediction, top_k: int) -> list[Any]:
    if prediction.error is not None:
        return [prediction.file, "", "", *[""] * 2 * top_k, prediction.error]
    names, probabilities = zip(*prediction.top, strict=True)
    return [prediction.file, prediction.label, prediction.probability, *names, *probabilities, ""]


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    """Bytes of file names that are not UTF-8 are written as they are."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue().encode("utf-8", "surrogateescape")


def _lock(file: BinaryIO) -> bool:
    """Whether no other process holds the file. Always true where the system has no such locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows; a network drive without locks
        pass
    return True


# Pictures


def _with_pixels(classifier: Classifier, answer: Answer, invert: bool) -> Answer:
    """An answer that was taken over, with its pixels read again."""
    if answer.pixels is not None or answer.prediction.error is not None:
        return answer
    (pixels,) = classifier.read([answer.prediction.file], invert)
    return answer if isinstance(pixels, DataError) else dataclasses.replace(answer, pixels=pixels)


def plot(answers: Sequence[Answer], path: Path) -> None:
    """The images, each titled with its percentages, and with its true name where that is known."""
    from kerascls import plots

    shown = [answer for answer in answers if answer.pixels is not None]
    if not shown:
        raise DataError("No image could be read, so there is nothing to plot.")
    titles = [
        "\n".join(
            [
                (", " if len(answer.prediction.top) == 2 else "\n").join(
                    f"{probability:.0%} {plots.shorten(name)}" for name, probability in answer.prediction.top[:3]
                )
            ]
            + ([f"is {plots.shorten(answer.truth)}"] if answer.truth is not None else [])
        )
        for answer in shown
    ]
    plots.save(plots.image_grid([answer.pixels for answer in shown], titles), path)

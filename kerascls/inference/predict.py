"""Predicting image files and examples of a data set, to lines, CSV and pictures."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.dataset import skipped_lines
from kerascls.data.loading import load_dataset
from kerascls.data.splits import with_all_splits
from kerascls.errors import DataError, KerasclsError, printable
from kerascls.images.borders import border_warning
from kerascls.inference.classifier import Classifier, Prediction
from kerascls.inference.csv_table import BATCH_SIZE, Table, columns, row_of, table_key
from kerascls.inference.inputs import named_images
from kerascls.inference.loading import load
from kerascls.system.atomic_files import write_csv
from kerascls.system.json_files import json_text
from kerascls.system.status import doing

MOST_PLOTTED = 64  # images in one picture


@dataclasses.dataclass(frozen=True)
class Answer:
    """A prediction with the pixels that the model saw, and the true name where it is known.

    `pixels` is None where the file could not be read, or its answer is from an interrupted table that is resumed.
    """

    prediction: Prediction
    pixels: np.ndarray | None = None
    truth: str | None = None


@dataclasses.dataclass
class _Counts:
    """Answers so far: all, those of unreadable files, those of a resumed table, those with the other polarity."""

    seen: int = 0
    failed: int = 0
    resumed: int = 0
    other_polarity: int = 0

    def add(self, batch: Sequence[Answer]) -> None:
        self.seen += len(batch)
        self.failed += sum(answer.prediction.error is not None for answer in batch)
        self.resumed += sum(answer.pixels is None and answer.prediction.error is None for answer in batch)
        self.other_polarity += sum(answer.prediction.other_polarity for answer in batch)

    def warning(self, classifier: Classifier, invert: bool) -> str | None:
        """What to report of images with the other polarity; None where there are none."""
        if not self.other_polarity:
            return None
        of_these = " (of those answered now)" if self.resumed else ""  # a table does not say it of the others
        return border_warning(self.other_polarity, classifier.card.border, invert, of_these)


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
    trust: bool = False,
    class_names: str | None = None,
    pixel_range: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[list[Answer]]:
    """Answers for files and folders, or for examples of a data set, a batch at a time, in order.

    Memory does not grow with the number of files, but for their names.

    Args:
        model, trust, class_names, pixel_range: as `load` takes them.
        files: files, folders, URLs and `-`, see `inputs.named_images`; none if `data` is given.
        top_k: names an image, at most the number of classes.
        invert: turn black into white first.
        csv_file: a table to write, see `table.Table`. An interrupted one is resumed, and its answers come first.
        plot_file: a picture to draw of the first images.
        data, split, count, data_dir: a data set, its split, and how many examples of it.
        tell: takes each line to report beside the answers.

    Raises:
        KerasclsError: when all is answered, if an image could not be read.
    """
    with doing("listing images"):
        found = named_images(files, tell) if data is None else []
    classifier = load(model, trust, class_names=class_names, pixel_range=pixel_range)
    if classifier.notice:
        tell(classifier.notice)
    top_k = min(top_k, len(classifier.class_names))
    if data is None:
        key = csv_file and table_key(model, top_k, invert, *filter(None, (class_names, pixel_range)))
        answers = _predict_files(classifier, key, found, top_k, invert, csv_file, tell)
    else:
        answers = _predict_dataset(classifier, data, split, count, top_k, invert, csv_file, data_dir, tell)
    shown, counts = [], _Counts()
    with doing("naming", len(found)) as progress:
        for batch in answers:
            counts.add(batch)
            if plot_file is not None:
                shown += batch[: MOST_PLOTTED - len(shown)]
            yield batch
            progress.step(len(batch))
    if warning := counts.warning(classifier, invert):
        tell(warning)
    if plot_file is not None:
        plot([_with_pixels(classifier, answer, invert) for answer in shown], plot_file)
        tell(f"drawn: {plot_file}" + (f" (the first {len(shown)})" if len(shown) < counts.seen else ""))
    if counts.failed:
        raise KerasclsError(f"{counts.failed} of {counts.seen} images could not be read.")


def _predict_files(
    classifier: Classifier,
    key: str | None,
    files: list[Any],
    top_k: int,
    invert: bool,
    csv_file: Path | None,
    tell: Callable[[str], None],
) -> Iterator[list[Answer]]:
    def fresh(rest: list[Any]) -> Iterator[list[Answer]]:
        for batch in classifier.batches(rest, top_k, invert, BATCH_SIZE):
            yield [Answer(prediction, pixels) for prediction, pixels in batch]

    if csv_file is None:
        yield from fresh(files)
        return
    with Table(csv_file, top_k, key, tell) as table:
        done = table.resume(files)
        for batch in table.resumed():
            yield [Answer(prediction) for prediction in batch]
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
    tell: Callable[[str], None],
) -> Iterator[list[Answer]]:
    """The first `count` examples of a data set's split, with their true names."""
    card = classifier.card
    dataset = load_dataset(
        name,
        data_dir,
        image_shape=card.image_shape,
        background=card.background,
        resize=card.resize,
        classes=classifier.class_names,
    )
    for line in skipped_lines(dataset.skipped):
        tell(line)
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
        write_csv(csv_file, columns(top_k), [row_of(prediction, top_k) for prediction in predictions])
    truths = [dataset.class_names[label] for label in chosen.labels]
    yield [Answer(*each) for each in zip(predictions, images, truths, strict=True)]


# Lines


def as_json(prediction: Prediction) -> str:
    """One line: {"file", "label", "probability", "top"} or {"file", "error"}."""
    if prediction.error is not None:
        return json_text({"file": prediction.file, "error": prediction.error})
    return json_text(
        {
            "file": prediction.file,
            "label": prediction.label,
            "probability": prediction.probability,
            "top": [{"label": name, "probability": p} for name, p in prediction.top],
        },
    )


def as_text(answer: Answer) -> str:
    """One line for people."""
    prediction = answer.prediction
    if prediction.error is not None:
        return f"{printable(prediction.file)}: {printable(prediction.error)}"
    names = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.top)
    truth = f"   (is {answer.truth})" if answer.truth is not None else ""
    return f"{printable(prediction.file)}: {names}{truth}"


# Pictures


def _with_pixels(classifier: Classifier, answer: Answer, invert: bool) -> Answer:
    """An answer of a resumed table, with its pixels read again."""
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

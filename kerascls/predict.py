"""Predicting image files and examples of a data set, to lines, CSV and pictures."""

import csv
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from kerascls.datasets import load_dataset, natural_key
from kerascls.errors import DataError
from kerascls.load import Classifier, Prediction
from kerascls.split import with_all_splits

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff")  # of files in folders
MOST_PLOTTED = 64  # images in one picture


@dataclasses.dataclass(frozen=True)
class Answer:
    """A prediction with the pixels that the model saw, and the true name where it is known."""

    prediction: Prediction
    pixels: np.ndarray | None
    truth: str | None = None


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given; of a folder, all files below it with an image's suffix, in natural order, hidden ones left out.

    Raises:
        DataError: a path does not exist, or a folder has no images.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = [
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not found:
                raise DataError(f"Folder {path} has no images. Expected files ending in {', '.join(SUFFIXES)}.")
            files += sorted(found, key=lambda file: natural_key(str(file)))
        elif not path.exists():
            raise DataError(f"Image {path} does not exist.")
        else:
            files.append(path)
    return files


def predict_files(classifier: Classifier, files: Iterable[Path], top_k: int, invert: bool) -> Iterator[Answer]:
    """An Answer a file, in order; a batch of images in memory at a time."""
    for prediction, pixels in classifier.stream(files, top_k, invert):
        yield Answer(prediction, pixels)


def predict_dataset(
    classifier: Classifier, name: str, split: str, count: int, top_k: int, invert: bool, data_dir: str | None
) -> Iterator[Answer]:
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
    for i, row in enumerate(classifier.probabilities(images)):
        prediction = classifier.name_answer(f"{dataset.name}:{split}:{chosen.positions[i]}", row, top_k)
        yield Answer(prediction, images[i], dataset.class_names[chosen.labels[i]])


# Writing


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


class CsvWriter:
    """Rows of file, label, probability, label_1..k, probability_1..k, error."""

    def __init__(self, file: TextIO, top_k: int):
        self.top_k = top_k
        self.writer = csv.writer(file, lineterminator="\n")
        self.writer.writerow(
            [
                "file",
                "label",
                "probability",
                *(f"label_{i + 1}" for i in range(top_k)),
                *(f"probability_{i + 1}" for i in range(top_k)),
                "error",
            ]
        )

    def write(self, prediction: Prediction) -> None:
        if prediction.error is not None:
            self.writer.writerow([prediction.file, "", "", *[""] * 2 * self.top_k, prediction.error])
        else:
            self.writer.writerow(
                [
                    prediction.file,
                    prediction.label,
                    prediction.probability,
                    *(name for name, _ in prediction.top),
                    *(p for _, p in prediction.top),
                    "",
                ]
            )


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

"""Scoring a finished run on a split of its own data, or of other data whose classes it knows."""

import csv
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerascls import devices, metrics
from kerascls.datasets import Dataset, Split, load_dataset, positions, rename
from kerascls.errors import DataError, OutputError, RunError
from kerascls.files import write_json
from kerascls.load import Classifier, load
from kerascls.runs import Run
from kerascls.split import with_all_splits

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_CLASSES = 20  # more fill a screen
VALIDATION = ("val_loss", "val_accuracy")  # columns of history.csv that may be empty


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of one split, in the form of metrics.json.

    `pictures` are the files drawn; `not_drawn` says why there are none though they were asked for, or is None.
    `skipped` are the data set's files that were left out, each with the reason.
    """

    data: str
    split: str
    scores: dict[str, Any]
    pictures: tuple[Path, ...] = ()
    notice: str | None = None
    not_drawn: str | None = None
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def accuracy(self) -> float:
        return self.scores["accuracy"]

    @property
    def loss(self) -> float:
        return self.scores["loss"]


def evaluate(
    run: str | Path, data: str | None = None, split: str = "test", data_dir: str | None = None, pictures: bool = True
) -> Evaluation:
    """Scores a run.

    Args:
        run: its folder.
        data: another data set (a name, a folder, tfds:NAME, FILE.npz); None for the run's own. Its classes are bound
            to the run's by name; where it gives no names, by number. Of a folder without splits every image is
            scored, unless the run was trained on it.
        split: "train", "validation" or "test".
        data_dir: where TFDS keeps prepared data.
        pictures: whether to draw learning curves, confusion matrix and the most wrong images into the run's folder
            (for other data, into a folder of its own there).

    Raises:
        RunError, DataError: the run, the data or the split is not there, or the data has a class that the run
            does not know.
    """
    opened = Run.open(run)
    devices.start()
    from kerascls.pipeline import scoring_batch_size

    classifier = load(opened.path)
    dataset, own = run_data(opened, classifier, data, data_dir)
    if not own and "all" in dataset.splits:  # nothing of it was seen in training: every image is scored
        dataset = dataclasses.replace(dataset, splits={split: dataset.splits["all"]})
    elif "test" not in dataset.splits and split == "test":
        dataset = with_all_splits(dataset, opened.config.data.validation, opened.config.data.test)
    if split not in dataset.splits:
        raise DataError(f"{dataset.name} has no {split} split. It has: {', '.join(dataset.splits)}")
    chosen = dataset.splits[split]
    probabilities = classifier.probabilities(chosen.images, scoring_batch_size(classifier.image_shape))
    scores = metrics.score(chosen.labels, probabilities, list(classifier.class_names))
    drawn: tuple[Path, ...] = ()
    not_drawn = None
    if pictures:
        own_place = own and split == "test"
        folder = opened.path if own_place else opened.path / f"evaluate-{Path(dataset.name).stem}-{split}"
        try:
            if not own_place:
                folder.mkdir(exist_ok=True)
                write_json(folder / "metrics.json", {"data": dataset.name, "split": split, **scores})
            drawn = draw(opened, folder, chosen, probabilities, scores, classifier)
        except (OutputError, RunError, OSError) as error:  # a run that others keep read-only can be scored all the same
            not_drawn = f"No pictures: {error}"
    return Evaluation(dataset.name, split, scores, drawn, opened.notice, not_drawn, dataset.skipped)


def run_data(
    run: Run, classifier: Classifier, data: str | None = None, data_dir: str | None = None, download: bool = True
) -> tuple[Dataset, bool]:
    """The run's own data set, or other data, with its labels numbered as the run's.

    Args:
        data: a name, a folder, tfds:NAME, FILE.npz; None for the run's own.
        download: whether it may be fetched.

    Returns:
        the data set, and whether it is the one that the run was trained on; that has all its splits.

    Raises:
        DataError: it is not here, has changed, or has a class that the run does not know.
    """
    config, manifest = run.config, run.manifest
    own = data is None
    name = manifest["data"]["name"] if own else data
    source = config.data.name if own else data
    is_path = source.endswith((".npz", ".py")) or manifest["data"].get("source") == "folder"
    if own and is_path and not Path(source).exists():
        raise DataError(f"{source}, the data of this run, is not here. Say where it is: --data PATH.")
    dataset = load_dataset(
        source,
        data_dir,
        download=download,
        image_shape=classifier.image_shape,
        background=classifier.card.background,
        resize=classifier.card.resize,
        cache_mb=config.data.cache_mb,
        on_bad_image=config.data.on_bad_image,
        max_bad_share=config.data.max_bad_share,
        classes=classifier.class_names,
    )
    dataset = bind_classes(dataset, classifier.class_names)
    if dataset.fingerprint() == manifest["data"]["fingerprint"]:
        own = True  # wherever it lies by now
    elif own:
        raise DataError(
            f"{name} has changed since {run.path.name} was trained on it. Score the new data by naming "
            f"it: --data {source}"
        )
    return (with_all_splits(dataset, config.data.validation, config.data.test) if own else dataset), own


def bind_classes(dataset: Dataset, class_names: tuple[str, ...]) -> Dataset:
    """The data set with its labels renumbered to the run's ids, by name; by number where it gives no names.

    Raises:
        DataError: it has examples of a class that the run does not know.
    """
    if dataset.class_names == class_names:
        return dataset
    if not dataset.names_given:
        highest = max(int(split.labels.max()) for split in dataset.splits.values())
        if not all(name.isdigit() for name in class_names) or str(highest) not in class_names:
            raise DataError(
                f"{dataset.name} numbers its classes 0 to {highest} and gives no names; the run has "
                f"{len(class_names)} classes, {', '.join(class_names[:5])}... Add an array class_names."
            )
    ids = positions(class_names, dataset.class_names)
    used = np.unique(np.concatenate([split.labels for split in dataset.splits.values()]))
    unknown = [dataset.class_names[i] for i in used if ids[i] < 0]
    if unknown:
        raise DataError(
            f"{dataset.name} has {len(unknown)} class{'es' * (len(unknown) > 1)} that the run does not know: "
            f"{', '.join(unknown[:5])}. The run knows {', '.join(class_names[:10])}."
        )
    return rename(dataset, class_names)


def draw(
    run: Run, folder: Path, split: Split, probabilities: np.ndarray, scores: "Mapping[str, Any]", classifier: Classifier
) -> tuple[Path, ...]:
    """Writes curves.png, confusion.png and, where any image is wrong, most_wrong.png."""
    from kerascls import plots

    names = classifier.class_names
    pictures = []
    if folder == run.path:
        plots.save(plots.learning_curves(read_history(run), run.manifest.get("kept_epoch")), folder / "curves.png")
        pictures.append(folder / "curves.png")
    plots.save(plots.confusion(scores["confusion"], names), folder / "confusion.png")
    pictures.append(folder / "confusion.png")
    guess = probabilities.argmax(1)
    wrong = np.flatnonzero(guess != split.labels)
    if len(wrong):
        worst = wrong[np.argsort(-probabilities[wrong, guess[wrong]], kind="stable")][:16]
        titles = [
            f"{plots.shorten(names[guess[i]])} {probabilities[i, guess[i]]:.0%}, is "
            f"{plots.shorten(names[split.labels[i]])} {probabilities[i, split.labels[i]]:.0%}\n"
            f"{plots.shorten(split.name_of(i))}"
            for i in worst
        ]
        figure = plots.image_grid([split.images[i] for i in worst], titles, 4, "most wrong: predicted, and what it is")
        plots.save(figure, folder / "most_wrong.png")
        pictures.append(folder / "most_wrong.png")
    return tuple(pictures)


def read_history(run: Run) -> list[dict[str, float | None]]:
    """Rows of history.csv as numbers; empty cells are None."""
    try:
        with (run.path / "history.csv").open(encoding="utf-8", newline="") as file:
            return [
                {key: float(row[key]) if row[key] else None for key in ("epoch", "loss", "accuracy", *VALIDATION)}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{run.path}/history.csv cannot be read: {error}") from None


def accuracy_by_class(scores: "Mapping[str, Any]") -> str:
    """A line a class, `airplane  0.7310 of 1,000`: the share of its images that are told right; "" above 20 classes."""
    rows = scores["per_class"]
    if len(rows) > MOST_CLASSES:
        return ""
    width = max(len(name[:24]) for name in rows)
    return "\n".join(
        f"  {name[:24]:<{width}}  "
        + ("no images" if row["recall"] is None else f"{row['recall']:.4f} of {row['support']:,}")
        for name, row in rows.items()
    )


def table(evaluation: Evaluation) -> str:
    """The scores as `kerascls evaluate` prints them."""
    scores = evaluation.scores
    width = max(12, *(min(24, len(name)) for name in scores["per_class"]))
    lines = [
        f"{evaluation.data} {evaluation.split}: {scores['examples']:,} images",
        f"loss {scores['loss']:.4f}   accuracy {scores['accuracy']:.4f}   balanced accuracy "
        f"{scores['balanced_accuracy']:.4f}"
        + "".join(f"   top-{k} {value:.4f}" for k, value in scores["top_k"].items()),
        "",
        f"{'class':<{width}}  precision  recall      f1  support   (recall is the accuracy within a class)",
    ]
    for name, row in scores["per_class"].items():
        recall = "     -" if row["recall"] is None else f"{row['recall']:6.4f}"
        lines.append(f"{name[:24]:<{width}}  {row['precision']:9.4f}  {recall}  {row['f1']:6.4f}  {row['support']:7,}")
    macro = scores["macro"]
    lines.append(f"{'macro mean':<{width}}  {macro['precision']:9.4f}  {macro['recall']:6.4f}  {macro['f1']:6.4f}")
    if len(scores["confusion"]) <= MOST_CLASSES:
        lines += ["", "confusion matrix (a row is the true class, a column the predicted one)"]
        cell = max(len(f"{max(map(max, scores['confusion']))}"), 3) + 1
        lines += [
            f"{name[:24]:<{width}} " + "".join(f"{count:>{cell}}" for count in row)
            for name, row in zip(scores["per_class"], scores["confusion"], strict=True)
        ]
    return "\n".join(lines)

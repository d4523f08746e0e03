"""Scoring a finished run on a split of its own data, or of other data whose classes it knows."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.contents import of_pixels
from kerascls.data.dataset import Dataset, Split, positions, rename
from kerascls.data.loading import load_dataset
from kerascls.data.splits import with_all_splits
from kerascls.errors import DataError, OutputError, RunError
from kerascls.formats.registry import is_model
from kerascls.inference import metrics
from kerascls.inference.classifier import Classifier
from kerascls.inference.loading import opened
from kerascls.recipes.schema import Data
from kerascls.runs.history import read_history
from kerascls.runs.run import Run, is_run
from kerascls.runs.seen import SEEN, seen_by
from kerascls.system import tensorflow
from kerascls.system.atomic_files import write_csv, write_json

MOST_CLASSES = 20  # more fill a screen
MOST_DRAWN = 200  # classes of which the whole confusion matrix is drawn
SEEN_CSV = "seen.csv"  # beside the scores of other data: which images are left out


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of one split, in the form of metrics.json.

    Attributes:
        data, split: what was scored; "all" is a whole data set that has no splits.
        pictures: the files drawn.
        notice: the announcement of a fallback, or None.
        not_drawn: why there are no pictures though they were asked for, or None.
        skipped: the data set's files that cannot be read, each with the reason.
        own: whether it is the data that the run was trained on.
        seen: the images of other data that the run was trained or validated on, which are left out of the scores: a
            file's path in its folder, or `no. 7`, its position. None where they are not known.
        note: what else there is to know of them, or None.
    """

    data: str
    split: str
    scores: dict[str, Any]
    pictures: tuple[Path, ...] = ()
    notice: str | None = None
    not_drawn: str | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    own: bool = True
    seen: tuple[str, ...] | None = ()
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What `kerascls evaluate --json` prints: the scores, and, of other data, how many images are left out."""
        return self.scores if self.own else {**self.scores, "seen": None if self.seen is None else len(self.seen)}

    @property
    def accuracy(self) -> float:
        return self.scores["accuracy"]

    @property
    def loss(self) -> float:
        return self.scores["loss"]


def evaluate(
    model: Classifier | str | os.PathLike,
    data: str | os.PathLike | None = None,
    split: str = "test",
    data_dir: str | None = None,
    pictures: bool = True,
    *,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    pixel_range: Sequence[float] | str | None = None,
) -> Evaluation:
    """Scores a run, or a model file.

    Args:
        model: a run's folder, what else `load` takes, or a loaded classifier. An export in its run's folder is scored
            as its run is, without pictures; a file without a run on `data` alone.
        data: another data set (a name, a folder, tfds:NAME, FILE.npz); None for the run's own. Its classes are bound
            to the run's by name; where it gives no names, by number. Images that the run was trained or validated on
            are left out. Where such data has no splits, all of it is scored.
        split: "train", "validation" or "test".
        data_dir: where TFDS keeps prepared data.
        class_names, pixel_range: as `load` takes them, of a model that is not loaded.
        pictures: whether to draw learning curves, confusion matrix and the most wrong images into the run's folder
            (for other data, into a folder of its own there).

    Raises:
        RunError, DataError: the run, the data or the split is not there, the data has a class that the run does not
            know, or the run was trained or validated on all of it.

    >>> evaluation = kerascls.evaluate("saved_models/released/mnist_cnn", data="digits", pictures=False)
    >>> evaluation.split, evaluation.scores["examples"], evaluation.accuracy > 0.5
    ('test', 364, True)
    """
    path = model.path if isinstance(model, Classifier) else Path(model)
    run = run_of(path)
    if run is None and data is None:
        raise DataError(
            f"{path} is not in a run's folder, so its data are not known. Name data to score: --data FOLDER."
        )
    tensorflow.start()
    classifier = opened(model, class_names=class_names, pixel_range=pixel_range)
    dataset, own = run_data(run, classifier, data and os.fspath(data), data_dir)
    whole = {"all"} if split != "test" else {"all", "train", "validation"}
    if not own and len(dataset.splits) == 1 and whole & {*dataset.splits}:
        dataset, split = dataclasses.replace(dataset, splits={"all": next(iter(dataset.splits.values()))}), "all"
    if split not in dataset.splits:
        raise DataError(f"{dataset.name} has no {split} split. It has: {', '.join(dataset.splits)}")
    chosen = dataset.splits[split]
    chosen, seen, note = _unseen(run, dataset.name, split, chosen, own)
    answers = answers_to(chosen, classifier)
    scores = metrics.score_answers(answers, list(classifier.class_names))
    evaluation = Evaluation(
        dataset.name, split, scores, notice=classifier.notice, skipped=dataset.skipped, own=own, seen=seen, note=note
    )
    if pictures and run is not None and is_run(path):
        return _drawn(evaluation, run, chosen, answers, classifier)
    return evaluation


def _drawn(
    evaluation: Evaluation, run: Run, split: Split, answers: metrics.Answers, classifier: Classifier
) -> Evaluation:
    """The evaluation with its pictures drawn: in the run's folder, or, with its scores, in a folder of its own there.

    A run that others keep read-only can be scored all the same.
    """
    in_run = evaluation.own and evaluation.split == "test"
    other = f"evaluate-{Path(evaluation.data).stem.replace(':', '-')}-{evaluation.split}"
    folder = run.path if in_run else run.path / other
    try:
        if not in_run:
            folder.mkdir(exist_ok=True)
            stated = {"data": evaluation.data, "split": evaluation.split}
            write_json(folder / "metrics.json", {**stated, **evaluation.as_json()})
            if not evaluation.own:
                write_csv(folder / SEEN_CSV, ("image",), ([name] for name in evaluation.seen or ()))
        pictures = draw(run, folder, split, answers, evaluation.scores, classifier)
    except (OutputError, RunError, OSError) as error:
        return dataclasses.replace(evaluation, not_drawn=f"No pictures: {error}")
    return dataclasses.replace(evaluation, pictures=pictures)


def run_of(path: Path | None) -> Run | None:
    """The run that a model is of: itself, or the one in whose folder it lies; None for a model file elsewhere.

    Raises:
        RunError: there is neither a run nor a model.
    """
    if path is None:
        return None
    inside = [path, *path.absolute().parents]
    home = next((folder for folder in inside if is_run(folder)), None)
    if home is not None and (home == path or path.name == "model.keras" or (home / "exports") in inside):
        return Run.open(home)
    return None if is_model(path) else Run.open(path)


def _unseen(
    run: Run | None, name: str, what: str, split: Split, own: bool
) -> tuple[Split, tuple[str, ...] | None, str | None]:
    """Of other data, what the run was neither trained nor validated on; `Evaluation`'s `seen` and `note`.

    Files are compared by their bytes, images in arrays by their pixels; files with a run's arrays by their pixels too.

    Raises:
        DataError: nothing is left.
    """
    if run is None:
        return split, None, "Whether the model was trained on any of these images is not known: its file does not say."
    known = seen_by(run)
    if known is None or (known.kind == "files" and split.kind == "pixels"):
        why = (
            "it was trained on files, and these are arrays" if known else f"it is of an earlier version, without {SEEN}"
        )
        note = f"Whether {run.path.name} was trained on any of these images is not known: {why}."
        return split, () if own else None, None if own else note
    if own and what != "test":
        return split, (), None
    seen = known.has(split.contents if known.kind == split.kind else of_pixels(split.images))
    if own:
        count = np.count_nonzero(seen)
        note = f"{count:,} of these {len(split):,} images are in train or validation too, which flatters the scores."
        return split, (), note if count else None
    if seen.all():
        raise DataError(
            f"{run.path.name} was trained or validated on all {len(split):,} images of {name}: nothing is left to "
            "score. Give --data images that it has not seen."
        )
    names = tuple(split.path_of(i) for i in np.flatnonzero(seen))
    return split.take(np.flatnonzero(~seen)) if names else split, names, None


def run_data(
    run: Run | None, classifier: Classifier, data: str | None = None, data_dir: str | None = None, download: bool = True
) -> tuple[Dataset, bool]:
    """The run's own data set, or other data, with its labels numbered as the run's.

    Args:
        run: None for a model without one, whose data are always others.
        data: a name, a folder, tfds:NAME, FILE.npz; None for the run's own.
        download: whether it may be fetched.

    Returns:
        the data set, and whether it is the one that the run was trained on; that has all its splits.

    Raises:
        DataError: it is not here, has changed, or has a class that the run does not know.
    """
    if run is None:
        return bind_classes(_others(data, data_dir, classifier, download, Data("")), classifier.class_names), False
    config, manifest = run.config, run.manifest
    own = data is None
    name = manifest["data"]["name"] if own else data
    source = config.data.name if own else data
    is_path = source.endswith((".npz", ".py")) or manifest["data"].get("source") == "folder"
    if own and is_path and not Path(source).exists():
        raise DataError(f"{source}, the data of this run, is not here. Say where it is: --data PATH.")
    dataset = bind_classes(_others(source, data_dir, classifier, download, config.data), classifier.class_names)
    if dataset.fingerprint() == manifest["data"]["fingerprint"]:
        own = True  # wherever it lies by now
    elif own:
        raise DataError(
            f"{name} has changed since {run.path.name} was trained on it, so its splits are not those of the training. "
            + (
                f"--data {source} scores what of it was not trained or validated on; or train on it as it is now."
                if seen_by(run)
                else "Bring it back as it was, or train on it as it is now."
            )
        )
    return (with_all_splits(dataset, config.data.validation, config.data.test) if own else dataset), own


def _others(source: str, data_dir: str | None, classifier: Classifier, download: bool, wish: Data) -> Dataset:
    """A data set as the classifier takes it; `wish` says what memory it may take.

    However many images cannot be read, the others are scored: nothing is trained on them, and all are listed.
    """
    return load_dataset(
        source,
        data_dir,
        download=download,
        image_shape=classifier.image_shape,
        background=classifier.card.background,
        resize=classifier.card.resize,
        cache_mb=wish.cache_mb,
        on_bad_image="skip",
        max_bad_share=1.0,
        classes=classifier.class_names,
    )


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
            + " A model file without names is given them by --class-names FILE."
            * all(map(str.isdigit, class_names))
        )
    return rename(dataset, class_names)


def answers_to(split: Split, classifier: Classifier) -> metrics.Answers:
    """What a model answers to a split's images, without the probabilities of all classes of all images in memory."""
    from kerascls.data.batches import scoring_batch_size

    return metrics.Answers.of(
        split.labels, classifier.answered(split.images, scoring_batch_size(classifier.image_shape))
    )


def draw(
    run: Run, folder: Path, split: Split, answers: metrics.Answers, scores: dict[str, Any], classifier: Classifier
) -> tuple[Path, ...]:
    """Writes curves.png, confusion.png and, where any image is wrong, most_wrong.png."""
    from kerascls import plots

    names = classifier.class_names
    pictures = []
    if folder == run.path:
        plots.save(plots.learning_curves(read_history(run), run.manifest.get("kept_epoch")), folder / "curves.png")
        pictures.append(folder / "curves.png")
    if len(names) <= MOST_DRAWN:
        matrix = plots.confusion(scores["confusion"], names)
    else:
        chosen, counts = metrics.most_confused(scores, 40)
        title = f"confusion matrix of the {len(chosen)} classes with the most mistakes, of {len(names):,}"
        matrix = plots.confusion(counts, [names[i] for i in chosen], title)
    plots.save(matrix, folder / "confusion.png")
    pictures.append(folder / "confusion.png")
    guess = answers.guess
    wrong = np.flatnonzero(guess != split.labels)
    if len(wrong):
        worst = wrong[np.argsort(-answers.highest[wrong], kind="stable")][:16]
        titles = [
            f"{plots.shorten(names[guess[i]])} {answers.highest[i]:.0%}, is "
            f"{plots.shorten(names[split.labels[i]])} {answers.truth[i]:.0%}\n"
            f"{plots.shorten(split.name_of(i))}"
            for i in worst
        ]
        figure = plots.image_grid([split.images[i] for i in worst], titles, 4, "most wrong: predicted, and what it is")
        plots.save(figure, folder / "most_wrong.png")
        pictures.append(folder / "most_wrong.png")
    return tuple(pictures)

"""Scores as text for a terminal."""

from typing import TYPE_CHECKING, Any

from kerascls.errors import printable
from kerascls.inference import metrics
from kerascls.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping
from kerascls.inference.evaluate import MOST_CLASSES, SEEN_CSV, Evaluation
from kerascls.runs.history import read_history

MOST_LINES = 100  # classes that have a line each in the table; of more, the worst are told
TOLD = 10  # of those, and of the pairs that are confused most


def chosen_by(run: Run) -> str:
    """Why a run's kept epoch was kept, for people, where that is its validation loss; and which epoch was the most
    accurate on validation, where that is another."""
    kept = run.manifest["kept_epoch"]
    if kept != run.manifest["best_epoch"] or not (run.path / "history.csv").is_file():
        return ""
    rows = {row["epoch"]: row for row in read_history(run) if row["val_accuracy"] is not None}
    if kept not in rows:
        return ""
    best = max(rows.values(), key=lambda row: row["val_accuracy"])
    told = ", of the lowest validation loss"
    if best["val_accuracy"] > rows[kept]["val_accuracy"]:
        told += (
            f", with validation accuracy {rows[kept]['val_accuracy']:.4f}; epoch {best['epoch']:.0f} had "
            f"{best['val_accuracy']:.4f}"
        )
    return told


def largest_class(scores: "Mapping[str, Any]") -> str:
    """What always answering the largest class would score, where classes are so uneven that it tells; else ""."""
    if not metrics.uneven(row["support"] for row in scores["per_class"].values()):
        return ""
    largest = scores["largest_class"]
    return f"always answering {printable(largest['name'])!r}, the largest class, scores {largest['accuracy']:.4f}"


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


def _head(evaluation: Evaluation) -> str:
    """`cats test: 40 images`, or `cats: 22 of 222 images, without 200 that the run was trained or validated on`."""
    what = evaluation.data if evaluation.split == "all" else f"{evaluation.data} {evaluation.split}"
    count = evaluation.scores["examples"]
    if not evaluation.seen:
        return f"{what}: {count:,} images"
    seen = len(evaluation.seen)
    return f"{what}: {count:,} of {count + seen:,} images, without {seen:,} that the run was trained or validated on"


def seen_lines(evaluation: Evaluation) -> list[str]:
    """The images that were left out since the run had seen them: the first three, and where all are listed."""
    seen = evaluation.seen or ()
    lines = [f"left out: {printable(name)}: the run was trained or validated on it" for name in seen[:3]]
    where = {picture.parent for picture in evaluation.pictures}
    listed = "".join(f", listed in {folder / SEEN_CSV}" for folder in where)
    return [*lines, f"left out: {len(seen) - 3:,} more of the same reason{listed}"] if len(seen) > 3 else lines


def table(evaluation: Evaluation) -> str:
    """The scores as `kerascls evaluate` prints them."""
    scores = evaluation.scores
    lines = [
        _head(evaluation),
        f"loss {scores['loss']:.4f}   accuracy {scores['accuracy']:.4f}   balanced accuracy "
        f"{scores['balanced_accuracy']:.4f}"
        + "".join(f"   top-{k} {value:.4f}" for k, value in scores["top_k"].items()),
        *filter(None, [largest_class(scores)]),
    ]
    rows = scores["per_class"]
    told = list(rows)
    if len(rows) > MOST_LINES:
        known = [name for name in rows if rows[name]["recall"] is not None]
        told = sorted(known, key=lambda name: (rows[name]["recall"], -rows[name]["support"]))[:TOLD]
        without = len(rows) - len(known)
        lines += ["", f"the {len(told)} classes of the lowest recall, of {len(rows):,}; {without:,} have no image here"]
    width = max(12, *(min(24, len(name)) for name in told))
    lines += ["", f"{'class':<{width}}  precision  recall      f1  support   (recall is the accuracy within a class)"]
    for name in told:
        row = rows[name]
        recall = "     -" if row["recall"] is None else f"{row['recall']:6.4f}"
        lines.append(f"{name[:24]:<{width}}  {row['precision']:9.4f}  {recall}  {row['f1']:6.4f}  {row['support']:7,}")
    macro = scores["macro"]
    lines.append(f"{'macro mean':<{width}}  {macro['precision']:9.4f}  {macro['recall']:6.4f}  {macro['f1']:6.4f}")
    if len(rows) > MOST_LINES and len(wrong := metrics.mistakes(scores)[:TOLD]):
        names = list(rows)
        lines += ["", "taken most often for another class"]
        lines += [f"{count:>7,}  {names[true][:24]} for {names[guess][:24]}" for true, guess, count in wrong]
    if len(rows) <= MOST_CLASSES:
        lines += ["", "confusion matrix (a row is the true class, a column the predicted one)"]
        cell = max(len(f"{max(map(max, scores['confusion']))}"), 3) + 1
        lines += [
            f"{name[:24]:<{width}} " + "".join(f"{count:>{cell}}" for count in row)
            for name, row in zip(scores["per_class"], scores["confusion"], strict=True)
        ]
    return "\n".join(lines)

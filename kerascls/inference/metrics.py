"""Scores of a classifier from its probabilities. NumPy only; every example counts once."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

EPSILON = 1e-7  # probabilities are clipped to [EPSILON, 1] before the logarithm, as Keras clips them
TOP_K = (3, 5)
UNEVEN = 3  # times as many examples of the largest class as of the smallest
MOST_DENSE = 1000  # classes of which the whole confusion matrix is kept
MOST_PAIRS = 100_000  # counts of a larger one that are kept: 2 MB of metrics.json


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `-log(probability of the true class)`.

    Args:
        labels: int array of shape `(n,)`, values in `[0, num_classes)`.
        probabilities: float array of shape `(n, num_classes)`.

    >>> round(cross_entropy([0, 1], [[0.5, 0.5], [0.75, 0.25]]), 6)  # (log 2 + log 4) / 2
    1.039721
    """
    labels, probabilities = _checked(labels, probabilities)
    return _mean_loss(probabilities[np.arange(len(labels)), labels])


def _mean_loss(truth: np.ndarray) -> float:
    return float(np.mean(-np.log(np.clip(truth.astype(np.float64), EPSILON, 1.0))))


def top_k_accuracy(labels: np.ndarray, probabilities: np.ndarray, k: int = 5) -> float:
    """Fraction of rows whose label is among the `k` most probable classes; of equals, the lower id comes first.

    Args:
        labels: int array of shape `(n,)`, values in `[0, num_classes)`.
        probabilities: float array of shape `(n, num_classes)`.
        k: int, at least 1. Defaults to 5.

    Returns:
        float in `[0, 1]`.

    Raises:
        ValueError: if `k` exceeds `num_classes`, or the lengths differ.

    >>> top_k_accuracy([0, 1], [[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]], k=1)
    0.5
    """
    labels, probabilities = _checked(labels, probabilities)
    if not 1 <= k <= probabilities.shape[1]:
        raise ValueError(f"`k` must be in [1, {probabilities.shape[1]}]. Received: k={k}")
    return float(np.mean(_ahead(labels, probabilities) < k))


def _ahead(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many classes are more probable than each row's label; of equals, the lower ids are."""
    truth = probabilities[np.arange(len(labels)), labels][:, None]
    ahead = (probabilities > truth).sum(1)
    return ahead + ((probabilities == truth) & (np.arange(probabilities.shape[1]) < labels[:, None])).sum(1)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What scores need of probabilities, without a number for each class: arrays `(n,)`.

    Attributes:
        labels: the true classes.
        guess: the most probable ones; of equals, the lower id.
        highest: their probabilities.
        truth: the probabilities of the true classes.
        ahead: how many classes are more probable than the true one.
    """

    labels: np.ndarray
    guess: np.ndarray
    highest: np.ndarray
    truth: np.ndarray
    ahead: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, batches: Iterable[np.ndarray]) -> "Answers":
        """`batches` of probabilities `(k, num_classes)`, in the labels' order."""
        labels, parts, at = np.asarray(labels), [], 0
        for batch in batches:
            some, batch = _checked(labels[at : at + len(batch)], batch)
            at += len(batch)
            rows, guess = np.arange(len(some)), batch.argmax(1)
            parts.append((some, guess, batch[rows, guess], batch[rows, some], _ahead(some, batch)))
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    @property
    def finite(self) -> bool:
        """Whether all probabilities were, of which argmax tells: NaN and infinity come before all else."""
        return bool(np.isfinite(self.highest).all())


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of shape `(num_classes, num_classes)`: row is the true class, column the predicted one.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    codes = np.asarray(labels, np.int64) * num_classes + np.asarray(predicted)
    return np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_counts(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The matrix's counts above 0, int `(k, 3)`: true class, predicted class, count; the largest first.

    >>> confusion_counts([0, 0, 1], [0, 0, 0]).tolist()
    [[0, 0, 2], [1, 0, 1]]
    """
    pairs, counts = np.unique(np.stack([labels, predicted], 1), axis=0, return_counts=True)
    return np.column_stack([pairs, counts])[np.argsort(-counts, kind="stable")]


def score(labels: np.ndarray, probabilities: np.ndarray, class_names: list[str]) -> dict[str, Any]:
    """All scores of one split, as `metrics.json` keeps them.

    Balanced accuracy and the macro averages are means over the classes that have examples. The recall of a class
    without examples is None; its precision, and that of a class never predicted, is 0. `largest_class` has the class
    with the most examples, and the accuracy of always answering it.

    Args:
        labels: int array of shape `(n,)`, n at least 1, values in `[0, num_classes)`.
        probabilities: float array of shape `(n, num_classes)`; the class of a row is its first highest.
        class_names: list of `num_classes` names.
    """
    labels, probabilities = _checked(labels, probabilities)
    return score_answers(Answers.of(labels, [probabilities]), class_names)


def score_answers(answers: Answers, class_names: list[str]) -> dict[str, Any]:
    """What `score` returns.

    Of more than `MOST_DENSE` classes `confusion` is None, and `confusion_counts` has its counts above 0, the largest
    `MOST_PAIRS` of them.
    """
    labels, guess, num_classes = answers.labels, answers.guess, len(class_names)
    support, chosen = (np.bincount(ids, minlength=num_classes) for ids in (labels, guess))
    right = np.bincount(labels[labels == guess], minlength=num_classes)
    if num_classes <= MOST_DENSE:
        confusion = {"confusion": confusion_matrix(labels, guess, num_classes).tolist()}
    else:
        counts = confusion_counts(labels, guess)[:MOST_PAIRS].tolist()
        confusion = {"confusion": None, "confusion_counts": counts}
    recall = right / np.maximum(support, 1)
    precision = right / np.maximum(chosen, 1)
    f1 = 2 * right / np.maximum(support + chosen, 1)  # = 2PR / (P + R), and 0 where that is 0 / 0
    present = support > 0
    return {
        "examples": len(labels),
        "loss": _mean_loss(answers.truth),
        "accuracy": float(right.sum() / len(labels)),
        "balanced_accuracy": float(recall[present].mean()),
        "largest_class": {"name": class_names[int(support.argmax())], "accuracy": float(support.max() / len(labels))},
        "top_k": {str(k): float(np.mean(answers.ahead < k)) for k in TOP_K if k < num_classes},
        "macro": {
            "precision": float(precision[present].mean()),
            "recall": float(recall[present].mean()),
            "f1": float(f1[present].mean()),
        },
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]) if present[i] else None,
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(class_names)
        },
        **confusion,
    }


def uneven(counts: Iterable[int]) -> bool:
    """Whether of the classes that there are the largest is so much larger than the smallest that accuracy misleads.

    >>> uneven([30, 0, 10]), uneven([29, 10])
    (True, False)
    """
    counts = [count for count in counts if count]
    return len(counts) > 1 and max(counts) >= UNEVEN * min(counts)


def kept_counts(scores: dict[str, Any]) -> np.ndarray:
    """`confusion_counts` of scores of any number of classes, as they keep them."""
    if scores["confusion"] is None:
        return np.array(scores["confusion_counts"])
    matrix = np.array(scores["confusion"])
    pairs = np.argwhere(matrix)
    counts = np.column_stack([pairs, matrix[tuple(pairs.T)]])
    return counts[np.argsort(-counts[:, 2], kind="stable")]


def mistakes(scores: dict[str, Any]) -> np.ndarray:
    """What is taken for what, int `(k, 3)`: true class, predicted class, count; the largest first."""
    counts = kept_counts(scores)
    return counts[counts[:, 0] != counts[:, 1]]


def most_confused(scores: dict[str, Any], most: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes with the most mistakes, at most `most`, ascending; and the confusion matrix of them alone."""
    counts, wrong = kept_counts(scores), mistakes(scores)
    classes = len(scores["per_class"])
    of_class = sum(np.bincount(wrong[:, i], wrong[:, 2], classes) for i in (0, 1))
    chosen = np.sort(np.argsort(-of_class, kind="stable")[:most])
    counts = counts[np.isin(counts[:, :2], chosen).all(1)]
    matrix = np.zeros((len(chosen), len(chosen)), np.int64)
    matrix[np.searchsorted(chosen, counts[:, 0]), np.searchsorted(chosen, counts[:, 1])] = counts[:, 2]
    return chosen, matrix


def _checked(labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if labels.ndim != 1 or probabilities.ndim != 2 or len(labels) != len(probabilities) or not len(labels):
        raise ValueError(
            "`labels` must be (n,) and `probabilities` (n, num_classes), n at least 1. "
            f"Received: {labels.shape} and {probabilities.shape}"
        )
    return labels, probabilities

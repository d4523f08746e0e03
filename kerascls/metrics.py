"""Scores of a classifier from its probabilities. NumPy only; every example counts once."""

from typing import Any

import numpy as np

EPSILON = 1e-7  # probabilities are clipped to [EPSILON, 1] before the logarithm, as Keras clips them
TOP_K = (3, 5)


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `-log(probability of the true class)`.

    Args:
        labels: int array of shape `(n,)`, values in `[0, num_classes)`.
        probabilities: float array of shape `(n, num_classes)`.

    >>> round(cross_entropy([0, 1], [[0.5, 0.5], [0.75, 0.25]]), 6)  # (log 2 + log 4) / 2
    1.039721
    """
    labels, probabilities = _checked(labels, probabilities)
    truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(np.mean(-np.log(np.clip(truth, EPSILON, 1.0))))


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
    truth = probabilities[np.arange(len(labels)), labels][:, None]
    ahead = (probabilities > truth).sum(1)
    ahead += ((probabilities == truth) & (np.arange(probabilities.shape[1]) < labels[:, None])).sum(1)
    return float(np.mean(ahead < k))


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of shape `(num_classes, num_classes)`: row is the true class, column the predicted one.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(predicted)), 1)
    return counts


def score(labels: np.ndarray, probabilities: np.ndarray, class_names: list[str]) -> dict[str, Any]:
    """All scores of one split, as `metrics.json` keeps them.

    Balanced accuracy and the macro averages are means over the classes that have examples. The recall of a class
    without examples is None; its precision, and that of a class never predicted, is 0.

    Args:
        labels: int array of shape `(n,)`, n at least 1, values in `[0, num_classes)`.
        probabilities: float array of shape `(n, num_classes)`; the class of a row is its first highest.
        class_names: list of `num_classes` names.
    """
    labels, probabilities = _checked(labels, probabilities)
    num_classes = len(class_names)
    confusion = confusion_matrix(labels, probabilities.argmax(1), num_classes)
    right, support, chosen = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    recall = right / np.maximum(support, 1)
    precision = right / np.maximum(chosen, 1)
    f1 = 2 * right / np.maximum(support + chosen, 1)  # = 2PR / (P + R), and 0 where that is 0 / 0
    present = support > 0
    return {
        "examples": len(labels),
        "loss": cross_entropy(labels, probabilities),
        "accuracy": float(right.sum() / len(labels)),
        "balanced_accuracy": float(recall[present].mean()),
        "top_k": {str(k): top_k_accuracy(labels, probabilities, k) for k in TOP_K if k < num_classes},
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
        "confusion": confusion.tolist(),
    }


def _checked(labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if labels.ndim != 1 or probabilities.ndim != 2 or len(labels) != len(probabilities) or not len(labels):
        raise ValueError(
            "`labels` must be (n,) and `probabilities` (n, num_classes), n at least 1. "
            f"Received: {labels.shape} and {probabilities.shape}"
        )
    return labels, probabilities

"""Splitting what a data set does not split itself: stratified, seeded, the same every time."""

import numpy as np

from kerascls.datasets import Dataset
from kerascls.errors import DataError

SPLIT_SEED = 0  # not the run's seed: runs that differ in seed are scored on the same examples


def hold_out(labels: np.ndarray, count: int, seed: int = SPLIT_SEED) -> np.ndarray:
    """Positions of `count` examples to hold out, each class in its share of the whole.

    Shares are rounded down, and the classes with the largest fractions get one more until `count` is reached.

    Args:
        labels: int array of shape `(n,)`.
        count: int in `[0, n]`.
        seed: int.

    Returns:
        int64 array of shape `(count,)`, ascending.

    >>> hold_out(np.array([0, 0, 0, 0, 1, 1]), 3).shape
    (3,)
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * count / len(labels)
    shares = np.floor(exact).astype(int)
    more = np.argsort(shares - exact, kind="stable")[: count - shares.sum()]
    shares[more] += 1
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = [
        generator.permutation(np.flatnonzero(labels == cls))[:share] for cls, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def with_all_splits(dataset: Dataset, validation: int | float | str) -> Dataset:
    """The data set with the splits that training needs.

    A data set without a test split gives a tenth of train to one. Validation is the data set's own, else held out
    of train.

    Args:
        validation: for a data set without a validation split: a count, a fraction below 1, 0 for none; "test" takes
            the test split itself, whatever there is, and holds nothing out.

    Raises:
        DataError: there is no train split, or too few examples are left to train on.
    """
    if "train" not in dataset.splits:
        raise DataError(f"{dataset.name} has no train split. It has: {', '.join(dataset.splits)}")
    splits = dict(dataset.splits)
    train = splits["train"]
    if "test" not in splits:
        train, splits["test"] = _divide(dataset.name, train, max(1, round(0.1 * len(train))), "test")
    if validation == "test":
        splits["validation"] = splits["test"]
    elif "validation" not in splits and validation:
        count = validation if isinstance(validation, int) else max(1, round(validation * len(train)))
        train, splits["validation"] = _divide(dataset.name, train, count, "data.validation")
    splits["train"] = train
    return Dataset(dataset.name, dataset.source, dataset.class_names, splits, dataset.names_given)


def _divide(name: str, split, count: int, what: str):
    if count >= len(split):
        raise DataError(
            f"{name}: {what} takes {count} of {len(split)} training images, which leaves none to train on. "
            "Lower data.validation."
        )
    held = hold_out(split.labels, count)
    return split.take(np.setdiff1d(np.arange(len(split)), held)), split.take(held)

"""Splitting what a data set does not split itself: stratified, seeded, the same every time."""

import dataclasses

import numpy as np

from kerascls.datasets import Dataset, Split
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


def with_all_splits(dataset: Dataset, validation: int | float | str, test: int | float = 0.1) -> Dataset:
    """The data set with the splits that training needs.

    What is missing is held out of train; a folder without splits ("all") is divided. Where the images are files, it is
    their content that decides: equal files go to the same split, and their names have no say.

    Args:
        validation: for a data set without a validation split: a count, a fraction below 1 (of what there is before
            anything is held out), 0 for none; "test" takes the test split itself, whatever there is, and holds
            nothing out.
        test: likewise for a data set without a test split.

    Raises:
        DataError: there is no train split, or too few examples are left to train on.
    """
    splits = dict(dataset.splits)
    if "all" in splits:
        splits["train"] = splits.pop("all")
    if "train" not in splits:
        raise DataError(f"{dataset.name} has no train split. It has: {', '.join(splits)}")
    whole = len(splits["train"])

    def divide(name: str, share: int | float) -> None:
        count = share if isinstance(share, int) else max(1, round(share * whole))
        splits["train"], splits[name] = _divide(dataset.name, splits["train"], count, f"data.{name}")

    if "test" not in splits and test:
        divide("test", test)
    if validation == "test":
        if "test" not in splits:
            raise DataError(f'{dataset.name} has no test split for data.validation = "test".')
        splits["validation"] = splits["test"]
    elif "validation" not in splits and validation:
        divide("validation", validation)
    return dataclasses.replace(dataset, splits=splits)


def _divide(name: str, split: Split, count: int, what: str) -> tuple[Split, Split]:
    """`split` without about `count` examples, and those: to the image, but that equal files stay together."""
    if split.origin is None:
        labels, groups = split.labels, np.arange(len(split))
    else:  # one for each content, in the order of the contents
        contents, firsts, groups = np.unique(
            np.array(split.origin.contents, "S32"), return_index=True, return_inverse=True
        )
        labels = split.labels[firsts]
    if count >= len(split):
        raise DataError(
            f"{name}: {what} takes {count} of {len(split)} training images, which leaves none to train on. "
            f"Lower {what}."
        )
    held = np.isin(groups, hold_out(labels, round(count * len(labels) / len(split))))
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))

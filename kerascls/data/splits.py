"""Splits data that has no splits of its own: stratified, seeded, the same every time."""

import dataclasses

import numpy as np

from kerascls.data.dataset import Dataset, Split
from kerascls.errors import DataError, printable

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
    chosen = [generator.permutation(members)[:share] for members, share in zip(_members(labels), shares, strict=True)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """The positions of each class's examples, ascending, class after class."""
    if not len(labels):
        return []
    by_class = np.argsort(labels, kind="stable")
    return np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)


def with_all_splits(dataset: Dataset, validation: int | float | str, test: int | float = 0.1) -> Dataset:
    """The data set with the splits that training needs.

    What is missing is held out of train; a folder without splits ("all") is divided. Equal images go to the same split,
    and the names of files have no say.

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
    """`split` without about `count` examples, and those: to the image, but that equal ones stay together."""
    labels, groups = _by_content(split)
    if count >= len(split):
        raise DataError(
            f"{name}: {what} takes {count} of {len(split)} training images, which leaves none to train on. "
            f"Lower {what}."
        )
    different = max(min(count, 1), round(count * len(labels) / len(split)))
    if different >= len(labels):  # almost all are equal: they cannot but be torn apart, which `equal_images` tells
        labels, groups, different = split.labels, np.arange(len(split)), count
    held = np.isin(groups, hold_out(labels, different))
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def _by_content(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The label of each different content, and which of them each example has."""
    _, firsts, groups = np.unique(split.contents, return_index=True, return_inverse=True)
    if split.kind == "pixels":  # in the order in which they come; files in that of contents, so that names have no say
        order = np.argsort(firsts)
        firsts, groups = firsts[order], np.argsort(order)[groups]
    return split.labels[firsts], groups


def folds_of(split: Split, folds: int, seed: int = SPLIT_SEED) -> np.ndarray:
    """The fold of each example, int64 `(n,)` in [0, folds): each class dealt out evenly, equal images together."""
    labels, groups = _by_content(split)
    generator = np.random.Generator(np.random.PCG64(seed))
    by_class = np.concatenate([generator.permutation(members) for members in _members(labels)])
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold[groups]


def equal_images(dataset: Dataset) -> list[str]:
    """Lines on equal images where they mislead: those of other splits that are in train too, and those under two
    labels; each with how many there are, and the first."""
    first = next((name for name in ("train", "all") if name in dataset.splits), next(iter(dataset.splits)))
    splits = {first: dataset.splits[first], **dataset.splits}
    if splits.get("validation") is splits.get("test"):  # data.validation = "test"
        splits.pop("validation", None)
    starts = np.cumsum([0, *map(len, splits.values())])
    labels = np.concatenate([split.labels for split in splits.values()])
    contents = np.concatenate([split.contents for split in splits.values()])
    _, firsts, groups = np.unique(contents, return_index=True, return_inverse=True)
    firsts = firsts[groups]  # the first that is equal to each, in train if any is there

    def told(i: int) -> str:
        name = list(splits)[np.searchsorted(starts, i, "right") - 1]
        path = printable(splits[name].path_of(i - starts[list(splits).index(name)]))
        return path if splits[name].kind == "files" else f"{path} of {name}"

    lines = []
    for name, start in zip(splits, starts, strict=False):
        shared = start + np.flatnonzero(firsts[start : start + len(splits[name])] < starts[1])
        if first == "train" != name and len(shared):
            lines.append(
                f"{len(shared):,} of {len(splits[name]):,} {name} images are in train too, which flatters the scores: "
                f"{told(shared[0])} is {told(firsts[shared[0]])}, for one"
            )
    if len(other := np.flatnonzero(labels != labels[firsts])):
        one, two = firsts[other[0]], other[0]
        lines.append(
            f"{len(other):,} image{' is' if len(other) == 1 else 's are'} under another label too: {told(one)} is "
            f"{dataset.class_names[labels[one]]}, and {told(two)}, which is equal to it, "
            f"{dataset.class_names[labels[two]]}"
        )
    return lines

"""Splits: stratified, the same every time, and never overlapping."""

import numpy as np
import pytest

from kerascls.datasets import Dataset, Split
from kerascls.errors import DataError
from kerascls.split import hold_out, with_all_splits


def dataset(count=20, **splits):
    def split(size):
        return Split.of(
            np.arange(size, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8), np.arange(size) % 2
        )

    return Dataset("d", "test", ("a", "b"), {"train": split(count), **{name: split(n) for name, n in splits.items()}})


def test_hold_out_takes_each_class_in_its_share():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    held = hold_out(labels, 20)
    assert np.bincount(labels[held]).tolist() == [12, 6, 2]
    assert np.array_equal(held, hold_out(labels, 20)) and not np.array_equal(held, hold_out(labels, 20, seed=1))
    assert len(hold_out(labels, 7)) == 7 and len(hold_out(labels, 0)) == 0


def test_what_is_missing_is_held_out_of_train():
    whole = with_all_splits(dataset(), 0.2)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 14, "test": 2, "validation": 4}
    positions = np.concatenate([split.positions for split in whole.splits.values()])
    assert sorted(positions) == list(range(20))


def test_published_splits_are_left_alone():
    whole = with_all_splits(dataset(validation=6, test=4), 0.5)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 20, "validation": 6, "test": 4}
    assert "validation" not in with_all_splits(dataset(test=4), 0).splits


def test_validation_may_be_the_test_split():
    whole = with_all_splits(dataset(test=4, validation=3), "test")
    assert whole.splits["validation"] is whole.splits["test"] and len(whole.splits["train"]) == 20


def test_too_much_validation_is_told():
    with pytest.raises(DataError, match="leaves none to train on"):
        with_all_splits(dataset(test=4), 20)

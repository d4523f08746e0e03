"""Batches: every example once an epoch, in an order that (seed, epoch) alone decides."""

import numpy as np

from kerascls.data.batches import TrainingBatches, balanced_class_weight, scoring_batches, share_among
from kerascls.data.dataset import Split


def numbered(count=10):
    """Images that carry their position."""
    return Split.of(
        np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8), np.arange(count) % 3
    )


def epoch(batches, number):
    """All batches of one epoch."""
    dataset = batches.dataset(number).take(batches.steps)
    return [(images.numpy()[:, 0, 0, 0].tolist(), labels.numpy()) for images, labels in dataset]


def test_ten_images_at_batch_four_are_ten():
    batches = TrainingBatches(numbered(), 3, 4, seed=0)
    seen = epoch(batches, 0)
    assert [len(images) for images, _ in seen] == [4, 4, 2] and batches.steps == 3
    assert sorted(sum((images for images, _ in seen), [])) == list(range(10))
    for images, labels in seen:
        assert labels.argmax(1).tolist() == [i % 3 for i in images] and labels.dtype == np.float32


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, number):
        return sum((images for images, _ in epoch(TrainingBatches(numbered(), 3, 4, seed), number)), [])

    assert order(0, 0) == order(0, 0) and order(0, 5) == order(0, 5)
    assert len({tuple(order(seed, number)) for seed in range(3) for number in range(3)}) == 9
    one = TrainingBatches(numbered(), 3, 4, 0)
    assert [sum((images for images, _ in epoch(one, number)), []) for number in (0, 5)] == [order(0, 0), order(0, 5)]


def test_drop_remainder_drops_it_but_a_small_set_still_trains():
    assert [len(images) for images, _ in epoch(TrainingBatches(numbered(), 3, 4, 0, drop_remainder=True), 0)] == [4, 4]
    assert [len(images) for images, _ in epoch(TrainingBatches(numbered(3), 3, 4, 0, drop_remainder=True), 0)] == [3]


def test_scoring_keeps_order_and_every_example():
    seen = [images.numpy()[:, 0, 0, 0].tolist() for images, _ in scoring_batches(numbered(), 3, batch_size=4)]
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_views_take_turns_and_every_epoch_has_one_of_each_example():
    ten = numbered()
    rows = np.concatenate([ten.images + 100 * view for view in range(3)])
    split = Split.of(rows, np.tile(ten.labels, 3))
    batches = TrainingBatches(split, 3, 4, seed=0, views=3, plain_from=4)
    seen = {}
    for number in range(6):
        for images, labels in epoch(batches, number):
            assert labels.argmax(1).tolist() == [image % 100 % 3 for image in images]
            for image in images:
                seen.setdefault(image % 100, []).append(image // 100)
    assert sorted(seen) == list(range(10)) and batches.steps == 3
    for views in seen.values():  # all three before one comes again, and the plain one from epoch 4 on
        assert sorted(views[:3]) == [0, 1, 2] and views[3] == views[0] and views[4:] == [0, 0]
    assert len({views[0] for views in seen.values()}) > 1


def test_scoring_can_begin_in_the_middle():
    seen = [images.numpy()[:, 0, 0, 0].tolist() for images, _ in scoring_batches(numbered(), 3, batch_size=4, start=4)]
    assert seen == [[4, 5, 6, 7], [8, 9]]


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert np.allclose([balanced_class_weight(labels, 3)[i] for i in range(3)], expected)


def test_a_batch_that_leaves_a_replica_without_images_is_repeated_for_all():
    import tensorflow as tf

    def shared(count, replicas):
        batches = tf.data.Dataset.from_tensors(
            (np.ones((count, 1, 1, 1), np.uint8), np.eye(5, dtype="float32")[:count])
        )
        images, labels = next(iter(share_among(replicas, batches)))
        return images.shape[0], labels.numpy().sum(1).astype(int).tolist()

    assert shared(1, 2) == (2, [1, 0])  # one each; the copy has no label
    assert shared(2, 2) == (2, [1, 1])
    assert shared(3, 2) == (3, [1, 1, 1])
    assert shared(5, 4) == (20, [1] * 5 + [0] * 15)  # shares of 2, 2, 1 and 0 otherwise
    assert shared(4, 4) == (4, [1] * 4)

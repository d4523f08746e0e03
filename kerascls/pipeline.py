"""tf.data batches of a data set. The images lie in memory once; a batch is a `tf.gather` of them."""

import numpy as np
import tensorflow as tf

from kerascls.datasets import Split

_PREFETCH = 4  # batches; enough to hide a gather, and small beside the images


class TrainingBatches:
    """One epoch after another of shuffled batches. The order is a function of (seed, epoch) and of nothing else.

    `dataset` yields `(images, labels)`: uint8 `(batch, height, width, channels)` and one-hot float32
    `(batch, num_classes)`. Set `epoch` before the epoch's iterator is made, as `EpochSetter` in train.py does.
    """

    def __init__(self, split: Split, num_classes: int, batch_size: int, seed: int, drop_remainder: bool = False):
        count = len(split)
        batch_size = min(batch_size, count)
        # A set smaller than a batch still trains, as one batch.
        self.steps = max(1, count // batch_size) if drop_remainder else -(-count // batch_size)
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False, name="epoch")
        images, labels = tf.constant(split.images), tf.constant(split.labels)

        def epoch_batches(_: tf.Tensor) -> tf.data.Dataset:
            seeds = tf.stack([tf.constant(seed, tf.int64), self.epoch])
            order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=seeds)

            def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                start = tf.cast(step, tf.int32) * batch_size
                chosen = order[start : tf.minimum(start + batch_size, count)]
                return tf.gather(images, chosen), tf.one_hot(tf.gather(labels, chosen), num_classes)

            return tf.data.Dataset.range(self.steps).map(batch)

        dataset = tf.data.Dataset.range(1).flat_map(epoch_batches)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(self.steps))
        self.dataset = dataset.prefetch(_PREFETCH)


def scoring_batches(split: Split, num_classes: int, batch_size: int = 256) -> tf.data.Dataset:
    """Every example once, in order; the same element types as `TrainingBatches.dataset`."""

    def one_hot(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return images, tf.one_hot(labels, num_classes)

    dataset = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
    return dataset.batch(batch_size).map(one_hot).prefetch(_PREFETCH)


def balanced_class_weight(labels: np.ndarray, num_classes: int) -> dict[int, float]:
    """Weight of each class: n / (classes with examples * examples of the class), as scikit-learn balances.

    >>> balanced_class_weight(np.array([0, 0, 0, 1]), 2)
    {0: 0.6666666666666666, 1: 2.0}
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    return {cls: float(len(labels) / (present * count)) if count else 1.0 for cls, count in enumerate(counts)}

"""tf.data batches of a data set. Images in memory lie there once, and a batch is a `tf.gather` of them; images in files
are read and decoded in parallel, a few batches ahead."""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kerascls.data.dataset import Split, fit_arrays
from kerascls.images.read import encoded_file, to_pixels
from kerascls.system import machine
from kerascls.system.memory import Rows, can_be_shared, check, fits

_PREFETCH = 4  # batches; enough to hide a gather, and small beside the images


class TrainingBatches:
    """One epoch after another of shuffled batches. The order is a function of (seed, epoch) and of nothing else.

    A split of `views` views has the n rows of one view after those of another. An epoch has one of each example:
    which one begins is drawn by the seed, and from epoch to epoch they take turns, but that from epoch `plain_from` on
    it is the first view.
    """

    def __init__(
        self,
        split: Split,
        num_classes: int,
        batch_size: int,
        seed: int,
        drop_remainder: bool = False,
        replicas: int = 1,
        views: int = 1,
        plain_from: int | None = None,
    ):
        count = len(split) // views
        batch_size = min(batch_size, count)
        # A set smaller than a batch still trains, as one batch.
        self.steps = max(1, count // batch_size) if drop_remainder else -(-count // batch_size)
        self.batch_size = batch_size
        self.gather = gathering(split, num_classes)
        self._batches = _batches(split, num_classes, batch_size, self.gather)
        self._replicas = replicas
        first_view = tf.random.stateless_uniform((count,), (seed, 0), 0, views, tf.int32)

        def order(epoch: tf.Tensor) -> tf.Tensor:
            seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
            order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=seeds)
            if views > 1:
                view = (tf.gather(first_view, order) + tf.cast(epoch, tf.int32)) % views
                order += count * (view if plain_from is None else tf.where(epoch < plain_from, view, 0))
            return order[: self.steps * batch_size]

        self._order = order

    def orders(self, epoch: int, step: int) -> tf.data.Dataset:
        """The positions of each epoch, int32 `(n,)`, without an end; of the first, `epoch`, those from `step` on."""

        @tf.autograph.experimental.do_not_convert  # has no Python's loops, and converting takes 0.1 s
        def rest(number: tf.Tensor) -> tf.Tensor:
            return self._order(number)[tf.where(number == epoch, step * self.batch_size, 0) :]

        return tf.data.Dataset.range(epoch, 2**40).map(rest)

    def dataset(self, epoch: int = 0, step: int = 0) -> tf.data.Dataset:
        """`(images, labels)`, epoch after epoch without an end, from step `step` of epoch `epoch` on: uint8
        `(batch, height, width, channels)` and one-hot float32 `(batch, num_classes)`."""
        batches = self.orders(epoch, step).flat_map(self._batches)
        return _untuned(share_among(self._replicas, batches).prefetch(_PREFETCH))

    def executions(self, steps: int, epoch: int = 0, step: int = 0) -> tf.data.Dataset:
        """The positions of `steps` batches at a time, int32 `(n,)`, as `dataset` goes through them.

        For `steps.TrainingModel`, which makes the batches by `gather`.
        """
        size = steps * self.batch_size

        @tf.autograph.experimental.do_not_convert
        def slices(order: tf.Tensor) -> tf.data.Dataset:
            return _slices(order, size, tf.identity)

        return _untuned(self.orders(epoch, step).flat_map(slices))


def scoring_batch_size(image_shape: tuple[int, ...]) -> int:
    """Images at a time where nothing is trained: 256 up to 64 x 64 RGB, fewer of larger ones, at least 32.

    Memory is what bounds it: ResNet50's first layers hold 3 MB an image of 224 x 224 each, some of them at once.
    """
    return max(32, min(256, 256 * 64 * 64 * 3 // math.prod(image_shape)))


def scoring_batches(
    split: Split, num_classes: int, batch_size: int = 0, replicas: int = 1, start: int = 0
) -> tf.data.Dataset:
    """Every example once, in order; the same element types as `TrainingBatches.dataset`.

    Args:
        batch_size: 0 for `scoring_batch_size`.
        start: the first example.
    """
    batch_size = batch_size or scoring_batch_size(split.images.shape[1:])
    batches = _batches(split, num_classes, batch_size, gathering(split, num_classes))
    dataset = batches(tf.range(start, len(split)))
    return _untuned(share_among(replicas, dataset).prefetch(_PREFETCH))


def ahead_on(device: str, batches: tf.data.Dataset) -> tf.data.Dataset:
    """`batches`, the next two of which lie on that device before a step asks for them. As a strategy does by itself."""
    return _untuned(batches.apply(tf.data.experimental.prefetch_to_device(f"/{device}", 2)))


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tf.data's tuning of what is fixed here anyway. Its thread sleeps for up to a minute at a time, and the
    end of an iterator waits for it: 18 s after ResNet50's features of 694 images."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    return dataset.with_options(options)


def gathering(split: Split, num_classes: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None:
    """What makes the batch at the positions that it is given, int32 `(n,)`; None where images are in files."""
    if split.streamed:
        return None
    array, at = (split.images.array, split.images.at) if isinstance(split.images, Rows) else (split.images, None)
    with tf.device("CPU:0"):  # where tf.data reads them; on a GPU they would fill its memory for nothing
        images, labels = shared(array), tf.constant(split.labels)
        places = None if at is None else tf.constant(at)

    def gather(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = positions if places is None else tf.gather(places, positions)
        # Not tf.gather(images), whose ResourceGather makes the variable a copy of its own first.
        return tf.gather(images.read_value(), rows), tf.one_hot(tf.gather(labels, positions), num_classes)

    return gather


def shared(array: np.ndarray) -> tf.Variable:
    """The array's own memory as a variable, where it can be: it must not be written to any more.

    An iterator of tf.data copies the tensors that its functions use, and leaves variables where they are.
    """
    same = can_be_shared(array)
    tensor = tf.experimental.dlpack.from_dlpack(array.__dlpack__()) if same else tf.constant(array)
    return tf.Variable(tensor, trainable=False)


def _batches(
    split: Split, num_classes: int, batch_size: int, gather: Callable | None
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """What makes batches of the examples at the positions that it is given, int32 `(n,)`, in their order."""
    if gather is not None:
        return lambda order: _slices(order, batch_size, gather)

    source, labels = split.images, tf.constant(split.labels)
    paths = tf.constant([os.fsencode(source.root / name) for name in source.names])
    checksums = tf.constant(source.checksums, tf.int64)

    def read(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = to_pixels(encoded_file(paths[at], checksums[at]), source.image_shape, source.background, source.resize)
        return pixels, tf.one_hot(labels[at], num_classes)

    def stream(order: tf.Tensor) -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices(order)
        return files.map(read, num_parallel_calls=machine.cores(), deterministic=True).batch(batch_size)

    return stream


def _slices(order: tf.Tensor, size: int, make: Callable) -> tf.data.Dataset:
    """What `make` makes of every `size` positions of `order`, int32 `(n,)`; the last may be fewer."""

    def one(number: tf.Tensor) -> Any:
        start = tf.cast(number, tf.int32) * size
        return make(order[start : tf.minimum(start + size, tf.size(order))])

    return tf.data.Dataset.range((tf.size(order, tf.int64) + size - 1) // size).map(one)


def on_canvas(split: Split, canvas: tuple[int, int] | None, cache_mb: int) -> Split:
    """`split` with images that cover `canvas`, (height, width), the centre cut out; as it is where that is None.

    Images from files are read again from there, at their full size, and kept decoded where they take at most
    `cache_mb` megabytes.
    """
    if not canvas or tuple(canvas) == split.images.shape[1:3]:
        return split
    if split.origin is None:
        shape = (*canvas, split.images.shape[3])
        held = split.images.array.nbytes if isinstance(split.images, Rows) else split.images.nbytes
        what = f"The {len(split):,} training images at data.canvas = {list(canvas)}"
        check(what, len(split) * math.prod(shape), "Lower data.canvas, or make a folder of the images.", held)
        return dataclasses.replace(split, images=fit_arrays(split.images, shape, "cover"))
    files = split.origin.on_canvas(*canvas)
    return decoded(dataclasses.replace(split, images=files, origin=files), cache_mb * 10**6)


def decoded(split: Split, room: int) -> Split:
    """`split` with its images in memory; as it is where they would take more than `room` bytes, or do not fit."""
    size = math.prod(split.images.shape)
    if not split.streamed or size > room or not fits(size):
        return split
    return dataclasses.replace(split, images=split.origin.decoded())


def share_among(replicas: int, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches of `(images, labels)` that leave no replica of a strategy without images.

    A replica takes ceil(n / replicas) of n images as long as there are any, and TensorFlow 2.21's convolutions fail on
    an empty batch. Where one would have none, the batch is repeated so that each replica has all of it: the moments of
    batch normalisation stay what they were. Only the first's labels are one-hot; the copies' are zero, by which
    `steps.TrainingModel` leaves them out of loss, gradient and metrics.
    """
    if replicas == 1:
        return batches

    def share(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.shape(labels)[0]
        copies = replicas - 1 if (replicas - 1) * -(-count // replicas) >= count else 0
        images = tf.tile(images, [1 + copies, 1, 1, 1])
        return images, tf.pad(labels, [[0, copies * count], [0, 0]])

    return batches.map(share)


def balanced_class_weight(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Weight of each class: n / (classes with examples * examples of the class), as scikit-learn balances; else 1.

    >>> balanced_class_weight(np.array([0, 0, 0, 1]), 3).tolist()
    [0.6666666666666666, 2.0, 1.0]
    """
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)

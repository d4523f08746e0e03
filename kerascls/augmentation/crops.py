"""Augmentations that crop."""

import math
from typing import Annotated

import tensorflow as tf

from kerascls.augmentation.geometry import project
from kerascls.augmentation.options import Interpolation


def random_resized_crop(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    height: int = 0,
    width: int = 0,
    min_area: Annotated[float, 0.01, 1] = 0.08,
    max_ratio: Annotated[float, 1, 10] = 1.3333333333333333,
    interpolation: Interpolation = "bilinear",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a random box out of each image and resizes it, as torchvision's RandomResizedCrop chooses boxes.

    A box has a share in [min_area, 1] of the image's area and a ratio of width to height, log-uniform, in
    [1 / max_ratio, max_ratio]; of ten draws the first that lies in the image is taken, else the largest box in the
    middle whose ratio is allowed. Resized without antialias.

    Args:
        height, width: of the images that come out, in pixels; 0 for those of the images that go in.
    """
    rows, columns = images.shape[1], images.shape[2]
    left, top, across, down = _boxes(tf.shape(images)[0], seed, rows, columns, min_area, max_ratio)
    height, width = height or rows, width or columns
    a, e = across / width, down / height
    zero = tf.zeros_like(a)
    # The centre of output pixel x is at (x + 0.5) / width of the box.
    matrices = tf.stack([a, zero, left + a / 2 - 0.5, zero, e, top + e / 2 - 0.5, zero, zero], axis=1)
    return project(images, matrices, (height, width), "nearest", interpolation), labels


def center_crop(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    height: Annotated[int, 0, "height"] = 0,
    width: Annotated[int, 0, "width"] = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts out the middle: `height` and `width` pixels, 0 for all. An odd pixel too many is cut off at the end."""
    rows, columns = images.shape[1], images.shape[2]
    height, width = height or rows, width or columns
    top, left = (rows - height) // 2, (columns - width) // 2
    return images[:, top : top + height, left : left + width], labels


def _boxes(
    count: tf.Tensor, seed: tf.Tensor, rows: int, columns: int, min_area: float, max_ratio: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Left, top, width and height of random_resized_crop's boxes: float32 `(count,)` each, whole numbers."""
    tries = 10
    draws = tf.random.stateless_uniform((4, tries + 1, count), seed)
    area = (min_area + (1 - min_area) * draws[0]) * (rows * columns)
    ratio = tf.exp((2 * draws[1] - 1) * math.log(max_ratio))
    across, down = tf.round(tf.sqrt(area * ratio)), tf.round(tf.sqrt(area / ratio))
    fits = (across >= 1) & (across <= columns) & (down >= 1) & (down <= rows)
    # The last try always fits: the largest box of an allowed ratio.
    widest, highest = min(columns, round(rows * max_ratio)), min(rows, round(columns * max_ratio))
    last = tf.range(tries + 1)[:, None] == tries
    across, down = tf.where(last, float(widest), across), tf.where(last, float(highest), down)
    first = tf.one_hot(tf.argmax(tf.cast(fits | last, tf.int32), axis=0), tries + 1, axis=0)
    in_middle = tf.where(last, 0.5, draws[2:])
    left, top = tf.floor(in_middle[0] * (columns - across + 1)), tf.floor(in_middle[1] * (rows - down + 1))
    return tuple(tf.reduce_sum(first * what, axis=0) for what in (left, top, across, down))

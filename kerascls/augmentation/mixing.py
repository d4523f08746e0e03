"""Augmentations that mix images or cut parts out of them."""

from typing import Annotated

import tensorflow as tf

from kerascls.augmentation.geometry import random_draws
from kerascls.augmentation.options import Share


def cutout(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    size: Share = 0.25,
    value: Annotated[float, 0, 255] = 127.5,
    probability: Share = 1.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Paints a box of one value into each image (DeVries and Taylor 2017), its place drawn, wholly inside the image.

    Args:
        size: the box's height and width as shares of the image's, rounded to whole pixels.
        value: of all channels in the box.
        probability: with which an image gets a box.
    """
    rows, columns = images.shape[1], images.shape[2]
    height, width = round(size * rows), round(size * columns)
    draws = (random_draws(images, seed, 3) + 1) / 2
    top = tf.floor(draws[0] * (rows - height + 1))
    left = tf.floor(draws[1] * (columns - width + 1))
    inside = _inside(images, top, top + height, left, left + width) & (draws[2] < probability)[:, None, None, None]
    return tf.where(inside, tf.constant(value, tf.float32), images), labels


# Mixtures


def mixup(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    alpha: Annotated[float, 0.05, 100] = 0.2,
    probability: Share = 1.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each image, and its label, with another of the batch (Zhang et al. 2018). A lone image stays as it is.

    A sample weight stays that of the first of the two, and training accuracy counts the label with the larger share.

    Args:
        alpha: the first image's share is drawn for each image from Beta(alpha, alpha).
        probability: with which an image is mixed.
    """
    share, other = _mixture(images, seed, alpha, probability)
    others = tf.gather(images, other)
    images = others + share[:, None, None, None] * (images - others)
    return images, _blend(labels, other, share)


def cutmix(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    alpha: Annotated[float, 0.05, 100] = 1.0,
    probability: Share = 1.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a box of another image of the batch into each (Yun et al. 2019), and mixes the labels by its area.

    The box's height and width are the square root of 1 - s as shares of the image's, s from Beta(alpha, alpha); its
    centre lies anywhere in the image, and what is outside is cut off. The labels' weights are counted in pixels. A
    sample weight stays that of the first of the two. A lone image stays as it is.

    Args:
        probability: with which an image is mixed.
    """
    rows, columns = images.shape[1], images.shape[2]
    seeds = tf.unstack(tf.random.split(seed, 2), num=2)
    share, other = _mixture(images, seeds[0], alpha, probability)
    centre = tf.random.stateless_uniform((2, tf.shape(images)[0]), seeds[1])
    half_height, half_width = tf.sqrt(1 - share) * (rows / 2), tf.sqrt(1 - share) * (columns / 2)
    y, x = centre[0] * rows, centre[1] * columns
    top, bottom = (tf.clip_by_value(tf.round(edge), 0.0, rows) for edge in (y - half_height, y + half_height))
    left, right = (tf.clip_by_value(tf.round(edge), 0.0, columns) for edge in (x - half_width, x + half_width))
    images = tf.where(_inside(images, top, bottom, left, right), tf.gather(images, other), images)
    return images, _blend(labels, other, 1 - (bottom - top) * (right - left) / (rows * columns))


def _inside(images: tf.Tensor, top: tf.Tensor, bottom: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """bool `(batch, height, width, 1)`: which pixels lie in [top, bottom) and [left, right), each `(batch,)`."""
    y, x = tf.range(images.shape[1], dtype=tf.float32), tf.range(images.shape[2], dtype=tf.float32)
    in_rows = (y >= top[:, None]) & (y < bottom[:, None])
    in_columns = (x >= left[:, None]) & (x < right[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]


def _mixture(images: tf.Tensor, seed: tf.Tensor, alpha: float, probability: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Each image's own share, float32 `(batch,)`, and the position of the one that it is mixed with, int32.

    The others are the batch turned round by a drawn number of places, so no image is mixed with itself.
    """
    seeds = tf.unstack(tf.random.split(seed, 3), num=3)
    count = tf.shape(images)[0]
    gamma = tf.random.stateless_gamma((2, count), seeds[0], alpha)
    share = tf.math.divide_no_nan(gamma[0], gamma[0] + gamma[1])  # Beta(alpha, alpha)
    share = tf.where(tf.random.stateless_uniform((count,), seeds[1]) < probability, share, 1.0)
    places = tf.random.stateless_uniform((), seeds[2], 1, tf.maximum(count, 2), tf.int32)
    return share, (tf.range(count) + places) % tf.maximum(count, 1)


def _blend(labels: tf.Tensor, other: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return share[:, None] * labels + (1 - share[:, None]) * tf.gather(labels, other)

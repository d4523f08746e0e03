"""Augmentations of colour and contrast."""

import math
from typing import Annotated

import numpy as np
import tensorflow as tf

from kerascls.augmentation.geometry import composed, random_draws, turning, warp
from kerascls.augmentation.options import FillMode, Share

# FCC NTSC: luma, and the two axes of chroma, in which a turn changes the hue.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_LUMA = np.tile(_YIQ[0], (3, 1))  # RGB to three times its luma
_QUARTER_TURN = np.linalg.inv(_YIQ) @ np.diag([0, 1, 1]) @ np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ _YIQ


# Colour


def color_jitter(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    brightness: Share = 0.2,
    contrast: Share = 0.2,
    saturation: Share = 0.2,
    hue: Annotated[float, 0, 0.5] = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Multiplies brightness, contrast and saturation each by a draw in [1 - option, 1 + option], and turns the hue.

    Contrast is about the mean luma of the image, saturation about the luma of the pixel. Gray stays gray, gray images
    know neither saturation nor hue, and the result is clipped to [0, 255].

    Args:
        hue: turned by up to this share of the colour circle either way, in YIQ, which keeps the luma.
    """
    draws = random_draws(images, seed, 4)
    angle = draws[3] * (hue * 2 * math.pi) if hue else None
    factor = 1 + saturation * draws[2] if saturation or hue else None
    return _recolour(images, 1 + brightness * draws[0], 1 + contrast * draws[1], factor, angle), labels


def rand_augment(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    num_ops: Annotated[int, 1, 10] = 2,
    magnitude: Annotated[float, 0, 30] = 9.0,
    fill_mode: FillMode = "nearest",
) -> tuple[tf.Tensor, tf.Tensor]:
    """RandAugment (Cubuk et al. 2020): `num_ops` operations for each image, drawn with replacement from twelve.

    They are identity, shear, translation (each across and down), rotation, brightness, contrast, saturation,
    autocontrast, solarize and posterize, with torchvision's ranges; equalize and sharpness, which cost most, are left
    out. They are applied in this order, not as drawn: all geometry in one interpolation, then the colours. The sign of
    the first nine is drawn. One that is drawn twice is applied with twice its strength.

    Args:
        magnitude: of 30; the strength of each operation.
    """
    height, width = images.shape[1], images.shape[2]
    seeds = tf.unstack(tf.random.split(seed, 2), num=2)
    count, share = tf.shape(images)[0], magnitude / 30
    chosen = tf.one_hot(tf.random.stateless_uniform((num_ops, count), seeds[0], 0, 12, tf.int32), 12)
    signs = tf.where(tf.random.stateless_uniform((num_ops, count, 1), seeds[1]) < 0.5, -1.0, 1.0)
    signed = tf.unstack(share * tf.reduce_sum(chosen * signs, axis=0), num=12, axis=1)
    times = tf.unstack(tf.reduce_sum(chosen, axis=0), num=12, axis=1)
    one = tf.ones_like(times[0])
    linear = composed(turning(signed[5] * (math.pi / 6)), (one, 0.3 * signed[1], 0.3 * signed[2], one))
    images = warp(images, linear, signed[3] * (150 / 331 * width), signed[4] * (150 / 331 * height), fill_mode)
    images = _stretch_contrast(images, times[9] > 0)
    factors = [tf.maximum(1 + 0.9 * amount, 0.0) for amount in signed[6:9]]
    images = _recolour(images, factors[0], factors[1], factors[2] if images.shape[-1] == 3 else None, None)
    threshold = 256 - 256 * share * times[10][:, None, None, None]
    images = tf.where(images >= threshold, 255 - images, images)
    # Posterize keeps the high 8 to 4 bits.
    step = (2.0 ** tf.minimum(tf.round(4 * share * times[11]), 7.0))[:, None, None, None]
    return tf.where(step > 1, tf.floor(images / step) * step, images), labels


def _recolour(
    images: tf.Tensor,
    brightness: tf.Tensor,
    contrast: tf.Tensor,
    saturation: tf.Tensor | None,
    hue: tf.Tensor | None,
) -> tf.Tensor:
    """Brightness and contrast, then saturation and hue (an angle), as one affine map of the colours of each image.

    Saturation s and hue h multiply by L + s cos(h) (I - L) + s sin(h) K: L maps to luma, K turns chroma a quarter.
    """
    means = tf.reduce_mean(images, axis=(1, 2))
    means = tf.tensordot(means, tf.constant(_YIQ[0], tf.float32), 1) if images.shape[-1] == 3 else means[:, 0]
    gain, offset = brightness * contrast, brightness * (1 - contrast) * means
    if images.shape[-1] == 1 or saturation is None:
        images = gain[:, None, None, None] * images
    else:
        cos, sin = (saturation * part(hue) if hue is not None else None for part in (tf.cos, tf.sin))
        cos = saturation if cos is None else cos
        luma = tf.constant(_LUMA, tf.float32)
        matrix = luma + cos[:, None, None] * (tf.eye(3) - luma)
        if sin is not None:
            matrix += sin[:, None, None] * tf.constant(_QUARTER_TURN, tf.float32)
        height, width = images.shape[1:3]
        flat = tf.reshape(images, (-1, height * width, 3))
        flat = tf.matmul(flat, gain[:, None, None] * matrix, transpose_b=True)
        images = tf.reshape(flat, (-1, height, width, 3))
    return tf.clip_by_value(images + offset[:, None, None, None], 0.0, 255.0)


def _stretch_contrast(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Autocontrast where `chosen`, bool `(batch,)`: each channel's lowest to 0, highest to 255; a flat one stays."""
    low, high = tf.reduce_min(images, (1, 2), keepdims=True), tf.reduce_max(images, (1, 2), keepdims=True)
    stretched = chosen[:, None, None, None] & (high > low)
    gain = tf.where(stretched, 255 / (high - low), 1.0)
    return gain * images - tf.where(stretched, gain * low, 0.0)

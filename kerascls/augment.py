"""Augmentation on the device, inside the training step.

The public functions with options are the policies that a recipe's `augment.policy` names. Each takes float32 images
`(batch, height, width, channels)` in [0, 255], one-hot labels `(batch, num_classes)` and an int32 seed `(2,)`, and
returns images and labels like them. What they draw is a function of the seed alone.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def flip(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, horizontal: bool = True, vertical: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors each image with probability 1/2, left to right, upside down, or each of both."""
    draws = tf.random.stateless_uniform((2, tf.shape(images)[0], 1, 1, 1), seed)
    if horizontal:
        images = tf.where(draws[0] < 0.5, images[:, :, ::-1], images)
    if vertical:
        images = tf.where(draws[1] < 0.5, images[:, ::-1], images)
    return images, labels


def shift(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, pixels: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves each image by a whole number of pixels in [-pixels, pixels], down and across; the edge is repeated."""
    height, width = images.shape[1], images.shape[2]
    moves = tf.random.stateless_uniform((2, tf.shape(images)[0], 1), seed, -pixels, pixels + 1, tf.int32)
    rows = tf.clip_by_value(tf.range(height) + moves[0], 0, height - 1)
    columns = tf.clip_by_value(tf.range(width) + moves[1], 0, width - 1)
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1), labels


def affine(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    degrees: float = 0.0,
    shift: float = 0.0,
    zoom: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns, moves and scales each image about its centre in one bilinear step; the edge is repeated outward.

    Args:
        degrees: turned by up to so many degrees either way.
        shift: moved by up to this share of height and of width.
        zoom: scaled by a factor in [1 - zoom, 1 + zoom].
    """
    shape = tf.shape(images)
    height, width = tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)
    draws = tf.random.stateless_uniform((4, shape[0]), seed, -1.0, 1.0)
    angle = draws[0] * (degrees * math.pi / 180)
    down, right = draws[1] * shift * height, draws[2] * shift * width
    matrices = affine_matrices(angle, down, right, 1.0 + draws[3] * zoom, height, width)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return moved, labels


def affine_matrices(
    angle: tf.Tensor, down: tf.Tensor, right: tf.Tensor, scale: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Rows of ImageProjectiveTransformV3: output pixel (x, y) is read from (a x + b y + c, d x + e y + f).

    The image is scaled by `scale` and turned anticlockwise by `angle` about its centre, ((width - 1) / 2,
    (height - 1) / 2), then moved by (`right`, `down`) pixels; this is the inverse of that.

    Args:
        angle: radians, float32 `(n,)`, as `down`, `right` (pixels) and `scale` are.

    Returns:
        float32 `(n, 8)`.
    """
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    a, b, d, e = cos, -sin, sin, cos
    c = centre_x - a * (centre_x + right) - b * (centre_y + down)
    f = centre_y - d * (centre_x + right) - e * (centre_y + down)
    zero = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, zero, zero], axis=1)


def apply_policy(
    policy: Sequence[dict[str, Any]], images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies a recipe's policy, each entry with a seed of its own.

    Args:
        policy: `[{"name": "affine", "degrees": 10}, {"name": "flip"}]`.
        images: uint8 or float32 `(batch, height, width, channels)` in [0, 255].
        labels: float32 `(batch, num_classes)`.
        seed: int32 `(2,)`.

    Returns:
        float32 images and labels.
    """
    images = tf.cast(images, tf.float32)
    for position, entry in enumerate(policy):
        options = {key: value for key, value in entry.items() if key != "name"}
        own_seed = tf.random.experimental.stateless_fold_in(seed, position)
        images, labels = globals()[entry["name"]](images, labels, own_seed, **options)
    return images, labels


class AugmentedModel(keras.Model):
    """Trains `classifier` on images augmented by `policy`. Evaluation and prediction are the classifier's own.

    What is saved, scored and exported is `classifier`, so nothing of the policy or of the optimiser goes along.
    What step s draws is a function of (`seed`, s). From step `policy_steps` on, images are left as they are.
    """

    def __init__(
        self,
        classifier: keras.Model,
        policy: Sequence[dict[str, Any]] = (),
        seed: int = 0,
        policy_steps: int | None = None,
    ):
        super().__init__(name="training")
        self.classifier = classifier
        self.policy = [dict(entry) for entry in policy]
        self.seed = seed
        self.policy_steps = policy_steps

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.classifier(images, training=training)

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.policy:
            step = tf.cast(self.optimizer.iterations.value, tf.int32)
            seed = tf.stack([tf.constant(self.seed, tf.int32), step])
            images = tf.cast(images, tf.float32)
            if self.policy_steps is None:
                images, labels = apply_policy(self.policy, images, labels, seed)
            else:
                images, labels = tf.cond(
                    step < self.policy_steps,
                    lambda: apply_policy(self.policy, images, labels, seed),
                    lambda: (images, labels),
                )
        return super().train_step((images, labels, sample_weight))

"""Augmentation on the device, inside the training step.

The public functions with options are the policies that a recipe's `augment.policy` names. Each takes float32 images
`(batch, height, width, 1 or 3)` in [0, 255], one-hot labels `(batch, num_classes)` and an int32 seed `(2,)`, and
returns images and labels like them. What they draw is a function of the seed alone, and each image is drawn for on its
own. All geometry of a policy is one `ImageProjectiveTransformV3`, and so one interpolation.

An option's annotation is the range that a recipe is held to: `Annotated[float, LOW, HIGH]`, both included, or
`Literal` texts; one without is in [0, 10000]. A policy that changes the size of images has whole-number options
`height` and `width`, 0 for as it comes; a HIGH of "height" or "width" is that of the images. `catalog` reads all this
from the source, so that a recipe's faults are told before TensorFlow is imported.
"""

import math

import tensorflow as tf

from kerascls.augmentation.options import Degrees, FillMode, Interpolation, Share, Zoom

# Geometry


def flip(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, horizontal: bool = True, vertical: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors each image with probability 1/2, left to right, upside down, or each of both."""
    height, width = images.shape[1], images.shape[2]
    mirrored = tf.random.stateless_uniform((2, tf.shape(images)[0], 1), seed) < 0.5
    if horizontal:
        columns = tf.range(width)
        images = tf.gather(images, tf.where(mirrored[0], columns[::-1], columns), axis=2, batch_dims=1)
    if vertical:
        rows = tf.range(height)
        images = tf.gather(images, tf.where(mirrored[1], rows[::-1], rows), axis=1, batch_dims=1)
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
    degrees: Degrees = 0.0,
    shift: Share = 0.0,
    zoom: Zoom = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns, moves and scales each image about its centre in one bilinear step; the edge is repeated outward.

    Args:
        degrees: turned by up to so many degrees either way.
        shift: moved by up to this share of height and of width.
        zoom: scaled by a factor in [1 - zoom, 1 + zoom].
    """
    height, width = tf.constant(float(images.shape[1])), tf.constant(float(images.shape[2]))
    draws = random_draws(images, seed, 4)
    angle = draws[0] * (degrees * math.pi / 180)
    down, right = draws[1] * shift * height, draws[2] * shift * width
    matrices = affine_matrices(angle, down, right, 1.0 + draws[3] * zoom, height, width)
    return project(images, matrices, images.shape[1:3], "nearest", "bilinear"), labels


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


def rotation(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    degrees: Degrees = 10.0,
    fill_mode: FillMode = "nearest",
    interpolation: Interpolation = "bilinear",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns each image about its centre by up to `degrees` either way."""
    angle = random_draws(images, seed)[0] * (degrees * math.pi / 180)
    return warp(images, turning(angle), fill_mode=fill_mode, interpolation=interpolation), labels


def shear(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    degrees: Degrees = 10.0,
    fill_mode: FillMode = "nearest",
    interpolation: Interpolation = "bilinear",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Slants each image about its centre by up to `degrees` either way, by ImageDataGenerator's matrix."""
    angle = random_draws(images, seed)[0] * (degrees * math.pi / 180)
    return warp(images, _slant(angle), fill_mode=fill_mode, interpolation=interpolation), labels


def zoom(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    factor: Zoom = 0.1,
    independent: bool = False,
    fill_mode: FillMode = "nearest",
    interpolation: Interpolation = "bilinear",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales each image about its centre by a draw in [1 - factor, 1 + factor]; `independent`: one for each axis."""
    draws = 1 + factor * random_draws(images, seed, 2)
    across, down = draws[0], draws[1 if independent else 0]
    linear = _scale(1 / across, 1 / down)
    return warp(images, linear, fill_mode=fill_mode, interpolation=interpolation), labels


def image_data_generator(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    rotation_range: Degrees = 0.0,
    width_shift_range: Share = 0.0,
    height_shift_range: Share = 0.0,
    shear_range: Degrees = 0.0,
    zoom_range: Zoom = 0.0,
    horizontal_flip: bool = False,
    vertical_flip: bool = False,
    fill_mode: FillMode = "nearest",
) -> tuple[tf.Tensor, tf.Tensor]:
    """The geometry of Keras' ImageDataGenerator, by its names, in one bilinear step.

    With c the centre, output pixel p is read from R(S Z F (p - c) + t) + c: turned by R, shifted by t, sheared by
    S = [[1, -sin], [0, cos]], zoomed by Z = diag(zx, zy), mirrored by F with probability 1/2 for each flip. zx and zy
    are drawn independently from [1 - zoom_range, 1 + zoom_range]; below 1 enlarges.

    Args:
        rotation_range, shear_range: degrees, drawn from so many either way.
        width_shift_range, height_shift_range: shares of width and of height, likewise.
    """
    height, width = images.shape[1], images.shape[2]
    draws = random_draws(images, seed, 8)
    radians = math.pi / 180
    right, down = draws[0] * (width_shift_range * width), draws[1] * (height_shift_range * height)
    turn = turning(draws[2] * (rotation_range * radians))
    mirror = _scale(
        tf.where(draws[6] < 0, -1.0, 1.0) if horizontal_flip else tf.ones_like(right),
        tf.where(draws[7] < 0, -1.0, 1.0) if vertical_flip else tf.ones_like(right),
    )
    linear = composed(
        _slant(draws[3] * (shear_range * radians)), _scale(1 + zoom_range * draws[4], 1 + zoom_range * draws[5])
    )
    linear = composed(composed(turn, linear), mirror)
    return warp(images, linear, turn[0] * right + turn[1] * down, turn[2] * right + turn[3] * down, fill_mode), labels


# What policies are made of

Linear = tuple[
    tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor
]  # (a, b, d, e), each (batch,): x' = a x + b y, y' = d x + e y


def random_draws(images: tf.Tensor, seed: tf.Tensor, count: int = 1) -> tf.Tensor:
    """float32 `(count, batch)` in [-1, 1)."""
    return tf.random.stateless_uniform((count, tf.shape(images)[0]), seed, -1.0, 1.0)


def turning(angle: tf.Tensor) -> Linear:
    """Reading so turns an image anticlockwise by `angle`, in radians."""
    return tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle)


def _slant(angle: tf.Tensor) -> Linear:
    return tf.ones_like(angle), -tf.sin(angle), tf.zeros_like(angle), tf.cos(angle)


def _scale(across: tf.Tensor, down: tf.Tensor) -> Linear:
    return across, tf.zeros_like(across), tf.zeros_like(across), down


def composed(first: Linear, second: Linear) -> Linear:
    """The matrix product, by elements: a matmul would round to 10 bits where a GPU computes in TF32."""
    (a, b, d, e), (p, q, r, s) = first, second
    return a * p + b * r, a * q + b * s, d * p + e * r, d * q + e * s


def warp(
    images: tf.Tensor,
    linear: Linear,
    right: tf.Tensor | float = 0.0,
    down: tf.Tensor | float = 0.0,
    fill_mode: str = "nearest",
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Output pixel p is read from linear (p - c) + c + (right, down), with c the centre."""
    height, width = images.shape[1], images.shape[2]
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    a, b, d, e = linear
    c = centre_x - a * centre_x - b * centre_y + right
    f = centre_y - d * centre_x - e * centre_y + down
    zero = tf.zeros_like(a)
    return project(images, tf.stack([a, b, c, d, e, f, zero, zero], axis=1), (height, width), fill_mode, interpolation)


def project(
    images: tf.Tensor, matrices: tf.Tensor, size: tuple[int, int], fill_mode: str, interpolation: str
) -> tf.Tensor:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=size,
        fill_value=0.0,
        interpolation=interpolation.upper(),
        fill_mode=fill_mode.upper(),
    )

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
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import tensorflow as tf

Share = Annotated[float, 0, 1]
Degrees = Annotated[float, 0, 180]
Zoom = Annotated[float, 0, 0.9]
FillMode = Literal["nearest", "constant", "reflect", "wrap"]  # outside the image: its edge, black, mirrored, repeated
Interpolation = Literal["bilinear", "nearest"]

# FCC NTSC: luma, and the two axes of chroma, in which a turn changes the hue.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_LUMA = np.tile(_YIQ[0], (3, 1))  # RGB to three times its luma
_QUARTER_TURN = np.linalg.inv(_YIQ) @ np.diag([0, 1, 1]) @ np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ _YIQ


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
    draws = _draws(images, seed, 4)
    angle = draws[0] * (degrees * math.pi / 180)
    down, right = draws[1] * shift * height, draws[2] * shift * width
    matrices = affine_matrices(angle, down, right, 1.0 + draws[3] * zoom, height, width)
    return _project(images, matrices, images.shape[1:3], "nearest", "bilinear"), labels


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
    angle = _draws(images, seed)[0] * (degrees * math.pi / 180)
    return _warp(images, _turn(angle), fill_mode=fill_mode, interpolation=interpolation), labels


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
    angle = _draws(images, seed)[0] * (degrees * math.pi / 180)
    return _warp(images, _slant(angle), fill_mode=fill_mode, interpolation=interpolation), labels


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
    draws = 1 + factor * _draws(images, seed, 2)
    across, down = draws[0], draws[1 if independent else 0]
    linear = _scale(1 / across, 1 / down)
    return _warp(images, linear, fill_mode=fill_mode, interpolation=interpolation), labels


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
    draws = _draws(images, seed, 8)
    radians = math.pi / 180
    right, down = draws[0] * (width_shift_range * width), draws[1] * (height_shift_range * height)
    turn = _turn(draws[2] * (rotation_range * radians))
    mirror = _scale(
        tf.where(draws[6] < 0, -1.0, 1.0) if horizontal_flip else tf.ones_like(right),
        tf.where(draws[7] < 0, -1.0, 1.0) if vertical_flip else tf.ones_like(right),
    )
    linear = _times(
        _slant(draws[3] * (shear_range * radians)), _scale(1 + zoom_range * draws[4], 1 + zoom_range * draws[5])
    )
    linear = _times(_times(turn, linear), mirror)
    return _warp(images, linear, turn[0] * right + turn[1] * down, turn[2] * right + turn[3] * down, fill_mode), labels


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
    return _project(images, matrices, (height, width), "nearest", interpolation), labels


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
    draws = (_draws(images, seed, 3) + 1) / 2
    top = tf.floor(draws[0] * (rows - height + 1))
    left = tf.floor(draws[1] * (columns - width + 1))
    inside = _inside(images, top, top + height, left, left + width) & (draws[2] < probability)[:, None, None, None]
    return tf.where(inside, tf.constant(value, tf.float32), images), labels


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
    draws = _draws(images, seed, 4)
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
    linear = _times(_turn(signed[5] * (math.pi / 6)), (one, 0.3 * signed[1], 0.3 * signed[2], one))
    images = _warp(images, linear, signed[3] * (150 / 331 * width), signed[4] * (150 / 331 * height), fill_mode)
    images = _stretch_contrast(images, times[9] > 0)
    factors = [tf.maximum(1 + 0.9 * amount, 0.0) for amount in signed[6:9]]
    images = _recolour(images, factors[0], factors[1], factors[2] if images.shape[-1] == 3 else None, None)
    threshold = 256 - 256 * share * times[10][:, None, None, None]
    images = tf.where(images >= threshold, 255 - images, images)
    # Posterize keeps the high 8 to 4 bits.
    step = (2.0 ** tf.minimum(tf.round(4 * share * times[11]), 7.0))[:, None, None, None]
    return tf.where(step > 1, tf.floor(images / step) * step, images), labels


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


# What policies are made of

Linear = tuple[
    tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor
]  # (a, b, d, e), each (batch,): x' = a x + b y, y' = d x + e y


def _draws(images: tf.Tensor, seed: tf.Tensor, count: int = 1) -> tf.Tensor:
    """float32 `(count, batch)` in [-1, 1)."""
    return tf.random.stateless_uniform((count, tf.shape(images)[0]), seed, -1.0, 1.0)


def _turn(angle: tf.Tensor) -> Linear:
    """Reading so turns an image anticlockwise by `angle`, in radians."""
    return tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle)


def _slant(angle: tf.Tensor) -> Linear:
    return tf.ones_like(angle), -tf.sin(angle), tf.zeros_like(angle), tf.cos(angle)


def _scale(across: tf.Tensor, down: tf.Tensor) -> Linear:
    return across, tf.zeros_like(across), tf.zeros_like(across), down


def _times(first: Linear, second: Linear) -> Linear:
    """The matrix product, by elements: a matmul would round to 10 bits where a GPU computes in TF32."""
    (a, b, d, e), (p, q, r, s) = first, second
    return a * p + b * r, a * q + b * s, d * p + e * r, d * q + e * s


def _warp(
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
    return _project(images, tf.stack([a, b, c, d, e, f, zero, zero], axis=1), (height, width), fill_mode, interpolation)


def _project(
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


def _inside(images: tf.Tensor, top: tf.Tensor, bottom: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """bool `(batch, height, width, 1)`: which pixels lie in [top, bottom) and [left, right), each `(batch,)`."""
    y, x = tf.range(images.shape[1], dtype=tf.float32), tf.range(images.shape[2], dtype=tf.float32)
    in_rows = (y >= top[:, None]) & (y < bottom[:, None])
    in_columns = (x >= left[:, None]) & (x < right[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]


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


# The policy as a whole


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

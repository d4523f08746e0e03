"""Channels and sizes of decoded images, in TensorFlow."""

from collections.abc import Callable

import tensorflow as tf

from kerascls.images.files import (
    LONGEST,
)

_STRIP = 1 << 22  # pixels that arithmetic in wider types holds at a time


def to_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB uint8 `(..., 3)` as RGB, or as gray `(..., 1)`: (299 R + 587 G + 114 B + 500) // 1000."""
    if channels == 3:
        return image

    def gray(pixels: tf.Tensor) -> tf.Tensor:
        # In float32, which is twice as fast: sums are whole numbers below 2**24, and what their product with 0.001
        # loses takes none of them across a whole number.
        red, green, blue = tf.split(tf.cast(pixels, tf.float32), 3, -1)
        return tf.cast((299 * red + 587 * green + 114 * blue + 500) * 0.001, tf.uint8)

    return in_strips(gray, image, 1)


def in_strips(change: Callable[[tf.Tensor], tf.Tensor], image: tf.Tensor, channels: int) -> tf.Tensor:
    """`change`, of pixels `(n, C)` to `(n, channels)`, of uint8 `(..., C)`. It gets at most _STRIP pixels at a time,
    so that what it holds meanwhile does not grow with the image."""
    pixels = tf.reshape(image, (-1, image.shape[-1]))
    count = -(-tf.shape(pixels)[0] // _STRIP)

    def strips() -> tf.Tensor:
        done = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=(None, channels))
        for_each = lambda i, out: (i + 1, out.write(i, change(pixels[i * _STRIP : (i + 1) * _STRIP])))  # noqa: E731
        return tf.while_loop(lambda i, _: i < count, for_each, (0, done), parallel_iterations=1)[1].concat()

    changed = tf.cond(count <= 1, lambda: change(pixels), strips)
    out = tf.reshape(changed, tf.concat([tf.shape(image)[:-1], [channels]], 0))
    return tf.ensure_shape(out, [*image.shape[:-1], channels])


def resize(images: tf.Tensor, height: int, width: int, rule: str = "stretch") -> tf.Tensor:
    """uint8 `(..., h, w, C)` to `(..., height, width, C)`. The same size is the identity but under "center_crop".

    Args:
        rule: "stretch" brings both sides to their length, bilinear with antialias, rounded half to even.
            "nearest" does so by picking pixels, pixel i from ((2 i + 1) h) // (2 height), as Pillow's NEAREST does.
            "cover" keeps the aspect ratio: resized as by "stretch" until both sides are covered, then the centre is
            cut out. "center_crop" does so to 8/7 of the size before it cuts: 224 is cut out of 256, as torchvision's
            Resize(256) and CenterCrop(224) do, to the pixel: the longer side rounded down, the margin half to even.
    """
    shape = tf.shape(images)
    h, w = shape[-3], shape[-2]

    def bilinear(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        exact = tf.image.resize(images, size, method="bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(exact), 0.0, 255.0), tf.uint8)

    def middle() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of a line of pixels, which would become a very long image before it is cut, and its height and width."""
        rows, columns = tf.minimum(h, LONGEST * w), tf.minimum(w, LONGEST * h)
        top, left = (h - rows) // 2, (w - columns) // 2
        return images[..., top : top + rows, left : left + columns, :], rows, columns

    def nearest() -> tf.Tensor:
        rows = (2 * tf.range(height) + 1) * h // (2 * height)
        columns = (2 * tf.range(width) + 1) * w // (2 * width)
        return tf.gather(tf.gather(images, rows, axis=-3), columns, axis=-2)

    def cut(share: float) -> tf.Tensor:
        high, wide = round(height * share), round(width * share)
        part, h, w = middle()
        by_height = tf.cast(high, tf.int64) * tf.cast(w, tf.int64) >= tf.cast(wide, tf.int64) * tf.cast(h, tf.int64)
        size = tf.where(by_height, [high, w * high // h], [h * wide // w, wide])
        margin = size - [height, width]
        top, left = tf.unstack((margin + margin // 2 % 2) // 2)  # half of it, rounded half to even
        return bilinear(part, size)[..., top : top + height, left : left + width, :]

    resized = {
        "stretch": lambda: bilinear(images, tf.constant([height, width])),
        "nearest": nearest,
        "cover": lambda: cut(1.0),
        "center_crop": lambda: cut(8 / 7),
    }[rule]
    same = tf.logical_and(tf.equal(h, height), tf.equal(w, width))
    out = resized() if rule == "center_crop" else tf.cond(same, lambda: images, resized)
    return tf.ensure_shape(out, [*images.shape[:-3], height, width, images.shape[-1]])

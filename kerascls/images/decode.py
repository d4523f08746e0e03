"""The one road from an encoded image to a tensor, all TensorFlow ops.

Training, evaluation, prediction and the exported graph call the same functions, so they agree to the bit:

    bytes -> `decode`: uint8 (height, width, 3) -> `to_channels`: (height, width, C) -> `resize`: (H, W, C)

The kind of file is told by its first bytes, never by its suffix.
"""

import tensorflow as tf

from kerascls.images.files import EXIF_HEAD
from kerascls.images.kinds import image_kind
from kerascls.images.resize import in_strips


def decode(
    encoded: tf.Tensor, background: tuple[int, int, int] = (255, 255, 255), kind: str | None = None
) -> tf.Tensor:
    """One encoded PNG, JPEG, BMP, GIF or WebP as RGB.

    Palettes become RGB, CMYK and YCCK as libjpeg makes them, 16-bit samples keep their high byte, gray is repeated,
    alpha is composited over `background`, the first frame of an animation is taken, and a JPEG is turned as its
    EXIF orientation says.

    Args:
        encoded: scalar string tensor.
        background: RGB in [0, 255], static.
        kind: what `known_kind` says of it, static; the graph then has that kind's ops alone, which takes less time
            and gives the same bits.

    Returns:
        uint8 tensor `(height, width, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: when run, if the bytes are not a whole image of these kinds.
    """
    if kind == "upright jpeg":
        return _decode_upright_jpeg(encoded)
    if kind is not None:
        return _decode_jpeg(encoded) if kind == "jpeg" else _decode_other(encoded, background, kind)
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    return tf.cond(is_jpeg, lambda: _decode_jpeg(encoded), lambda: _decode_other(encoded, background))


def known_kind(encoded: bytes) -> str | None:
    """`image_kind`, or "upright jpeg" for a JPEG in which `decode` finds no EXIF and so no orientation."""
    kind = image_kind(encoded)
    return "upright jpeg" if kind == "jpeg" and encoded.find(b"Exif\0\0", 0, EXIF_HEAD) < 0 else kind


def _decode_other(encoded: tf.Tensor, background: tuple[int, int, int], kind: str | None = None) -> tf.Tensor:
    head = tf.strings.substr(encoded, 0, 16) + b"\0" * 16  # a file may be shorter than the places looked at

    def starts(magic: bytes, at: int = 0) -> tf.Tensor:
        return tf.equal(tf.strings.substr(head, at, len(magic)), magic)

    def over_background(rgba: tf.Tensor) -> tf.Tensor:
        """(alpha * colour + (255 - alpha) * background + 127) // 255; opaque stays as it is."""

        def mixed(pixels: tf.Tensor) -> tf.Tensor:
            wide = tf.cast(pixels, tf.int32)
            alpha = wide[..., 3:]
            return tf.cast((alpha * wide[..., :3] + (255 - alpha) * background + 127) // 255, tf.uint8)

        return in_strips(mixed, rgba, 3)

    def png() -> tf.Tensor:
        rgba = tf.io.decode_png(encoded, channels=4)
        # TensorFlow 2.21 makes up opaque alpha as 2**depth - 1, which is 1, 3 or 15 below 8 bits a sample.
        depth = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 24, 1), tf.uint8)[0], tf.int32)
        made_up = tf.cast(tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1, tf.uint8)
        opaque = tf.reduce_all(tf.equal(rgba[..., 3], made_up))
        return tf.cond(opaque, lambda: rgba[..., :3], lambda: over_background(rgba))

    def webp() -> tf.Tensor:
        # TensorFlow 2.21 aborts the process on an animation whose header declares no alpha (VP8X flags 0x02 without
        # 0x10). Declaring it changes no pixel: an animation is decoded as RGBA anyway.
        flags = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 20, 1), tf.uint8)[0], tf.int32)
        with_alpha = tf.gather(tf.constant([bytes([byte | 0x10]) for byte in range(256)]), flags)
        animated = tf.logical_and(starts(b"VP8X", 12), tf.equal(tf.bitwise.bitwise_and(flags, 0x02), 0x02))
        safe = tf.cond(
            animated,
            lambda: tf.strings.join(
                [tf.strings.substr(encoded, 0, 20), with_alpha, tf.strings.substr(encoded, 21, -1)]
            ),
            lambda: encoded,
        )
        image = tf.io.decode_webp(safe, channels=0)[0]  # the first frame; 3 channels, or 4 where there is alpha
        image.set_shape((None, None, None))
        opaque = tf.fill(tf.concat([tf.shape(image)[:2], [4 - tf.shape(image)[2]]], 0), tf.constant(255, tf.uint8))
        return over_background(tf.ensure_shape(tf.concat([image, opaque], 2), (None, None, 4)))

    def gif() -> tf.Tensor:
        return tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), (None, None, 3))

    def bmp() -> tf.Tensor:
        return _decode_bmp(encoded, over_background)

    if kind is not None:
        return {"gif": gif, "bmp": bmp, "webp": webp, "png": png}[kind]()
    is_webp = tf.logical_and(starts(b"RIFF"), starts(b"WEBP", 8))

    def png_alone() -> tf.Tensor:
        known = tf.debugging.Assert(starts(b"\x89PNG"), [b"is not an image: expected PNG, JPEG, BMP, GIF or WebP"])
        with tf.control_dependencies([known]):
            return png()

    return tf.case([(starts(b"GIF8"), gif), (starts(b"BM"), bmp), (is_webp, webp)], default=png_alone)


def _decode_bmp(encoded: tf.Tensor, over_background) -> tf.Tensor:
    """Palettes of 1, 4 and 8 bits by our own ops, since TensorFlow takes palette indices for gray levels."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 0, 70) + b"\0" * 70, tf.uint8), tf.int32)

    def u32(at: int) -> tf.Tensor:
        return head[at] + head[at + 1] * 2**8 + head[at + 2] * 2**16 + tf.bitwise.left_shift(head[at + 3], 24)

    start, header, width, height, bits, compression = u32(10), u32(14), u32(18), u32(22), head[28], u32(30)

    def palette() -> tf.Tensor:
        colours = u32(46)
        colours = tf.where(tf.equal(colours, 0), tf.bitwise.left_shift(1, bits), colours)
        table = tf.io.decode_raw(tf.strings.substr(encoded, 14 + header, 4 * colours), tf.uint8)
        table = tf.reshape(table, (-1, 4))[:, 2::-1]  # stored as blue, green, red, nothing
        stride = (width * bits + 31) // 32 * 4
        rows = tf.io.decode_raw(tf.strings.substr(encoded, start, stride * tf.abs(height)), tf.uint8)
        rows = tf.cast(tf.reshape(rows, (tf.abs(height), stride)), tf.int32)
        shifts = tf.range(8 - bits, -1, -bits)
        ids = tf.bitwise.bitwise_and(
            tf.bitwise.right_shift(rows[..., None], shifts), tf.bitwise.left_shift(1, bits) - 1
        )
        ids = tf.reshape(ids, (tf.abs(height), -1))[:, :width]
        return tf.gather(table, tf.cond(height > 0, lambda: ids[::-1], lambda: ids))

    def colour() -> tf.Tensor:
        # Only a file that declares an alpha mask means its fourth byte; elsewhere it is padding, often 0.
        has_alpha = tf.logical_and(tf.equal(compression, 3), tf.logical_and(header >= 56, tf.not_equal(u32(66), 0)))
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_any(tf.equal(compression, [0, 3])), [b"BMP RLE"])]):
            rgba = tf.io.decode_bmp(encoded, channels=0)
        rgba.set_shape((None, None, None))
        opaque = tf.fill(tf.concat([tf.shape(rgba)[:2], [1]], 0), tf.constant(255, tf.uint8))
        return tf.cond(
            has_alpha,
            lambda: over_background(tf.ensure_shape(rgba, (None, None, 4))),
            lambda: over_background(tf.ensure_shape(tf.concat([rgba[..., :3], opaque], 2), (None, None, 4))),
        )

    paletted = tf.logical_and(bits <= 8, tf.logical_and(tf.equal(compression, 0), header >= 40))
    return tf.cond(paletted, palette, colour)


def _decode_upright_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    image = _decode_upright_jpeg(encoded)
    orientation = _exif_orientation(encoded)

    def turned() -> tf.Tensor:
        # 2 mirrors, 3 turns by 180 degrees, 4 mirrors upside down; 5 to 8 are the transpose, then nothing,
        # mirrored, turned by 180 degrees, upside down.
        # Transposed by a gather: TensorFlow 2.21's transpose of integers writes a line to stderr on some processors.
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        places = tf.range(width)[:, None] + tf.range(height)[None, :] * width
        upright = tf.cond(orientation >= 5, lambda: tf.gather(tf.reshape(image, (-1, 3)), places), lambda: image)
        flip_left_right = tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7]))
        flip_up_down = tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8]))
        upright = tf.cond(flip_left_right, lambda: upright[:, ::-1], lambda: upright)
        return tf.cond(flip_up_down, lambda: upright[::-1], lambda: upright)

    return tf.cond(orientation > 1, turned, lambda: image)


def _exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Orientation, 1 to 8, from a JPEG's APP1 segment (Exif 2.3, 4.6.4); 1 where there is none or it is damaged."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 0, EXIF_HEAD), tf.uint8), tf.int32)
    size = tf.size(head)

    def byte(at: tf.Tensor) -> tf.Tensor:
        return tf.where((at >= 0) & (at < size), tf.gather(head, tf.clip_by_value(at, 0, size - 1)), 0)

    def is_exif(at: tf.Tensor) -> tf.Tensor:  # FF E1 length length "Exif\0\0"
        return tf.reduce_all(
            tf.equal(byte(at + tf.constant([0, 1, 4, 5, 6, 7, 8, 9])), [0xFF, 0xE1, 0x45, 0x78, 0x69, 0x66, 0, 0])
        )

    def is_other_header(at: tf.Tensor) -> tf.Tensor:  # image data starts at FF DA
        return (byte(at) == 0xFF) & (byte(at + 1) != 0xDA) & ~is_exif(at) & (at + 4 < size)

    at = tf.while_loop(is_other_header, lambda at: [at + 2 + byte(at + 2) * 256 + byte(at + 3)], [tf.constant(2)])[0]

    def read() -> tf.Tensor:
        tiff = at + 10
        little = byte(tiff) == 0x49

        def u16(where: tf.Tensor) -> tf.Tensor:
            first, second = byte(where), byte(where + 1)
            return tf.where(little, first + second * 256, first * 256 + second)

        # An offset over 65,535 cannot lie in the segment, so its low 16 bits are enough.
        directory = tiff + u16(tiff + tf.where(little, 4, 6))
        entries = directory + 2 + 12 * tf.range(tf.minimum(u16(directory), 512))
        found = tf.boolean_mask(u16(entries + 8), tf.equal(u16(entries), 0x0112))
        value = tf.cond(tf.size(found) > 0, lambda: found[0], lambda: 1)
        return tf.where((value >= 1) & (value <= 8), value, 1)

    return tf.cond(is_exif(at), read, lambda: 1)

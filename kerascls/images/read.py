"""Reads image files into batches of one shape, in TensorFlow."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerascls.errors import DataError, TooLarge
from kerascls.images.decode import decode, known_kind
from kerascls.images.files import Upload, read_encoded
from kerascls.images.kinds import TIFF_HEADS, image_kind
from kerascls.images.resize import resize, to_channels

_HELD_BYTES = 4_000_000  # of encoded files that `read_batch` holds before it decodes them


def to_pixels(
    encoded: tf.Tensor,
    image_shape: tuple[int, int, int],
    background: tuple[int, int, int] = (255, 255, 255),
    rule: str = "stretch",
    kind: str | None = None,
) -> tf.Tensor:
    """The whole road: a scalar string to uint8 `image_shape`, (height, width, channels)."""
    height, width, channels = image_shape
    return resize(to_channels(decode(encoded, background, kind), channels), height, width, rule)


def checksum(encoded: tf.Tensor) -> tf.Tensor:
    """int64 of a file's bytes, in TensorFlow's own threads: a tenth of what SHA-256 in Python takes of a small file."""
    return tf.strings.to_hash_bucket_fast(encoded, 2**63 - 1)


def encoded_file(path: tf.Tensor, expected: tf.Tensor) -> tf.Tensor:
    """`read_encoded` as ops, for tf.data: a scalar string path to the bytes that `decode` takes.

    `expected` is the file's `checksum` when the folder was read: a training on other images would be another training,
    and one that goes on could not end as it would have.
    """
    raw = tf.io.read_file(path)
    with tf.control_dependencies([tf.debugging.Assert(checksum(raw) == expected, [path, "was changed meanwhile"])]):
        encoded = tf.identity(raw)
    magic = tf.strings.substr(encoded, 0, 4)
    is_tiff = tf.reduce_any(tf.equal(magic, TIFF_HEADS))
    through_pillow = lambda: tf.numpy_function(  # noqa: E731
        lambda name: read_encoded(os.fsdecode(name)), [path], tf.string, stateful=False
    )
    return tf.ensure_shape(tf.cond(is_tiff, through_pillow, lambda: encoded), ())


def read_pixels(
    path: str | Path,
    image_shape: tuple[int, int, int],
    background: tuple[int, int, int] = (255, 255, 255),
    rule: str = "stretch",
) -> np.ndarray:
    """A file as uint8 `image_shape`. Raises DataError, naming the file, if it cannot be."""
    return decoded_pixels(path, read_encoded(path), image_shape, background, rule)


def decoded_pixels(
    path: str | Path,
    encoded: bytes,
    image_shape: tuple[int, int, int],
    background: tuple[int, int, int] = (255, 255, 255),
    rule: str = "stretch",
) -> np.ndarray:
    """`read_pixels` of what `read_encoded` gave; `path` names it in errors."""
    pixels = _decoded_batch([path], [encoded], tuple(image_shape), tuple(background), rule)[0]
    if isinstance(pixels, DataError):
        raise pixels
    return pixels


def read_batch(
    paths: Sequence[str | Path | Upload],
    image_shape: tuple[int, int, int],
    background: tuple[int, int, int] = (255, 255, 255),
    rule: str = "stretch",
    read: Callable[[Any], bytes] = read_encoded,
) -> list[np.ndarray | DataError]:
    """`read_pixels` of several files in one thread: of each, in order, its pixels or what is wrong with it.

    `read` gives a path's bytes, ready for `decode`, or raises DataError.

    The same bits for less time: TensorFlow is called once for the files of a kind, and holds no lock of Python's
    meanwhile, so that several threads may decode beside a model.
    """
    out: list[Any] = [None] * len(paths)
    of_kind: dict[str | None, list[tuple[int, bytes]]] = {}
    held = 0

    def decode_held() -> None:
        for places in of_kind.values():
            names = [paths[i] for i, _ in places]
            encoded = [one for _, one in places]
            answers = _decoded_batch(names, encoded, tuple(image_shape), tuple(background), rule)
            for (i, _), answer in zip(places, answers, strict=True):
                out[i] = answer
        of_kind.clear()

    for i, path in enumerate(paths):
        try:
            encoded = read(path)
        except DataError as error:
            out[i] = error
            continue
        of_kind.setdefault(known_kind(encoded), []).append((i, encoded))
        held += len(encoded)
        if held > _HELD_BYTES:
            decode_held()
            held = 0
    decode_held()
    return out


def _decoded_batch(
    paths: Sequence[str | Path | Upload], encoded: list[bytes], image_shape: tuple, background: tuple, rule: str
) -> list[np.ndarray | DataError]:
    """Pixels of files of one `known_kind`. Where one does not decode, each is decoded alone: it costs no other."""
    try:
        return list(_road(image_shape, background, rule, known_kind(encoded[0]))(tf.constant(encoded)).numpy())
    except (tf.errors.OpError, UnicodeDecodeError) as error:  # the latter where TensorFlow's quotes the file's bytes
        if len(encoded) == 1 and isinstance(error, tf.errors.ResourceExhaustedError):  # which may pass
            return [TooLarge(f"{paths[0]}: takes more memory to decode than is free.")]
        if len(encoded) == 1:
            kind = image_kind(encoded[0])
            return [DataError(f"{paths[0]}: does not decode as {kind}: it is cut short or damaged.")]
    each = zip(paths, encoded, strict=True)
    return [_decoded_batch([path], [one], image_shape, background, rule)[0] for path, one in each]


@functools.cache
def _road(image_shape: tuple, background: tuple, rule: str, kind: str | None):
    """`to_pixels` of a batch `(n,)`, traced once for each shape and kind. One image at a time is held decoded."""
    return tf.function(
        lambda batch: tf.map_fn(
            lambda encoded: to_pixels(encoded, image_shape, background, rule, kind),
            batch,
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec(image_shape, tf.uint8),
        ),
        input_signature=[tf.TensorSpec((None,), tf.string)],
        autograph=False,
    )

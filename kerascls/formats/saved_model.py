"""SavedModels: writes one that takes encoded images or pixels."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerascls.formats._format import Format
from kerascls.formats.card import CARD, Card

TOP = 5  # names in a SavedModel's top_labels, where there are so many classes


def save_saved_model(model: Any, card: Card, path: Path) -> None:
    """Writes a SavedModel, self-contained: it decodes, resizes, names, and needs neither Keras nor kerascls.

    Signatures: `serving_default(image_bytes: string (batch,))`, `pixels(images: uint8 (batch, None, None, C))`, and
    `serve`, which is `pixels`. All return `probabilities` float32 (batch, num_classes), `label` string (batch,),
    `top_labels` string and `top_probabilities` float32 (batch, k).
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="kerascls-") as scratch:
        assets = Path(scratch)
        (assets / "class_names.txt").write_text("\n".join(card.class_names) + "\n", encoding="utf-8")
        (assets / CARD).write_text(card.as_json(), encoding="utf-8")
        serving = _serving(model, card, assets)
        signatures = {"serving_default": serving.serving_default, "pixels": serving.pixels, "serve": serving.pixels}
        try:
            tf.saved_model.save(serving, str(path), signatures)
        except tf.errors.ResourceExhaustedError as error:
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
            raise


def _serving(model: Any, card: Card, assets: Path) -> Any:
    """The tf.Module that is saved: its weights, its assets and a function for each entrance."""
    import tensorflow as tf

    from kerascls.images.read import to_pixels
    from kerascls.images.resize import resize

    height, width, channels = card.image_shape
    answer = _answer(model, card)

    class Serving(tf.Module):
        def __init__(self):
            super().__init__()
            self.tracked = [variable.value for variable in model.variables]
            self.class_names_file = tf.saved_model.Asset(str(assets / "class_names.txt"))
            self.card = tf.saved_model.Asset(str(assets / CARD))

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")], autograph=False)
        def serving_default(self, image_bytes):
            images = tf.map_fn(
                lambda encoded: to_pixels(encoded, card.image_shape, card.background, card.resize),
                image_bytes,
                fn_output_signature=tf.TensorSpec(card.image_shape, tf.uint8),
            )
            return answer(images)

        @tf.function(
            input_signature=[tf.TensorSpec((None, None, None, channels), tf.uint8, name="images")], autograph=False
        )
        def pixels(self, images):
            fits = tf.reduce_all(tf.shape(images)[1:3] == (height, width))  # then they are what the model takes
            return answer(tf.cond(fits, lambda: images, lambda: resize(images, height, width, card.resize)))

        @tf.function(input_signature=[], autograph=False)
        def class_names(self):
            return tf.constant(list(card.class_names))

    return Serving()


def _answer(model: Any, card: Card) -> Callable[[Any], dict[str, Any]]:
    """What every entrance returns for uint8 images of the model's size."""
    import tensorflow as tf

    names = list(card.class_names)
    top = min(TOP, len(names))

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow's convolutions fail on no image at all: one is put in its place, and cut off behind.
        count = tf.shape(images)[0]
        some = tf.cond(count > 0, lambda: images, lambda: tf.zeros((1, *card.image_shape), tf.uint8))
        probabilities = model(tf.cast(tf.ensure_shape(some, (None, *card.image_shape)), tf.float32), training=False)
        probabilities = probabilities[:count]
        top_probabilities, top_ids = tf.math.top_k(probabilities, top)
        table = tf.constant(names)
        return {
            "probabilities": probabilities,
            "label": tf.gather(table, tf.argmax(probabilities, -1)),
            "top_labels": tf.gather(table, top_ids),
            "top_probabilities": top_probabilities,
        }

    return answer


def _save_version(model: Any, card: Card, path: Path, _: Any) -> None:
    """As TensorFlow Serving takes it: in a folder named by its version."""
    save_saved_model(model, card, path / "1")


FORMATS = {"saved_model": Format("saved_model", "", _save_version, "saved_model")}

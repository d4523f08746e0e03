"""A model that names images, and its answers."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.dataset import in_batches
from kerascls.data.folder import FileImages
from kerascls.errors import DataError, ModelError, first_line, spoken
from kerascls.formats.card import Card, not_probabilities
from kerascls.images.borders import border_sides
from kerascls.images.files import Held, Upload
from kerascls.inference.inputs import given_images
from kerascls.recipes.notices import all_notices
from kerascls.system.memory import Rows
from kerascls.system.read_ahead import ahead
from kerascls.system.status import doing


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One image's answer. `top` has (name, probability) pairs, best first; on an `error` all else is empty.

    `other_polarity` is True where the image's border lies on the other side of mid-gray from the training data's.
    """

    file: str
    label: str | None = None
    probability: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    other_polarity: bool = False


class Classifier:
    """A loaded model with its names. Made by `load`.

    Attributes:
        card: see `Card`.
        keras_model: the keras.Model behind it, or None for a SavedModel and for other runtimes.
        path: what was opened, or None.
    """

    path: Path | None = None

    def __init__(
        self,
        card: Card,
        keras_model: Any = None,
        saved_model: Any = None,
        runtime: Any = None,
        remark: str | None = None,
    ):
        self.card = card
        self._remark = remark  # of a model without a card
        self.keras_model = keras_model
        self._saved_model = saved_model  # kept alive: its functions lose their variables otherwise
        self._runtime = runtime
        if runtime is not None:
            self._forward = runtime  # TensorFlow stays unimported
            return
        import tensorflow as tf

        if keras_model is not None:
            forward = tf.function(
                lambda images: keras_model(tf.cast(images, tf.float32), training=False),
                autograph=False,
                input_signature=[tf.TensorSpec((None, *card.image_shape), tf.uint8)],
            )
        else:
            pixels = saved_model.signatures["pixels"]
            forward = lambda images: pixels(images=images)["probabilities"]  # noqa: E731
        self._forward = lambda images: forward(tf.constant(images)).numpy()

    @property
    def kind(self) -> str:
        """What was opened, for people."""
        if self.keras_model is not None:
            return "a Keras model"
        return "a SavedModel" if self._runtime is None else self._runtime.kind

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.card.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.card.image_shape

    def probabilities(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Probabilities of every image.

        Args:
            images: uint8 array `(n, *image_shape)` in [0, 255], or `FileImages`, which are decoded ahead of the model.
            batch_size: images at a time; the answer depends on it by less than 1e-6.

        Returns:
            float32 array `(n, num_classes)`.

        Raises:
            ModelError: the model is damaged, or does not answer as its card says.
        """
        images = self.pixels(images)
        out = np.empty((len(images), len(self.class_names)), np.float32)
        done = 0
        for rows in self.answered(images, batch_size):
            out[done : done + len(rows)] = rows
            done += len(rows)
        return out

    def answered(self, images: np.ndarray, batch_size: int = 32) -> Iterator[np.ndarray]:
        """The probabilities of `batch_size` images at a time, in order; arguments and errors as of `probabilities`."""
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}")
        images = self.pixels(images)
        with doing("answering", len(images)) as progress:
            for batch in in_batches(images, batch_size):
                yield self._answers(batch)
                progress.step(len(batch))

    def _answers(self, images: np.ndarray) -> np.ndarray:
        try:
            rows = self._forward(images)
        except Exception as error:  # TensorFlow and each runtime have their own
            if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
                raise
            reason = first_line(error)
            raise ModelError(f"The model, {self.kind}, fails on images: {reason[:200]}") from error
        expected = (len(images), len(self.class_names))
        if rows.shape != expected:
            raise ModelError(f"The model, {self.kind}, must answer {expected}. Received: {rows.shape}")
        if told := not_probabilities(rows):
            raise ModelError(f"The model, {self.kind}, must answer probabilities: {told}.")
        return rows

    def predict(self, images: Any, top_k: int = 5, invert: bool = False, batch_size: int = 32) -> list[Prediction]:
        """Names and probabilities of images, in the order given.

            classifier.predict("three.png")
            classifier.predict("my_photos/")  # all images below it
            classifier.predict([Path("a.jpg"), "https://example.org/b.png"])
            classifier.predict(request.data)  # bytes of an image file, or a file object that gives them
            classifier.predict(PIL.Image.open("a.jpg").crop((0, 0, 100, 100)))
            classifier.predict(frames)  # uint8 (n, height, width, 3), or one (height, width, 3)

        All of them come to the model by the road of files: turned as EXIF says, transparency over the card's
        background, resized by its rule. Arrays are RGB (OpenCV's are BGR: `frame[..., ::-1]`), gray or RGBA. A PIL
        image answers as its file would. URLs are fetched within 30 seconds and 100 MB.

        Args:
            images: paths, folders, URLs, bytes, file objects, PIL images, uint8 arrays or tensors (height, width), or
                (height, width, 1, 3 or 4); an iterable of these, or an array of a batch.
            top_k: how many names an image, at most the number of classes.
            invert: turn black into white first, for dark ink on white paper where the training data is the reverse.

        Returns:
            A `Prediction` an image; one that does not decode has its `error` and costs no other.

        Raises:
            DataError: something else was given, which is told before anything is opened; or a folder has no images.
        """
        return [prediction for prediction, _ in self.stream(images, top_k, invert, batch_size)]

    def stream(
        self, images: Any, top_k: int = 5, invert: bool = False, batch_size: int = 32
    ) -> Iterator[tuple[Prediction, np.ndarray | None]]:
        """`predict`, some batches in memory at a time; beside each Prediction the uint8 pixels that the model saw."""
        for batch in self.batches(images, top_k, invert, batch_size):
            yield from batch

    def batches(
        self, images: Any, top_k: int = 5, invert: bool = False, batch_size: int = 32
    ) -> Iterator[list[tuple[Prediction, np.ndarray | None]]]:
        """`stream`, a batch at a time. All cores decode ahead of the model, by a bounded number of batches."""
        for chunk, read in ahead(given_images(images), batch_size, lambda share: self.read(share, invert)):
            yield self._answer(chunk, read, top_k, batch_size)

    def read(
        self, files: Sequence[str | os.PathLike | Upload | Held], invert: bool = False
    ) -> list[np.ndarray | DataError]:
        """Of each file or upload, in order, the pixels that the model sees, uint8 `image_shape`, or what is wrong."""
        if self._runtime is not None:
            from kerascls.images.pillow import read_batch
        else:
            from kerascls.images.read import read_batch
        read = read_batch(files, self.image_shape, self.card.background, self.card.resize)
        return [255 - item if invert and isinstance(item, np.ndarray) else item for item in read]

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """`images`, if they are uint8 `(n, *image_shape)`, an array or in files. Raises DataError otherwise."""
        shape, kind = getattr(images, "shape", ()), getattr(images, "dtype", type(images).__name__)
        known = isinstance(images, np.ndarray | Rows | FileImages)
        if tuple(shape[1:]) != self.image_shape or kind != np.uint8 or not known:
            raise DataError(
                f"Images must be uint8 (n, {', '.join(map(str, self.image_shape))}). `predict` takes others. "
                f"Received: {kind} {tuple(shape)}"
            )
        return images

    def resize(self, images: np.ndarray) -> np.ndarray:
        """uint8 `(n, height, width, channels)` of any size brought to `(n, *image_shape)` by the card's rule.

        Pixels of the model's own size are taken as they are, under every rule.

        Raises:
            DataError: they are of another type, number of dimensions or of channels, or without a pixel.
        """
        height, width, channels = self.image_shape
        shape, kind = getattr(images, "shape", ()), getattr(images, "dtype", type(images).__name__)
        fits = len(shape) == 4 and shape[3] == channels and 0 not in shape[1:] and isinstance(images, np.ndarray)
        if not fits or kind != np.uint8:
            raise DataError(
                f"`resize` takes a uint8 array (n, height, width, {channels}). Received: {kind} {tuple(shape)}"
            )
        if not len(images):
            return np.empty((0, *self.image_shape), np.uint8)
        if images.shape[1:] == self.image_shape:
            return images
        if self._runtime is not None:
            from kerascls.images.pillow import resize

            return np.stack([resize(image, height, width, self.card.resize) for image in images])
        import tensorflow as tf

        from kerascls.images.resize import resize as resize_all

        return resize_all(tf.constant(images), height, width, self.card.resize).numpy()

    def _answer(
        self, files: Sequence[Any], read: list[np.ndarray | DataError], top_k: int, batch_size: int
    ) -> list[tuple[Prediction, np.ndarray | None]]:
        good = [i for i, item in enumerate(read) if isinstance(item, np.ndarray)]
        named: dict[int, Prediction] = {}
        if good:
            images = np.stack([read[i] for i in good])
            differ = border_sides(images) != self.card.border if self.card.border else np.zeros(len(good), bool)
            names = [str(files[i]) for i in good]
            rows = self.probabilities(images, batch_size)
            if np.isnan(rows).any():
                raise ModelError(f"The model, {self.kind}, must answer probabilities: it answers nan.")
            named = dict(zip(good, self.name_answers(names, rows, top_k, differ), strict=True))
        out: list[tuple[Prediction, np.ndarray | None]] = []
        for i, (file, item) in enumerate(zip(files, read, strict=True)):
            if isinstance(item, DataError):
                out.append((Prediction(str(file), error=str(item).removeprefix(f"{file}: ")), None))
            else:
                out.append((named[i], item))
        return out

    def name_answers(
        self, files: Sequence[str], rows: np.ndarray, top_k: int, other_polarity: Sequence[bool] | None = None
    ) -> list[Prediction]:
        """Rows of probabilities, `(n, num_classes)`, with their names."""
        best = np.argsort(-rows, axis=1, kind="stable")[:, : max(1, top_k)]
        out = []
        highest = np.take_along_axis(rows, best, 1).tolist()
        differ = [False] * len(files) if other_polarity is None else other_polarity
        for file, ids, probabilities, differs in zip(files, best.tolist(), highest, differ, strict=True):
            top = tuple(zip([self.class_names[i] for i in ids], probabilities, strict=True))
            out.append(Prediction(file, *top[0], top, None, bool(differs)))
        return out

    @property
    def notice(self) -> str | None:
        """What must be said before any answer, or None."""
        told = all_notices(self.card.fallback_for, self.card.data, self.card.random_backbone)
        return told or (self._remark and spoken(self._remark))

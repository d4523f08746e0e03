"""The one door for model files: runs, .keras, .h5, weights, SavedModels, and those of other runtimes.

All of them pass through `scan` first, which executes nothing. Nothing but Keras' own layers is loaded, in safe mode and
uncompiled.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import devices
from kerascls.data.folder import FileImages
from kerascls.data.loading import in_batches
from kerascls.errors import DataError, ModelError, spoken
from kerascls.formats.card import Card, border_sides, not_probabilities, read_class_names, read_pixel_range
from kerascls.formats.opening import runtime_of, utf8
from kerascls.formats.scan.containers import ARCHITECTURE, check_regular
from kerascls.formats.scan.graphs import check_graph, read_graph
from kerascls.formats.scan.layers import read_checked
from kerascls.images.files import Held, Upload
from kerascls.inference.inputs import given_images
from kerascls.runs.run import Run, all_notices, is_run
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
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
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
            from kerascls.images.decode import read_batch
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

        from kerascls.images.decode import resize as resize_all

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


# Opening


def model_files(path: str | os.PathLike) -> list[Path]:
    """The files that `load` would open, in a fixed order: what they hold is what the model is."""
    path = Path(path)
    if path.is_file():
        return [path]
    if is_run(path):
        return [Run.open(path).model_path]
    folder = path if (path / ARCHITECTURE).is_file() else saved_model_folder(path)
    return sorted(file for file in (folder or path).rglob("*") if file.is_file())


def load(
    path: str | os.PathLike,
    trust: bool = False,
    *,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    pixel_range: Sequence[float] | str | None = None,
) -> Classifier:
    """Opens a run folder, a .keras, .h5, .tflite or .onnx file, or a folder: architecture and weights, OpenVINO's
    model.xml and model.bin, or a SavedModel.

    A .tflite, .onnx or OpenVINO model opens without TensorFlow, by its own runtime. A SavedModel is named by the folder
    of its saved_model.pb or by the one above, as TensorFlow Serving takes it.

    Model files are programs, so each is looked through before anything in it runs: Keras files hold Keras' own layers
    alone, a SavedModel operations that reach no file, network or Python.

    Args:
        trust: load a SavedModel of other operations too, from a maker whose programs you would run. It lifts nothing
            else.
        class_names: of a Keras file that kerascls did not write, in the order of its outputs: a list, "a,b,c", or a
            file of one name a line. Of one sigmoid output, the class of 0 and that of 1.
        pixel_range: (low, high) that such a file takes pixels in, as (0, 1) or (-1, 1); None where its own layers scale
            pixels from 0 to 255. What is not stated is taken for granted, and `Classifier.notice` says so.

    Raises:
        ModelError: it is missing, truncated, not a model, not an image classifier, or refused for what it holds.
        RunError: a run folder without a kept model.

    >>> classifier = kerascls.load("saved_models/released/mnist_cnn")
    >>> classifier.predict("seven.png", invert=True)[0].label
    '7'
    """
    path = Path(path)
    stated: dict[str, Any] = {}
    if class_names is not None:
        stated["class_names"] = read_class_names(class_names)
    if pixel_range is not None:
        stated["pixel_range"] = read_pixel_range(pixel_range)
    if not path.exists():
        raise ModelError(
            f"Model {path} does not exist. Give a run folder, a .keras, .h5, .tflite or .onnx file, or the folder of a "
            "SavedModel or an OpenVINO model."
        )
    check_regular(path, path)
    with doing(f"loading the model {path.name}"):
        classifier = _load(path, trust, stated)
    classifier.path = path
    return classifier


def _load(path: Path, trust: bool, stated: dict[str, Any]) -> Classifier:
    if runtime := runtime_of(path):
        _nothing_stated(path, stated)
        return _load_by(runtime, path)
    if is_run(path):
        return _load_keras(Run.open(path).model_path, stated)
    if path.is_file() or (path / ARCHITECTURE).is_file():
        return _load_keras(path, stated)
    folder = saved_model_folder(path)
    if folder is None:
        raise ModelError(
            f"{path} is not a model: expected a run (manifest.json), a SavedModel (saved_model.pb, or a "
            "version folder that has it), architecture.json with model.weights.h5, or OpenVINO's model.xml."
        )
    _nothing_stated(path, stated)
    return _load_saved_model(folder, trust)


def opened(model: Classifier | str | os.PathLike, trust: bool = False, **stated: Any) -> Classifier:
    """`model` itself where it is loaded, else `load` of it."""
    return model if isinstance(model, Classifier) else load(model, trust, **stated)


def is_model(path: Path) -> bool:
    """Whether there is something at `path` that `load` would open, but for a run."""
    if path.is_file():
        return True
    return path.is_dir() and bool(runtime_of(path) or (path / ARCHITECTURE).is_file() or saved_model_folder(path))


def saved_model_folder(path: Path) -> Path | None:
    """The folder that has saved_model.pb: `path`, or its highest version folder."""
    if (path / "saved_model.pb").is_file():
        return path
    versions = [child for child in path.iterdir() if child.name.isdigit() and (child / "saved_model.pb").is_file()]
    return max(versions, key=lambda child: int(child.name), default=None)


def _load_keras(path: Path, stated: dict[str, Any]) -> Classifier:
    contents = read_checked(path)  # before TensorFlow is imported
    if contents.card:
        _nothing_stated(path, stated)
    devices.start()
    from kerascls.formats.keras import read_model

    model = read_model(path, contents)
    try:
        if contents.card:
            return Classifier(Card.from_json(contents.card).check(model), model)
        from kerascls.formats.foreign import adopted

        found = adopted(model, path.name, **stated)
        return Classifier(found.card, found.model, remark=found.notice)
    except ModelError:
        raise
    except Exception as error:
        raise _not_loadable(path, error) from None


def _nothing_stated(path: Path, stated: dict[str, Any]) -> None:
    if stated:
        raise ModelError(f"{path} has a card, which says its names and its pixels. Leave out {' and '.join(stated)}.")


def _load_by(runtime: type, path: Path) -> Classifier:
    model = runtime(path)
    return Classifier(Card.from_json(model.card).check(model), runtime=model)


def _load_saved_model(folder: Path, trust: bool) -> Classifier:
    graph = read_graph(folder)
    if "pixels" not in graph.signatures or graph.card is None:
        raise ModelError(
            f"{folder} is a SavedModel, but not one that kerascls exported: it has signatures "
            f"{list(graph.signatures)}, expected pixels and serving_default."
        )
    if not trust:
        check_graph(folder, graph)
    name = utf8(folder)
    devices.start()
    import tensorflow as tf

    try:
        card = Card.from_json(graph.card)
        model = tf.saved_model.load(name)
        pixels = model.signatures["pixels"]
        takes, returns = pixels.structured_input_signature[1]["images"], pixels.structured_outputs["probabilities"]
        sides = [side or own for side, own in zip(takes.shape[1:], card.image_shape, strict=True)]  # it resizes itself
        return Classifier(card.check(_Shapes((None, *sides), tuple(returns.shape))), saved_model=model)
    except ModelError:
        raise
    except Exception as error:
        raise _not_loadable(folder, error) from None


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """Of a model that is a graph: what it takes and returns, as keras.Model tells it, None for a batch of any size."""

    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]


def _not_loadable(path: Path, error: Exception) -> ModelError:
    from kerascls.formats.keras import not_loadable

    return not_loadable(path, error)

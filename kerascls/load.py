"""The one door for model files: runs, .keras, .h5, .tflite, architecture + weights, SavedModel folders.

Nothing but Keras' own layers is loaded, in safe mode and uncompiled.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import devices
from kerascls.config import RESIZE_RULES
from kerascls.errors import DataError, ModelError
from kerascls.formats import Upload
from kerascls.litert import LiteModel
from kerascls.runs import Run, all_notices, atomic, is_run

CARD = "kerascls.json"  # zip entry of .keras and .tflite, attribute of .h5 (without suffix), file beside weights, asset
_LEAST_SHARE = 8  # files that a thread decodes by one call; below, calling costs more than a core gains


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model file must say for itself so that it answers alike everywhere.

    Attributes:
        class_names: in the order of the outputs.
        image_shape: (height, width, channels).
        background: RGB under transparent pixels.
        resize: how images of other sizes are brought to `image_shape`, see `images.resize`.
        border: "dark" or "light" where at least 95 % of the training images' borders lie on that side of mid-gray.
        data: the data set's name.
        fallback_for: the data set that it stood in for, or None.
        random_backbone: whether it is a transfer model that began without pretrained weights.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    background: tuple[int, int, int] = (255, 255, 255)
    border: str | None = None
    data: str = ""
    fallback_for: str | None = None
    resize: str = "stretch"
    random_backbone: bool = False

    def as_json(self) -> str:
        from kerascls import __version__

        card = {"format": 1, "kerascls": __version__, **dataclasses.asdict(self)}
        return json.dumps(card, ensure_ascii=False, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        fields = json.loads(text)
        card = cls(
            tuple(fields["class_names"]),
            tuple(fields["image_shape"]),
            tuple(fields["background"]),
            fields["border"],
            fields["data"],
            fields["fallback_for"],
            fields["resize"],
            fields.get("random_backbone", False) is True,
        )
        if card.resize not in RESIZE_RULES:
            raise ModelError(f"The model's card asks for a resize that is not known: {card.resize!r}. Update kerascls.")
        texts = [*card.class_names, card.data, card.border or "", card.fallback_for or ""]
        numbers = [*card.image_shape, *card.background]
        if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
            raise ModelError("The model's card (class names, image shape) is damaged.")
        return card

    def check(self, model: Any) -> "Card":
        """Itself, if `model` takes its image shape and answers with as many probabilities as it has names."""
        shapes = (model.input_shape, model.output_shape)
        if shapes != ((None, *self.image_shape), (None, len(self.class_names))):
            raise ModelError(
                f"The model does not fit its own card: it takes and returns {shapes}; the card says "
                f"{self.image_shape} and {len(self.class_names)} classes. The file was changed after it was written."
            )
        return self

    @classmethod
    def guess(cls, model: Any) -> "Card":
        """For a file that kerascls did not write: numbers for names, the model's own input shape."""
        shape, outputs = model.input_shape, model.output_shape
        if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:] or shape[3] not in (1, 3):
            raise ModelError(f"The model must take images (batch, height, width, 1 or 3). Received: {shape}")
        if not isinstance(outputs, tuple) or len(outputs) != 2 or not outputs[1]:
            raise ModelError(f"The model must return (batch, classes). Received: {outputs}")
        return cls(tuple(str(i) for i in range(outputs[1])), tuple(shape[1:]))


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
        keras_model: the keras.Model behind it, or None for a SavedModel or a .tflite.
    """

    def __init__(
        self, card: Card, keras_model: Any = None, saved_model: Any = None, lite_model: LiteModel | None = None
    ):
        self.card = card
        self.keras_model = keras_model
        self._saved_model = saved_model  # kept alive: its functions lose their variables otherwise
        self._lite_model = lite_model
        if lite_model is not None:
            self._forward = lite_model  # TensorFlow stays unimported
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
    def class_names(self) -> tuple[str, ...]:
        return self.card.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.card.image_shape

    def probabilities(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Probabilities of every image.

        Args:
            images: uint8 array `(n, *image_shape)` in [0, 255].
            batch_size: images at a time; the answer depends on it by less than 1e-6.

        Returns:
            float32 array `(n, num_classes)`.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}")
        if images.shape[1:] != self.image_shape or images.dtype != np.uint8:
            raise DataError(
                f"Images must be uint8 (n, {', '.join(map(str, self.image_shape))}). "
                f"Received: {images.dtype} {images.shape}"
            )
        out = np.empty((len(images), len(self.class_names)), np.float32)
        for at in range(0, len(images), batch_size):
            out[at : at + batch_size] = self._forward(images[at : at + batch_size])
        return out

    def predict(
        self,
        files: Sequence[str | os.PathLike] | str | os.PathLike,
        top_k: int = 5,
        invert: bool = False,
        batch_size: int = 32,
    ) -> list[Prediction]:
        """Names and probabilities of image files, in the order given.

        Args:
            files: paths of PNG, JPEG, BMP, GIF, WebP or TIFF images, or one path.
            top_k: how many names an image, at most the number of classes.
            invert: turn black into white first, for dark ink on white paper where the training data is the reverse.

        Returns:
            A `Prediction` a file; one that does not decode has its `error` and costs no other.
        """
        files = [files] if isinstance(files, str | os.PathLike) else list(files)
        return [prediction for prediction, _ in self.stream(files, top_k, invert, batch_size)]

    def stream(
        self, files: Iterable[str | os.PathLike], top_k: int = 5, invert: bool = False, batch_size: int = 32
    ) -> Iterator[tuple[Prediction, np.ndarray | None]]:
        """`predict`, some batches in memory at a time; beside each Prediction the uint8 pixels that the model saw."""
        for batch in self.batches(files, top_k, invert, batch_size):
            yield from batch

    def batches(
        self, files: Iterable[str | os.PathLike], top_k: int = 5, invert: bool = False, batch_size: int = 32
    ) -> Iterator[list[tuple[Prediction, np.ndarray | None]]]:
        """`stream`, a batch of files at a time. All cores decode ahead of the model, by a bounded number of batches."""
        cores = os.cpu_count() or 1
        share = max(_LEAST_SHARE, -(-batch_size // cores))  # of a batch, to a core
        ahead = max(2, -(-2 * cores * share // batch_size))  # batches that wait, decoded, under way or yet to be
        rest = iter(files)
        waiting: collections.deque = collections.deque()
        pool = concurrent.futures.ThreadPoolExecutor(cores)
        try:
            while True:
                while len(waiting) <= ahead and (chunk := list(itertools.islice(rest, batch_size))):
                    shares = [chunk[at : at + share] for at in range(0, len(chunk), share)]
                    waiting.append((chunk, [pool.submit(self.read, each, invert) for each in shares]))
                if not waiting:
                    return
                chunk, tasks = waiting.popleft()
                yield self._answer(chunk, [item for task in tasks for item in task.result()], top_k, batch_size)
        finally:
            pool.shutdown(cancel_futures=True)

    def read(self, files: Sequence[str | os.PathLike | Upload], invert: bool = False) -> list[np.ndarray | DataError]:
        """Of each file or upload, in order, the pixels that the model sees, uint8 `image_shape`, or what is wrong."""
        if self._lite_model is not None:
            from kerascls.pixels import read_batch
        else:
            from kerascls.images import read_batch
        read = read_batch(files, self.image_shape, self.card.background, self.card.resize)
        return [255 - item if invert and isinstance(item, np.ndarray) else item for item in read]

    def resize(self, images: np.ndarray) -> np.ndarray:
        """uint8 `(n, height, width, channels)` of any size brought to `(n, *image_shape)` by the card's rule."""
        height, width, _ = self.image_shape
        if images.shape[1:] == self.image_shape:
            return images
        if self._lite_model is not None:
            from kerascls.pixels import resize

            return np.stack([resize(image, height, width, self.card.resize) for image in images])
        import tensorflow as tf

        from kerascls.images import resize as resize_all

        return resize_all(tf.constant(images), height, width, self.card.resize).numpy()

    def _answer(
        self, files: Sequence[str | os.PathLike], read: list[np.ndarray | DataError], top_k: int, batch_size: int
    ) -> list[tuple[Prediction, np.ndarray | None]]:
        good = [i for i, item in enumerate(read) if isinstance(item, np.ndarray)]
        named: dict[int, Prediction] = {}
        if good:
            images = np.stack([read[i] for i in good])
            differ = border_sides(images) != self.card.border if self.card.border else np.zeros(len(good), bool)
            names = [str(files[i]) for i in good]
            rows = self.probabilities(images, batch_size)
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
        return all_notices(self.card.fallback_for, self.card.data, self.card.random_backbone)


def border_sides(images: np.ndarray) -> np.ndarray:
    """ "dark" or "light" of each of uint8 images `(n, height, width, channels)`: the side of mid-gray on which the mean
    of its outermost pixels lies."""
    lines = (images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1])
    edges = np.concatenate([line.reshape(len(images), -1) for line in lines], 1)
    return np.where(edges.mean(1) < 127.5, "dark", "light")


def usual_border(images: np.ndarray, most: int = 1000) -> str | None:
    """The side on which at least 95 % of the images' borders lie (of `most` spread evenly), or None."""
    chosen = np.arange(0, len(images), max(1, len(images) // most))
    sides = [border_sides(images[i][None])[0] for i in chosen]
    for side in ("dark", "light"):
        if sides.count(side) >= 0.95 * len(sides):
            return side
    return None


# Opening


def model_files(path: str | os.PathLike) -> list[Path]:
    """The files that `load` would open, in a fixed order: what they hold is what the model is."""
    path = Path(path)
    if path.is_file():
        return [path]
    if is_run(path):
        return [Run.open(path).model_path]
    folder = path if (path / "architecture.json").is_file() else saved_model_folder(path)
    return sorted(file for file in (folder or path).rglob("*") if file.is_file())


def load(path: str | os.PathLike) -> Classifier:
    """Opens a run folder, a .keras, .h5 or .tflite file, a folder of architecture and weights, or a SavedModel folder.

    A .tflite opens without TensorFlow where ai-edge-litert is installed. A SavedModel is named by the folder of its
    saved_model.pb or by the one above, as TensorFlow Serving takes it.

    Raises:
        ModelError: it is missing, truncated, not a model, or not an image classifier.
        RunError: a run folder without a kept model.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(
            f"Model {path} does not exist. Give a run folder, a .keras, .h5 or .tflite file, or a SavedModel folder."
        )
    if path.suffix == ".tflite" and path.is_file():
        return _load_litert(path)
    devices.start()
    if path.is_file():
        return _load_file(path)
    if is_run(path):
        return _load_file(Run.open(path).model_path)
    if (path / "architecture.json").is_file():
        return _load_weights(path)
    folder = saved_model_folder(path)
    if folder is None:
        raise ModelError(
            f"{path} is not a model: expected a run (manifest.json), a SavedModel (saved_model.pb, or a "
            "version folder that has it), or architecture.json with model.weights.h5."
        )
    return _load_saved_model(folder)


def saved_model_folder(path: Path) -> Path | None:
    """The folder that has saved_model.pb: `path`, or its highest version folder."""
    if (path / "saved_model.pb").is_file():
        return path
    versions = [child for child in path.iterdir() if child.name.isdigit() and (child / "saved_model.pb").is_file()]
    return max(versions, key=lambda child: int(child.name), default=None)


def _load_file(path: Path) -> Classifier:
    from kerascls.models._files import read_model

    model = read_model(path)
    text = None
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            text = archive.read(CARD).decode() if CARD in archive.namelist() else None
    else:
        import h5py

        with h5py.File(path) as archive:
            text = archive.attrs.get("kerascls")
    try:
        return Classifier(Card.from_json(text).check(model) if text else Card.guess(model), model)
    except ModelError:
        raise
    except Exception as error:
        raise _not_loadable(path, error) from None


def _load_litert(path: Path) -> Classifier:
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(CARD).decode()
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise ModelError(
            f"Model {path} has no {CARD} behind it: it is cut short, or not one that `kerascls export --format litert` "
            "wrote."
        ) from None
    try:
        card = Card.from_json(text)
    except (ValueError, LookupError, TypeError):
        raise ModelError(f"Model {path}: its card (class names, image shape) is damaged.") from None
    model = LiteModel(path)
    return Classifier(card.check(model), lite_model=model)


def _load_weights(folder: Path) -> Classifier:
    import keras

    try:
        model = keras.models.model_from_json((folder / "architecture.json").read_text(encoding="utf-8"))
        model.load_weights(folder / "model.weights.h5")
        card_file = folder / CARD
        text = card_file.read_text(encoding="utf-8") if card_file.is_file() else None
        card = Card.from_json(text).check(model) if text else Card.guess(model)
        return Classifier(card, model)
    except ModelError:
        raise
    except Exception as error:
        raise _not_loadable(folder, error) from None


def _load_saved_model(folder: Path) -> Classifier:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
        signatures = list(loaded.signatures)
        card_file = folder / "assets" / CARD
        if "pixels" not in signatures or not card_file.is_file():
            raise ModelError(
                f"{folder} is a SavedModel, but not one that kerascls exported: it has signatures "
                f"{signatures}, expected pixels and serving_default."
            )
        return Classifier(Card.from_json(card_file.read_text(encoding="utf-8")), saved_model=loaded)
    except ModelError:
        raise
    except Exception as error:
        raise _not_loadable(folder, error) from None


def _not_loadable(path: Path, error: Exception) -> ModelError:
    from kerascls.models._files import not_loadable

    return not_loadable(path, error)


# Writing


def save_keras(model: Any, card: Card, path: Path) -> None:
    """Writes a .keras file that carries its card, whole or not at all."""
    with atomic(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CARD, card.as_json())


def save_h5(model: Any, card: Card, path: Path) -> None:
    """Writes a legacy .h5 file that carries its card in the attribute `kerascls`, whole or not at all."""
    import h5py

    with atomic(path) as temporary:
        model.save(temporary)
        with h5py.File(temporary, "a") as archive:
            archive.attrs["kerascls"] = card.as_json()


def save_litert(model: Any, card: Card, path: Path) -> None:
    """Writes a float32 .tflite with a zip of its card behind it, as LiteRT's metadata has it, whole or not at all."""
    with atomic(path) as temporary:
        model.export(temporary, format="litert", verbose=False)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CARD, card.as_json())


def save_weights(model: Any, card: Card, path: Path) -> None:
    """Writes a folder of architecture.json, model.weights.h5 and the card, whole or not at all."""
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "architecture.json").write_text(model.to_json(), encoding="utf-8")
        model.save_weights(temporary / "model.weights.h5")
        (temporary / CARD).write_text(card.as_json(), encoding="utf-8")

"""Exports of a run, each proven equal to it in a fresh process before it stays."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.errors import DataError, OutputError, ProofError
from kerascls.load import CARD, Card, Classifier, load, save_h5, save_keras, save_litert, save_weights
from kerascls.runs import Run, atomic

TOP = 5  # names in top_labels, where there are so many classes


@dataclasses.dataclass(frozen=True)
class Export:
    """A written and proven export.

    Attributes:
        path: the file or folder.
        format: as given to `export`.
        examples: images on which it answered as its run does.
        max_difference: largest difference of a probability at the same batch size; the proof lets only 0.0 pass, but
            for LiteRT, whose kernels are others: 1e-5.
    """

    path: Path
    format: str
    examples: int
    max_difference: float
    notice: str | None = None


def export(run: str | Path, format: str = "saved_model", out: str | Path | None = None) -> Export:
    """Writes a run's model in another format and proves that it answers alike.

    The export is opened again in a fresh process without kerascls and compared on the run's samples (on 64 images of
    noise where the run keeps none), at every entrance that it has. Only then does it take its name.

    Args:
        run: the run folder.
        format: "keras", "saved_model", "h5", "weights" (architecture.json and model.weights.h5), or "litert" (a
            .tflite in float32).
        out: where to; must not exist. Defaults to a place under the run's exports/, where an older one is replaced.

    Raises:
        ProofError: the export answers differently; nothing is left behind.
        RunError, OutputError.
    """
    if format not in FORMATS:
        raise OutputError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format!r}")
    opened = Run.open(run)
    kind = FORMATS[format]
    path = Path(out) if out is not None else opened.path / "exports" / kind.place
    if out is not None and path.exists():
        raise OutputError(f"{path} exists already. Remove it, or give --out another place.")
    if kind.suffix and path.suffix not in kind.suffixes:
        raise OutputError(f"A {format} export must end in {kind.suffix}. Received: {path.name}")
    samples = sample_files(opened)
    classifier = load(opened.path)
    if not path.parent.is_dir():
        try:
            path.parent.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"Cannot make {path.parent}: {error.strerror}.") from None
    with tempfile.TemporaryDirectory(prefix="kerascls-") as scratch, atomic(path, out is None) as temporary:
        kind.write(classifier, temporary)
        examples, difference = prove(samples, classifier, temporary, kind, Path(scratch))
    return Export(path, format, examples, difference, opened.notice)


# Formats


def save_saved_model(model: Any, card: Card, path: Path) -> None:
    """Writes a SavedModel, self-contained: it decodes, resizes, names, and needs neither Keras nor kerascls.

    Signatures: `serving_default(image_bytes: string (batch,))`, `pixels(images: uint8 (batch, None, None, C))`, and
    `serve`, which is `pixels`. All return `probabilities` float32 (batch, num_classes), `label` string (batch,),
    `top_labels` string and `top_probabilities` float32 (batch, k).
    """
    import tensorflow as tf

    from kerascls.images import resize, to_pixels

    height, width, channels = card.image_shape
    names = list(card.class_names)
    top = min(TOP, len(names))

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(tf.cast(images, tf.float32), training=False)
        top_probabilities, top_ids = tf.math.top_k(probabilities, top)
        table = tf.constant(names)
        return {
            "probabilities": probabilities,
            "label": tf.gather(table, tf.argmax(probabilities, -1)),
            "top_labels": tf.gather(table, top_ids),
            "top_probabilities": top_probabilities,
        }

    class Serving(tf.Module):
        def __init__(self, assets: Path):
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
            return answer(resize(images, height, width, card.resize))

        @tf.function(input_signature=[], autograph=False)
        def class_names(self):
            return tf.constant(names)

    with tempfile.TemporaryDirectory(prefix="kerascls-") as scratch:
        assets = Path(scratch)
        (assets / "class_names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        (assets / CARD).write_text(card.as_json(), encoding="utf-8")
        serving = Serving(assets)
        tf.saved_model.save(
            serving,
            str(path),
            signatures={"serving_default": serving.serving_default, "pixels": serving.pixels, "serve": serving.pixels},
        )


def _of_keras(writer: Callable[[Any, Card, Path], None]) -> Callable[[Classifier, Path], None]:
    return lambda classifier, path: writer(classifier.keras_model, classifier.card, path)


def _write_saved_model(classifier: Classifier, path: Path) -> None:
    save_saved_model(classifier.keras_model, classifier.card, path / "1")


# Proof

# Each of these is the whole program of a fresh process: it gets PATH, the folder of questions and the file for the
# answers, and imports no kerascls. Names come back too, in the order of the probabilities.
_PROBE_HEAD = """
import json, os, sys, zipfile
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
path, questions, answers = sys.argv[1:]
pixels = np.load(os.path.join(questions, "pixels.npy"))
encoded = [open(os.path.join(questions, f"{i:03d}"), "rb").read() for i in range(len(pixels))]
size = int(open(os.path.join(questions, "batch_size")).read())
batches = [slice(at, at + size) for at in range(0, len(pixels), size)]
"""

_PROBE_TENSORFLOW = (
    _PROBE_HEAD
    + """
import tensorflow as tf
tf.config.experimental.enable_op_determinism()
"""
)

_PROBE_SAVED_MODEL = (
    _PROBE_TENSORFLOW
    + """
model = tf.saved_model.load(os.path.join(path, "1"))
names = [name.decode() for name in model.class_names().numpy()]
out = {"pixels": [], "bytes": []}
labels = []
for batch in batches:
    out["pixels"].append(model.signatures["pixels"](images=tf.constant(pixels[batch]))["probabilities"].numpy())
    answer = model.signatures["serving_default"](image_bytes=tf.constant(encoded[batch]))
    out["bytes"].append(answer["probabilities"].numpy())
    labels += [name.decode() for name in answer["label"].numpy()]
out = {key: np.concatenate(value) for key, value in out.items()}
assert labels == [names[i] for i in out["bytes"].argmax(1)], "label is not the name of the highest probability"
np.savez(answers, names=np.array(json.dumps(names)), **out)
"""
)

_PROBE_KERAS = (
    _PROBE_TENSORFLOW
    + """
import keras
if os.path.isdir(path):
    model = keras.models.model_from_json(open(os.path.join(path, "architecture.json")).read())
    model.load_weights(os.path.join(path, "model.weights.h5"))
    card = open(os.path.join(path, "kerascls.json"), encoding="utf-8").read()
else:
    model = keras.saving.load_model(path, compile=False)
    if path.endswith(".keras"):
        card = zipfile.ZipFile(path).read("kerascls.json").decode()
    else:
        import h5py
        card = h5py.File(path).attrs["kerascls"]
forward = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False), autograph=False)
out = np.concatenate([forward(tf.constant(pixels[batch])).numpy() for batch in batches])
np.savez(answers, names=np.array(json.dumps(json.loads(card)["class_names"])), pixels=out)
"""
)

_PROBE_LITERT = (
    _PROBE_HEAD
    + """
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    import tensorflow as tf
    Interpreter = tf.lite.Interpreter
card = zipfile.ZipFile(path).read("kerascls.json").decode()
model = Interpreter(path)
(entrance,), (exit_,) = model.get_input_details(), model.get_output_details()
out = []
for batch in batches:
    model.resize_tensor_input(entrance["index"], pixels[batch].shape)
    model.allocate_tensors()
    model.set_tensor(entrance["index"], pixels[batch].astype(entrance["dtype"]))
    model.invoke()
    out.append(model.get_tensor(exit_["index"]))
np.savez(answers, names=np.array(json.dumps(json.loads(card)["class_names"])), pixels=np.concatenate(out))
"""
)


@dataclasses.dataclass(frozen=True)
class _Format:
    place: str  # under exports/
    suffix: str  # "" for a folder
    write: Callable[[Classifier, Path], None]
    probe: str
    tolerance: float = 0.0  # by which a probability may differ from the run's

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (self.suffix, ".hdf5") if self.suffix == ".h5" else (self.suffix,)


FORMATS = {
    "keras": _Format("model.keras", ".keras", _of_keras(save_keras), _PROBE_KERAS),
    "saved_model": _Format("saved_model", "", _write_saved_model, _PROBE_SAVED_MODEL),
    "h5": _Format("model.h5", ".h5", _of_keras(save_h5), _PROBE_KERAS),
    "weights": _Format("weights", "", _of_keras(save_weights), _PROBE_KERAS),
    "litert": _Format("model.tflite", ".tflite", _of_keras(save_litert), _PROBE_LITERT, 1e-5),
}


def prove(samples: list[Path], classifier: Classifier, path: Path, kind: _Format, scratch: Path) -> tuple[int, float]:
    """Holds the export at `path` against the run on its samples, in a fresh process, at every entrance it has.

    Returns:
        How many images were compared, and the largest difference of a probability.

    Raises:
        ProofError: a probability differs by more than the format's tolerance (0.0: by a bit), a name differs, or the
            export cannot be opened.
    """
    from kerascls.images import encode_png, read_pixels

    encoded = [file.read_bytes() for file in samples]
    if encoded:
        card = classifier.card
        pixels = np.stack([read_pixels(file, card.image_shape, card.background, card.resize) for file in samples])
    else:
        noise = np.random.Generator(np.random.PCG64(0))
        pixels = noise.integers(0, 256, (64, *classifier.image_shape), np.uint8)
        encoded = [encode_png(image) for image in pixels]
    batch_size = 32
    expected = classifier.probabilities(pixels, batch_size)
    np.save(scratch / "pixels.npy", pixels)
    for i, one in enumerate(encoded):
        (scratch / f"{i:03d}").write_bytes(one)
    (scratch / "batch_size").write_text(str(batch_size))
    answers = scratch / "answers.npz"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    process = subprocess.run(
        [sys.executable, "-c", kind.probe, str(path), str(scratch), str(answers)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ProofError(f"The export could not be opened again in a fresh process: {reason}. Nothing was kept.")
    largest = 0.0
    with np.load(answers) as answered:
        if tuple(json.loads(str(answered["names"]))) != classifier.class_names:
            raise ProofError("The export's class names are not the run's. Nothing was kept.")
        for entrance in answered.files:
            if entrance == "names":
                continue
            difference = float(np.abs(answered[entrance] - expected).max())
            largest = max(largest, difference)
            if not difference <= kind.tolerance:  # NaN is a difference too
                changed = int((answered[entrance].argmax(1) != expected.argmax(1)).sum())
                raise ProofError(
                    f"The export answers differently by {entrance}: probabilities by up to "
                    f"{difference:.3g}, {changed} of {len(expected)} labels. Nothing was kept."
                )
    return len(expected), largest


def sample_files(run: Run) -> list[Path]:
    """The encoded images under samples/, in their order; none where the run keeps none."""
    index = run.path / "samples" / "samples.json"
    if not index.is_file():
        return []
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["files"]
        files = [run.path / "samples" / Path(name).name for name in names]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{index} is damaged: {error}") from None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{index.parent} lacks {len(missing)} of the images that samples.json names, first {missing[0]}."
        )
    return files

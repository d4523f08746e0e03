"""Model files, written whole or not at all, each with its card. What is written holds the network alone: no
augmentation, no optimiser."""

import contextlib
import errno
import io
import math
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import devices
from kerascls.errors import ModelError, OutputError
from kerascls.formats.card import CARD, PROPERTY, Card
from kerascls.formats.scan.isolated import written
from kerascls.system.atomic_files import atomic, cannot_write

TOP = 5  # names in a SavedModel's top_labels, where there are so many classes
OPSET = 18  # of ONNX: the newest that tf2onnx 1.17 writes
# What an int8 .tflite computes in float32: arithmetic without weights, as preprocessing is; probabilities, which would
# tie in steps of 1/256; and layers with so small a share of the weights, as depthwise and first convolutions have,
# whose rounding nothing averages out.
FLOAT_OPERATIONS = ("ADD", "MUL", "SUB", "SOFTMAX")
SMALL = 0.005


# Keras'


def save_keras(model: Any, card: Card, path: Path) -> None:
    """Writes a .keras file that carries its card, whole or not at all."""
    with atomic(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CARD, card.as_json())
    written(path)


def save_h5(model: Any, card: Card, path: Path) -> None:
    """Writes a legacy .h5 file that carries its card in the attribute `kerascls`, whole or not at all."""
    import h5py

    with atomic(path) as temporary:
        need_room(model, temporary)
        model.save(temporary)
        with h5py.File(temporary, "a") as archive:
            archive.attrs["kerascls"] = card.as_json()


def save_weights(model: Any, card: Card, path: Path) -> None:
    """Writes a folder of architecture.json, model.weights.h5 and the card, whole or not at all."""
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "architecture.json").write_text(model.to_json(), encoding="utf-8")
        need_room(model, temporary)
        model.save_weights(temporary / "model.weights.h5")
        (temporary / CARD).write_text(card.as_json(), encoding="utf-8")


def need_room(model: Any, path: Path) -> None:
    """Raises OSError where the disk has less room than a HDF5 file of the weights needs, the largest of their kinds:
    HDF5 1.14 crashes on a full disk, and OpenVINO does not say that it is full."""
    needed = sum(4 * math.prod(weight.shape) + 4096 for weight in model.weights) + 2**16
    if shutil.disk_usage(path.parent).free < 1.1 * needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# TensorFlow's


def save_saved_model(model: Any, card: Card, path: Path) -> None:
    """Writes a SavedModel, self-contained: it decodes, resizes, names, and needs neither Keras nor kerascls.

    Signatures: `serving_default(image_bytes: string (batch,))`, `pixels(images: uint8 (batch, None, None, C))`, and
    `serve`, which is `pixels`. All return `probabilities` float32 (batch, num_classes), `label` string (batch,),
    `top_labels` string and `top_probabilities` float32 (batch, k).
    """
    import tensorflow as tf

    from kerascls.images.decode import resize, to_pixels

    height, width, channels = card.image_shape
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
            fits = tf.reduce_all(tf.shape(images)[1:3] == (height, width))  # then they are what the model takes
            return answer(tf.cond(fits, lambda: images, lambda: resize(images, height, width, card.resize)))

        @tf.function(input_signature=[], autograph=False)
        def class_names(self):
            return tf.constant(names)

    with tempfile.TemporaryDirectory(prefix="kerascls-") as scratch:
        assets = Path(scratch)
        (assets / "class_names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        (assets / CARD).write_text(card.as_json(), encoding="utf-8")
        serving = Serving(assets)
        signatures = {"serving_default": serving.serving_default, "pixels": serving.pixels, "serve": serving.pixels}
        try:
            tf.saved_model.save(serving, str(path), signatures)
        except tf.errors.ResourceExhaustedError as error:
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
            raise


# Other runtimes'


def save_litert(
    model: Any, card: Card, path: Path, kind: str = "float32", calibration: np.ndarray | None = None
) -> None:
    """Writes a .tflite with a zip of its card behind it, as LiteRT's metadata has it. It needs no Flex ops.

    Args:
        kind: of its weights. "int8" computes in whole numbers too, but for what is too fine for them; it takes and
            gives float32 as the others do.
        calibration: for "int8": uint8 images `(n, *image_shape)` from which the ranges of activations are read.
    """
    import tensorflow as tf

    told: dict[str, Any] = {"weights": kind}
    if kind == "int8":
        told["calibration_images"] = len(calibration)
    with atomic(path) as temporary, converting(model, "LiteRT"):
        if kind == "int8":
            temporary.write_bytes(_int8(model, calibration))
        else:
            options: dict[str, Any] = {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}
            if kind == "float16":
                options["optimizations"] = [tf.lite.Optimize.DEFAULT]
                options["target_spec"]["supported_types"] = [tf.float16]
            model.export(temporary, format="litert", verbose=False, **options)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CARD, card.as_json(**told))


def _int8(model: Any, calibration: np.ndarray) -> bytes:
    """A .tflite of whole numbers, but for FLOAT_OPERATIONS and SMALL layers, with biases for its rounded weights."""
    import tensorflow as tf

    from kerascls.models import biased_for_int8, frozen

    small = SMALL * model.count_params()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen(biased_for_int8(model, calibration, small))])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in calibration)
    # TensorFlow's way to keep operations in float32; calibrated once, rounded as often as its options change.
    debugger = tf.lite.experimental.QuantizationDebugger(
        debug_dataset=converter.representative_dataset, converter=converter
    )
    rounded = tf.lite.Interpreter(model_content=debugger.get_nondebug_quantized_model())
    tensors = {tensor["index"]: tensor for tensor in rounded.get_tensor_details()}
    names = [
        tensors[operation["outputs"][0]]["name"]
        for operation in rounded._get_ops_details()
        if operation["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
        and np.prod(tensors[operation["inputs"][1]]["shape"]) < small
    ]
    debugger.options = tf.lite.experimental.QuantizationDebugOptions(
        denylisted_ops=list(FLOAT_OPERATIONS), denylisted_nodes=names
    )
    return debugger.get_nondebug_quantized_model()


def save_onnx(model: Any, card: Card, path: Path) -> None:
    """Writes a .onnx: `images` float32 (batch, *image_shape) in [0, 255] to `probabilities`; the card is a property."""
    try:
        import onnx
        import tf2onnx
    except ImportError:
        raise OutputError("ONNX needs tf2onnx and onnx: pip install 'kerascls[onnx]'") from None
    import tensorflow as tf

    images = tf.TensorSpec(model.input_shape, tf.float32, name="images")
    function = tf.function(
        lambda images: {"probabilities": model(images, training=False)}, input_signature=[images], autograph=False
    )
    with atomic(path) as temporary, converting(model, "ONNX"):
        proto, _ = tf2onnx.convert.from_function(function, [images], opset=OPSET)
        onnx.helper.set_model_props(proto, {PROPERTY: card.as_json()})
        onnx.save(proto, temporary)


def save_openvino(model: Any, card: Card, path: Path) -> None:
    """Writes a folder of model.xml and model.bin in float32: `images` to `probabilities`; the card is in the .xml."""
    try:
        import openvino
    except ImportError:
        raise OutputError("OpenVINO needs its package: pip install 'kerascls[openvino]'") from None
    with atomic(path) as temporary:
        with converting(model, "OpenVINO"):
            converted = to_openvino(model)
            converted.inputs[0].get_tensor().set_names({"images"})
            converted.outputs[0].get_tensor().set_names({"probabilities"})
            converted.set_rt_info(card.as_json(), [PROPERTY])
            temporary.mkdir()
            need_room(model, temporary)
            openvino.save_model(converted, temporary / "model.xml", compress_to_fp16=False)


def to_openvino(model: Any) -> Any:
    """An openvino.Model of float32 images, read by TensorFlow's format for frozen graphs."""
    import openvino

    from kerascls.models import frozen

    with tempfile.TemporaryDirectory(prefix="kerascls-") as scratch:
        graph = Path(scratch) / "frozen.pb"
        try:
            graph.write_bytes(frozen(model).graph.as_graph_def().SerializeToString())
        except OSError as error:
            raise cannot_write(graph, error) from None
        return openvino.Core().read_model(graph)


@contextlib.contextmanager
def converting(model: Any, what: str) -> Iterator[None]:
    """One line in place of what a converter says of a network that it cannot convert, and none of its chatter."""
    try:
        with (
            devices.quiet_stderr(),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    except (OSError, OutputError):
        raise
    except Exception as error:  # each converter has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"Model {model.name} cannot be converted to {what}: {reason[:200]}") from None

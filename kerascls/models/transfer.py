"""A classifier's head on a frozen pretrained backbone: any network of keras.applications, or a .keras file."""

import contextlib
import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.backend.config import keras_home
from keras.src.utils import file_utils

from kerascls.errors import KerasclsError, ModelError, WeightsMissing, first_line
from kerascls.formats.endings import ending, without_head
from kerascls.formats.keras import read_model
from kerascls.formats.scan.containers import check_weights
from kerascls.formats.scan.layers import read_checked
from kerascls.models._layers import DEFAULT, initializers
from kerascls.recipes.catalog import backbones, model_file
from kerascls.system.atomic_files import alone, atomic
from kerascls.system.network import network_reachable
from kerascls.system.process import replaced

_SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
_RANGED = (
    keras.layers.Softmax,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
)


def build(
    image_shape,
    num_classes,
    *,
    backbone="ResNet50",
    weights="imagenet",
    pixel_range=(),
    dense=0,
    dropout=0.0,
    initializer="keras",
):
    """Preprocessing, backbone, global average pooling, Dense relu, Dropout, Dense softmax; gray is repeated to RGB.

    The backbone is one nested layer of that name, not trainable, called with training=False. What stands before it
    are layers only: in Keras 3.15 a .h5 file with an op of keras.ops in its graph cannot be loaded again.

    Args:
        image_shape: (height, width, 1 or 3).
        num_classes: int.
        backbone: a name of keras.applications, preprocessed as its own `preprocess_input` does, or a .keras file
            that takes images (height, width, 3) and returns features `(batch, h, w, c)` or `(batch, c)`, or a run or
            model file of kerascls, of which the head is left out.
        weights: "imagenet" (a .keras file: its own), "none" for random ones, or a file of weights for this backbone.
        pixel_range: (low, high) that a .keras file takes pixels in. A name of keras.applications has its own, and so
            has a model of kerascls.
        dense: units of the hidden layer; 0 for none.
        dropout: share of the features dropped before the last layer in training.
        initializer: of the head, "keras" (Glorot uniform, zero bias) or "pytorch" (uniform +-1/sqrt(fan_in), bias too).

    Raises:
        WeightsMissing: ImageNet weights that are not here and cannot be downloaded.
        ModelError: the backbone or its weights do not fit.
    """
    height, width, channels = image_shape
    if file := model_file(backbone):
        base, (flip, scale, offset) = _from_file(file, (height, width, channels), weights, pixel_range)
    else:
        base = _application(backbone, (height, width, 3), weights)
        flip, scale, offset = preprocessing(backbone)
    _settle_precision(base, backbone.endswith(".keras"))
    base = keras.Model(base.input, base.output, name="backbone")
    base.trainable = False

    x = inputs = keras.Input(image_shape, name="pixels")
    if channels == 1 and base.input_shape[3] != 1:
        x = keras.layers.Concatenate(name="rgb", dtype="float32")([x, x, x])
    x = base(preprocess(x, flip, scale, offset), training=False)
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(x)
    if dense:
        start = initializers(initializer, x.shape[-1])
        x = keras.layers.Dense(dense, activation="relu", name="dense", **start)(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout", dtype="float32")(x)
    start = initializers(initializer, x.shape[-1])
    outputs = keras.layers.Dense(num_classes, activation="softmax", name="classes", **start)(x)
    return keras.Model(inputs, outputs, name="transfer")


def preprocessing(backbone: str) -> tuple[bool, list[float], list[float]]:
    """What the `preprocess_input` of a network of keras.applications does to RGB pixels in [0, 255].

    Returns:
        flip: whether it turns RGB into BGR, first.
        scale, offset: three floats each: channel i then becomes scale[i] * value + offset[i].

    >>> preprocessing("MobileNet")
    (False, [0.007843137255, 0.007843137255, 0.007843137255], [-1.0, -1.0, -1.0])
    """
    module = importlib.import_module(f"keras.applications.{backbones()[backbone]}")
    # All of them are linear in each channel, so black, red, green and blue say everything.
    offset = module.preprocess_input(np.zeros((1, 1, 1, 3)))[0, 0, 0]
    answers = module.preprocess_input(255 * np.eye(3)[:, None, None])[:, 0, 0]
    matrix = (answers - offset) / 255
    flip = bool(matrix[0, 0] == 0)  # red in the first place goes to the last
    scale = np.diag(matrix[::-1] if flip else matrix)
    return flip, [round(float(x), 12) for x in scale], [float(x) for x in offset]


def preprocess(images: Any, flip: bool, scale: list[float], offset: list[float]) -> Any:
    """Keras tensor `(batch, height, width, 3)`, as `preprocessing` says, by layers without weights, in float32."""
    if flip:
        # A cropping layer that takes the channels for a width, which it does under "channels_first".
        blue, green, red = (
            keras.layers.Cropping2D(((0, 0), (i, 2 - i)), data_format="channels_first", name=name, dtype="float32")(
                images
            )
            for i, name in ((2, "blue"), (1, "green"), (0, "red"))
        )
        images = keras.layers.Concatenate(name="bgr", dtype="float32")([blue, green, red])
    if scale != [1.0] * 3 or offset != [0.0] * 3:
        images = keras.layers.Rescaling(scale, offset, name="scale", dtype="float32")(images)
    return images


def _settle_precision(base: keras.Model, from_file: bool) -> None:
    """Says which layers of a backbone stay in float32 where the others train in a mixed precision.

    In a file every layer states its precision, so an explicit float32 cannot be told from the default. Where layers of
    it have a mixed policy, the others meant float32. Where none has, what keeps a range of its own stays in float32:
    what scales pixels, normalises an example and sums to 1. Of keras.applications, what scales pixels.
    """
    layers = [layer for layer in base._flatten_layers() if not isinstance(layer, keras.Model)]
    mixed = [layer for layer in layers if layer.compute_dtype != layer.variable_dtype]
    for layer in layers:
        if isinstance(layer, _SCALING) or (from_file and not mixed and isinstance(layer, _RANGED)):
            layer.dtype_policy = "float32"
        elif layer in mixed or (from_file and not mixed):
            layer.dtype_policy = DEFAULT


def _from_file(
    path: Path, image_shape: tuple[int, int, int], weights: str, pixel_range: Any
) -> tuple[keras.Model, tuple[bool, list[float], list[float]]]:
    """The backbone, and what is made of pixels for it, as `preprocessing` says."""
    contents = read_checked(path)
    base = read_model(path, contents)
    low, high = pixel_range or (0, 255)
    pixels = (False, [(high - low) / 255] * 3, [float(low)] * 3)
    if contents.card is not None:
        base, pixels = without_head(base)
    elif ending(base) in ("softmax", "sigmoid") and len(base.output_shape) == 2:
        raise ModelError(
            f"{path} ends in a {ending(base)}: it is a classifier, not a backbone. Save what returns its features, as "
            "keras.Model(model.inputs, model.layers[-2].output)."
        )
    takes, returns = base.input_shape, base.output_shape
    if image_shape[2] == 1 and not (contents.card and takes[-1] == 1):
        image_shape = (*image_shape[:2], 3)  # gray is repeated to RGB
    if not _fits(takes, image_shape):
        raise ModelError(
            f"Backbone {path} takes {takes}; the images are {(None, *image_shape)}. Change data.image_shape, or give a "
            "backbone for such images."
        )
    if not isinstance(returns, tuple) or len(returns) not in (2, 4) or returns[-1] is None:
        raise ModelError(f"Backbone {path} must return features (batch, h, w, c) or (batch, c). Received: {returns}")
    if weights == "none":
        return keras.models.clone_model(base), pixels
    if weights != "imagenet":
        check_weights(Path(weights))
        with _fitting(weights, path.name, "saved by its save_weights"):
            base.load_weights(weights)
    return base, pixels


def _fits(takes: Any, image_shape: tuple[int, int, int]) -> bool:
    """Whether a model's input shape, whose sizes may be None, lets images of `image_shape` in."""
    if not isinstance(takes, tuple) or len(takes) != 4:
        return False
    return all(size in (None, given) for size, given in zip(takes[1:], image_shape, strict=True))


def _application(name: str, image_shape: tuple[int, int, int], weights: str) -> keras.Model:
    """A network of keras.applications without its top."""
    network = getattr(keras.applications, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its weights were trained at another image size
        if weights == "none":
            return network(include_top=False, weights=None, input_shape=image_shape)
        if weights != "imagenet":
            check_weights(Path(weights))
        # Also for weights in a file: EfficientNet scales its input otherwise when it is built for "imagenet".
        with _weights_from(None if weights == "imagenet" else weights, name):
            return network(include_top=False, weights="imagenet", input_shape=image_shape)


@contextlib.contextmanager
def _weights_from(path: str | None, network: str) -> Iterator[None]:
    """Within it, keras.applications load `path`, or, where None, the file in Keras' cache, or download it.

    Which file a network wants is known to its constructor alone, which asks Keras' `get_file` for it.
    """
    loading = contextlib.ExitStack()

    def get_file(original: Callable, fname: str, origin: str, cache_subdir: str, file_hash: str | None = None) -> str:
        loading.enter_context(_fitting(path or fname, network, f"as Keras' own {fname}"))
        if path is not None:
            return path
        cached = Path(keras_home()).expanduser() / cache_subdir / fname
        is_here = lambda: cached.is_file() and (file_hash is None or file_utils.validate_file(cached, file_hash))  # noqa: E731
        if is_here():
            return str(cached)
        reason = "are not here, and the network cannot be reached"
        if network_reachable(origin):
            try:
                with (
                    contextlib.redirect_stdout(sys.stderr),  # its progress bar
                    alone(cached.with_name(f".{fname}.lock"), f"Another process downloads {fname}: waiting for it."),
                ):
                    if not is_here():
                        with atomic(cached) as file:  # Keras would write to the place itself, and not all have a hash
                            folder = file.parent
                            original(
                                fname, origin, cache_dir=folder.parent, cache_subdir=folder.name, file_hash=file_hash
                            )
                return str(cached)
            except Exception as error:
                reason = f"cannot be downloaded ({error})"
        raise WeightsMissing(
            f"The ImageNet weights of {network} {reason}. Put {fname} (from {origin}) into {cached.parent}, or name "
            "the file: --set model.weights=PATH."
        )

    with replaced(file_utils, "get_file", lambda original: functools.partial(get_file, original)), loading:
        yield


@contextlib.contextmanager
def _fitting(weights: str, network: str, kind: str) -> Iterator[None]:
    """Turns whatever Keras and h5py raise on a file of weights that does not fit into a ModelError."""
    try:
        yield
    except KerasclsError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise ModelError(
            f"Weights {weights} do not fit {network} without its top ({reason[:160]}). Expected a file {kind}."
        ) from None

"""Keras models. `models/<name>.py` is the model `<name>`; a user's `./my_net.py` is the same.

Such a file has `build(image_shape, num_classes, *, filters=32)`, its options under any names, each with a default.
Every model takes uint8 or float32 `(batch, height, width, channels)` in [0, 255], scales inside, and returns float32
probabilities `(batch, num_classes)`.
"""

import importlib
import importlib.util
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerascls.errors import KerasclsError, ModelError, first_line
from kerascls.models._layers import DEFAULT
from kerascls.recipes.catalog import model_files


def build_model(name: str, image_shape: tuple[int, int, int], num_classes: int, **options: Any) -> keras.Model:
    """Builds a model by its file's name or by the path of a user's file.

    Raises:
        ModelError: the images are too small for the network, there are fewer than two classes, or a user's file fails.
    """
    if num_classes < 2:
        raise ModelError(f"A classifier needs at least 2 classes. Received: num_classes={num_classes}")
    build = _builder(name)
    usual = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(DEFAULT if usual == DEFAULT else usual)
        model = build(tuple(image_shape), num_classes, **options)
    except KerasclsError:
        raise
    except (Exception, SystemExit) as error:
        reason = first_line(error)
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if Path(frame.filename).name == Path(name).name), None)
        told = f"{reason.rstrip('.')} ({type(error).__name__}" + (f" in line {line})." if line else ").")
        raise ModelError(
            f"Model {name} cannot be built for images of {tuple(image_shape)} and {num_classes} classes: "
            + (told if name.endswith(".py") else f"{reason} Choose another data.image_shape or model.")
        ) from None
    finally:
        keras.config.set_dtype_policy(usual)
    check_model(name, model, tuple(image_shape), num_classes)
    return model


def check_model(name: str, model: Any, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raises ModelError unless `model` takes pixels, returns probabilities' shape, and can be loaded again later."""
    if not isinstance(model, keras.Model):
        raise ModelError(f"Model {name}: build() must return a keras.Model. Received: {type(model).__name__}")
    if not isinstance(model, keras.Sequential | keras.Function):
        raise ModelError(f"Model {name} must be functional or Sequential with an Input, not a subclass of keras.Model.")
    shapes = [getattr(model, key, None) for key in ("input_shape", "output_shape")]
    if shapes != [(None, *image_shape), (None, num_classes)]:
        raise ModelError(
            f"Model {name} must take {(None, *image_shape)} and return {(None, num_classes)}. "
            f"Received: {shapes[0]} and {shapes[1]}"
        )
    foreign = [
        layer.name
        for layer in model._flatten_layers()
        if not type(layer).__module__.startswith("keras.") or isinstance(layer, keras.layers.Lambda)
    ]
    if foreign:
        raise ModelError(
            f"Model {name} must be made of Keras' own layers, without Lambda, or its file could not be loaded again. "
            f"Received: {', '.join(foreign[:5])}"
        )
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (2, *image_shape), np.uint8)
    try:
        out = model(noise, training=False)
    except Exception as error:
        reason = first_line(error)
        raise ModelError(f"Model {name} fails on an image: {reason}") from None
    if not hasattr(out, "dtype") or keras.backend.standardize_dtype(out.dtype) != "float32":
        raise ModelError(f"Model {name} must return float32. Received: {getattr(out, 'dtype', type(out).__name__)}")
    sums = np.asarray(keras.ops.convert_to_numpy(out)).sum(1)
    if not np.allclose(sums, 1, atol=1e-3):
        raise ModelError(
            f"Model {name} must return probabilities: end it in a softmax. Received: rows that add up to {sums[0]:.4g}"
        )


def last_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer that gives the output, in nested models too."""
    last = model.outputs[0]._keras_history.operation
    if not isinstance(last, keras.layers.Layer):
        raise ModelError(
            f"Model {model.name} ends in the operation {last.name}: with devices.precision other than float32 it must "
            "end in a layer, as keras.layers.Softmax() is, which stays in float32."
        )
    return last_layer(last) if isinstance(last, keras.Model) else last


def _builder(name: str):
    if not name.endswith(".py"):
        if name not in model_files():
            raise ModelError(f"No model is named {name!r}. Known: {', '.join(model_files())}.")
        return importlib.import_module(f"kerascls.models.{name}").build
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.build
    except (Exception, SystemExit) as error:
        raise ModelError(f"{name} cannot be imported: {type(error).__name__}: {error}") from None

"""Keras models. `models/<name>.py` is the model `<name>`; a user's `./my_net.py` is the same.

Such a file has `build(image_shape, num_classes, *, ...options)`. Every model takes uint8 or float32
`(batch, height, width, channels)` in [0, 255], scales inside, and returns float32 probabilities
`(batch, num_classes)`.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import keras

from kerascls.catalog import model_files
from kerascls.errors import KerasclsError, ModelError


def build_model(name: str, image_shape: tuple[int, int, int], num_classes: int, **options: Any) -> keras.Model:
    """Builds a model by its file's name or by the path of a user's file.

    Raises:
        ModelError: the images are too small for the network, there are fewer than two classes, or a user's file fails.
    """
    if num_classes < 2:
        raise ModelError(f"A classifier needs at least 2 classes. Received: num_classes={num_classes}")
    build = _builder(name)
    try:
        model = build(tuple(image_shape), num_classes, **options)
    except KerasclsError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"Model {name} cannot be built for images of {tuple(image_shape)} and {num_classes} classes: "
            f"{reason} Choose another data.image_shape or model."
        ) from None
    if not isinstance(model, keras.Model) or model.output_shape != (None, num_classes):
        shape = getattr(model, "output_shape", type(model).__name__)
        raise ModelError(f"Model {name} must be a keras.Model with output (None, {num_classes}). Received: {shape}")
    return model


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
    except Exception as error:
        raise ModelError(f"{name} cannot be imported: {type(error).__name__}: {error}") from None

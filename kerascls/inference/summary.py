"""A model's layers and parameters, from a recipe without its data or from a trained model."""

import contextlib
import io
import math
from pathlib import Path
from typing import Any

from kerascls.data.loading import describe_dataset
from kerascls.errors import ModelError
from kerascls.inference.loading import load
from kerascls.recipes.catalog import build_options, is_recipe, model_path
from kerascls.recipes.load import load_config
from kerascls.system import tensorflow

CLASSES = 2  # of a recipe that leaves data and classes to the user


def model_of(what: str) -> Any:
    """The keras.Model of a recipe, built afresh, or of a run or model file.

    A recipe that names neither data nor classes is built for two classes.
    """
    if not is_recipe(what):
        if "/" not in what and "\\" not in what and not Path(what).suffix and not Path(what).exists():
            load_config(what)  # a bare word is a recipe: says so, with the nearest name
        classifier = load(what)
        if classifier.keras_model is None:
            raise ModelError(
                f"{what} is {classifier.kind}, which keeps no Keras layers. Name its run or a .keras file."
            )
        return classifier.keras_model
    from kerascls.models import build_model

    config = load_config(what)
    class_names, own_shape = tuple(config.data.classes), None
    if config.data.name:
        class_names, own_shape = describe_dataset(config.data.name, config.data.classes)
    image_shape = tuple(config.data.image_shape) or own_shape
    if image_shape is None:
        what = config.data.name or what
        raise ModelError(f"{what} has images of many sizes. State data.image_shape in the recipe.")
    options = config.model.options
    if "weights" in build_options(model_path(config.model.name)):  # counted, not used: nothing is downloaded
        options = {**options, "weights": "none"}
    return build_model(config.model.name, image_shape, len(class_names) or CLASSES, **options)


def summary(what: str) -> dict[str, Any]:
    """Counts of a recipe's, run's or model file's parameters, and its layers; needs no network, data or weights."""
    tensorflow.start()
    model = model_of(what)

    def count(variables: list[Any]) -> int:
        return sum(math.prod(variable.shape) for variable in variables)

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        model.summary(print_fn=lambda line, **_: text.write(line + "\n"))
    return {
        "name": model.name,
        "total": count(model.weights),
        "trainable": count(model.trainable_weights),
        "non_trainable": count(model.non_trainable_weights),
        "layers": [
            {
                "name": layer.name,
                "class": type(layer).__name__,
                "parameters": layer.count_params(),
                "output_shape": list(layer.output.shape),
            }
            for layer in model.layers
        ],
        "table": text.getvalue(),
    }

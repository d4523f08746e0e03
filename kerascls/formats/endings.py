"""How networks end: the activation of their outputs, and what they are without the layers that name classes."""

from typing import Any

import keras
import numpy as np

from kerascls.errors import ModelError

_PASSES = ("Dropout", "Flatten", "Identity", "Activation", "InputLayer")  # Activation: where it is linear


def ending(model: Any) -> str:
    """The activation that a model ends in, "linear" where it certainly has none, "" where that cannot be told."""
    tensor = model.outputs[0]
    while True:
        operation, node, _ = tensor._keras_history
        if isinstance(operation, keras.Model):
            return ending(operation)
        kind = type(operation).__name__
        activation = getattr(getattr(operation, "activation", None), "__name__", None)
        if kind in ("Softmax", "Sigmoid"):  # layers and operations of these names
            return kind.lower()
        if kind in _PASSES and activation in (None, "linear"):
            inputs = operation._inbound_nodes[node].input_tensors
            if not inputs:
                return ""
            tensor = inputs[0]
            continue
        return activation if activation and (kind == "Dense" or activation != "linear") else ""


def without_head(model: Any) -> tuple[Any, tuple[bool, list[float], list[float]]]:
    """The features that a classifier of kerascls tells its classes by, and what they make of pixels, as
    `transfer.preprocessing` says: of a transfer model its backbone, of others all before their last layer with weights.

    Raises:
        ModelError: that layer lies in a nested model.
    """
    layers = {layer.name: layer for layer in model.layers}
    if "backbone" in layers:
        scale = layers.get("scale")
        factors = ([1.0] * 3, [0.0] * 3) if scale is None else (_three(scale.scale), _three(scale.offset))
        return layers["backbone"], ("bgr" in layers, *factors)
    tensor, weights = model.outputs[0], []
    while not weights or type(tensor._keras_history.operation).__name__ == "Dropout":
        operation, node, _ = tensor._keras_history
        inputs = operation._inbound_nodes[node].input_tensors
        weights = weights or getattr(operation, "weights", [])
        if len(inputs) != 1 or (isinstance(operation, keras.Model) and weights):
            raise ModelError(f"Model {model.name} does not end in a layer that tells classes: it is no backbone.")
        tensor = inputs[0]
    return keras.Model(model.inputs[0], tensor), (False, [1.0] * 3, [0.0] * 3)


def _three(factors: Any) -> list[float]:
    return [float(factor) for factor in np.broadcast_to(np.asarray(factors), 3)]

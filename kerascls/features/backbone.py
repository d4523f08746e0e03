"""Divides a model into frozen backbone and head, and folds batch normalisation into convolutions."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kerascls.errors import ModelError

# Two halves of a model


def split_model(model: Any) -> tuple[Any, Any]:
    """The frozen part of a model and the part that trains, both with the model's own layers and weights.

    Args:
        model: a chain from a layer named "backbone" to its output, as `models/transfer.py` builds them.

    Returns:
        body: images `(batch, *image_shape)` to features, up to the last layer without weights after the backbone.
        head: those features to probabilities.

    Raises:
        ModelError: the model has no frozen backbone, or is no chain behind it.
    """
    import keras

    advice = "Leave out features.views, or choose model.name = transfer."
    at = next((i for i, layer in enumerate(model.layers) if layer.name == "backbone"), None)
    if at is None:
        raise ModelError(f"Model {model.name} has no layer named backbone, whose features could be kept. {advice}")
    chain = model.layers[at:]
    if chain[0].trainable_weights:
        raise ModelError(f"The backbone of model {model.name} is not frozen: its features would change. {advice}")
    fed_by = [getattr(getattr(layer.input, "_keras_history", None), "operation", None) for layer in chain[1:]]
    if any(layer is not before for layer, before in zip(fed_by, chain, strict=False)):
        raise ModelError(f"Behind its backbone, model {model.name} is no chain of layers. {advice}")
    first = next(i for i, layer in enumerate(chain) if i and (layer.weights or isinstance(layer, keras.layers.Dropout)))
    produced = chain[first].input
    x = features = keras.Input(produced.shape[1:], name="features")
    for layer in chain[first:]:
        x = layer(x)
    return keras.Model(model.input, produced, name="body"), keras.Model(features, x, name="head")


def folded(body: Any, dtype: str = "mixed_bfloat16") -> Any:
    """A copy of `body` that computes in bfloat16, each batch normalisation multiplied into the convolution before it.

    Unfolded, the casts around batch normalisation cost as much as bfloat16 saves. A normalisation that does not follow
    a convolution or dense layer of its own is computed as it is. Pooling behind the backbone stays float32.
    """
    import keras

    class Pass(keras.layers.Layer):
        def call(self, x: Any, training: Any = None, mask: Any = None) -> Any:
            return x

    backbone = body.get_layer("backbone")
    conv_of = {norm.name: conv for norm, conv in _foldable(backbone)}
    biased = {conv.name for conv in conv_of.values()}

    def computing_in_dtype(layer: Any) -> Any:
        if layer.name in conv_of:
            return Pass(name=layer.name, dtype=dtype)
        config = layer.get_config()
        if isinstance(layer, keras.layers.Layer):  # there may be ops between them
            config["dtype"] = dtype
        if layer.name in biased:
            config["use_bias"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(backbone, clone_function=computing_in_dtype)
    for layer in backbone.layers:
        if layer.weights and layer.name not in biased and layer.name not in conv_of:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    for norm in backbone.layers:
        if norm.name in conv_of:
            conv = conv_of[norm.name]
            copy.get_layer(conv.name).set_weights(_folded_weights(conv, norm))
    return keras.models.clone_model(
        body, clone_function=lambda layer: copy if layer is backbone else type(layer).from_config(layer.get_config())
    )


def _foldable(backbone: Any) -> Iterator[tuple[Any, Any]]:
    """Each batch normalisation over the channels that follows a linear layer which feeds nothing else."""
    import keras

    linear = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    outputs = {id(tensor) for tensor in backbone.outputs}
    for norm in backbone.layers:
        if type(norm) is keras.layers.BatchNormalization and norm.axis in (-1, len(norm.output.shape) - 1):
            layer = norm.input._keras_history.operation
            alone = len(layer._outbound_nodes) == len(layer._inbound_nodes) == len(norm._inbound_nodes) == 1
            if type(layer) in linear and alone and layer.activation is keras.activations.linear:
                if id(layer.output) not in outputs:
                    yield norm, layer


def _folded_weights(conv: Any, norm: Any) -> list[np.ndarray]:
    """Kernel and bias that answer as `conv` and then `norm` do: gain (w x + b - mean) + beta."""
    import keras

    kernel, *bias = conv.get_weights()
    gain = 1 / np.sqrt(np.array(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        gain = gain * np.array(norm.gamma)
    offset = ((bias[0] if bias else 0.0) - np.array(norm.moving_mean)) * gain
    if norm.center:
        offset = offset + np.array(norm.beta)
    # A depthwise kernel is (height, width, channels, multiplier), and its outputs are the last two.
    depthwise = type(conv) is keras.layers.DepthwiseConv2D
    return [kernel * (gain.reshape(kernel.shape[2:]) if depthwise else gain), offset]

"""Quantises a model to int8 for LiteRT."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def biased_for_int8(model: keras.Model, images: np.ndarray, small: float) -> keras.Model:
    """A copy whose biases take back what rounding the weights to int8 shifts the mean of each channel by.

    The bias correction of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
    (2019), by images. Each convolution and dense layer gets a bias; its weights stay as they are, and batch
    normalisation behind it scales whole channels, so that a converter rounds to the same steps. Depthwise and separable
    convolutions are left as they are.

    Args:
        images: uint8 `(n, *input_shape[1:])`, by which the means of the layers' inputs are taken.
        small: layers of fewer weights are not rounded.
    """
    copy = type(model).from_config(_with_biases(model.get_config()))
    for old, new in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        if not isinstance(old, keras.Model):
            weights = old.get_weights()
            new.set_weights(weights + [np.zeros(one.shape, np.float32) for one in new.weights[len(weights) :]])
    layers = [
        layer
        for layer in copy._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) and np.prod(layer.kernel.shape) >= small
    ]
    sums: dict[str, Any] = {}

    def watched(layer: Any, call: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        sums[layer.path] = sums.get(layer.path, 0) + tf.reduce_sum(inputs, 0, keepdims=True)
        return call(inputs, *args, **named)

    calls = [layer.call for layer in layers]
    for layer, call in zip(layers, calls, strict=True):
        layer.call = functools.partial(watched, layer, call)
    for at in range(0, len(images), 32):
        copy(tf.cast(images[at : at + 32], tf.float32), training=False)
    for layer, call in zip(layers, calls, strict=True):
        layer.call = call
        # It is linear, so its mean output is that of the mean input, and the shift is what the weights' errors give.
        kernel, bias, activation = layer.kernel.numpy(), layer.bias.numpy(), layer.activation
        step = np.abs(kernel).max(tuple(range(kernel.ndim - 1))) / 127
        layer.kernel.assign(np.rint(kernel / np.where(step > 0, step, 1)) * step - kernel)
        layer.bias.assign(np.zeros_like(bias))
        layer.activation = None
        shift = tf.reshape(layer(sums[layer.path] / len(images)), (-1, len(bias))).numpy().mean(0)
        layer.kernel.assign(kernel)
        layer.bias.assign(bias - shift)
        layer.activation = activation
    return copy


def _with_biases(config: Any) -> Any:
    """A model's config in which each convolution and dense layer, those of nested models too, has a bias."""
    if isinstance(config, dict):
        config = {key: _with_biases(value) for key, value in config.items()}
        if config.get("class_name") in ("Conv2D", "Dense"):
            config["config"]["use_bias"] = True
    elif isinstance(config, list | tuple):
        config = type(config)(_with_biases(value) for value in config)
    return config


# What an int8 .tflite computes in float32: arithmetic without weights, as preprocessing is; probabilities, which would
# tie in steps of 1/256; and layers with so small a share of the weights, as depthwise and first convolutions have,
# whose rounding nothing averages out.
FLOAT_OPERATIONS = ("ADD", "MUL", "SUB", "SOFTMAX")
SMALL = 0.005


def quantized(model: Any, calibration: np.ndarray) -> bytes:
    """A .tflite of whole numbers, but for FLOAT_OPERATIONS and SMALL layers, with biases for its rounded weights."""
    import tensorflow as tf

    from kerascls.formats.graph import frozen

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

"""Keras models. `models/<name>.py` is the model `<name>`; a user's `./my_net.py` is the same.

Such a file has `build(image_shape, num_classes, *, filters=32)`, its options under any names, each with a default.
Every model takes uint8 or float32 `(batch, height, width, channels)` in [0, 255], scales inside, and returns float32
probabilities `(batch, num_classes)`.
"""

import functools
import importlib
import importlib.util
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerascls.errors import KerasclsError, ModelError
from kerascls.models._layers import DEFAULT
from kerascls.recipes.catalog import model_files, nearest


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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"Model {name} fails on an image: {reason}") from None
    if not hasattr(out, "dtype") or keras.backend.standardize_dtype(out.dtype) != "float32":
        raise ModelError(f"Model {name} must return float32. Received: {getattr(out, 'dtype', type(out).__name__)}")
    sums = np.asarray(keras.ops.convert_to_numpy(out)).sum(1)
    if not np.allclose(sums, 1, atol=1e-3):
        raise ModelError(
            f"Model {name} must return probabilities: end it in a softmax. Received: rows that add up to {sums[0]:.4g}"
        )


def copy_for_training(model: keras.Model, precision: str, synchronized: bool) -> keras.Model:
    """A model of the same layers and weights that computes otherwise; `model` itself stays the float32 reference.

    Nested models are copied too, and the order of `weights` is the same: `model.set_weights(copy.get_weights())` brings
    back what was trained. Call it inside the scope of the strategy that will train the copy.

    Args:
        precision: "float32", or "bfloat16" or "float16": every layer that was made without a dtype of its own then has
            Keras' mixed policy, in which it computes in that precision and keeps its weights in float32. The last one
            stays float32, and so do those that state it.
        synchronized: whether batch normalisation takes its moments over the replicas of a strategy together.

    Raises:
        ModelError: the model ends in an operation that is not a layer, which cannot be kept in float32.
    """
    copy = type(model).from_config(model.get_config())
    if precision != "float32":
        last, unstated = _last_layer(copy), (DEFAULT, keras.config.dtype_policy())
        for layer, one in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
            states_none = any(layer.dtype_policy is policy for policy in unstated)
            if states_none and one is not last and not isinstance(one, keras.Model | keras.layers.InputLayer):
                one.dtype_policy = f"mixed_{precision}"
    copy.set_weights(model.get_weights())
    sum_moments_evenly(copy, synchronized)
    return copy


def sum_moments_evenly(model: keras.Model, synchronized: bool) -> None:
    """Gives batch normalisation moments that hardly depend on how a batch is shared: for training, in place.

    Keras adds a channel's numbers up in one row: 2e-6 of the mean of 10,000 is rounding. After a few steps that turns
    some ReLU or maximum the other way, and one device and two drift apart: by 2e-4 of the loss in three epochs of
    `articles/cifar_cnn_bn` on 516 images of CIFAR-10. With sums axis after axis, which take no longer, it was 1e-7
    there, and 2e-5 on another machine with noise for images.

    Args:
        model: its layers' `_moments` are replaced, which no file of a model holds.
        synchronized: whether the replicas of a strategy take moments together.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer._moments = functools.partial(_moments, layer.axis, synchronized)


def _moments(axis: int, synchronized: bool, inputs: Any, mask: Any = None) -> tuple[Any, Any]:
    """Mean and variance of each channel, over all replicas where `synchronized`, whatever share of it each has.

    Keras' own synchronized moments are E[x^2] - E[x]^2, which cancels; here the mean is taken off first.
    """
    axes = [i for i in range(len(inputs.shape)) if i != axis % len(inputs.shape)]

    def total(values: Any) -> Any:
        for i in reversed(axes):
            values = tf.reduce_sum(values, i, keepdims=True)
        return over_replicas(values)

    def over_replicas(values: Any) -> Any:
        if not synchronized:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    count = over_replicas(tf.cast(tf.size(inputs) // inputs.shape[axis], inputs.dtype))
    mean = total(inputs) / count
    variance = total(tf.math.squared_difference(inputs, mean)) / count
    return tf.squeeze(mean, axes), tf.squeeze(variance, axes)


def _last_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer that gives the output, in nested models too."""
    last = model.outputs[0]._keras_history.operation
    if not isinstance(last, keras.layers.Layer):
        raise ModelError(
            f"Model {model.name} ends in the operation {last.name}: with devices.precision other than float32 it must "
            "end in a layer, as keras.layers.Softmax() is, which stays in float32."
        )
    return _last_layer(last) if isinstance(last, keras.Model) else last


def first_tuned(model: keras.Model, unfreeze: int | str) -> int:
    """The position in `model`'s backbone of the first layer that a fine-tuning phase trains.

    Args:
        model: has a nested model named "backbone".
        unfreeze: how many of its layers, from the end; or how a layer's name begins, for that layer and all after it.

    Raises:
        ModelError: there is no backbone, or no such layer, or nothing in them to train.
    """
    backbone = next((layer for layer in model.layers if layer.name == "backbone"), None)
    if not isinstance(backbone, keras.Model):
        raise ModelError(f"Model {model.name} has no backbone, which [finetune] could train. Leave out [finetune].")
    names = [layer.name for layer in backbone.layers]
    if isinstance(unfreeze, int):
        first = max(0, len(names) - unfreeze)
    else:
        first = next((i for i, name in enumerate(names) if name.startswith(unfreeze)), None)
        if first is None:
            raise ModelError(
                f"finetune.unfreeze: no layer of the backbone begins with {unfreeze!r}.{nearest(unfreeze, names)} "
                f"Its last are {', '.join(names[-5:])}."
            )
    if all(
        isinstance(layer, keras.layers.BatchNormalization) or not layer.weights for layer in backbone.layers[first:]
    ):
        raise ModelError(
            f"finetune.unfreeze = {unfreeze!r} leaves nothing to train: {', '.join(names[first:][:5])} have no "
            "weights, or are batch normalisation, which stays frozen. Unfreeze more layers."
        )
    return first


def unfreeze_backbone(model: keras.Model, unfreeze: int | str) -> None:
    """Lets the backbone's last layers train, as `first_tuned` says; takes effect when `model` is compiled again.

    Batch normalisation stays frozen: it would take its statistics from small batches, and the features would drift.
    """
    first = first_tuned(model, unfreeze)
    backbone = model.get_layer("backbone")
    backbone.trainable = True
    for layer in backbone.layers[:first]:
        layer.trainable = False
    for layer in backbone._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


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


def frozen(model: Any) -> Any:
    """A model as one graph of float32 images whose weights are constants: its steps are folded and fused, once."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec(model.input_shape, tf.float32)],
        autograph=False,
    )
    return convert_variables_to_constants_v2(function.get_concrete_function())


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

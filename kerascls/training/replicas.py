"""The network that trains on several devices: its precision, and the moments of its batch normalisation."""

import functools
from typing import Any

import keras
import tensorflow as tf

from kerascls.models import last_layer
from kerascls.models._layers import DEFAULT


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
        last, unstated = last_layer(copy), (DEFAULT, keras.config.dtype_policy())
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

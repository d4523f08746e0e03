"""What several models begin with."""

import math

import keras

DEFAULT = keras.DTypePolicy("float32")
"""The policy of layers that state none. It is told by identity: an explicit float32 is equal to it, in a config too."""


def scaled_input(image_shape: tuple[int, int, int], low: float, high: float):
    """An input of pixels in [0, 255] and the same scaled to [low, high], in float32 under any precision."""
    inputs = keras.Input(image_shape, name="pixels", dtype="float32")
    return inputs, keras.layers.Rescaling((high - low) / 255, offset=low, name="scale", dtype="float32")(inputs)


def initializers(kind: str, fan_in: int) -> dict[str, keras.initializers.Initializer]:
    """Layer arguments for a way to begin: "keras" (Glorot uniform, zero bias) or "pytorch".

    PyTorch's Conv2d and Linear draw weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in))
    (torch.nn.init.kaiming_uniform_ with a=sqrt(5)).

    Args:
        fan_in: inputs that one output sums over, 3 * 3 * channels for a 3x3 convolution.
    """
    if kind == "keras":
        return {}
    if kind != "pytorch":
        raise ValueError(f'`initializer` must be "keras" or "pytorch". Received: {kind!r}.')
    limit = 1 / math.sqrt(fan_in)
    return {
        "kernel_initializer": keras.initializers.RandomUniform(-limit, limit),
        "bias_initializer": keras.initializers.RandomUniform(-limit, limit),
    }

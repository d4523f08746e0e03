"""Two 3x3 convolutions of 4 channels and one dense layer: 1,198 parameters on 28x28x1 and 10 classes."""

import keras

from kerascls.models._layers import scaled_input


def build(image_shape, num_classes, *, filters=4):
    """Conv 3x3 valid relu, MaxPool 2, twice, then Flatten and Dense softmax; pixels scaled to [0, 1].

    Args:
        image_shape: (height, width, channels), at least 10 x 10.
        num_classes: int.
        filters: channels of both convolutions.
    """
    inputs, x = scaled_input(image_shape, 0, 1)
    for i in (1, 2):
        x = keras.layers.Conv2D(filters, 3, activation="relu", name=f"conv{i}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    outputs = keras.layers.Dense(num_classes, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="mnist_cnn")

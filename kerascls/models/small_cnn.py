"""Four blocks of 3x3 convolution and batch normalisation: 390,114 parameters on RGB images and 2 classes."""

import keras

from kerascls.models._layers import scaled_input


def build(image_shape, num_classes, *, filters=32, blocks=4, dropout=0.3):
    """Conv 3x3 same, BatchNormalization, relu, MaxPool 2, doubling the channels; then global average pooling.

    Args:
        image_shape: (height, width, channels), at least 2**blocks a side.
        num_classes: int.
        filters: channels of the first block.
        blocks: how many.
        dropout: share of the pooled features dropped in training.
    """
    inputs, x = scaled_input(image_shape, -1, 1)
    for i in range(blocks):
        x = keras.layers.Conv2D(filters * 2**i, 3, padding="same", use_bias=False, name=f"conv{i + 1}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"bn{i + 1}")(x)
        x = keras.layers.ReLU(name=f"relu{i + 1}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{i + 1}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    outputs = keras.layers.Dense(num_classes, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="small_cnn")

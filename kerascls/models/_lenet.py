"""The shape of LeNet-5 (LeCun, Bottou, Bengio, Haffner, 1998), which the CIFAR-10 networks of several articles keep."""

import keras

from kerascls.models._layers import initializers, scaled_input


def lenet(image_shape, num_classes, name, *, filters, kernel, low, initializer, batch_norm=False):
    """Conv valid relu, MaxPool 2, twice, then Flatten, Dense 120 relu, Dense 84 relu, Dense softmax.

    Args:
        filters: channels of the first and of the second convolution.
        kernel: side of both.
        low: pixels are scaled to [low, 1].
        initializer: "keras" or "pytorch", as `initializers` has them.
        batch_norm: whether each pooling is followed by a batch normalisation, PyTorch's: momentum 0.9 in Keras'
            terms, epsilon 1e-5.
    """
    inputs, x = scaled_input(image_shape, low, 1)
    for i, channels in enumerate(filters, start=1):
        start = initializers(initializer, kernel * kernel * x.shape[-1])
        x = keras.layers.Conv2D(channels, kernel, activation="relu", name=f"conv{i}", **start)(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{i}")(x)
        if batch_norm:
            x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"bn{i}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for i, units in ((1, 120), (2, 84)):
        start = initializers(initializer, x.shape[-1])
        x = keras.layers.Dense(units, activation="relu", name=f"dense{i}", **start)(x)
    start = initializers(initializer, x.shape[-1])
    outputs = keras.layers.Dense(num_classes, activation="softmax", name="classes", **start)(x)
    return keras.Model(inputs, outputs, name=name)

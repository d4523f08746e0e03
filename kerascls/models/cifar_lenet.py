"""LeNet on colour: two 5x5 convolutions of 6 and 16 channels, 62,006 parameters on 32x32x3 and 10 classes."""

from kerascls.models._lenet import lenet


def build(image_shape, num_classes, *, low=-1.0, initializer="keras"):
    """Conv 6 5x5 valid relu, MaxPool 2, Conv 16 5x5 valid relu, MaxPool 2, Dense 120, 84 and softmax.

    Args:
        image_shape: (height, width, channels), at least 16 x 16.
        num_classes: int.
        low: pixels are scaled to [low, 1].
        initializer: "keras" (Glorot uniform, zero bias) or "pytorch" (uniform +-1/sqrt(fan_in), bias too).
    """
    return lenet(image_shape, num_classes, "cifar_lenet", filters=(6, 16), kernel=5, low=low, initializer=initializer)

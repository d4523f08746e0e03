"""Two 3x3 convolutions of 6 and 16 channels and three dense layers: 81,302 parameters on 32x32x3 and 10 classes."""

from kerascls.models._lenet import lenet


def build(image_shape, num_classes, *, low=0.0, initializer="keras"):
    """Conv 6 3x3 valid relu, MaxPool 2, Conv 16 3x3 valid relu, MaxPool 2, Dense 120, 84 and softmax.

    Args:
        image_shape: (height, width, channels), at least 10 x 10.
        num_classes: int.
        low: pixels are scaled to [low, 1].
        initializer: "keras" (Glorot uniform, zero bias) or "pytorch" (uniform +-1/sqrt(fan_in), bias too).
    """
    return lenet(image_shape, num_classes, "cifar_cnn", filters=(6, 16), kernel=3, low=low, initializer=initializer)

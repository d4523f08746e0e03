"""Two 5x5 convolutions of 16 and 32 channels, batch normalisation after pooling: 121,278 trainable, 121,374 in all."""

from kerascls.models._lenet import lenet


def build(image_shape, num_classes, *, low=-1.0, initializer="keras"):
    """Conv 16 5x5 valid relu, MaxPool 2, BN, Conv 32 5x5 valid relu, MaxPool 2, BN, Dense 120, 84 and softmax.

    Batch normalisation as PyTorch's: momentum 0.9 in Keras' terms, epsilon 1e-5; Keras' moving variance is the
    biased one.

    Args:
        image_shape: (height, width, channels), at least 16 x 16.
        num_classes: int.
        low: pixels are scaled to [low, 1].
        initializer: "keras" (Glorot uniform, zero bias) or "pytorch" (uniform +-1/sqrt(fan_in), bias too).
    """
    return lenet(
        image_shape,
        num_classes,
        "cifar_cnn_bn",
        filters=(16, 32),
        kernel=5,
        low=low,
        initializer=initializer,
        batch_norm=True,
    )

"""MNIST: 60,000 + 10,000 handwritten digits, 28x28 gray, through TFDS (Y. LeCun, C. Cortes, C. Burges, 1998)."""

from kerascls.data.dataset import Dataset
from kerascls.data.tfds import load_tfds

class_names = tuple("0123456789")
image_shape = (28, 28, 1)


def load(root=None, download=True) -> Dataset:
    """60,000 train and 10,000 test images, white on black."""
    return load_tfds("mnist", root, download)

"""CIFAR-10: 50,000 + 10,000 colour photographs of ten things, 32x32, through TFDS (A. Krizhevsky, 2009)."""

from kerascls.data.dataset import Dataset
from kerascls.data.tfds import load_tfds

class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
image_shape = (32, 32, 3)


def load(root=None, download=True) -> Dataset:
    """50,000 train and 10,000 test images, 5,000 and 1,000 a class."""
    return load_tfds("cifar10", root, download)

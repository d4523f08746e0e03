"""scikit-learn's 1,797 real handwritten digits, embedded; train and test share writers: scores are optimistic.

8x8 gray, brought to 28x28 like MNIST's. UCI "Optical Recognition of Handwritten Digits" test set (E. Alpaydin,
C. Kaynak, 1998), as scikit-learn carries it.
"""

import numpy as np

from kerascls.data.dataset import Dataset, Split

class_names = tuple("0123456789")
image_shape = (28, 28, 1)
notes = (
    "the digits' 13 writers are in train, validation and test alike, so scores are optimistic: those of a new hand are "
    "lower",
)


def load() -> Dataset:
    """1,250 train, 183 validation, 364 test images, white on black; the same every time.

    Of each class, in scikit-learn's order, every fifth example is test, and every eighth of the rest validation.
    Pillow's bilinear resize takes 8x8 levels in [0, 16] to 20x20 in [0, 255], which stand in the middle of 28x28 as
    MNIST's digits do.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.stack(
        [
            np.asarray(
                Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).resize(
                    (20, 20), Image.Resampling.BILINEAR
                )
            )
            for image in raw.images
        ]
    )
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))[..., None]
    labels = raw.target.astype(np.int32)
    split_of = np.empty(len(labels), "U10")
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        is_test = np.arange(len(members)) % 5 == 0
        split_of[members[is_test]] = "test"
        rest = members[~is_test]
        split_of[rest] = np.where(np.arange(len(rest)) % 8 == 0, "validation", "train")
    whole = Split.of(images, labels)
    splits = {name: whole.take(np.flatnonzero(split_of == name)) for name in ("train", "validation", "test")}
    return Dataset("digits", "scikit-learn load_digits", class_names, splits, notes=notes)

"""A recipe's augmentation policy: its entries, applied in order."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kerascls.recipes.catalog import policy_files


def apply_policy(
    policy: Sequence[dict[str, Any]], images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies a recipe's policy, each entry with a seed of its own.

    Args:
        policy: `[{"name": "affine", "degrees": 10}, {"name": "flip"}]`.
        images: uint8 or float32 `(batch, height, width, channels)` in [0, 255].
        labels: float32 `(batch, num_classes)`.
        seed: int32 `(2,)`.

    Returns:
        float32 images and labels.
    """
    images = tf.cast(images, tf.float32)
    for position, entry in enumerate(policy):
        options = {key: value for key, value in entry.items() if key != "name"}
        own_seed = tf.random.experimental.stateless_fold_in(seed, position)
        images, labels = augmentation(entry["name"])(images, labels, own_seed, **options)
    return images, labels


def augmentation(name: str) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """The function `name` of the file of this package that has it."""
    return getattr(importlib.import_module(f"kerascls.augmentation.{policy_files()[name].stem}"), name)

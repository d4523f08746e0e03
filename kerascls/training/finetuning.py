"""Unfreezing a backbone for fine-tuning."""

import keras

from kerascls.errors import ModelError
from kerascls.recipes.catalog import nearest


def first_tuned(model: keras.Model, unfreeze: int | str) -> int:
    """The position in `model`'s backbone of the first layer that a fine-tuning phase trains.

    Args:
        model: has a nested model named "backbone".
        unfreeze: how many of its layers, from the end; or how a layer's name begins, for that layer and all after it.

    Raises:
        ModelError: there is no backbone, or no such layer, or nothing in them to train.
    """
    backbone = next((layer for layer in model.layers if layer.name == "backbone"), None)
    if not isinstance(backbone, keras.Model):
        raise ModelError(f"Model {model.name} has no backbone, which [finetune] could train. Leave out [finetune].")
    names = [layer.name for layer in backbone.layers]
    if isinstance(unfreeze, int):
        first = max(0, len(names) - unfreeze)
    else:
        first = next((i for i, name in enumerate(names) if name.startswith(unfreeze)), None)
        if first is None:
            raise ModelError(
                f"finetune.unfreeze: no layer of the backbone begins with {unfreeze!r}.{nearest(unfreeze, names)} "
                f"Its last are {', '.join(names[-5:])}."
            )
    if all(
        isinstance(layer, keras.layers.BatchNormalization) or not layer.weights for layer in backbone.layers[first:]
    ):
        raise ModelError(
            f"finetune.unfreeze = {unfreeze!r} leaves nothing to train: {', '.join(names[first:][:5])} have no "
            "weights, or are batch normalisation, which stays frozen. Unfreeze more layers."
        )
    return first


def unfreeze_backbone(model: keras.Model, unfreeze: int | str) -> None:
    """Lets the backbone's last layers train, as `first_tuned` says; takes effect when `model` is compiled again.

    Batch normalisation stays frozen: it would take its statistics from small batches, and the features would drift.
    """
    first = first_tuned(model, unfreeze)
    backbone = model.get_layer("backbone")
    backbone.trainable = True
    for layer in backbone.layers[:first]:
        layer.trainable = False
    for layer in backbone._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False

"""Models that kerascls did not write: what their outputs mean, which pixels they take, how their classes are called."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerascls.errors import ModelError
from kerascls.formats.card import Card, not_probabilities
from kerascls.formats.endings import ending

_ARITHMETIC = ("TrueDivide", "Divide", "Multiply", "Subtract", "Rescaling", "Normalization")


@dataclasses.dataclass(frozen=True)
class Adopted:
    """A model of others that keeps the contract of ours: pixels in [0, 255] to probabilities of classes with names.

    Attributes:
        model: the keras.Model itself, or one around it that scales and ends as it has to.
        card: what is known and was stated.
        notice: what was taken for granted, in one line, or None.
    """

    model: Any
    card: Card
    notice: str | None


def adopted(
    model: Any,
    name: str,
    class_names: Sequence[str] | None = None,
    pixel_range: tuple[float, float] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    resize: str = "stretch",
) -> Adopted:
    """A model without a card, with what its user states of it.

    Args:
        name: the file's, for messages.
        class_names: in the order of the outputs; of one sigmoid output, the class of 0 and that of 1.
        pixel_range: (low, high) that it takes pixels in; None for what its own layers make of [0, 255].
        image_shape: of a model that takes images of any size.
        resize: how images come to that size.

    Raises:
        ModelError: it takes no images, its outputs are no probabilities of classes, or there are other names than
            outputs.
    """
    shape = _image_shape(model, name, image_shape)
    outputs = model.output_shape
    if not isinstance(outputs, tuple) or len(outputs) != 2 or not outputs[1]:
        raise ModelError(f"The model must return (batch, classes). Received: {outputs}")
    end, count = ending(model), outputs[1]
    remarks = []
    layers: list[Any] = []
    if end == "sigmoid" and count > 1:
        raise ModelError(
            f"{name} ends in {count} sigmoids, which are {count} answers by themselves (multi-label), not one of "
            f"{count} classes. A classifier ends in a softmax, or in one sigmoid."
        )
    if end == "linear":
        layers.append(keras.layers.Activation("sigmoid" if count == 1 else "softmax", name="probabilities"))
        remarks.append(f"its outputs are logits and go through a {'sigmoid' if count == 1 else 'softmax'}")
    elif count == 1 and end != "sigmoid":
        raise ModelError(f"{name} has one output and does not end in a sigmoid, so it names no classes.")
    elif end not in ("softmax", "sigmoid"):
        _check_rows(model, name, shape)
    count = max(2, count)
    names = tuple(str(i) for i in range(count)) if class_names is None else tuple(class_names)
    if len(names) != count:
        what = "one sigmoid is two classes, of 0 and of 1" if outputs[1] == 1 else f"it has {count} outputs"
        raise ModelError(f"{name} takes {count} class names: {what}. Received: {len(names)}, {', '.join(names[:5])}")
    if class_names is None:
        of = "its one output is the probability of 1, not 0" if outputs[1] == 1 else "names are numbers of its outputs"
        remarks.insert(0, f"{of} (--class-names names them)")
    if pixel_range is None and not scales_itself(model):
        remarks.append("pixels go in as 0 to 255, as it has no Rescaling layer (--pixel-range states another range)")
    wraps = layers or outputs[1] == 1 or pixel_range is not None or model.input_shape != (None, *shape)
    if wraps:
        model = _around(model, shape, pixel_range, layers)
    notice = f"{name} has no card: {'; '.join(remarks)}." if remarks else None
    return Adopted(model, Card(names, shape, resize=resize), notice)


def scales_itself(model: Any) -> bool:
    """Whether a model's own layers bring pixels to another range."""
    layers = [type(layer).__name__ for layer in model._flatten_layers()]
    first = [type(operation).__name__ for operation in getattr(model, "operations", ())[:5]]
    return not {"Rescaling", "Normalization"}.isdisjoint(layers) or not set(_ARITHMETIC).isdisjoint(first)


def _image_shape(model: Any, name: str, stated: tuple[int, int, int] | None) -> tuple[int, int, int]:
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] not in (1, 3, None):
        raise ModelError(f"The model must take images (batch, height, width, 1 or 3). Received: {shape}")
    if stated is None:
        if None in shape[1:]:
            raise ModelError(
                f"{name} takes images of any size, {shape}. The size that it was trained on is stated by "
                f"`kerascls adopt {name} --image-shape HEIGHT,WIDTH,3 --class-names A,B --out NEW.keras`."
            )
        return tuple(shape[1:])
    if any(own not in (None, side) for own, side in zip(shape[1:], stated, strict=True)):
        raise ModelError(f"{name} takes images {shape[1:]}. Received: {stated}")
    return tuple(stated)


def _check_rows(model: Any, name: str, shape: tuple[int, int, int]) -> None:
    """Raises ModelError where the answers to two images are no probabilities."""
    images = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (2, *shape)).astype(np.float32)
    rows = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float32)
    if told := not_probabilities(rows):
        raise ModelError(f"{name} does not return probabilities of classes: {told}. A classifier ends in a softmax.")


def _around(model: Any, shape: tuple[int, int, int], pixel_range: Any, layers: Sequence[Any]) -> Any:
    """The model with scaling before it and probabilities of two classes or more behind it, by layers alone."""
    x = inputs = keras.Input(shape, name="pixels")
    if pixel_range is not None and tuple(pixel_range) != (0, 255):
        low, high = pixel_range
        x = keras.layers.Rescaling((high - low) / 255, low, name="pixel_range", dtype="float32")(x)
    x = model(x)
    for layer in layers:
        x = layer(x)
    if x.shape[-1] == 1:
        first = keras.layers.Rescaling(-1.0, 1.0, name="first", dtype="float32")(x)
        x = keras.layers.Concatenate(name="both", dtype="float32")([first, x])
    return keras.Model(inputs, x, name="adopted")

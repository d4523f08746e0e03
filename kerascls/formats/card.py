"""What a model file says for itself: its names, its pixels, its data."""

import dataclasses
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerascls.errors import ModelError
from kerascls.recipes.schema import RESIZE_RULES
from kerascls.system.json_files import fault, json_text, read_json

if TYPE_CHECKING:  # for `kerascls export --help`
    import numpy as np

# Zip entry of .keras and .tflite, property of .onnx and OpenVINO's .xml and attribute of .h5 (without suffix), file
# beside weights, asset of a SavedModel.
CARD = "kerascls.json"
PROPERTY = "kerascls"
_OFF = 0.02  # that a row of probabilities may add up to more or less than 1: bfloat16 and int8 round
_SHAPE = {
    "class_names": [str],
    "image_shape": [int],
    "background": [int],
    "border": ("dark", "light", None),
    "data": str,
    "fallback_for": (str, None),
    "resize": str,
    "random_backbone?": bool,
}


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model file must say for itself so that it answers alike everywhere.

    Attributes:
        class_names: in the order of the outputs.
        image_shape: (height, width, channels).
        background: RGB under transparent pixels.
        resize: how images of other sizes are brought to `image_shape`, see `images.resize`.
        border: "dark" or "light" where at least 95 % of the training images' borders lie on that side of mid-gray.
        data: the data set's name.
        fallback_for: the data set that it stood in for, or None.
        random_backbone: whether it is a transfer model that began without pretrained weights.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    background: tuple[int, int, int] = (255, 255, 255)
    border: str | None = None
    data: str = ""
    fallback_for: str | None = None
    resize: str = "stretch"
    random_backbone: bool = False

    def as_json(self, **more: Any) -> str:
        """As it is written; `more` is for people and other tools, and not read back."""
        from kerascls.version import __version__

        card = {"format": 1, "kerascls": __version__, **dataclasses.asdict(self), **more}
        return json_text(card, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """Raises ModelError for what `as_json` does not write."""
        try:
            fields = read_json(text)
        except ValueError as error:
            raise ModelError(f"The model's card, {CARD}, is damaged: {error}.") from None
        if wrong := fault(fields, _SHAPE):
            raise ModelError(f"The model's card, {CARD}, is damaged: {wrong}.")
        card = cls(
            tuple(fields["class_names"]),
            tuple(fields["image_shape"]),
            tuple(fields["background"]),
            fields["border"],
            fields["data"],
            fields["fallback_for"],
            fields["resize"],
            fields.get("random_backbone", False),
        )
        if card.resize not in RESIZE_RULES:
            raise ModelError(f"The model's card asks for a resize that is not known: {card.resize!r}. Update kerascls.")
        if not (len(card.image_shape) == 3 and min(card.image_shape) > 0 and card.image_shape[2] in (1, 3)):
            raise ModelError(f"The model's card, {CARD}, is damaged: image_shape is {card.image_shape}.")
        if not (len(card.background) == 3 and 0 <= min(card.background) <= max(card.background) <= 255):
            raise ModelError(f"The model's card, {CARD}, is damaged: background is {card.background}.")
        return card

    def check(self, model: Any) -> "Card":
        """Itself, if `model` takes its image shape and answers with as many probabilities as it has names."""
        shapes = (model.input_shape, model.output_shape)
        if shapes != ((None, *self.image_shape), (None, len(self.class_names))):
            raise ModelError(
                f"The model does not fit its own card: it takes and returns {shapes}; the card says "
                f"{self.image_shape} and {len(self.class_names)} classes. The file was changed after it was written."
            )
        return self

    @classmethod
    def guess(cls, model: Any) -> "Card":
        """For a file that kerascls did not write: numbers for names, the model's own input shape."""
        shape, outputs = model.input_shape, model.output_shape
        if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:] or shape[3] not in (1, 3):
            raise ModelError(f"The model must take images (batch, height, width, 1 or 3). Received: {shape}")
        if not isinstance(outputs, tuple) or len(outputs) != 2 or not outputs[1]:
            raise ModelError(f"The model must return (batch, classes). Received: {outputs}")
        return cls(tuple(str(i) for i in range(outputs[1])), tuple(shape[1:]))


def read_class_names(given: str | os.PathLike | Iterable[str]) -> list[str]:
    """Names from `a,b,c`, from a file that has one a line or a JSON list, or as they are.

    Raises:
        ModelError: they are no names, or one of them stands there twice.
    """
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig")
                names = json.loads(text) if path.suffix == ".json" else text.rstrip().splitlines()
            except (OSError, ValueError) as error:
                raise ModelError(f"Class names cannot be read from {path}: {error}") from None
        elif isinstance(given, os.PathLike) or "," not in given:
            raise ModelError(f"Class names are a file, one name a line, or a,b,c. Received: {given}")
        else:
            names = given.split(",")
    else:
        names = list(given)
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ModelError(f"Class names must be texts that are not empty. Received: {str(names):.100}")
    names = [name.strip() for name in names]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ModelError(f"Class names must differ. Received twice: {twice[0]}")
    return names


def read_pixel_range(given: Any) -> tuple[float, float]:
    """Two numbers, `0,1` or as they are. Raises ModelError for anything else."""
    try:
        low, high = map(float, given.split(",") if isinstance(given, str) else given)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (low < high and math.isfinite(high - low)):
        raise ModelError(f"A pixel range is two numbers, as 0,1 or -1,1. Received: {given}")
    return low, high


def not_probabilities(rows: "np.ndarray") -> str | None:
    """What is wrong with rows that should each be at least 0 and add up to 1; None where nothing is.

    What is not a number passes: training, which scores such a model, says why it is none.
    """
    import numpy as np

    known = rows[~np.isnan(rows).any(1)]
    if not len(known):
        return None
    low, high, off = float(known.min()), float(known.max()), np.abs(known.sum(1) - 1)
    if low < -1e-3 or high > 1 + 1e-3:
        return f"it answers from {low:.4g} to {high:.4g}"
    return f"its answers to an image add up to {known.sum(1)[off.argmax()]:.4g}" if off.max() > _OFF else None

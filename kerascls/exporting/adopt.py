"""A Keras file of others, written again with a card: its class names, its range of pixels, its image shape."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kerascls.errors import ModelError, OutputError
from kerascls.formats.card import read_class_names, read_pixel_range
from kerascls.formats.h5 import save_h5
from kerascls.formats.keras import save_keras
from kerascls.formats.scan.layers import read_checked
from kerascls.formats.scan.limits import check_regular
from kerascls.recipes.schema import RESIZE_RULES
from kerascls.runs.run import is_run

_SAVERS: dict[str, Callable[..., Any]] = {".keras": save_keras, ".h5": save_h5}


def adopt(
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    class_names: Sequence[str] | str | os.PathLike,
    pixel_range: Sequence[float] | str | None = None,
    image_shape: Sequence[int] | None = None,
    resize: str = "stretch",
) -> tuple[Path, str | None]:
    """Writes a model of others as one that evaluate, predict, explain, export and serve take for their own.

    What is written takes pixels in [0, 255] and answers probabilities of classes with names: scaling, and the softmax
    or sigmoid of logits, become layers of it.

    Args:
        model: a .keras or .h5 file without a card, or a folder of architecture.json and model.weights.h5.
        out: the .keras or .h5 file to write, which must not exist.
        class_names, pixel_range: as `load` takes them.
        image_shape: (height, width, channels) of a model that takes images of any size.
        resize: how images come to that size: "stretch", "nearest" or "center_crop".

    Returns:
        The file, and what was taken for granted, or None.

    Raises:
        ModelError: the model has a card, or is no classifier of images with as many outputs as names.
        OutputError: `out` exists, or cannot be written.

    >>> layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")]
    >>> keras.Sequential(layers).save("foreign.keras")
    >>> path, _ = kerascls.adopt("foreign.keras", "pets.keras", class_names=["cat", "dog"], pixel_range=(0, 1))
    >>> kerascls.load(path).class_names
    ('cat', 'dog')
    """
    model, out = Path(model), Path(out)
    _check_out(out)
    if resize not in RESIZE_RULES:
        raise ModelError(f"resize must be one of {', '.join(RESIZE_RULES)}. Received: {resize}")
    names, takes = read_class_names(class_names), pixel_range and read_pixel_range(pixel_range)
    if not model.exists():
        raise ModelError(f"Model {model} does not exist. Give a .keras or .h5 file.")
    if is_run(model):
        raise ModelError(f"{model} is a run, whose model has a card already.")
    check_regular(model, model)
    contents = read_checked(model)
    if contents.card is not None:
        raise ModelError(f"{model} has a card already: predict, evaluate and serve take it as it is.")
    from kerascls.system import tensorflow

    tensorflow.start()
    from kerascls.formats.foreign import adopted
    from kerascls.formats.keras import read_model

    shape = tuple(image_shape) if image_shape is not None else None
    found = adopted(read_model(model, contents), model.name, names, takes, shape, resize)
    _SAVERS[out.suffix](found.model, found.card, out)
    return out, found.notice


def _check_out(out: Path) -> None:
    if out.suffix not in _SAVERS:
        raise OutputError(f"An adopted model is written as .keras or .h5. Received: {out.name}")
    if out.exists():
        raise OutputError(f"{out} exists already. Remove it, or give --out another place.")

"""The brightness of images' borders, which tells dark ink on white paper from its inverse."""

from collections.abc import Iterable

import numpy as np


def border_sides(images: np.ndarray) -> np.ndarray:
    """ "dark" or "light" of each of uint8 images `(n, height, width, channels)`: the side of mid-gray on which the mean
    of its outermost pixels lies."""
    lines = (images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1])
    edges = np.concatenate([line.reshape(len(images), -1) for line in lines], 1)
    return np.where(edges.mean(1) < 127.5, "dark", "light")


def usual_border(batches: Iterable[np.ndarray]) -> str | None:
    """The side on which at least 95 % of the borders of all images lie, which come in batches; or None."""
    sides = np.concatenate([border_sides(images) for images in batches])
    for side in ("dark", "light"):
        if np.count_nonzero(sides == side) >= 0.95 * len(sides):
            return side
    return None


def border_warning(count: int, side: str, invert: bool, of_these: str = "") -> str:
    """What to say of `count` images whose border is not on `side` of mid-gray, as the training data's is."""
    have = f"image{'s have' if count > 1 else ' has'}"
    other = "light" if side == "dark" else "dark"
    advice = "Leave out --invert." if invert else "Try --invert."
    return f"Warning: {count} {have} a {other} border{of_these}; the training images had {side} ones. {advice}"

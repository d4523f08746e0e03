"""Ranges and texts that augmentations' options may have."""

from typing import Annotated, Literal

Share = Annotated[float, 0, 1]
Degrees = Annotated[float, 0, 180]
Zoom = Annotated[float, 0, 0.9]
FillMode = Literal["nearest", "constant", "reflect", "wrap"]  # outside the image: its edge, black, mirrored, repeated
Interpolation = Literal["bilinear", "nearest"]

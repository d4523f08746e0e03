"""Image files, from their names to pixels. Data sets of your own read files with `kerascls.images.read_pixels`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerascls.images.read import read_pixels as read_pixels


def __getattr__(name: str) -> Any:
    if name == "read_pixels":  # later than the package, because it imports TensorFlow
        from kerascls.images.read import read_pixels

        return read_pixels
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

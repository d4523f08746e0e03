"""What `kerascls export` knows of a format: each format's file states it of its own exports."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # neither is imported for `kerascls export --help`
    import numpy as np

    from kerascls.formats.card import Card

Writer = Callable[[Any, "Card", Path, "np.ndarray | None"], None]


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of export.

    Attributes:
        place: its name under exports/.
        suffix: of its file; "" for a folder.
        write: (keras.Model, card, path, calibration images or None) to the file.
        runtime: the name of the file in `exporting/probes/` that opens it.
        tolerance: what a probability may differ by at the same batch size; None where only accuracy can be compared.
        needs: packages, and `extra` that brings them.
    """

    place: str
    suffix: str
    write: Writer
    runtime: str
    tolerance: float | None = 0.0
    needs: tuple[str, ...] = ()
    extra: str = ""
    calibrated: bool = False

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (self.suffix, ".hdf5") if self.suffix == ".h5" else (self.suffix,)

    @property
    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def uncalibrated(save: Callable[[Any, "Card", Path], None]) -> Writer:
    """A writer that looks at no calibration images."""
    return lambda model, card, path, calibration: save(model, card, path)

"""Legacy HDF5 files of Keras (.h5): writes them. `formats.keras` reads them."""

from pathlib import Path
from typing import Any

from kerascls.formats._format import Format, uncalibrated
from kerascls.formats.card import PROPERTY, Card
from kerascls.formats.writing import need_room
from kerascls.system.atomic_files import atomic


def save_h5(model: Any, card: Card, path: Path) -> None:
    """Writes a legacy .h5 file that carries its card in the attribute `kerascls`, whole or not at all."""
    import h5py

    with atomic(path) as temporary:
        need_room(model, temporary)
        model.save(temporary)
        with h5py.File(temporary, "a") as archive:
            archive.attrs[PROPERTY] = card.as_json()


FORMATS = {"h5": Format("model.h5", ".h5", uncalibrated(save_h5), "keras")}

"""Folders of Keras's architecture and weights: writes them. `formats.keras` reads them."""

from pathlib import Path
from typing import Any

from kerascls.formats._format import Format, uncalibrated
from kerascls.formats.card import CARD, Card
from kerascls.formats.scan.archives import WEIGHTS
from kerascls.formats.scan.containers import ARCHITECTURE
from kerascls.formats.writing import need_room
from kerascls.system.atomic_files import atomic


def save_weights(model: Any, card: Card, path: Path) -> None:
    """Writes a folder of architecture.json, model.weights.h5 and the card, whole or not at all."""
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / ARCHITECTURE).write_text(model.to_json(), encoding="utf-8")
        need_room(model, temporary)
        model.save_weights(temporary / WEIGHTS)
        (temporary / CARD).write_text(card.as_json(), encoding="utf-8")


FORMATS = {"weights": Format("weights", "", uncalibrated(save_weights), "keras")}

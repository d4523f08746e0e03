"""Callbacks that keep weights and write models while training runs."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras


class KeepEpoch(keras.callbacks.Callback):
    """Calls `save` so that what is saved is at every moment the epoch that would be kept if training ended now.

    `keep` is "best" (lowest validation loss; the last where there is no validation) or "last".
    """

    memory: ClassVar = {"best": (float, None)}

    def __init__(self, manifest: dict[str, Any], keep: str, save: Callable[[], None]):
        super().__init__()
        self.manifest, self.keep, self.save = manifest, keep, save
        self.best: float | None = None

    def remember(self) -> dict[str, Any]:
        return {"best": self.best}

    def recall(self, told: dict[str, Any]) -> None:
        self.best = told["best"]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        val_loss = logs.get("val_loss")
        better = val_loss is not None and val_loss < (math.inf if self.best is None else self.best)
        if better:
            self.best = val_loss
            self.manifest["best_epoch"] = epoch + 1
        if better or val_loss is None or self.keep == "last" or self.manifest["kept_epoch"] is None:
            self.save()
            self.manifest["kept_epoch"] = epoch + 1


class SaveEpochs(keras.callbacks.Callback):
    """Calls `save` with the file of each epoch, `folder`/001.keras for the first."""

    def __init__(self, folder: Path, save: Callable[[Path], None]):
        super().__init__()
        self.folder, self.save = folder, save

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.folder.mkdir(exist_ok=True)
        self.save(self.folder / f"{epoch + 1:03d}.keras")

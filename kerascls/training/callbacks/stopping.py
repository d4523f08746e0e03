"""Callbacks that end training: when it no longer improves, or when the loss is not a number."""

import math
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from kerascls.errors import TrainingFailed


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras' own, with a memory for checkpoints; with `lines`, it says on stderr that it has stopped the training."""

    def __init__(self, patience: int, lines: bool):
        super().__init__("val_loss", mode="min", patience=patience)
        self.lines = lines

    def on_train_end(self, logs: Any = None) -> None:
        if self.stopped_epoch and self.lines:
            epochs = f"{self.patience} epoch{'s' if self.patience > 1 else ''}"
            print(f"stopped: no better validation loss for {epochs}", file=sys.stderr, flush=True)

    memory: ClassVar = {"wait": int, "best": (float, None), "best_epoch": int, "stopped_epoch": int}

    def remember(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.memory}

    def recall(self, told: dict[str, Any]) -> None:
        vars(self).update(told)


class StopOnNaN(keras.callbacks.Callback):
    """Raises TrainingFailed at the first call into TensorFlow after which the loss is not finite.

    A call has several steps, and so the message names the first and the last of them. `finetune_from` is the epoch,
    from 1, with which [finetune] begins.

    To read the loss is to wait for the device, which on a GPU would stand still meanwhile. So it is read once in
    `every` seconds and at an epoch's end. It is the mean of the epoch so far, which a loss that is not finite never
    leaves again: none is missed, and the steps since it was last read are named.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        run_path: Path | None,
        steps: int,
        finetune_from: float = math.inf,
        every: float = 0.0,
    ):
        super().__init__()
        self.every, self.read = every, -math.inf
        self.manifest, self.run_path, self.steps = manifest, run_path, steps
        self.finetune_from = finetune_from

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.done = epoch + 1, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        first, last = self.done + 1, min(batch + 1, self.steps)
        if last < self.steps and time.monotonic() - self.read < self.every:
            return
        self.read = time.monotonic()
        where = f"at step {last}" if first == last else f"in steps {first} to {last}"
        self.check(float(logs["loss"]), "loss", f"in epoch {self.epoch}, {where} of {self.steps}")
        self.done = last

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.check(logs.get("val_loss", 0.0), "validation loss", f"after epoch {self.epoch}")

    def check(self, loss: float, name: str, where: str) -> None:
        if not math.isfinite(loss):
            kept = self.manifest["kept_epoch"]
            saved = f"Epoch {kept} is kept in {self.run_path}." if kept else "No epoch had ended, so none is kept."
            saved = saved if self.run_path else "Nothing of it is kept."
            raise TrainingFailed(f"The {name} became {loss} {where}. {self.cause()} {saved}")

    def cause(self) -> str:
        """What is likely to have done it, by what the model shows, and what to do."""
        layers = [layer for layer in self.model.classifier._flatten_layers() if not hasattr(layer, "layers")]
        for layer in layers:
            if not layer.trainable and not all(np.isfinite(weight).all() for weight in layer.get_weights()):
                return f"Layer {layer.name} does not train and has weights that are not finite: its file is damaged."
        section = "train" if self.epoch < self.finetune_from else "finetune"
        rate = self.model.used_rate()
        told = f"Usually the learning rate is too high, here {rate:.3g}: lower {section}.learning_rate tenfold"
        narrow = next((layer.compute_dtype for layer in layers if "16" in layer.compute_dtype), None)
        return f"{told}, or try --set devices.precision=float32 in place of {narrow}." if narrow else f"{told}."

"""Callbacks that report: history.csv, the progress line, and a hint where training takes long."""

import contextlib
import csv
import io
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras

from kerascls.runs.history import HISTORY_COLUMNS
from kerascls.system.atomic_files import write_text
from kerascls.system.status import clock, doing

FIRST_LOOK = 15  # seconds of an epoch after which the time that is left is looked at
LONG = 1800  # seconds left from which on it is said what would take less
READ_SECONDS = 0.5  # between two looks at the loss within an epoch, each of which waits for a GPU


class WriteHistory(keras.callbacks.Callback):
    """The rows of history.csv, and, where there is a path, the file, whole after every epoch.

    `loss` is what training minimises, with label smoothing and class weights; `val_loss` the plain cross-entropy;
    `learning_rate` that of the epoch's last step. `seconds` holds training, validation and the saving of the epoch.
    """

    memory: ClassVar = {
        "rows": [{key + "?" * key.startswith("val_"): float for key in HISTORY_COLUMNS}],
        "seconds": float,
    }

    def __init__(self, manifest: dict[str, Any], path: Path | None):
        super().__init__()
        self.manifest, self.path = manifest, path
        self.rows: list[dict[str, Any]] = []
        self.begin = time.perf_counter()
        self.before = 0.0  # seconds that the epoch had taken when its training was interrupted

    def remember(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.before + time.perf_counter() - self.begin}

    def recall(self, told: dict[str, Any]) -> None:
        self.rows, self.before = told["rows"], told["seconds"]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["learning_rate"] = self.model.used_rate()
        logs["seconds"] = round(self.before + time.perf_counter() - self.begin, 3)
        self.before = 0.0
        self.rows.append({**logs, "epoch": epoch + 1})
        self.manifest["seconds"]["epochs"].append(logs["seconds"])
        if self.path is None:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY_COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


class Progress(keras.callbacks.Callback):
    """What is told of a training: on a terminal where it stands in its epoch; with `lines`, a line an epoch on stderr,
    and one every `log_steps` steps. `faster`, if anything, is told once where much time is left at the first look."""

    def __init__(
        self,
        epochs: int,
        steps: int,
        batch_size: int,
        examples: int,
        log_steps: int,
        lines: bool = True,
        faster: str = "",
    ):
        super().__init__()
        self.faster = faster
        self.epochs, self.steps, self.batch_size, self.examples = epochs, steps, batch_size, examples
        self.log_steps, self.lines = log_steps, lines
        self.each = min(examples, steps * batch_size)  # images of an epoch
        self.line = contextlib.ExitStack()
        self.read = -math.inf

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.begin, self.next_line = epoch + 1, time.perf_counter(), self.log_steps
        self.before = max(0, getattr(self.model, "skipped", 0))  # steps that were done before it was interrupted
        self.progress = self.line.enter_context(
            doing(
                f"epoch {self.epoch}/{self.epochs}",
                self.each,
                done=self.seen(self.before),
                ahead=(self.epochs - self.epoch) * self.each,
            )
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = min(batch + 1, self.steps)
        if step <= self.before:
            return
        if time.monotonic() - self.read >= READ_SECONDS:
            self.progress.note, self.read = measured(logs), time.monotonic()
        self.progress.step(self.seen(step) - self.progress.done)
        left = self.progress.left if self.faster and time.perf_counter() - self.begin > FIRST_LOOK else None
        if left is not None:
            if left > LONG:
                self.say(f"{clock(left)} left at this rate. {self.faster}")
            self.faster = ""
        if self.log_steps and step >= self.next_line:
            self.next_line = (step // self.log_steps + 1) * self.log_steps
            rate = (self.progress.done - self.seen(self.before)) / (time.perf_counter() - self.begin)
            self.say(
                f"epoch {self.epoch}/{self.epochs}  step {step}/{self.steps}  {measured(logs)}  {rate:,.0f} images/s"
            )

    def seen(self, steps: int) -> int:
        """Images of the epoch that so many steps have taken."""
        return min(steps * self.batch_size, self.each)

    def on_test_begin(self, logs: Any = None) -> None:
        self.line.close()
        self.line.enter_context(doing(f"epoch {self.epoch}/{self.epochs}: validating"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.close()
        validation = (
            f"  val_loss {logs['val_loss']:.4f}  val_accuracy {logs['val_accuracy']:.4f}" if "val_loss" in logs else ""
        )
        if self.lines:
            self.say(f"epoch {self.epoch}/{self.epochs}  {measured(logs)}{validation}  {logs['seconds']:.1f} s")

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        self.line.close()


def measured(logs: Mapping[str, Any]) -> str:
    return f"loss {float(logs['loss']):.4f}  accuracy {float(logs['accuracy']):.4f}"

"""What happens at the edges of steps and epochs: Keras callbacks of `train`."""

import csv
import io
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from kerascls.errors import TrainingFailed
from kerascls.runs import write_text

HISTORY_COLUMNS = ("epoch", "seconds", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


class EpochState(keras.callbacks.Callback):
    """Makes epoch order and dropout functions of (seed, epoch), dropout of the replica too, and of nothing before."""

    def __init__(self, epoch_variable: tf.Variable, seed: int):
        super().__init__()
        self.epoch_variable, self.seed = epoch_variable, seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch_variable.assign(epoch)
        generators: list[Any] = []
        for layer in self.model._flatten_layers():
            generators += [g for g in getattr(layer, "_seed_generators", []) if all(g is not o for o in generators)]
        for position, generator in enumerate(generators):
            # The steps of an epoch count the second number up; 2**20 of them fit before the next epoch's.
            # Each replica of a strategy has a state of its own.
            for replica, state in enumerate(
                self.model.distribute_strategy.experimental_local_results(generator.state.value)
            ):
                state.assign([(self.seed * 1009 + position + (replica << 24)) % 2**32, epoch << 20])


class Interruptible(keras.callbacks.Callback):
    """Inside `with`, Ctrl-C ends training when the call into TensorFlow that is under way has ended; a second, at once.

    Python's own KeyboardInterrupt comes wherever the main thread is, and TensorFlow may crash on one in its own code.
    Only in the main thread, and only where SIGINT is not ignored or somebody else's.
    """

    def __enter__(self) -> "Interruptible":
        self.asked = False
        main = threading.current_thread() is threading.main_thread()
        self.ours = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self.ours:
            signal.signal(signal.SIGINT, self.ask)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def ask(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self, *_: Any, **__: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt

    on_epoch_begin = on_train_batch_end = on_test_batch_end = check


class StopOnNaN(keras.callbacks.Callback):
    """Raises TrainingFailed at the first call into TensorFlow after which the loss is not finite."""

    def __init__(self, manifest: dict[str, Any], run_path: Path | None, steps: int):
        super().__init__()
        self.manifest, self.run_path, self.steps = manifest, run_path, steps

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.check(float(logs["loss"]), "loss", batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.check(logs.get("val_loss", 0.0), "validation loss", self.steps)

    def check(self, loss: float, name: str, step: int) -> None:
        if not math.isfinite(loss):
            kept = self.manifest["kept_epoch"]
            saved = f"Epoch {kept} is kept in {self.run_path}." if kept else "No epoch had ended, so none is kept."
            saved = saved if self.run_path else "Nothing of it is kept."
            raise TrainingFailed(
                f"The {name} became {loss} in epoch {self.epoch}, by step {min(step, self.steps)} of {self.steps}. "
                f"Usually the learning rate is too high: lower train.learning_rate tenfold. {saved}"
            )


class KeepEpoch(keras.callbacks.Callback):
    """Calls `save` so that what is saved is at every moment the epoch that would be kept if training ended now.

    `keep` is "best" (lowest validation loss; the last where there is no validation) or "last".
    """

    def __init__(self, manifest: dict[str, Any], keep: str, save: Callable[[], None]):
        super().__init__()
        self.manifest, self.keep, self.save = manifest, keep, save
        self.best = math.inf

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        val_loss = logs.get("val_loss")
        better = val_loss is not None and val_loss < self.best
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


class WriteHistory(keras.callbacks.Callback):
    """The rows of history.csv, and, where there is a path, the file, whole after every epoch.

    `seconds` holds training, validation and the saving of the epoch.
    """

    def __init__(self, manifest: dict[str, Any], path: Path | None):
        super().__init__()
        self.manifest, self.path = manifest, path
        self.rows: list[dict[str, Any]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["seconds"] = round(time.perf_counter() - self.begin, 3)
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
    """On stderr: a bar with images/s and time left on a terminal, else a plain line an epoch."""

    def __init__(self, epochs: int, steps: int, batch_size: int, examples: int, log_steps: int, bar: bool):
        super().__init__()
        self.epochs, self.steps, self.batch_size, self.examples = epochs, steps, batch_size, examples
        self.log_steps = log_steps
        self.bar = (
            tqdm(
                total=epochs * min(examples, steps * batch_size),
                unit=" images",
                unit_scale=True,
                dynamic_ncols=True,
                file=sys.stderr,
            )
            if bar
            else None
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.seen, self.begin, self.next_line = epoch + 1, 0, time.perf_counter(), self.log_steps
        if self.bar is not None:
            self.bar.set_description(f"epoch {self.epoch}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = min(batch + 1, self.steps)
        seen = min(step * self.batch_size, self.examples)
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"loss {float(logs['loss']):.4f} accuracy {float(logs['accuracy']):.4f}", refresh=False
            )
            self.bar.update(seen - self.seen)
        self.seen = seen
        if self.log_steps and step >= self.next_line:
            self.next_line = (step // self.log_steps + 1) * self.log_steps
            rate = seen / (time.perf_counter() - self.begin)
            self.say(
                f"epoch {self.epoch}/{self.epochs}  step {step}/{self.steps}  loss {float(logs['loss']):.4f}  "
                f"accuracy {float(logs['accuracy']):.4f}  {rate:,.0f} images/s"
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        validation = (
            f"  val_loss {logs['val_loss']:.4f}  val_accuracy {logs['val_accuracy']:.4f}" if "val_loss" in logs else ""
        )
        self.say(
            f"epoch {self.epoch}/{self.epochs}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}"
            f"{validation}  {logs['seconds']:.1f} s"
        )

    def say(self, line: str) -> None:
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

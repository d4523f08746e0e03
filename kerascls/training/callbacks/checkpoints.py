"""What happens at the edges of steps and epochs: Keras callbacks of `train`."""

import contextlib
import csv
import dataclasses
import io
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from kerascls.errors import TrainingFailed
from kerascls.runs import checkpoint
from kerascls.runs.checkpoint import Place, State
from kerascls.system.atomic_files import write_text
from kerascls.system.status import clock, doing

HISTORY_COLUMNS = ("epoch", "seconds", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


FIRST_LOOK = 15  # seconds of an epoch after which the time that is left is looked at
LONG = 1800  # seconds left from which on it is said what would take less
MOMENT_BATCHES = 100  # that batch normalisation's moments under averaged weights are taken of
READ_SECONDS = 0.5  # between two looks at the loss within an epoch, each of which waits for a GPU
SAVED_SHARE = 20  # a checkpoint at an epoch's end is written where training took this many times as long as writing
SAVED_SECONDS = 600  # and in the middle of an epoch, after so long without one


class EpochState(keras.callbacks.Callback):
    """Makes dropout a function of (seed, epoch, step, replica), and of nothing before."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for position, state in enumerate(generator_states(self.model)):
            # The steps of an epoch count the second number up; 2**20 of them fit before the next epoch's.
            # Each replica of a strategy has a state of its own.
            for replica, local in enumerate(self.model.distribute_strategy.experimental_local_results(state)):
                local.assign([(self.seed * 1009 + position + (replica << 24)) % 2**32, epoch << 20])


def generator_states(model: keras.Model) -> list[Any]:
    """The tf.Variables that the random layers of a model draw from."""
    generators: list[Any] = []
    for layer in model._flatten_layers():
        generators += [g for g in getattr(layer, "_seed_generators", []) if all(g is not o for o in generators)]
    return [generator.state.value for generator in generators]


class Interruptible(keras.callbacks.Callback):
    """Inside `with`, Ctrl-C or SIGTERM ends training when the call into TensorFlow that is under way has ended, after
    `save` was called; a second one, at once.

    Python's own KeyboardInterrupt comes wherever the main thread is, and TensorFlow may crash on one in its own code.
    Only in the main thread, and only where the signal is not ignored or somebody else's.
    """

    def __init__(self, save: Callable[[], None] = lambda: None):
        super().__init__()
        self.save = save

    def __enter__(self) -> "Interruptible":
        self.asked = False
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        main = threading.current_thread() is threading.main_thread()
        self.before = {number: how for number, how in usual.items() if main and signal.getsignal(number) == how}
        for number in self.before:
            signal.signal(number, self.ask)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, how in self.before.items():
            signal.signal(number, how)

    def ask(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("Finishing the step and saving. Ctrl-C again stops at once.", file=sys.stderr, flush=True)

    def check(self, *_: Any, **__: Any) -> None:
        if self.asked:
            self.save()
            raise KeyboardInterrupt

    on_epoch_begin = on_train_batch_end = on_test_batch_end = on_train_end = check


class Average(keras.callbacks.Callback):
    """Puts the optimiser's moving averages of the weights in their place for validation, and to the bit back.

    Batch normalisation then gets the mean moments of training batches under these weights. Those that training has are
    of the raw weights, which lie elsewhere; moving averages of them hold what was long ago, since moments do not follow
    weights linearly.

    Keras' SwapEMAWeights swaps by additions, which round.

    Args:
        batches: gives the training batches that the moments are taken of, the same each time.
    """

    def __init__(self, batches: Callable[[], Iterable[Any]]) -> None:
        super().__init__()
        self.batches = batches
        self.kept: list[Any] | None = None
        self.found: tuple[Any, int, list[Any]] | None = None  # moments of which model, at which step

    def use(self, *_: Any) -> None:
        if self.kept is None:
            variables, generators = self.variables(), generator_states(self.model)
            self.kept = checkpoint.values(variables + generators)
            for variable, average in zip(
                self.optimizer._trainable_variables, self.optimizer._model_variables_moving_average, strict=True
            ):
                variable.assign(average)
            step = int(keras.ops.convert_to_numpy(self.optimizer.iterations))
            if self.moments() and (self.found is None or self.found[:2] != (self.model, step)):
                for state in generators:
                    checkpoint.assign([state], [[np.zeros_like(one) for one in checkpoint.values([state])[0]]])
                self.found = (self.model, step, self.model.mean_moments(self.batches()))
                checkpoint.assign(generators, self.kept[len(variables) :])
            for variable, value in zip(self.moments(), self.found[2] if self.found else (), strict=True):
                variable.assign(value)

    def leave(self, *_: Any) -> None:
        if self.kept is not None:
            checkpoint.assign(self.variables() + generator_states(self.model), self.kept)
            self.kept = None

    def moments(self) -> list[Any]:
        return [variable for layer in self.model.normalisations() for variable in layer.non_trainable_variables]

    def variables(self) -> list[Any]:
        """The tf.Variables that it changes."""
        return [getattr(one, "value", one) for one in [*self.optimizer._trainable_variables, *self.moments()]]

    @property
    def optimizer(self) -> Any:
        return getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)

    on_test_begin, on_test_end = use, leave


class SaveState(keras.callbacks.Callback):
    """Writes checkpoints of the run at `run`, and brings back the one that a training goes on from. Stands last.

    Args:
        steps: of an epoch.
        every: a checkpoint every so many steps too; 0 for every SAVED_SECONDS.
        progress: gives the keys of checkpoint.PROGRESS as they are by now, which go along.
        others: the callbacks before; those with a `memory`, the shape of what they `remember`, are asked to, and to
            `recall` it.
        average: among them, or None.
        kept: weights of the kept epoch, as `checkpoint.values` gives them, which go along; empty where nobody will
            need them. What a checkpoint has is put into this list.
    """

    def __init__(
        self,
        run: Path,
        steps: int,
        every: int,
        progress: Callable[[], dict[str, Any]],
        others: Sequence[keras.callbacks.Callback],
        average: Average | None,
        kept: list[list[np.ndarray]],
    ):
        super().__init__()
        self.run, self.steps, self.every, self.progress, self.kept = run, steps, every, progress, kept
        self.remembering = [callback for callback in others if hasattr(callback, "memory")]
        self.average = average
        self.written: Place | None = None  # what the last checkpoint is of
        self.cost = 0.0  # seconds that the last one took
        self.saved = time.perf_counter()  # when it was

    def begin(self, model: keras.Model, place: Place, last: int, state: State | None) -> None:
        """A phase begins, or goes on from `state`; `last` epochs are done when it ends."""
        self.set_model(model)
        self.place, self.last, self.state, self.measured = place, last, state, None
        self.written = state.place if state else self.written

    def on_train_begin(self, logs: Any = None) -> None:
        if self.state is not None:
            self.restore(self.state)

    def restore(self, state: State) -> None:
        state.restore("weights", changing(self.model.classifier))
        state.restore("optimizer", _tensors(self.model.optimizer.variables))
        self.kept[:] = state.arrays["kept"]
        for callback in self.remembering:
            callback.recall(state.recalled(type(callback).__name__, callback.memory))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.state is not None and self.state.place.step:
            self.state.restore("metrics", self.metric_variables())
            self.state.restore("generators", generator_states(self.model))
        self.state, self.measured = None, None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before = self.place.step
        if batch < before:  # done before the training was interrupted
            return
        self.place = dataclasses.replace(self.place, step=min(batch + 1, self.steps))
        if self.every and self.place.step // self.every > before // self.every:
            self.save()
        elif not self.every and time.perf_counter() - self.saved > SAVED_SECONDS:
            self.save()

    def on_test_begin(self, logs: Any = None) -> None:
        self.measured = checkpoint.values(self.metric_variables())  # before validation begins its own

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        ended = epoch + 1 == self.last or self.model.stop_training
        self.place = dataclasses.replace(self.place, epoch=epoch + 1, step=0, ended=ended)
        if ended or time.perf_counter() - self.saved >= SAVED_SHARE * self.cost:
            self.save()

    def save(self) -> None:
        begin = time.perf_counter()
        if self.average is not None:
            self.average.leave()  # where Ctrl-C came during validation
        arrays = {
            "weights": checkpoint.values(changing(self.model.classifier)),
            "optimizer": checkpoint.values(_tensors(self.model.optimizer.variables)),
            "metrics": self.measured or checkpoint.values(self.metric_variables()),
            "generators": checkpoint.values(generator_states(self.model)),
            "kept": self.kept,
        }
        if not all(np.isfinite(value).all() for replicas in arrays["metrics"] for value in replicas):
            return  # the loss is NaN by now, of which the training will end: from before, it could go on
        told = {type(callback).__name__: callback.remember() for callback in self.remembering}
        checkpoint.write(self.run, State(self.place, told, self.progress(), arrays))
        self.written, self.saved = self.place, time.perf_counter()
        self.cost = self.saved - begin

    def metric_variables(self) -> list[Any]:
        return [variable.value for metric in self.model.metrics for variable in metric.variables]


def changing(model: keras.Model) -> list[Any]:
    """The tf.Variables of a model's weights, without those of layers that do not train."""
    return [weight.value for layer in model.layers if layer.trainable for weight in layer.weights]


def _tensors(variables: Sequence[Any]) -> list[Any]:
    return [getattr(variable, "value", variable) for variable in variables]


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
        return f"{told}, or try --precision float32 in place of {narrow}." if narrow else f"{told}."


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

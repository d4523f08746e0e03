"""What happens at the edges of steps and epochs: Keras callbacks of `train`."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerascls.runs import checkpoint
from kerascls.runs.checkpoint import Place, State
from kerascls.training.callbacks.averaging import Average
from kerascls.training.callbacks.epoch_state import generator_states

SAVED_SHARE = 20  # a checkpoint at an epoch's end is written where training took this many times as long as writing
SAVED_SECONDS = 600  # and in the middle of an epoch, after so long without one


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

"""A callback that averages weights over steps, and re-estimates batch normalisation's moments for the averages."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from kerascls.runs import checkpoint
from kerascls.training.callbacks.epoch_state import generator_states

MOMENT_BATCHES = 100  # that batch normalisation's moments under averaged weights are taken of


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

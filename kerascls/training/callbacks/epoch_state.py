"""A callback that sets what depends on the epoch alone: orders of batches, and generators of random numbers."""

from typing import Any

import keras


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

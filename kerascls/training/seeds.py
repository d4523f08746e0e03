"""Training a recipe once per seed, and the accuracy over seeds."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from kerascls.training.train import TrainResult, train


@dataclasses.dataclass(frozen=True)
class SeedsResult:
    """Trainings of one recipe with several seeds.

    Attributes:
        results: one result per seed, in order. An interrupted training is the last.
    """

    results: tuple[TrainResult, ...]

    @property
    def status(self) -> str:
        """Of the last training: "complete" or "interrupted"."""
        return self.results[-1].status

    @property
    def scored(self) -> tuple[TrainResult, ...]:
        """The results that have scores: an interrupted training may have none."""
        return tuple(result for result in self.results if result.scores is not None)

    @property
    def split(self) -> str | None:
        """The split that is scored, "test" or "validation"; None without scores."""
        return ("test" if self.scored[0].test else "validation") if self.scored else None

    @property
    def accuracy(self) -> dict[str, float] | None:
        """{"mean", "min", "max"} over seeds; None without scores."""
        accuracies = [result.accuracy for result in self.scored]
        if not accuracies:
            return None
        return {"mean": sum(accuracies) / len(accuracies), "min": min(accuracies), "max": max(accuracies)}


def train_seeds(
    recipe: str | os.PathLike,
    seeds: Sequence[int],
    *,
    tell: Callable[[TrainResult], None] = lambda result: None,
    **settings: Any,
) -> SeedsResult:
    """Trains a recipe once per seed, each in a run folder of its own, whose name ends in `-seedN`.

    Args:
        recipe: as `train` takes it.
        seeds: at least one.
        tell: called with each result when its training ends.
        settings: what else `train` takes, except `seed`, `out`, `resume` and `name_suffix`.

    Returns:
        The results so far where a training is interrupted.

    Raises:
        KerasclsError: as `train`.
    """
    results: list[TrainResult] = []
    for seed in seeds:
        results.append(train(recipe, seed=seed, name_suffix=f"-seed{seed}", **settings))
        tell(results[-1])
        if results[-1].status == "interrupted":
            break
    return SeedsResult(tuple(results))

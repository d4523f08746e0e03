"""Training once per seed, without training: results that are given."""

from pathlib import Path
from typing import Any

import pytest

from kerascls.training import seeds
from kerascls.training.train import TrainResult


@pytest.fixture
def calls(monkeypatch):
    """What `train` is called with. Accuracies are 0.5, 1.0, ... by seed; seed 7 is interrupted without scores."""
    found: list[dict[str, Any]] = []

    def train(recipe: str, **settings: Any) -> TrainResult:
        found.append({"recipe": recipe, **settings})
        scores = None if settings["seed"] == 7 else {"accuracy": 0.5 + 0.25 * settings["seed"]}
        return TrainResult(Path(f"run{settings['name_suffix']}"), "complete" if scores else "interrupted", scores)

    monkeypatch.setattr(seeds, "train", train)
    return found


def test_each_seed_trains_a_run_of_its_own_and_accuracy_has_mean_and_range(calls):
    reported = []
    trained = seeds.train_seeds("mnist_cnn", [0, 1, 2], tell=reported.append, epochs=1)
    assert calls == [
        {"recipe": "mnist_cnn", "epochs": 1, "seed": seed, "name_suffix": f"-seed{seed}"} for seed in (0, 1, 2)
    ]
    assert trained.results == tuple(reported) and trained.status == "complete" and trained.split == "test"
    assert trained.accuracy == {"mean": 0.75, "min": 0.5, "max": 1.0}


def test_an_interrupted_training_is_the_last(calls):
    trained = seeds.train_seeds("mnist_cnn", [1, 7, 2])
    assert [call["seed"] for call in calls] == [1, 7] and trained.status == "interrupted"
    assert len(trained.scored) == 1 and trained.accuracy == {"mean": 0.75, "min": 0.75, "max": 0.75}
    unscored = seeds.train_seeds("mnist_cnn", [7])
    assert (unscored.accuracy, unscored.split, unscored.scored) == (None, None, ())

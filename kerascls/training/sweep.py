"""Sweeping: every combination of some settings, trained and compared on validation data. The test split is not seen."""

import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.dataset import Dataset, Split
from kerascls.data.loading import load_recipe_data
from kerascls.data.splits import folds_of, with_all_splits
from kerascls.devices import Placement, placement_for, prepare
from kerascls.errors import ConfigError, OutputError, TrainingFailed
from kerascls.inference import metrics
from kerascls.recipes.load import load_config
from kerascls.recipes.schema import Config
from kerascls.system.atomic_files import cannot_write, csv_line, write_csv
from kerascls.system.process import deterministic_ops, put_back
from kerascls.system.status import doing
from kerascls.training.fit import Fit
from kerascls.training.grid import as_sets, varied
from kerascls.training.phase_data import TrainingData

MOST_TRIALS = 10_000


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    `accuracy`, `loss` and `balanced_accuracy` are of the validation data at the kept epoch, which was chosen on that
    data; None if it failed.
    """

    settings: dict[str, Any]
    fold: int | None
    seed: int
    epoch: int | None
    accuracy: float | None
    loss: float | None
    seconds: float
    error: str | None = None
    balanced_accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """All trials, in the order in which they ran, and where they are written as a table.

    `status` is "complete" or "interrupted".
    """

    path: Path
    status: str
    trials: list[Trial]

    def summary(self) -> list[dict[str, Any]]:
        """Each combination with the mean of its trials, best first: by accuracy, then by loss. Failed ones are last."""
        groups: dict[str, list[Trial]] = {}
        for trial in self.trials:
            groups.setdefault(json.dumps(trial.settings), []).append(trial)
        rows = []
        for trials in groups.values():
            done = [trial for trial in trials if trial.accuracy is not None]
            failed = len(trials) - len(done)
            scores = [trial.accuracy for trial in done]
            row: dict[str, Any] = {"settings": trials[0].settings, "trials": len(trials), "failed": failed}
            row["accuracy"] = (
                {"mean": statistics.fmean(scores), "min": min(scores), "max": max(scores)}
                if scores and not failed
                else None
            )
            balanced = [trial.balanced_accuracy for trial in done if trial.balanced_accuracy is not None]
            row["balanced_accuracy"] = statistics.fmean(balanced) if balanced and not failed else None
            row["loss"] = statistics.fmean(trial.loss for trial in done) if scores and not failed else None
            row["seconds"] = round(sum(trial.seconds for trial in trials), 3)
            rows.append(row)
        return sorted(rows, key=lambda row: (-row["accuracy"]["mean"], row["loss"]) if row["accuracy"] else (1, 0))


@put_back()
def sweep(
    recipe: str | os.PathLike,
    grid: Mapping[str, Sequence[Any]],
    *,
    folds: int = 0,
    seeds: Sequence[int] | None = None,
    data: str | os.PathLike | None = None,
    epochs: int | None = None,
    devices: str | None = None,
    data_dir: str | None = None,
    fallback: bool = True,
    out: str | os.PathLike | None = None,
    quiet: bool = True,
    tell: Any = None,
) -> SweepResult:
    """Trains every combination of `grid` on the recipe's data and compares them on its validation data.

    The test split is put aside unseen. A table of all trials is written after each of them; until the first has ended,
    it has its head alone.

    Args:
        recipe: a recipe's name, or the path of a .toml file.
        grid: values to try by key, as `{"train.learning_rate": [1e-3, 3e-3]}`.
        folds: 0 validates on the validation split; k divides the train split into k parts, each class in its share and
            equal images together, and validates on each in turn. With `features.views` all share the same features.
        seeds: train every combination once a seed; defaults to the recipe's.
        data, epochs, devices, data_dir, fallback: as `kerascls.train` takes them.
        out: the table, FILE.csv, which must not exist. Defaults to the next free name under saved_models/.
        tell: called with each `Trial` when it ends.

    Raises:
        ConfigError: a combination has faults, or there is no validation data to compare by. Nothing was trained.
        DataError, ModelError, OutputError: as `kerascls.train`.

    >>> result = kerascls.sweep("mnist_cnn", {"train.learning_rate": [0.003, 0.01]}, data="digits", epochs=1)
    >>> result.status, [row["trials"] for row in result.summary()]
    ('complete', [1, 1])
    """
    recipe = os.fspath(recipe)
    if folds < 0 or folds == 1:
        raise ConfigError(f"folds must be 0, or at least 2. Received: {folds}")
    shared: dict[str, dict[str, Any]] = {}
    for section, key, value in (
        ("data", "name", data and os.fspath(data)),
        ("train", "epochs", epochs),
        ("devices", "devices", devices),
    ):
        if value is not None:
            shared.setdefault(section, {})[key] = value
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    tables = [_tables(shared, settings) for settings in combinations]
    configs = [load_config(recipe, table) for table in tables]  # all faults are told before anything is trained
    seeds = seeds or [configs[0].train.seed]
    count = len(configs) * len(seeds) * max(1, folds)
    if count > MOST_TRIALS:
        raise ConfigError(f"{len(configs)} combinations are too many: at most {MOST_TRIALS} trainings.")
    for config in configs:
        if not folds and config.data.validation in ("test", 0):
            raise ConfigError(
                f"A sweep compares on validation data. Received: data.validation = {config.data.validation!r}. Add "
                "--set data.validation=0.1, or --folds 5."
            )
    out = Path(out) if out is not None else None
    if out is not None and out.exists():
        raise _in_the_way(out)
    prepare(configs[0].devices)
    loaded: dict[str, tuple[Config, Dataset]] = {}
    trials: list[Trial] = []
    told: set[str] = set()
    columns = [*grid, "fold", "seed", "epoch", "val_accuracy", "val_loss", "val_balanced_accuracy", "seconds", "error"]
    with (
        _claimed(out, recipe, columns, trials) as out,
        doing("sweep", count, "trainings", stays=True) as progress,
        contextlib.ExitStack() as each,
    ):
        for settings, table in zip(combinations, tables, strict=True):
            same_data = json.dumps(table.get("data", {}), sort_keys=True, default=str)
            if same_data not in loaded:
                loaded[same_data] = load_recipe_data(recipe, table, data_dir, fallback)
            config, published = loaded[same_data]
            config = load_config(recipe, table, use_fallback=config.fallback_for is not None)
            for note in {*config.notes} - told:
                print(note, file=sys.stderr, flush=True)
            told |= {*config.notes}
            placement = placement_for(config.devices)
            each.enter_context(deterministic_ops(placement.deterministic))
            for seed, fold in itertools.product(seeds, range(folds) if folds else [None]):
                one = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
                begin = time.perf_counter()
                fit = _fit(one, published, placement, folds, fold, quiet)
                error = None
                try:
                    status = fit.fit()
                except TrainingFailed as failure:
                    status, error = "complete", str(failure)
                if status == "interrupted":
                    return SweepResult(out, status, trials)
                trials.append(_trial(fit, settings, fold, seed, time.perf_counter() - begin, error))
                write_csv(out, columns, map(_row, trials))
                progress.step()
                if tell:
                    tell(trials[-1])
    return SweepResult(out, "complete", trials)


@contextlib.contextmanager
def _claimed(out: Path | None, recipe: str, columns: Sequence[str], trials: Sequence[Trial]) -> Iterator[Path]:
    """The table with its head alone, made by this process and no other; it goes again if the block leaves no trial.

    Raises:
        OutputError: `out` exists, or cannot be written.
    """
    folder, name = Path("saved_models"), f"sweep-{Path(recipe).stem}"
    places = iter([out]) if out else (folder / f"{name}{f'-{i}' * (i > 1)}.csv" for i in itertools.count(1))
    path = next(places)
    new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while not _made(path, csv_line(columns)):
            if out is not None:
                raise _in_the_way(out)
            path = next(places)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        yield path
    finally:
        if not trials:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others may have something in it by now
                new and path.parent.rmdir()


def _made(path: Path, text: str) -> bool:
    """Whether this process made the file. Raises OSError, and leaves nothing, where it cannot be written."""
    try:
        file = path.open("x", encoding="utf-8", errors="surrogateescape", newline="")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(text)
    except OSError:
        path.unlink()
        raise
    return True


def _in_the_way(out: Path) -> OutputError:
    return OutputError(f"{out} exists already. Remove it, or give --out another place.")


class _Compared(Fit):
    """A training whose kept epoch can be scored on the validation data when it has ended."""

    kept: tuple[Any, list[np.ndarray], Split] | None = None

    def training_data(self, examples: Split, held_out: Split | None, views: int = 1) -> TrainingData:
        self.held_out = held_out
        return super().training_data(examples, held_out, views)

    def keep(self) -> None:
        super().keep()
        with self.averaged():
            self.kept = self.classifier, self.classifier.get_weights(), self.held_out

    def balanced_accuracy(self) -> float | None:
        """The mean of the classes' recall; None where no epoch was kept."""
        import tensorflow as tf

        from kerascls.data.batches import scoring_batches

        if self.kept is None:
            return None
        classifier, weights, held_out = self.kept
        classifier.set_weights(weights)
        answer = tf.function(lambda images: classifier(images, training=False))
        batches = scoring_batches(held_out, self.num_classes)
        answers = metrics.Answers.of(held_out.labels, (answer(images).numpy() for images, _ in batches))
        return metrics.score_answers(answers, list(self.dataset.class_names))["balanced_accuracy"]


class _Fold(_Compared):
    """A training on parts of the train split, whose features are computed for the whole of it once."""

    def __init__(self, config: Config, dataset: Dataset, placement: Placement, quiet: bool, parts: dict[str, Any]):
        self.whole, self.parts = dataset.splits["train"], parts
        splits = {name: self.whole.take(chosen) for name, chosen in parts.items()}
        super().__init__(config, dataclasses.replace(dataset, splits=splits), placement, quiet)

    def feature_splits(self) -> list[tuple[Split, int]]:
        return [(self.whole, self.config.features.views)]

    def features_of(self, split: str, views: int) -> Split:
        rows = self.extractor.features(self.whole, f"{self.dataset.name} train", views)
        return rows.take(np.concatenate([view * len(self.whole) + self.parts[split] for view in range(views)]))


def _fit(
    config: Config, published: Dataset, placement: Placement, folds: int, fold: int | None, quiet: bool
) -> _Compared:
    dataset = with_all_splits(published, 0 if folds else config.data.validation, config.data.test)
    splits = {name: split for name, split in dataset.splits.items() if name != "test"}
    dataset = dataclasses.replace(dataset, splits=splits)
    if fold is None:
        return _Compared(config, dataset, placement, quiet)
    member = folds_of(splits["train"], folds)
    parts = {"train": np.flatnonzero(member != fold), "validation": np.flatnonzero(member == fold)}
    if member.max() + 1 < folds:
        raise ConfigError(
            f"{published.name} has {member.max() + 1} different training images, too few for {folds} folds."
        )
    return _Fold(config, dataset, placement, quiet, parts)


def _trial(
    fit: _Compared, settings: dict[str, Any], fold: int | None, seed: int, seconds: float, error: str | None
) -> Trial:
    kept = fit.manifest["kept_epoch"] if error is None else None
    row = fit.history.rows[kept - 1] if kept else {}
    scores = row.get("val_accuracy"), row.get("val_loss")
    balanced = fit.balanced_accuracy() if kept else None
    return Trial(settings, fold, seed, kept, *scores, round(seconds, 3), error, balanced)


def _row(trial: Trial) -> list[Any]:
    fold = "" if trial.fold is None else trial.fold + 1
    scores = (trial.epoch, trial.accuracy, trial.loss, trial.balanced_accuracy, trial.seconds, trial.error)
    return [*trial.settings.values(), fold, trial.seed, *("" if value is None else value for value in scores)]


def _tables(shared: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tables = {section: dict(table) for section, table in shared.items()}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        tables.setdefault(section, {})[key] = value
    return tables


def table(result: SweepResult) -> str:
    """A line a combination, best first; what all have alike stands above them."""
    rows = result.summary()
    differ = varied([row["settings"] for row in rows])
    alike = {key: value for key, value in rows[0]["settings"].items() if key not in differ}
    lines = [f"all with {as_sets(alike)}"] if alike else []
    lines.append(f"{'accuracy':>9}{'lowest':>9}{'highest':>9}{'balanced':>9}{'loss':>9}{'seconds':>9}")
    for row in rows:
        told = as_sets({key: row["settings"][key] for key in differ}) or ("" if alike else "(the recipe as it is)")
        if row["accuracy"] is None:
            lines.append(f"{'failed':>9}{'':>36}{row['seconds']:>9.1f}  {told}".rstrip())
        else:
            spread = row["accuracy"]
            scores = (spread["mean"], spread["min"], spread["max"], row["balanced_accuracy"], row["loss"])
            columns = "".join(f"{'-' if score is None else format(score, '.4f'):>9}" for score in scores)
            lines.append(f"{columns}{row['seconds']:>9.1f}  {told}".rstrip())
    return "\n".join(lines)

"""Training: a recipe and its data in, a run folder out."""

import contextlib
import csv
import dataclasses
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.dataset import Dataset, in_batches, skipped_lines
from kerascls.data.loading import load_recipe_data
from kerascls.data.remarks import remarks
from kerascls.data.splits import with_all_splits
from kerascls.devices import Placement, placement_for, prepare
from kerascls.errors import ConfigError, OutputError, RunError, TrainingFailed, printable
from kerascls.features.engines import choose_precision, computed_by
from kerascls.formats.card import Card
from kerascls.formats.keras import save_keras
from kerascls.images.borders import usual_border
from kerascls.inference import metrics
from kerascls.inference.evaluate import answers_to, draw
from kerascls.inference.loading import load
from kerascls.recipes.catalog import is_ours, model_file
from kerascls.recipes.load import load_config, override_tables
from kerascls.recipes.schema import Config
from kerascls.runs.run import CHECKPOINT, Run, now
from kerascls.runs.samples import SAMPLE_BATCH_SIZE, write_samples
from kerascls.runs.seen import Seen
from kerascls.system.atomic_files import write_csv, write_json, write_text
from kerascls.system.machine import versions
from kerascls.system.process import deterministic_ops, put_back
from kerascls.system.status import shown
from kerascls.training.fit import Fit
from kerascls.training.resume import Ended, advice, code_digest, interrupted, portable, taken_up

BORDERS = 1000  # training images, or somewhat more, whose borders are looked at


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        path: the run folder.
        status: "complete" or "interrupted".
        test: scores of the test split in the form of metrics.json; None if no epoch was finished, or there is none.
        kept_epoch: the epoch that is saved, from 1; None if no epoch was finished.
        notice: the announcement of a fallback, or None.
        validation: scores of the validation split, likewise.
        interrupted: where, as "in epoch 1, step 40": the checkpoint that `resume` goes on from; None if it was not.
    """

    path: Path
    status: str
    test: dict[str, Any] | None
    kept_epoch: int | None = None
    notice: str | None = None
    validation: dict[str, Any] | None = None
    interrupted: str | None = None

    @property
    def scores(self) -> dict[str, Any] | None:
        """Of the test split; of the validation split where the data has no other."""
        return self.test or self.validation

    @property
    def accuracy(self) -> float | None:
        """Of `scores`."""
        return self.scores["accuracy"] if self.scores else None


@put_back()
def train(
    recipe: str | os.PathLike | None = None,
    *,
    data: str | os.PathLike | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    devices: str | None = None,
    precision: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    data_dir: str | None = None,
    fallback: bool = True,
    out: str | os.PathLike | None = None,
    resume: str | os.PathLike | None = None,
    name_suffix: str = "",
    quiet: bool = True,
    log_steps: int = 0,
    profile: bool = False,
    command: str | None = None,
    offer: Callable[[Path, str], bool] | None = None,
) -> TrainResult:
    """Trains a recipe, scores the test split once at the end, and writes a run folder.

    While it lasts, TensorFlow's op determinism is on where the device is a CPU, for all threads: random operations of
    other code then demand a seed. When it ends, however it does, determinism, seeds and Keras' state are as they were.

    Args:
        recipe: a recipe's name, or the path of a .toml file. Defaults to mnist_cnn, with `resume` to the run's own.
        data: another data set than the recipe's (a name, a folder, tfds:NAME, FILE.npz).
        epochs, batch_size, seed: in place of the recipe's. The recipe's warm-up is scaled with its epochs, unless
            `overrides` have one.
        devices: "auto", "cpu", "gpu", "gpu:0,1", "mirrored" or "cpu:0,1", in place of the recipe's `devices.devices`.
        precision: "float32", "bfloat16", "float16" or "auto", in place of the recipe's `devices.precision`.
        overrides: tables laid over the recipe, as `{"train": {"learning_rate": 0.01}}`.
        data_dir: where TFDS keeps prepared data; missing data is then an error.
        fallback: whether the recipe's embedded data may stand in where its own cannot be had.
        out: the run folder, which must not exist. Defaults to the next free name under saved_models/.
        resume: a run folder whose training was ended, by whatever: goes on from its checkpoint, and ends with the
            weights, scores and epochs that it would have had. `data` then says where the same data lie by now.
        name_suffix: what a default name ends in.
        quiet: whether to leave out progress on stderr. The announcement of a fallback is never left out.
        log_steps: a line on stderr every so many steps.
        profile: whether to measure first where the time of a step goes; the run gets profile.json, and is the same.
        command: what manifest.json calls the command; defaults to the Python call.
        offer: asked with a run under saved_models/ of the same recipe that was ended before its end, and how far it
            came; where it answers True, that one goes on in place of a new one.

    Raises:
        ConfigError, DataError, ModelError, OutputError: nothing has been written.
        RunError: `resume` is no run, is being trained, or was of another recipe, data, code or kind of device.
        TrainingFailed: the loss became NaN or infinite; the run folder keeps the best epoch before that.

    >>> result = kerascls.train("mnist_cnn", data="digits", epochs=3, out="my_run")
    >>> result.status, result.scores["examples"], str(result.path)
    ('complete', 364, 'my_run')
    """
    tables = override_tables(overrides)
    for key, value in (("epochs", epochs), ("batch_size", batch_size), ("seed", seed)):
        if value is not None:
            tables.setdefault("train", {})[key] = value
    for key, value in (("devices", devices), ("precision", precision)):
        if value is not None:
            tables.setdefault("devices", {})[key] = value
    out = Path(out) if out is not None else None
    if out is not None and out.exists():
        raise OutputError(f"{out} exists already.{advice(out)} Remove it, or give --out another place.")
    if resume is not None and (out is not None or profile):
        raise ConfigError("`resume` goes on with a run where it is: leave out `out` and `profile`.")
    if resume is not None and recipe is None and tables:
        run = Run.unfinished(resume)
        run.refuse_complete()
        raise ConfigError(
            f"{resume} goes on as it was begun: leave out --epochs, --set and what else would change it. {run.anew()}"
        )
    if resume is not None:
        typed = os.fspath(recipe) if recipe is not None else None
        with taken_up(Run.unfinished(resume), typed, tables, data, data_dir) as ended:
            return _go_on(ended, quiet, log_steps)
    recipe = os.fspath(recipe or "mnist_cnn")
    if data is not None:
        tables.setdefault("data", {})["name"] = os.fspath(data)
    wish = load_config(recipe, tables).devices
    prepare(wish)
    with shown("train", wanted=not quiet):
        config, dataset = load_recipe_data(recipe, tables, data_dir, fallback)
    placement = placement_for(wish)
    if profile and placement.strategy_name != "default":
        raise ConfigError(f"--profile times one device without sharing. Received: devices.devices = {wish.devices}.")
    given = config.fallback_for is not None or "name" in tables.get("data", {})
    data_name = (
        dataset.name if dataset.source == "folder" else Path(dataset.name).stem.replace(":", "-")
    )  # of tfds:NAME
    name = Path(config.recipe).name + (f"-{data_name}" if given else "") + name_suffix
    if offer and out is None and (found := interrupted(name, config)) and offer(found[0].path, found[1]):
        with taken_up(found[0], recipe, tables, None, data_dir) as ended:
            return _go_on(ended, quiet, log_steps)
    command = command or f"kerascls.train({config.recipe!r})"
    with deterministic_ops(placement.deterministic):
        training = _Training(config, dataset, placement, quiet, log_steps)
        training.begin_run(out, name, command, profile)
        with training.run.locked(), shown("train", wanted=not quiet):
            return training.run_all()


def _go_on(ended: Ended, quiet: bool, log_steps: int) -> TrainResult:
    with deterministic_ops(ended.placement.deterministic), shown("train", wanted=not quiet):
        training = _Training(ended.config, ended.dataset, ended.placement, quiet, log_steps)
        training.go_on(ended)
        return training.run_all()


class _Training(Fit):
    """One training, from data to scored run."""

    def __init__(self, config: Config, published: Dataset, placement: Placement, quiet: bool, log_steps: int):
        self.published = published
        super().__init__(
            config, with_all_splits(published, config.data.validation, config.data.test), placement, quiet, log_steps
        )
        self.card = Card(
            published.class_names,
            published.image_shape,
            tuple(config.data.background),
            usual_border(self.spread_evenly()),
            published.name,
            config.fallback_for,
            config.data.resize,
            self.random_backbone,
        )

    def spread_evenly(self) -> Iterator[np.ndarray]:
        """Batches of some thousand training images at most, from the first to the last."""
        train = self.splits["train"]
        chosen = np.arange(0, len(train), max(1, len(train) // BORDERS))
        return in_batches(train.take(chosen).images, SAMPLE_BATCH_SIZE)

    def begin_run(self, out: Path | None, name: str, command: str, profile: bool) -> None:
        """Makes the run folder."""
        config, published, fitted = self.config, self.published, self.manifest
        self.profile = profile
        self.manifest = {
            "format": 1,
            "status": "running",
            "command": command,
            "recipe": config.recipe,
            "seed": config.train.seed,
            "versions": versions(),
            "code": code_digest(config),
            "device": self.placement.describe() | computed_by(config.features, self.placement),
            "started": now(),
            **{key: fitted[key] for key in ("seconds", "best_epoch", "kept_epoch")},
            "data": {
                "name": published.name,
                "source": published.source,
                "fallback_for": config.fallback_for,
                "fingerprint": published.fingerprint(),
                "contents": self.splits["train"].kind,
                "border": self.card.border,
                "examples": {split: len(examples) for split, examples in self.splits.items()},
            },
            "parameters": fitted["parameters"],
        }

        def fill(folder: Path) -> None:
            write_text(folder / "config.toml", portable(config).as_toml())
            write_json(folder / "class_names.json", list(self.dataset.class_names))
            if self.splits["train"].origin is not None:
                write_csv(folder / "splits.csv", ("split", "class", "file"), self.files())
            if self.dataset.skipped:
                write_csv(folder / "skipped.csv", ("file", "reason"), self.dataset.skipped)
            chosen_by = ["train"] if config.data.validation == "test" else ["train", "validation"]
            seen = [self.splits[name].contents for name in chosen_by if name in self.splits]
            Seen.of(self.splits["train"].kind, *seen).write(folder)
            write_json(folder / "manifest.json", self.manifest)

        self.run = Run.create(out, name, fill)
        self.folder = self.run.path
        if not self.quiet:
            self.tell_data()

    def go_on(self, ended: Ended) -> None:
        """Takes up a run that was ended, from its checkpoint, or from its beginning where it has none."""
        run, state = ended.run, ended.state
        if self.splits["train"].origin is not None and (differs := self.other_files(run)):
            raise RunError(f"{run.path} cannot go on to the same numbers: {differs}. Go on where all is as it was.")
        self.run, self.folder, self.state = run, run.path, state
        manifest = run.manifest
        self.manifest = {
            **manifest,
            **{key: self.manifest[key] for key in ("seconds", "best_epoch", "kept_epoch")},
            **(state.progress if state else {}),
            "status": "running",
            "resumed": [
                *manifest.get("resumed", []),
                {
                    "at": now(),
                    "epoch": state.place.epoch if state else 0,
                    **({"moved": ended.moved} if ended.moved else {}),
                },
            ],
        }
        self.total_from -= self.manifest["seconds"]["total"] or 0.0
        self.run.write_manifest(self.manifest)
        if not self.quiet:
            self.tell_data()
            print(f"going on with {ended}", file=sys.stderr, flush=True)

    def run_all(self) -> TrainResult:
        """Trains, scores, and leaves the manifest saying how it ended, whatever happens."""
        status, scored = "failed", {}
        try:
            status = self.fit()
            if status == "complete" or self.manifest["kept_epoch"]:
                with self.placement.device():
                    scored = self.score()
        except KeyboardInterrupt:  # a second Ctrl-C, while scoring
            status = "interrupted"
        except (OutputError, OSError):  # a full disk: with room again, it can go on
            status = "interrupted"
            raise
        except BaseException:
            status = "failed"
            raise
        finally:
            self.manifest["status"] = status
            self.manifest["seconds"]["total"] = round(time.perf_counter() - self.total_from, 3)
            with contextlib.suppress(*[OutputError] if sys.exc_info()[0] else []):  # which has been told
                self.run.write_manifest(self.manifest)
            if status == "complete":
                shutil.rmtree(self.run.path / CHECKPOINT, ignore_errors=True)
        return TrainResult(
            self.run.path,
            status,
            scored.get("test"),
            self.manifest["kept_epoch"],
            self.run.notice,
            scored.get("validation"),
            self.checkpointed() if status == "interrupted" else None,
        )

    def checkpointed(self) -> str:
        """Where the last checkpoint is, for people."""
        place = self.saver.written if self.saver else self.state and self.state.place
        return place.where if place else "before the first checkpoint"

    def tell_data(self) -> None:
        """On stderr: what is trained on, what was held out of it, and what was left out."""
        height, width, channels = self.dataset.image_shape
        given = {"train", *self.published.splits}
        own = self.config.data
        names = [
            name
            for name in ("train", "validation", "test")
            if name in self.splits and not (name == "validation" and own.validation == "test")
        ]
        counts = ", ".join(
            f"{len(self.splits[name]):,} {name}" + ("" if name in given else " (held out)") for name in names
        )
        held = [f"data.{name} = {getattr(own, name):g}" for name in names if name not in given]
        by = f"held out at random, each class in its share, equal images together: {' and '.join(held)}"
        print(
            f"{self.dataset.name}: {counts} images of {height}x{width}x{channels}, {self.num_classes} classes",
            file=sys.stderr,
            flush=True,
        )
        left_out = skipped_lines(self.dataset.skipped, f", listed in {self.run.path / 'skipped.csv'}")
        for line in [*([by] if held else []), *left_out, *remarks(self.dataset), *self.notes()]:
            print(line, file=sys.stderr, flush=True)

    def notes(self) -> list[str]:
        """What was scaled with the given options, what the recipe's [devices] has come to, where that is not what one
        would expect, classes that cannot be learnt or are few, and a backbone's
        pixels."""
        wish, place = self.config.devices, self.placement
        counts = np.bincount(self.splits["train"].labels, minlength=self.num_classes)
        without = [name for name, count in zip(self.dataset.class_names, counts, strict=True) if not count]
        notes = [*self.config.notes, place.sharing(min(self.config.train.batch_size, len(self.splits["train"])))]
        if without:
            more = f" and {len(without) - 5} more" if len(without) > 5 else ""
            notes.append(f"no training image, so it cannot be learnt: {', '.join(without[:5])}{more}")
        if metrics.uneven(counts):
            names, least = self.dataset.class_names, np.where(counts, counts, counts.max()).argmin()
            advice = "; try --set train.class_weight=balanced" if self.config.train.class_weight == "none" else ""
            notes.append(
                f"{printable(names[least])}: {counts[least]:,} of {counts.sum():,} training images; always answering "
                f"{printable(names[counts.argmax()])!r} scores {counts.max() / counts.sum():.3f}{advice}"
            )
        options = self.config.model.options
        if file := model_file(str(options.get("backbone", ""))):
            pixels = options["pixel_range"]
            notes.append(
                f"{options['backbone']} is a kerascls model: its head is removed, and it gets pixels as in its training"
                if is_ours(file)
                else f"{options['backbone']} gets pixels in [{pixels[0]:g}, {pixels[1]:g}], by model.pixel_range"
            )
        if wish.devices == "mirrored" and place.replicas == 1:
            notes.append(f"devices.devices = mirrored: there is one device, {place.devices[0]}, and nothing to share.")
        if wish.xla and not self.compiles_with_xla():
            notes.append("devices.xla is off: it needs one GPU, no augmentation policy, and ops that may vary.")
        if wish.shards > 1 and place.shards == 1:
            notes.append(
                "devices.shards is 1 here: shards are for one CPU, and for networks without batch normalisation. With "
                "--set devices.shards=1 operations have all cores."
            )
        if place.shards > 1 and place.threads > 1:
            notes.append(
                f"devices.shards = {place.shards}: TensorFlow runs here already, with {place.threads} threads an "
                "operation. In a process of its own this training takes less time."
            )
        features = self.config.features
        if features.views == 1 and self.config.augment.policy:
            notes.append(
                "features.views = 1: the backbone sees each image as it is, and augment.policy is not applied. "
                "--set features.views=4 adds three augmented views of each."
            )
        if features.views and self.config.train.epochs <= 10 and not self.config.train.early_stopping_patience:
            notes.append(
                f"{self.config.train.epochs} epochs of features are few, and cheap: --epochs 50 --set "
                "train.early_stopping_patience=5 trains the head until it gets no better."
            )
        if features.views and choose_precision(features.precision, place) != features.precision:
            notes.append("features.precision is float32: this processor does not compute in bfloat16.")
        return [note for note in notes if note]

    def files(self) -> Iterator[tuple[str, str, str]]:
        """Rows of splits.csv."""
        for name, split in self.splits.items():
            if name != "validation" or self.config.data.validation != "test":
                for file, label in zip(split.origin.names, split.labels, strict=True):
                    yield name, self.dataset.class_names[label], file

    def other_files(self, run: Run) -> str | None:
        """In what the files and their order, which is by name, are not those that a run began with; None where they
        are."""
        try:
            with (run.path / "splits.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                for was, now_is in itertools.zip_longest(itertools.islice(csv.reader(file), 1, None), self.files()):
                    if was is None or now_is is None or tuple(was) != now_is:
                        return f"splits.csv has {was and list(was)}, where now is {now_is and list(now_is)}"
        except (OSError, csv.Error, ValueError) as error:
            return f"splits.csv is missing or damaged ({error})"
        return None

    def keep(self) -> None:
        super().keep()
        self.save(self.run.model_path)

    def save(self, path: Path) -> None:
        """Writes the whole model as it is now, in float32 whatever has trained it."""
        with self.averaged():
            self.sync()
            save_keras(self.reference, self.card, path)

    def score(self) -> dict[str, dict[str, Any]]:
        """Reopens what was saved, scores it, and writes metrics.json, samples/ and the pictures; the scores."""
        classifier = load(self.run.path)
        names = list(self.dataset.class_names)
        scored, answers = {}, {}
        for split in ("test", "validation"):
            if split in self.splits and (split == "test" or self.config.data.validation != "test"):
                answers[split] = answers_to(self.splits[split], classifier)
                if not answers[split].finite:
                    raise TrainingFailed(
                        f"The weights of epoch {self.manifest['kept_epoch']} are not finite. Usually the learning rate "
                        f"is too high: lower train.learning_rate tenfold."
                    )
                scored[split] = metrics.score_answers(answers[split], names)
        write_json(
            self.run.path / "metrics.json",
            {"data": self.dataset.name, "fallback_for": self.config.fallback_for, "splits": scored},
        )
        self.compare_features(scored)
        shown = next((split for split in ("test", "validation") if split in scored), None)
        if self.config.train.samples:
            examples = self.splits[shown or "train"]
            write_samples(self.run.path / "samples", examples, classifier, self.config.train.samples)
        self.run.write_manifest(self.manifest)
        if shown:
            draw(self.run, self.run.path, self.splits[shown], answers[shown], scored[shown], classifier)
        return scored

    def compare_features(self, scored: dict[str, dict[str, Any]]) -> None:
        """Says how far the accuracy that the head had on features is from the whole saved model's on the images."""
        split = "test" if self.config.data.validation == "test" else "validation"
        rows = self.history.rows[: self.config.train.epochs]
        on_features = {row["epoch"]: row.get("val_accuracy") for row in rows}.get(self.manifest["kept_epoch"])
        if "features" not in self.manifest or on_features is None or split not in scored:
            return
        whole = scored[split]["accuracy"]
        self.manifest["features"]["accuracy_difference"] = round(on_features - whole, 6)
        if not self.quiet:
            print(
                f"The saved model has {split} accuracy {whole:.4f} on the images; its head had {on_features:.4f} on "
                f"their {self.manifest['features']['precision']} features, which should be about the same.",
                file=sys.stderr,
                flush=True,
            )

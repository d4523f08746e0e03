"""Training: a recipe and its data in, a run folder out."""

import dataclasses
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import metrics
from kerascls.config import Config, Train, load_config, size_problems
from kerascls.datasets import Dataset, Split, load_recipe_data
from kerascls.devices import Placement, choose, versions
from kerascls.errors import ConfigError, DataError, OutputError, TrainingFailed, WeightsMissing
from kerascls.evaluate import draw
from kerascls.load import Card, Classifier, load, save_keras, usual_border
from kerascls.runs import Run, atomic, now, random_backbone_notice, write_csv, write_json, write_text
from kerascls.split import with_all_splits

SKIPPED_TOLD = 10  # files left out that are named on stderr; skipped.csv has them all
SAMPLE_BATCH_SIZE = 32  # at which samples/ keeps the run's probabilities


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
    """

    path: Path
    status: str
    test: dict[str, Any] | None
    kept_epoch: int | None = None
    notice: str | None = None
    validation: dict[str, Any] | None = None

    @property
    def scores(self) -> dict[str, Any] | None:
        """Of the test split; of the validation split where the data has no other."""
        return self.test or self.validation

    @property
    def accuracy(self) -> float | None:
        """Of `scores`."""
        return self.scores["accuracy"] if self.scores else None


def train(
    recipe: str | os.PathLike = "mnist_cnn",
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
    name_suffix: str = "",
    quiet: bool = True,
    log_steps: int = 0,
    profile: bool = False,
    command: str | None = None,
) -> TrainResult:
    """Trains a recipe, scores the test split once at the end, and writes a run folder.

    Args:
        recipe: a recipe's name, or the path of a .toml file.
        data: another data set than the recipe's (a name, a folder, tfds:NAME, FILE.npz).
        epochs, batch_size, seed: in place of the recipe's.
        devices: "auto", "cpu", "gpu", "gpu:0,1", "mirrored" or "cpu:0,1", in place of the recipe's `devices.devices`.
        precision: "float32", "bfloat16", "float16" or "auto", in place of the recipe's `devices.precision`.
        overrides: tables laid over the recipe, as `{"train": {"learning_rate": 0.01}}`.
        data_dir: where TFDS keeps prepared data; missing data is then an error.
        fallback: whether the recipe's embedded data may stand in where its own cannot be had.
        out: the run folder, which must not exist. Defaults to the next free name under saved_models/.
        name_suffix: what a default name ends in.
        quiet: whether to leave out progress on stderr. The announcement of a fallback is never left out.
        log_steps: a line on stderr every so many steps.
        profile: whether to measure first where the time of a step goes; the run gets profile.json, and is the same.
        command: what manifest.json calls the command; defaults to the Python call.

    Raises:
        ConfigError, DataError, ModelError, OutputError: nothing has been written.
        TrainingFailed: the loss became NaN or infinite; the run folder keeps the best epoch before that.
    """
    recipe = os.fspath(recipe)
    tables = {section: dict(table) for section, table in (overrides or {}).items()}
    for key, value in (("epochs", epochs), ("batch_size", batch_size), ("seed", seed)):
        if value is not None:
            tables.setdefault("train", {})[key] = value
    for key, value in (("devices", devices), ("precision", precision)):
        if value is not None:
            tables.setdefault("devices", {})[key] = value
    if data is not None:
        tables.setdefault("data", {})["name"] = os.fspath(data)
    out = Path(out) if out is not None else None
    if out is not None and out.exists():
        raise OutputError(f"{out} exists already. Remove it, or give --out another place.")
    wish = load_config(recipe, tables).devices
    if wish.devices != "auto":  # settled first: reading data may start TensorFlow with the devices that it finds
        choose(wish.devices)
    config, dataset = load_recipe_data(recipe, tables, data_dir, fallback)
    placement = choose(wish.devices, wish.precision, wish.deterministic)
    if profile and placement.strategy_name != "default":
        raise ConfigError(f"--profile times one device without sharing. Received: devices.devices = {wish.devices}.")
    given = config.fallback_for is not None or "name" in tables.get("data", {})
    data_name = dataset.name if dataset.source == "folder" else Path(dataset.name).stem
    name = Path(config.recipe).name + (f"-{data_name}" if given else "") + name_suffix
    command = command or f"kerascls.train({config.recipe!r})"
    return _Training(config, dataset, placement, out, name, command, quiet, log_steps, profile).run_all()


class _Training:
    """One training, from data to scored run."""

    def __init__(
        self,
        config: Config,
        published: Dataset,
        placement: Placement,
        out: Path | None,
        name: str,
        command: str,
        quiet: bool,
        log_steps: int,
        profile: bool,
    ):
        import keras

        from kerascls.features import split_model
        from kerascls.models import build_model, first_tuned

        self.config, self.placement, self.quiet, self.log_steps = config, placement, quiet, log_steps
        self.profile = profile
        self.begin = time.perf_counter()
        keras.backend.clear_session()
        keras.utils.set_random_seed(config.train.seed)
        self.dataset = with_all_splits(published, config.data.validation, config.data.test)
        problems = size_problems(config.data.canvas, config.augment.policy, published.image_shape)
        if problems:
            raise ConfigError(problems[0])
        self.splits, self.published = self.dataset.splits, set(published.splits)
        self.num_classes = len(published.class_names)
        try:
            # What is saved and scored is always this float32 model, made outside any strategy; a copy may train for it.
            self.reference = build_model(
                config.model.name, published.image_shape, self.num_classes, **config.model.options
            )
        except WeightsMissing as error:
            scratch = f"`kerascls train folder_scratch --data {config.data.name}`"
            raise WeightsMissing(f"{error} Without pretrained weights: {scratch}.") from None
        self.random_backbone = config.model.options.get("weights") == "none"
        if self.random_backbone:
            print(random_backbone_notice(), file=sys.stderr, flush=True)
        if config.finetune.epochs:
            first_tuned(self.reference, config.finetune.unfreeze)  # raises before anything is written
        self.body, head = split_model(self.reference) if config.features.views else (None, self.reference)
        self.extractor: Any = None
        self.train_part(head)
        self.card = Card(
            published.class_names,
            published.image_shape,
            tuple(config.data.background),
            usual_border(self.splits["train"].images),
            published.name,
            config.fallback_for,
            config.data.resize,
            self.random_backbone,
        )
        self.run = Run.create(out, name)
        self.manifest: dict[str, Any] = {
            "format": 1,
            "status": "running",
            "command": command,
            "recipe": config.recipe,
            "seed": config.train.seed,
            "versions": versions(),
            "device": placement.describe(),
            "started": now(),
            "seconds": {"total": None, "fit": None, "epochs": []},
            "best_epoch": None,
            "kept_epoch": None,
            "data": {
                "name": published.name,
                "source": published.source,
                "fallback_for": config.fallback_for,
                "fingerprint": published.fingerprint(),
                "border": self.card.border,
                "examples": {split: len(examples) for split, examples in self.splits.items()},
            },
            "parameters": {
                "total": self.reference.count_params(),
                "trainable": trainable_count(self.reference),
                **({"random_backbone": True} if self.random_backbone else {}),
            },
        }

    def train_part(self, part: Any) -> None:
        """Makes `part`, the reference or its head, what is trained: itself, or a copy that computes otherwise."""
        from kerascls.models import copy_for_training

        place = self.placement
        self.part = self.classifier = part
        if place.strategy_name != "default" or place.precision != "float32":
            with place.strategy.scope():
                self.classifier = copy_for_training(part, place.precision, place.replicas > 1)

    def run_all(self) -> TrainResult:
        """Trains, scores, and leaves the manifest saying how it ended, whatever happens."""
        if not self.quiet:
            self.tell_data()
        write_text(self.run.path / "config.toml", portable(self.config).as_toml())
        write_json(self.run.path / "class_names.json", list(self.dataset.class_names))
        if self.splits["train"].origin is not None:
            write_csv(self.run.path / "splits.csv", ("split", "class", "file"), self.files())
        if self.dataset.skipped:
            write_csv(self.run.path / "skipped.csv", ("file", "reason"), self.dataset.skipped)
        self.run.write_manifest(self.manifest)
        status, scored = "failed", {}
        try:
            status = self.fit()
            if self.manifest["kept_epoch"]:
                with self.placement.device():
                    scored = self.score()
        except KeyboardInterrupt:  # a second Ctrl-C, while scoring
            status = "interrupted"
        except BaseException:
            status = "failed"
            raise
        finally:
            self.manifest["status"] = status
            self.manifest["seconds"]["total"] = round(time.perf_counter() - self.begin, 3)
            self.run.write_manifest(self.manifest)
        return TrainResult(
            self.run.path,
            status,
            scored.get("test"),
            self.manifest["kept_epoch"],
            self.run.notice,
            scored.get("validation"),
        )

    def tell_data(self) -> None:
        """On stderr: what is trained on, what was held out of it, and what was left out."""
        height, width, channels = self.dataset.image_shape
        counts = ", ".join(
            f"{len(self.splits[name]):,} {name}" + ("" if name in self.published or name == "train" else " (held out)")
            for name in ("train", "validation", "test")
            if name in self.splits and not (name == "validation" and self.config.data.validation == "test")
        )
        print(
            f"{self.dataset.name}: {counts} images of {height}x{width}x{channels}, {self.num_classes} classes",
            file=sys.stderr,
            flush=True,
        )
        skipped = self.dataset.skipped
        for file, reason in skipped[:SKIPPED_TOLD]:
            print(f"left out: {file}: {reason}", file=sys.stderr)
        if len(skipped) > SKIPPED_TOLD:
            more = len(skipped) - SKIPPED_TOLD
            print(f"left out: {more} more, listed in {self.run.path / 'skipped.csv'}", file=sys.stderr, flush=True)
        for line in self.notes():
            print(line, file=sys.stderr, flush=True)

    def notes(self) -> list[str]:
        """What the recipe's [devices] has come to, where that is not what one would expect, and a backbone's pixels."""
        wish, place = self.config.devices, self.placement
        notes = [place.sharing(min(self.config.train.batch_size, len(self.splits["train"])))]
        options = self.config.model.options
        if str(options.get("backbone", "")).endswith(".keras"):
            low, high = options["pixel_range"]
            notes.append(f"{options['backbone']} is given pixels in [{low:g}, {high:g}], by model.pixel_range")
        if wish.devices == "mirrored" and place.replicas == 1:
            notes.append(f"devices.devices = mirrored: there is one device, {place.devices[0]}, and nothing to share.")
        if wish.xla and not self.compiles_with_xla():
            notes.append("devices.xla is off: it needs one GPU, no augmentation policy, and ops that may vary.")
        features = self.config.features
        if features.views == 1 and self.config.augment.policy:
            notes.append("features.views = 1: features of the images as they are. For augment.policy, 2 or more.")
        if features.views and self.features_precision() != features.precision:
            notes.append("features.precision is float32: this processor does not compute in bfloat16.")
        return [note for note in notes if note]

    def files(self) -> Iterator[tuple[str, str, str]]:
        """Rows of splits.csv."""
        for name, split in self.splits.items():
            if name != "validation" or self.config.data.validation != "test":
                for file, label in zip(split.origin.names, split.labels, strict=True):
                    yield name, self.dataset.class_names[label], file

    def fit(self) -> str:
        """The epochs of [train], then those of [finetune]. Returns "complete", or "interrupted" after Ctrl-C."""
        import tensorflow as tf

        from kerascls.models import unfreeze_backbone

        train, finetune = self.config.train, self.config.finetune
        begin = time.perf_counter()
        callbacks: list[Any] = []
        self.examples: Split = self.splits["train"]
        try:
            phase = self.features() if self.body else self.images()
            callbacks += self.callbacks(phase.batches)
            done = self.fit_phase(train, phase, callbacks, 0)
            if finetune.epochs:
                if self.body:
                    self.sync()
                    self.train_part(self.reference)
                    phase = self.images(phase.batches.epoch)
                for model in {self.classifier, self.reference}:
                    unfreeze_backbone(model, finetune.unfreeze)
                self.manifest["parameters"]["finetuned"] = trainable_count(self.classifier)
                changes = {field.name: getattr(finetune, field.name) for field in dataclasses.fields(finetune)}
                changes.pop("unfreeze")
                self.fit_phase(dataclasses.replace(train, **changes), phase, callbacks, done)
            return "complete"
        except KeyboardInterrupt:
            return "interrupted"
        except (MemoryError, tf.errors.ResourceExhaustedError):
            half = train.batch_size // 2
            advice = f"Try --batch-size {half}" if half else "Lower data.image_shape or choose a smaller model"
            raise TrainingFailed(f"Out of memory at {train.batch_size} images a step. {advice}.") from None
        except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError, tf.errors.PermissionDeniedError) as error:
            if all(isinstance(split.images, np.ndarray) for split in (self.examples, *self.splits.values())):
                raise
            reason = re.search(r"([^\n]+)\n\s*\[\[\{\{", str(error))  # stands above TensorFlow's list of nodes
            what = f": {reason[1].strip()[-300:]}" if reason else ""
            raise DataError(f"An image that could be read before training cannot be now{what}") from None
        finally:
            self.manifest["seconds"]["fit"] = round(time.perf_counter() - begin, 3)
            for callback in callbacks:
                getattr(callback, "close", lambda: None)()  # leaves the terminal's line as it should be

    def images(self, epoch: Any = None) -> "TrainingData":
        """The splits' images, to train on; `epoch` is the variable that counts epochs, where there is one already."""
        from kerascls.pipeline import on_canvas

        data = self.config.data
        self.examples = on_canvas(self.splits["train"], tuple(data.canvas), data.cache_mb)
        return self.training_data(self.examples, self.splits.get("validation"), epoch=epoch)

    def features(self) -> "TrainingData":
        """Features of the frozen backbone, to train the head on."""
        from kerascls.features import Extractor

        config, name = self.config, self.dataset.name
        self.extractor = Extractor(
            self.body,
            self.features_precision(),
            config.augment.policy,
            config.train.seed,
            tuple(config.data.canvas),
            config.data.cache_mb,
            progress=not self.quiet,
        )
        with self.placement.device():
            examples = self.extractor.features(self.splits["train"], f"{name} train", config.features.views)
            held_out = self.splits.get("validation")
            if held_out is not None:
                held_out = self.extractor.features(held_out, f"{name} validation")
        self.manifest["features"] = {"views": config.features.views, **self.extractor.report()}
        if not self.quiet:
            print(self.extractor.told(), file=sys.stderr, flush=True)
        return self.training_data(examples, held_out, config.features.views)

    def features_precision(self) -> str:
        """bf16 where the recipe asks for it and the device computes in it, else float32."""
        return self.config.features.precision if self.placement.native_bfloat16() else "float32"

    def training_data(
        self, examples: Split, held_out: Split | None, views: int = 1, epoch: Any = None
    ) -> "TrainingData":
        from kerascls.pipeline import TrainingBatches, scoring_batches

        train, replicas = self.config.train, self.placement.replicas
        plain_from = round(self.config.augment.until * self.epochs)
        batches = TrainingBatches(
            examples,
            self.num_classes,
            train.batch_size,
            train.seed,
            train.drop_remainder,
            replicas,
            views=views,
            plain_from=plain_from,
            epoch=epoch,
        )
        validation = None if held_out is None else scoring_batches(held_out, self.num_classes, replicas=replicas)
        return TrainingData(batches, validation)

    def fit_phase(self, train: Train, data: "TrainingData", callbacks: list[Any], done: int) -> int:
        """compile and fit for `train.epochs` more than the `done` ones. Returns how many are done then."""
        import keras

        from kerascls.augment import AugmentedModel
        from kerascls.pipeline import balanced_class_weight

        augment = self.config.augment
        steps, policy = data.batches.steps, augment.policy if self.part is self.reference else []
        policy_steps = round(augment.until * self.epochs) * steps if augment.until < 1 else None
        balanced = train.class_weight == "balanced"
        with self.placement.strategy.scope():
            model = AugmentedModel(self.classifier, policy, train.seed, policy_steps, done * steps)
            optimizer = make_optimizer(train, steps)
            if self.placement.precision == "float16":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            model.compile(
                optimizer=optimizer,
                metrics=["accuracy"],
                loss=keras.losses.CategoricalCrossentropy(label_smoothing=train.label_smoothing),
                steps_per_execution=self.steps_per_execution(steps),
                jit_compile=self.compiles_with_xla(),
            )
        if self.profile and not done:
            from kerascls import timing

            found = timing.time_steps(model, lambda: make_optimizer(train, steps), data.batches.dataset)
            write_json(self.run.path / "profile.json", found)
            if not self.quiet:
                print(timing.table(found), file=sys.stderr, flush=True)
        history = model.fit(
            data.batches.dataset,
            initial_epoch=done,
            epochs=done + train.epochs,
            shuffle=False,
            verbose=0,
            validation_data=data.validation,
            class_weight=balanced_class_weight(self.splits["train"].labels, self.num_classes) if balanced else None,
            callbacks=callbacks,
        )
        return done + len(history.epoch)

    @property
    def epochs(self) -> int:
        """Of all phases."""
        return self.config.train.epochs + self.config.finetune.epochs

    def steps_per_execution(self, steps: int) -> int:
        """Under a strategy 1: Keras 3.15 fails with more."""
        if self.placement.strategy_name != "default":
            return 1
        train = self.config.train
        return min(train.steps_per_execution, steps) or steps_per_execution(
            steps, train.batch_size, self.part.input_shape[1:]
        )

    def compiles_with_xla(self) -> bool:
        """Where the recipe asks for it and it can be; the warps of a policy have no XLA kernels (not run on a GPU)."""
        place = self.placement
        possible = place.kind == "gpu" and place.strategy_name == "default" and not place.deterministic
        return self.config.devices.xla and possible and not self.config.augment.policy

    def callbacks(self, batches: Any) -> list[Any]:
        """In the order in which they must run at an epoch's end: what is kept is decided before it is told."""
        import keras

        from kerascls.callbacks import EpochState, KeepEpoch, Progress, SaveEpochs, StopOnNaN, WriteHistory

        train, path, manifest = self.config.train, self.run.path, self.manifest
        self.history = WriteHistory(manifest, path / "history.csv")
        callbacks: list[Any] = [
            EpochState(batches.epoch, train.seed),
            StopOnNaN(manifest, path, batches.steps),
            KeepEpoch(manifest, train.keep, lambda: self.save(self.run.model_path)),
            self.history,
        ]
        if train.save_epochs:
            callbacks.append(SaveEpochs(path / "epochs", self.save))
        if train.early_stopping_patience:
            callbacks.append(
                keras.callbacks.EarlyStopping("val_loss", mode="min", patience=train.early_stopping_patience)
            )
        if not self.quiet or self.log_steps:
            callbacks.append(
                Progress(
                    self.epochs,
                    batches.steps,
                    train.batch_size,
                    len(self.splits["train"]),
                    self.log_steps,
                    bar=sys.stderr is not None and sys.stderr.isatty() and not self.quiet,
                )
            )
        return callbacks

    def save(self, path: Path) -> None:
        """Writes the whole model as it is now, in float32 whatever has trained it."""
        self.sync()
        save_keras(self.reference, self.card, path)

    def sync(self) -> None:
        """Brings what the copy has learnt back to the reference's own layers."""
        if self.part is not self.classifier:
            self.part.set_weights(self.classifier.get_weights())

    def score(self) -> dict[str, dict[str, Any]]:
        """Reopens what was saved, scores it, and writes metrics.json, samples/ and the pictures; the scores."""
        from kerascls.pipeline import scoring_batch_size

        classifier = load(self.run.path)
        batch_size = scoring_batch_size(classifier.image_shape)
        names = list(self.dataset.class_names)
        scored, probabilities = {}, {}
        for split in ("test", "validation"):
            if split in self.splits and (split == "test" or self.config.data.validation != "test"):
                examples = self.splits[split]
                probabilities[split] = classifier.probabilities(examples.images, batch_size)
                if not np.isfinite(probabilities[split]).all():
                    raise TrainingFailed(
                        f"The weights of epoch {self.manifest['kept_epoch']} are not finite. Usually the learning rate "
                        f"is too high: lower train.learning_rate tenfold."
                    )
                scored[split] = metrics.score(examples.labels, probabilities[split], names)
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
            draw(self.run, self.run.path, self.splits[shown], probabilities[shown], scored[shown], classifier)
        return scored

    def compare_features(self, scored: dict[str, dict[str, Any]]) -> None:
        """Says how far the accuracy that the head had on features is from the whole saved model's on the images."""
        kept = self.manifest["kept_epoch"]
        split = "test" if self.config.data.validation == "test" else "validation"
        if not self.body or kept > self.config.train.epochs or split not in scored:
            return
        on_features = self.history.rows[kept - 1]["val_accuracy"]
        whole = scored[split]["accuracy"]
        self.manifest["features"]["accuracy_difference"] = round(on_features - whole, 6)
        if not self.quiet:
            print(
                f"{split} accuracy from {self.extractor.precision} features {on_features:.4f}, of the saved model on "
                f"the images {whole:.4f}",
                file=sys.stderr,
                flush=True,
            )


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a phase trains on: `pipeline.TrainingBatches`, and a tf.data.Dataset of the validation split or None."""

    batches: Any
    validation: Any


def trainable_count(model: Any) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def portable(config: Config) -> Config:
    """The recipe without absolute paths: a file or folder named by one keeps its last part alone."""

    def short(value: Any) -> Any:
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    options = {key: short(value) for key, value in config.model.options.items()}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, name=short(config.data.name)),
        model=dataclasses.replace(config.model, name=short(config.model.name), options=options),
    )


def write_samples(folder: Path, split: Split, classifier: Classifier, most: int) -> None:
    """Encoded images, spread evenly over a split, with labels and the run's probabilities: what exports are held to.

    samples.json has `files`, `labels` (names), `probabilities` (n, num_classes) and the `batch_size` of those.
    """
    from kerascls.images import encode_png

    chosen = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int))
    images = split.images[chosen]
    probabilities = classifier.probabilities(images, SAMPLE_BATCH_SIZE)
    files = [f"{i:03d}.png" for i in range(len(chosen))]
    with atomic(folder) as temporary:
        temporary.mkdir()
        for file, image in zip(files, images, strict=True):
            (temporary / file).write_bytes(encode_png(image))
        write_json(
            temporary / "samples.json",
            {
                "files": files,
                "labels": [classifier.class_names[i] for i in split.labels[chosen]],
                "probabilities": probabilities.tolist(),
                "batch_size": SAMPLE_BATCH_SIZE,
            },
        )


# The schedule


def steps_per_execution(steps: int, batch_size: int, input_shape: tuple[int, ...]) -> int:
    """Steps between two returns to Python: 32 for small batches, fewer as a step gets longer, at most an epoch.

    32 takes a 28x28 network's epoch from 5.5 s to 3.4 s (2 cores, batch 32) and more gains nothing. Above 4 million
    numbers a call the overhead is lost in the step, and progress and Ctrl-C want answers.
    """
    return max(1, min(32, steps, 4_000_000 // (batch_size * math.prod(input_shape))))


def make_optimizer(train: Train, steps: int) -> Any:
    """The recipe's Keras optimiser with its schedule, of `steps` steps an epoch."""
    import keras

    options: dict[str, Any] = {"weight_decay": train.weight_decay or None}
    if train.optimizer in ("adam", "adamw", "nadam"):
        options |= {"beta_2": train.beta_2, "epsilon": train.epsilon}
    if train.optimizer == "rmsprop":
        options |= {"momentum": train.momentum, "epsilon": train.epsilon}
    if train.optimizer == "sgd":
        options |= {"momentum": train.momentum}
    if train.optimizer == "adamw":
        options["weight_decay"] = train.weight_decay
    if train.schedule == "constant" and not train.warmup_epochs:
        rate: Any = train.learning_rate
    else:
        rate = _schedule(train.schedule, train.learning_rate, round(train.warmup_epochs * steps), train.epochs * steps)
    classes = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
        "rmsprop": keras.optimizers.RMSprop,
        "nadam": keras.optimizers.Nadam,
        "lion": keras.optimizers.Lion,
    }
    return classes[train.optimizer](rate, **options)


def _schedule(kind: str, peak: float, warmup_steps: int, total_steps: int) -> Any:
    import keras
    from keras import ops

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        """peak * (step + 1) / warmup_steps, then constant or down to 0 at `total_steps` by a half cosine or a line."""

        def __call__(self, step: Any) -> Any:
            step = ops.cast(step, "float32")
            climbed = (step + 1) / max(warmup_steps, 1)
            done = ops.clip((step - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
            after = {"constant": ops.ones_like(done), "cosine": (1 + ops.cos(math.pi * done)) / 2, "linear": 1 - done}[
                kind
            ]
            return peak * ops.where(step < warmup_steps, climbed, after)

        def get_config(self) -> dict[str, Any]:
            return {"kind": kind, "peak": peak, "warmup_steps": warmup_steps, "total_steps": total_steps}

    return Schedule()

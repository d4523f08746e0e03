"""Recipes: reading, overriding and checking them, without importing TensorFlow.

A recipe is a TOML file. Its tables are the dataclasses below; the keys of `[model]` beyond `name` are the keyword
arguments of that model's `build`. All faults of a recipe are reported together, each with the nearest known name.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from kerascls.errors import ConfigError
from kerascls.recipes.catalog import USUAL_KEYS, dataset_files, nearest, recipe_path
from kerascls.recipes.checks import (
    check_table,
    data_problems,
    devices_fault,
    model_problems,
    policy_problems,
    size_problems,
    value_fault,
)

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "nadam", "lion")
SCHEDULES = ("constant", "cosine", "linear")
RESIZE_RULES = ("stretch", "nearest", "center_crop")


def _key(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    types: tuple[type, ...],
    choices: tuple | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    items: tuple[int, ...] | None = None,
    example: str | None = None,
) -> Any:
    """A dataclass field that knows its types, its range and what it is for.

    `low` and `high` are included, `above` is not. `items` are the lengths that a list of whole numbers may have.
    """
    rule = {"doc": doc, "types": types, "choices": choices, "low": low, "above": above, "high": high, "items": items}
    rule["example"] = example
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=rule)
    return dataclasses.field(default=default, metadata=rule)


@dataclasses.dataclass(frozen=True)
class Data:
    name: str = _key(
        "",
        types=(str,),
        doc='a data set\'s name, a folder of class folders, tfds:NAME, a FILE.npz, or ./my_data.py; "" asks for --data',
    )
    classes: list[str] = _key(
        [], types=(list,), doc="class names in the order of the outputs, which the data must have; [] takes the data's"
    )
    validation: int | float | str = _key(
        0.1,
        types=(int, float, str),
        low=0,
        doc=(
            "held out of train where the data has no validation split: a count, a fraction below 1, 0 for none, "
            'or "test" to validate on the test split as some articles do (then keep = "last")'
        ),
    )
    test: int | float = _key(
        0.1,
        types=(int, float),
        low=0,
        doc="held out of train where the data has no test split: a count, a fraction below 1, 0 for none",
    )
    image_shape: list[int] = _key(
        [],
        types=(list,),
        items=(0, 3),
        low=1,
        doc=("[height, width, channels] that images are resized to; [] is the data set's own; 64 is [64, 64, 3]"),
        example="--set 'data.image_shape=[64, 64, 3]', or 64 for short",
    )
    resize: str = _key(
        "stretch",
        types=(str,),
        choices=RESIZE_RULES,
        doc=(
            "stretch: both sides to their length, bilinear; nearest: likewise, by picking pixels; center_crop: the "
            "shorter side to 8/7 of its length (256 for 224), then the centre"
        ),
    )
    canvas: list[int] = _key(
        [],
        types=(list,),
        items=(0, 2),
        low=1,
        doc="[height, width] of training images before the policy, which must end at image_shape; [] is image_shape",
    )
    background: list[int] = _key(
        [255, 255, 255], types=(list,), items=(3,), low=0, high=255, doc="RGB that transparent pixels lie on"
    )
    cache_mb: int = _key(
        2048,
        types=(int,),
        low=0,
        doc="images of a folder are kept decoded in memory where they take at most so many megabytes; 0 never does",
    )
    on_bad_image: str = _key(
        "skip",
        types=(str,),
        choices=("skip", "error"),
        doc="of an image in a folder that cannot be read: skip leaves it out and says so, error stops before training",
    )
    max_bad_share: float = _key(
        0.05,
        types=(float, int),
        low=0,
        high=1,
        doc="share of a folder's images that may be left out, rounded up to whole images; above it nothing is trained",
    )


@dataclasses.dataclass(frozen=True)
class Model:
    name: str = _key(types=(str,), doc="a model's name or ./my_net.py; other keys of [model] go to its build()")
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Train:
    epochs: int = _key(types=(int,), low=1, doc="passes over the training split")
    batch_size: int = _key(32, types=(int,), low=1, doc="images a step")
    optimizer: str = _key("adam", types=(str,), choices=OPTIMIZERS, doc="one of " + ", ".join(OPTIMIZERS))
    learning_rate: float = _key(1e-3, types=(float, int), above=0, doc="the schedule's highest")
    schedule: str = _key(
        "constant",
        types=(str,),
        choices=SCHEDULES,
        doc=("after warm-up the learning rate stays, or falls to 0 along a half cosine or a line, step by step"),
    )
    warmup_epochs: float = _key(0.0, types=(float, int), low=0, doc="the learning rate climbs linearly for so long")
    momentum: float = _key(0.9, types=(float, int), low=0, high=1, doc="of sgd and rmsprop")
    beta_2: float = _key(0.999, types=(float, int), low=0, high=1, doc="of adam, adamw and nadam")
    epsilon: float = _key(1e-7, types=(float, int), above=0, doc="of adam, adamw, nadam and rmsprop")
    weight_decay: float = _key(0.0, types=(float, int), low=0, doc="decoupled, of any optimiser")
    exclude_from_weight_decay: list[str] = _key(
        ["bias", "gamma", "beta", "scale"],
        types=(list,),
        doc="names of variables that weight_decay leaves alone: biases, and what normalisation learns; [] decays all",
    )
    ema_momentum: float = _key(
        0.0,
        types=(float, int),
        low=0,
        high=0.99999,
        doc=(
            "validate and save moving averages of the weights, average = m * average + (1 - m) * weight, with batch "
            "normalisation's moments taken anew of up to 100 training batches; 0 for none"
        ),
    )
    label_smoothing: float = _key(
        0.0, types=(float, int), low=0, high=1, doc="share of each label spread over all classes"
    )
    class_weight: str = _key(
        "none",
        types=(str,),
        choices=("none", "balanced"),
        doc=(
            "balanced: each class weighs examples / (classes * its examples) in the training loss; the validation loss "
            "is unweighted"
        ),
    )
    keep: str = _key(
        "best",
        types=(str,),
        choices=("best", "last"),
        doc="which epoch is saved; best is by validation loss, the plain cross-entropy",
    )
    early_stopping_patience: int = _key(
        0, types=(int,), low=0, doc=("stop after so many epochs without a better validation loss; 0 never stops early")
    )
    drop_remainder: bool = _key(False, types=(bool,), doc="leave out the last partial batch of an epoch")
    seed: int = _key(0, types=(int,), low=0, high=2**31 - 1, doc="of initial weights, epoch order and all else random")
    steps_per_execution: int = _key(0, types=(int,), low=0, doc="steps a call into TensorFlow; 0 chooses by batch size")
    checkpoint_steps: int = _key(
        0,
        types=(int,),
        low=0,
        doc=("a checkpoint every so many steps, as well as after epochs; 0 for every ten minutes"),
    )
    save_epochs: bool = _key(False, types=(bool,), doc="keep a file of every epoch as well, epochs/001.keras and so on")
    samples: int = _key(
        64, types=(int,), low=0, doc="test images kept with the run to prove exports by; 0 for private data"
    )


@dataclasses.dataclass(frozen=True)
class Finetune:
    epochs: int = _key(
        0,
        types=(int,),
        low=0,
        doc="epochs after those of [train], from the kept one on, in which the backbone trains too",
    )
    unfreeze: int | str = _key(
        0,
        types=(int, str),
        low=0,
        doc=(
            "layers of the backbone that train then: how many from its end, or how a layer's name begins, as "
            '"conv5_block1": it and all after it; batch normalisation stays frozen'
        ),
    )
    learning_rate: float = _key(1e-5, types=(float, int), above=0, doc="of a new optimiser, of train.optimizer's kind")
    schedule: str = _key("cosine", types=(str,), choices=SCHEDULES, doc="over these epochs")
    warmup_epochs: float = _key(0.0, types=(float, int), low=0, doc="the learning rate climbs linearly for so long")


@dataclasses.dataclass(frozen=True)
class Features:
    views: int = _key(
        0,
        types=(int,),
        low=0,
        high=1000,
        doc=(
            "0 trains on images. K computes the frozen backbone's features once, of K views of each training image, "
            "and trains the head on those: the image as it is, and K - 1 that the policy draws"
        ),
    )
    precision: str = _key(
        "float32",
        types=(str,),
        choices=("float32", "bf16"),
        doc=(
            "bf16 folds batch normalisation into the convolutions and computes features in bfloat16 where the "
            "processor has it, and says how near that comes; the saved model is float32 either way"
        ),
    )
    engine: str = _key(
        "auto",
        types=(str,),
        choices=("auto", "tensorflow", "openvino"),
        doc="what computes features; auto is openvino on a CPU where kerascls[openvino] is installed, else tensorflow",
    )


@dataclasses.dataclass(frozen=True)
class Augment:
    policy: list[dict[str, Any]] = _key(
        [],
        types=(list,),
        doc=(
            'applied in order in the training step, as [{name = "affine", degrees = 10, shift = 0.1}, {name = "flip"}]'
        ),
    )
    until: float = _key(
        1.0,
        types=(float, int),
        low=0,
        high=1,
        doc=(
            "share of the epochs, those of [finetune] among them, that the policy is applied in; the last ones see the "
            "images as they are"
        ),
    )


@dataclasses.dataclass(frozen=True)
class Devices:
    devices: str = _key(
        "auto",
        types=(str,),
        doc=(
            "auto (the first GPU, else the CPU), cpu, gpu, gpu:1, gpu:0,1 (they share each batch), mirrored (all GPUs "
            "do), or cpu:0,1: two logical CPU devices, to try sharing where there is no GPU"
        ),
    )
    precision: str = _key(
        "float32",
        types=(str,),
        choices=("float32", "bfloat16", "float16", "auto"),
        doc=(
            "what layers compute in; weights, outputs and the saved model are float32. float16 is for GPUs only, auto "
            "is bfloat16 where the processor has it"
        ),
    )
    xla: bool = _key(
        False,
        types=(bool,),
        doc="compile the training step with XLA where it can be: one GPU, no augmentation policy, not deterministic",
    )
    deterministic: bool = _key(
        False, types=(bool,), doc="a GPU's runs too repeat to the bit, and take longer; a CPU's always repeat"
    )
    shards: int = _key(
        1,
        types=(int,),
        low=1,
        high=64,
        doc=(
            "parts of each batch that one CPU computes side by side, a core each, in place of all cores sharing every "
            "operation: for networks so small that sharing costs more than it gains. 1 with batch normalisation"
        ),
    )


@dataclasses.dataclass(frozen=True)
class Fallback:
    data: str = _key("", types=(str,), doc="embedded data set used, and announced, where data.name cannot be had")
    train: dict[str, Any] = dataclasses.field(default_factory=dict)  # keys of [train] that differ then
    augment: dict[str, Any] = dataclasses.field(default_factory=dict)  # likewise of [augment]


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked recipe.

    `recipe` is its name, `fallback_for` the data set that the fallback stands in for, or None, and `notes` what the
    given options changed besides themselves, a line each.
    """

    recipe: str
    data: Data
    model: Model
    train: Train
    finetune: Finetune
    features: Features
    augment: Augment
    devices: Devices
    fallback: Fallback
    fallback_for: str | None = None
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def as_tables(self) -> dict[str, dict[str, Any]]:
        """The recipe as TOML tables, every key written out."""
        fallback = (
            {"data": self.fallback.data, **self.fallback.train, **self.fallback.augment} if self.fallback.data else {}
        )
        tables = {
            "data": dataclasses.asdict(self.data),
            "model": {"name": self.model.name, **self.model.options},
            "train": dataclasses.asdict(self.train),
            "finetune": dataclasses.asdict(self.finetune),
            "features": dataclasses.asdict(self.features),
            "augment": dataclasses.asdict(self.augment),
            "devices": dataclasses.asdict(self.devices),
            "fallback": fallback,
        }
        return {name: table for name, table in tables.items() if table}

    def as_toml(self) -> str:
        return tomli_w.dumps(self.as_tables())


SECTIONS: dict[str, type] = {
    "data": Data,
    "model": Model,
    "train": Train,
    "finetune": Finetune,
    "features": Features,
    "augment": Augment,
    "devices": Devices,
    "fallback": Fallback,
}


# Reading and checking


def parse_sets(sets: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`["train.epochs=3"]` as tables. A value is read as TOML, and as plain text where it is not TOML."""
    tables: dict[str, dict[str, Any]] = {}
    for item in sets:
        name, equals, text = item.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            key = name.strip() if equals else ""
            hint = nearest(key, (), {one: f"{meant}={text}" for one, meant in USUAL_KEYS.items()})
            raise ConfigError(f"--set takes SECTION.KEY=VALUE, as in train.epochs=3. Received: {item!r}.{hint}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            value = text
        tables.setdefault(section, {})[key] = value
    return tables


def load_config(
    word: str, overrides: Mapping[str, Mapping[str, Any]] | None = None, *, use_fallback: bool = False
) -> Config:
    """Reads and checks a recipe.

    Args:
        word: a recipe's name, or the path of a .toml file.
        overrides: tables laid over the recipe's, as `parse_sets` gives them. They win over the fallback too. Epochs
            without a warm-up scale the recipe's own warm-up by the same factor.
        use_fallback: whether to put the recipe's `[fallback]` in place of its data and schedule.

    Raises:
        ConfigError: the recipe is missing, is not TOML, or has faults; all faults are in the one message.
    """
    path = recipe_path(word)
    raw = read_toml(path)
    name = word if not word.endswith(".toml") else path.stem
    tables = {section: dict(table) if isinstance(table, dict) else table for section, table in raw.items()}
    fallback_for = None
    if use_fallback:
        fallback = dict(tables.get("fallback", {}))
        fallback_for = tables["data"]["name"]
        tables["data"]["name"] = fallback.pop("data")
        tables.setdefault("augment", {}).update({key: fallback.pop(key) for key in ("policy",) if key in fallback})
        tables["train"].update(fallback)
    own = _model_name(tables)
    notes = _scale_warmup(tables, overrides or {})
    for section, table in (overrides or {}).items():
        merged = tables.setdefault(section, {})
        if isinstance(merged, dict):
            merged.update(table)
    _square(tables, raw)
    if _model_name(tables) != own and isinstance(tables.get("devices"), dict):
        if "shards" not in (overrides or {}).get("devices", {}):
            tables["devices"].pop("shards", None)  # they were for the recipe's own network
    checked = _check(tables, name, f"{path.name}{' with the given options' if overrides else ''}", fallback_for)
    return dataclasses.replace(checked, notes=notes)


def override_tables(overrides: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """A copy of `overrides`, to be changed. Raises ConfigError where they are not tables of keys."""
    tables = {}
    for section, table in (overrides or {}).items():
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"overrides are tables, as {{'train': {{'learning_rate': 0.01}}}}. Received: {{{section!r}: {table!r}}}"
            )
        tables[section] = dict(table)
    return tables


def _scale_warmup(tables: dict[str, Any], overrides: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Where `overrides` give other epochs and no warm-up, the recipe's own keeps its share. Returns what to say of it.

    Else a short training would be all warm-up, and never have the learning rate that the recipe states.
    """
    notes = []
    for section, cls in (("train", Train), ("finetune", Finetune)):
        table, given = tables.get(section), overrides.get(section, {})
        if not isinstance(table, dict) or "epochs" not in given or "warmup_epochs" in given:
            continue
        rules = {field.name: field.metadata for field in dataclasses.fields(cls)}
        epochs, own, warmup = given["epochs"], table.get("epochs", 0), table.get("warmup_epochs", 0)
        sound = not any(value_fault(number, rules["epochs"]) for number in (epochs, own))
        if sound and not value_fault(warmup, rules["warmup_epochs"]) and own and warmup and epochs != own:
            table["warmup_epochs"] = warmup * epochs / own
            notes.append(
                f"{section}.warmup_epochs = {table['warmup_epochs']:.4g} for {section}.epochs = {epochs}: the recipe's "
                f"{warmup:g} of {own}, scaled. For another: --set {section}.warmup_epochs=N"
            )
    return tuple(notes)


def _square(tables: dict[str, Any], raw: Mapping[str, Any]) -> None:
    """One number for data.image_shape is a square's side; the channels are the recipe's own, else 3."""
    data, own = (each.get("data") for each in (tables, raw))
    if isinstance(data, dict) and type(side := data.get("image_shape")) is int:
        shape = own.get("image_shape") if isinstance(own, dict) else None
        channels = shape[2] if isinstance(shape, list) and len(shape) == 3 else 3
        data["image_shape"] = [side, side, channels]


def _model_name(tables: Mapping[str, Any]) -> Any:
    model = tables.get("model")
    return model.get("name") if isinstance(model, dict) else None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables. Raises ConfigError if it is not one."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ConfigError(f"{path.name} is not a recipe: it is nested too deeply.") from None
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise ConfigError(f"{path.name} is not valid TOML: {error}") from None


def config_from_toml(text: str, recipe: str, fallback_for: str | None) -> Config:
    """A run's config.toml, checked again. The files that it names may be elsewhere by now."""
    return _check(tomllib.loads(text), recipe, "config.toml", fallback_for, look=False)


def _check(tables: dict[str, Any], recipe: str, file: str, fallback_for: str | None, look: bool = True) -> Config:
    """`look`: whether to look up what `data.name` and `model.name` name."""
    problems: list[str] = []
    for section in tables:
        if section not in SECTIONS:
            problems.append(f"[{section}] is not a section.{nearest(section, SECTIONS)} Known: {', '.join(SECTIONS)}.")
        elif not isinstance(tables[section], dict):
            problems.append(f"{section} must be a table, [{section}]. Received: {tables[section]!r}")
    tables = {section: table for section, table in tables.items() if isinstance(table, dict)}
    data = check_table(tables.get("data", {}), "data", Data, problems)
    train = check_table(tables.get("train", {}), "train", Train, problems)
    finetune = check_table(tables.get("finetune", {}), "finetune", Finetune, problems)
    features = check_table(tables.get("features", {}), "features", Features, problems)
    augment = check_table(tables.get("augment", {}), "augment", Augment, problems)
    problems.extend(policy_problems(augment.get("policy", [])))
    devices = check_table(tables.get("devices", {}), "devices", Devices, problems)
    if (fault := devices_fault(devices.get("devices", "auto"))) is not None:
        problems.append(fault)
    model_table = tables.get("model", {})
    model = check_table(_only(model_table, "name"), "model", Model, problems)
    options = {key: value for key, value in model_table.items() if key != "name"}
    if "name" in model:
        model["options"] = options
        if look:
            problems.extend(model_problems(model["name"], options))
    in_fallback = tables.get("fallback", {})
    fallback = check_table(_only(in_fallback, "data"), "fallback", Fallback, problems)
    fallback["augment"] = check_table(_only(in_fallback, "policy"), "fallback", Augment, problems)
    fallback["train"] = check_table(
        {key: value for key, value in in_fallback.items() if key not in ("data", "policy")},
        "fallback",
        Train,
        problems,
        need_all=False,
    )
    problems.extend(policy_problems(fallback["augment"].get("policy", [])))
    if look:
        problems.extend(data_problems(data.get("name", ""), "data.name"))
    if fallback.get("data") and fallback["data"] not in dataset_files():
        problems.append(f"fallback.data must be an embedded data set. Received: {fallback['data']!r}")
    validation = data.get("validation", Data.validation)
    if isinstance(validation, str) and validation != "test":
        problems.append(f'data.validation must be a number or "test". Received: {validation!r}')
    for key in ("validation", "test"):
        if isinstance(data.get(key), float) and data[key] >= 1:
            problems.append(f"data.{key} as a fraction must be below 1. Received: {data[key]!r}")
    classes = data.get("classes", [])
    if not all(isinstance(name, str) and name for name in classes) or len(set(classes)) != len(classes):
        problems.append(f"data.classes must be a list of different names. Received: {classes!r}")
    excluded = train.get("exclude_from_weight_decay", [])
    if not all(isinstance(name, str) and name for name in excluded):
        problems.append(f"train.exclude_from_weight_decay must be a list of names. Received: {excluded!r}")
    if data.get("canvas"):
        if not data.get("image_shape"):
            problems.append(f"data.canvas needs data.image_shape. Received: canvas = {data['canvas']!r}")
        if augment.get("until", 1) < 1:
            problems.append(f"augment.until must be 1 where there is a data.canvas. Received: {augment['until']!r}")
    if data.get("image_shape") and not problems:
        problems.extend(size_problems(data.get("canvas", []), augment.get("policy", []), data["image_shape"]))
    if data.get("image_shape") and data["image_shape"][2:] not in ([1], [3]):
        problems.append(f"data.image_shape must end in 1 or 3 channels. Received: {data['image_shape']!r}")
    if validation == "test" and train.get("keep", "best") == "best":
        problems.append(
            'train.keep must be "last" where data.validation is "test": choosing an epoch by the test '
            'split would spoil its score. Received: keep = "best"'
        )
    if train.get("early_stopping_patience") and validation in ("test", 0):
        problems.append(
            "train.early_stopping_patience needs a validation split that is not the test split. "
            f"Received: data.validation = {validation!r}"
        )
    for section, table in (("train", train), ("finetune", finetune)) if look else ():  # an old run may have any
        epochs, warmup = table.get("epochs", 0), table.get("warmup_epochs", 0)
        if epochs and warmup >= epochs:
            problems.append(
                f"{section}.warmup_epochs must be below {section}.epochs, {epochs}, or the training is all warm-up. "
                f"Received: {warmup:g}"
            )
    if finetune.get("epochs") and not finetune.get("unfreeze"):
        problems.append("finetune.unfreeze must say which layers of the backbone train in the finetune.epochs.")
    policy = [entry.get("name") for entry in augment.get("policy", []) if isinstance(entry, dict)]
    mixing = [name for name in policy if name in ("mixup", "cutmix")]
    if features.get("views") and mixing:
        problems.append(f"features.views keeps each image by itself, and {mixing[0]} mixes two. Leave one of them out.")
    if problems:
        head = f"{file} has {len(problems)} fault{'s' if len(problems) > 1 else ''}:"
        raise ConfigError("\n  ".join([head, *problems]) if len(problems) > 1 else f"{head} {problems[0]}")
    return Config(
        recipe,
        Data(**data),
        Model(**model),
        Train(**train),
        Finetune(**finetune),
        Features(**features),
        Augment(**augment),
        Devices(**devices),
        Fallback(**fallback),
        fallback_for,
    )


def _only(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {key: table[key]} if key in table else {}

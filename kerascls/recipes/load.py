"""Reads a recipe, applies overrides, and checks it as a whole."""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kerascls.errors import ConfigError
from kerascls.recipes.catalog import USUAL_KEYS, dataset_files, nearest, recipe_path
from kerascls.recipes.checks import model_problems, policy_problems, size_problems
from kerascls.recipes.data_names import check_table, data_problems
from kerascls.recipes.fields import devices_fault, value_fault
from kerascls.recipes.schema import SECTIONS, Augment, Config, Data, Devices, Fallback, Features, Finetune, Model, Train

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

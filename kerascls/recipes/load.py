"""Reads a recipe, applies overrides, and checks it as a whole."""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kerascls.errors import ConfigError
from kerascls.recipes.catalog import USUAL_KEYS, nearest, recipe_path
from kerascls.recipes.fields import value_fault
from kerascls.recipes.rules import RULES, RULES_OF_OLD_RUNS
from kerascls.recipes.schema import SECTIONS, Config, Finetune, Train
from kerascls.recipes.sections import check_fallback, check_model, check_section, section_problems


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
    problems = section_problems(tables)
    given = {section: table for section in SECTIONS if isinstance(table := tables.get(section, {}), dict)}
    checked: dict[str, dict[str, Any]] = {}
    for section in sorted(SECTIONS, key=("model", "fallback").__contains__):  # last, those with keys of others
        table = given.get(section, {})
        if section == "model":
            checked[section] = check_model(table, problems, look)
        elif section == "fallback":
            checked[section] = check_fallback(table, problems)
        else:
            checked[section] = check_section(table, section, problems)
    for rule in RULES if look else RULES_OF_OLD_RUNS:
        rule(checked, problems)
    if problems:
        head = f"{file} has {len(problems)} fault{'s' if len(problems) > 1 else ''}:"
        raise ConfigError("\n  ".join([head, *problems]) if len(problems) > 1 else f"{head} {problems[0]}")
    return Config(recipe, **{name: cls(**checked[name]) for name, cls in SECTIONS.items()}, fallback_for=fallback_for)

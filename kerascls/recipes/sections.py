"""Checks of a recipe's sections, each by itself: known names, and values of the right type and range."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kerascls.recipes.catalog import nearest
from kerascls.recipes.checks import model_problems, policy_problems
from kerascls.recipes.fields import devices_fault, usual_keys, value_fault
from kerascls.recipes.schema import SECTIONS, Augment, Fallback, Model, Train


def section_problems(tables: Mapping[str, Any]) -> list[str]:
    """A line for each section that is not known, or not a table."""
    problems = []
    for section, table in tables.items():
        if section not in SECTIONS:
            problems.append(f"[{section}] is not a section.{nearest(section, SECTIONS)} Known: {', '.join(SECTIONS)}.")
        elif not isinstance(table, dict):
            problems.append(f"{section} must be a table, [{section}]. Received: {table!r}")
    return problems


def check_table(
    table: Mapping[str, Any], section: str, cls: type, problems: list[str], need_all: bool = True
) -> dict[str, Any]:
    """The keys of `table` that are right; a line in `problems` for each that is not."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.metadata}
    good = {}
    for key, value in table.items():
        if key not in fields:
            problems.append(f"{section}.{key} is not a key.{nearest(key, fields, usual_keys(section))}")
        elif fault := value_fault(value, fields[key].metadata):
            problems.append(f"{section}.{key} must be {fault}. Received: {value!r}")
        else:
            whole_is_float = fields[key].metadata["types"][0] is float and type(value) is int
            good[key] = float(value) if whole_is_float else value
    if need_all:
        for name, field in fields.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and name not in table:
                problems.append(f"{section}.{name} is missing: {field.metadata['doc']}.")
    return good


def check_section(table: Mapping[str, Any], section: str, problems: list[str]) -> dict[str, Any]:
    """As `check_table`, for a section that has the keys of its dataclass and no others."""
    checked = check_table(table, section, SECTIONS[section], problems)
    if section == "augment":
        problems.extend(policy_problems(checked.get("policy", [])))
    if section == "devices" and (fault := devices_fault(checked.get("devices", "auto"))) is not None:
        problems.append(fault)
    return checked


def check_model(table: Mapping[str, Any], problems: list[str], look: bool) -> dict[str, Any]:
    """As `check_table`, for `[model]`, whose other keys are options of the model's `build`.

    `look`: whether to look the model up.
    """
    checked = check_table(_only(table, "name"), "model", Model, problems)
    if "name" in checked:
        checked["options"] = {key: value for key, value in table.items() if key != "name"}
        if look:
            problems.extend(model_problems(checked["name"], checked["options"]))
    return checked


def check_fallback(table: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """As `check_table`, for `[fallback]`, whose other keys are of `[augment]` and `[train]`."""
    checked = check_table(_only(table, "data"), "fallback", Fallback, problems)
    checked["augment"] = check_table(_only(table, "policy"), "fallback", Augment, problems)
    rest = {key: value for key, value in table.items() if key not in ("data", "policy")}
    checked["train"] = check_table(rest, "fallback", Train, problems, need_all=False)
    problems.extend(policy_problems(checked["augment"].get("policy", [])))
    return checked


def _only(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {key: table[key]} if key in table else {}

"""A recipe of one's own, begun from another."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import tomli_w

from kerascls.errors import ConfigError, OutputError
from kerascls.recipes.catalog import build_options, model_files, recipe_path
from kerascls.recipes.load import load_config, read_toml
from kerascls.recipes.schema import SECTIONS
from kerascls.system.atomic_files import write_text


def new_recipe(name: str, source: str) -> Path:
    """Writes NAME.toml here: the recipe `source`, every other key beside it as a comment with its default.

    Raises:
        ConfigError: `source` is not a recipe, or `name` is not a plain name.
        OutputError: the file exists.
    """
    stem = name.removesuffix(".toml")
    if not stem.strip(".") or Path(stem).name != stem:
        raise ConfigError(f"A new recipe's name must be a plain name, as in `kerascls new my_net`. Received: {name!r}")
    path = Path(f"{stem}.toml")
    load_config(source)  # a recipe with faults is no beginning
    tables = read_toml(recipe_path(source))
    lines = [f"# kerascls train {path}", f"# Begun from {source}. A line that starts with # shows a key's default.", ""]
    for section, cls in SECTIONS.items():
        table = tables.get(section, {})
        if section == "fallback" and not table:
            continue
        lines.append(f"[{section}]")
        documented = {field.name: field for field in dataclasses.fields(cls) if field.metadata}
        for key, field in documented.items():
            value = table.get(
                key, field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            )
            lines.append(f"# {field.metadata['doc']}")
            lines.append(("" if key in table else "# ") + _toml_line(key, value))
        options = (
            build_options(model_files()[table["name"]]) if section == "model" and table["name"] in model_files() else {}
        )
        for key, value in {**options, **{k: v for k, v in table.items() if k not in documented}}.items():
            value = table.get(key, value)
            if value is not None:
                lines.append(("" if key in table else "# ") + _toml_line(key, value))
        lines.append("")
    if path.exists():
        raise OutputError(f"{path} exists already. Choose another name, or remove it first.")
    write_text(path, "\n".join(lines))
    return path


def _toml_line(key: str, value: Any) -> str:
    """`key = value` on one line, lists too."""
    return re.sub(r"\s*\n\s*", " ", tomli_w.dumps({key: value}).strip()).replace("[ ", "[").replace(", ]", "]")

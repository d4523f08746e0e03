"""The settings that a sweep combines, and how they are written."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kerascls.recipes.load import parse_sets

# As the command line has it


def parse_grid(sets: Sequence[str]) -> dict[str, list[Any]]:
    """`["train.learning_rate=1e-3,3e-3"]` as a grid. What is one TOML value as it stands, as `[1, 2]`, is one value.

    >>> parse_grid(["train.batch_size=16,32", "train.optimizer=adam"])
    {'train.batch_size': [16, 32], 'train.optimizer': ['adam']}
    """
    grid: dict[str, list[Any]] = {}
    for item in sets:
        name, _, text = item.partition("=")
        [(section, table)] = parse_sets([item]).items()
        [(key, value)] = table.items()
        if isinstance(value, str) and value == text and "," in text:
            parts = re.split(r",(?![^\[{]*[\]}])", text)  # commas outside of brackets
            values = [parse_sets([f"{name}={part.strip()}"])[section][key] for part in parts]
        else:
            values = [value]
        grid[f"{section}.{key}"] = values
    return grid


def varied(combinations: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ between combinations.

    >>> varied([{"train.epochs": 2, "train.seed": 0}, {"train.epochs": 4, "train.seed": 0}])
    ['train.epochs']
    """
    return [key for key in combinations[0] if any(each[key] != combinations[0][key] for each in combinations)]


def as_sets(settings: Mapping[str, Any]) -> str:
    """Settings as options of a command line.

    >>> as_sets({"train.learning_rate": 0.001, "model.name": "a b"})
    "--set train.learning_rate=0.001 --set 'model.name=a b'"
    """
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in text.items())

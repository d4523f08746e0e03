"""The keys of a recipe: a dataclass field that knows its rule, and checks of single values."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from kerascls.recipes.catalog import USUAL_KEYS, nearest

LARGEST_WHOLE = 2**31 - 1


def usual_keys(section: str) -> dict[str, str]:
    """For `nearest`: other tools' names of keys, and the keys, without their section where that is `section`."""
    return {name: key.removeprefix(f"{section}.") for name, key in USUAL_KEYS.items()}


TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}


def key(
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


def value_fault(value: Any, rule: Mapping[str, Any]) -> str | None:
    """What `value` should have been, or None if it is right. A bool is never a number here."""
    types = rule["types"]
    wanted = " or ".join(TYPE_NAMES[kind] for kind in types if not (kind is int and float in types))
    if type(value) not in types:
        return wanted + (f", as in {rule['example']}" if rule["example"] else "")
    if rule["choices"] and value not in rule["choices"]:
        return f"one of {', '.join(rule['choices'])}{nearest(value, rule['choices'])}"
    if rule["items"]:
        if len(value) not in rule["items"] or any(type(item) is not int for item in value):
            lengths = " or ".join(str(length) for length in rule["items"])
            example = f", as in {rule['example']}" if rule["example"] else ""
            return f"a list of {lengths} whole numbers{example}"
        numbers = value
    else:
        numbers = [value] if isinstance(value, int | float) else []
    low, above, high = rule["low"], rule["above"], rule["high"]
    if any(type(x) is int and abs(x) > LARGEST_WHOLE for x in numbers):
        return f"at most {LARGEST_WHOLE}"
    if not all(math.isfinite(x) and (x == 0 or 1e-30 <= abs(x) <= 1e30) for x in numbers):
        return "finite, and 0 or between 1e-30 and 1e30"
    if low is not None and any(x < low for x in numbers):
        return f"at least {low}"
    if above is not None and any(x <= above for x in numbers):
        return f"above {above}"
    if high is not None and any(x > high for x in numbers):
        return f"at most {high}"
    return None


def parse_devices(choice: str) -> tuple[str, tuple[int, ...]] | None:
    """`gpu:0,1` as ("gpu", (0, 1)), `mirrored` as ("mirrored", ()); None if it is not a choice of devices.

    >>> parse_devices("gpu:0,1"), parse_devices("cpu"), parse_devices("tpu")
    (('gpu', (0, 1)), ('cpu', ()), None)
    """
    match = re.fullmatch(r"auto|mirrored|(?:cpu|gpu)(?::(\d\d?(?:,\d\d?)*))?", choice)
    numbers = tuple(int(number) for number in (match[1] or "").split(",") if number) if match else ()
    return (choice.partition(":")[0], numbers) if match and len(set(numbers)) == len(numbers) else None


def devices_fault(choice: str) -> str | None:
    if parse_devices(choice) is not None:
        return None
    known = ("auto", "cpu", "gpu", "mirrored")
    return (
        f"devices.devices must be auto, cpu, gpu, mirrored, or numbers that differ as in gpu:0,1."
        f"{nearest(choice, known)} Received: {choice!r}"
    )

"""JSON: written so that any file name may stand in it; read strictly, and held against a shape."""

import json
import math
from typing import Any


def json_text(value: Any, **options: Any) -> str:
    r"""`json.dumps`, of characters as they are. Bytes of a file name that are no UTF-8, in Python lone surrogates that
    no file or terminal takes, stand as JSON's own escapes, so that `json.loads` gives the name.

    >>> json_text(["é", "a\udc82.jpg"])
    '["é", "a\\udc82.jpg"]'
    """
    return json.dumps(value, ensure_ascii=False, **options).encode("utf-8", "backslashreplace").decode()


def read_json(text: str | bytes) -> Any:
    """Raises ValueError for what is no JSON, is nested too deeply, or has a number that is not finite: JSON has no NaN
    and no infinity, and Python takes 1e999 for one."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def fault(value: Any, shape: Any, name: str = "") -> str | None:
    """What of a JSON value is missing or not of its shape, the first such thing; None where all is.

    Args:
        shape: a type, where float takes whole numbers too and int no bool; [shape] for a list of such; {key: shape} for
            a table that has these keys, but for those that end in "?", and may have others; a tuple of shapes, one of
            which it must have; anything else, that itself.
        name: of the value, in what is said.

    >>> fault({"epoch": 1, "rows": [0.5, "x"]}, {"epoch": int, "rows": [float], "best?": (int, None)})
    "rows.1 is 'x'"
    >>> fault({}, {"epoch": int})
    'it lacks epoch'
    """
    if isinstance(shape, tuple):
        found = [fault(value, one, name) for one in shape]
        return None if None in found else found[0]
    if isinstance(shape, dict) and type(value) is dict:
        for key, inside in shape.items():
            plain = key.removesuffix("?")
            here = f"{name}.{plain}".lstrip(".")
            if plain in value:
                if told := fault(value[plain], inside, here):
                    return told
            elif plain == key:
                return f"it lacks {here}"
        return None
    if isinstance(shape, list) and type(value) is list:
        every = (fault(item, shape[0], f"{name}.{i}".lstrip(".")) for i, item in enumerate(value))
        return next(filter(None, every), None)
    if isinstance(shape, type):
        right = type(value) is shape or (shape is float and type(value) is int)
    else:
        right = type(value) is type(shape) and value == shape
    return None if right else f"{name or 'it'} is {str(value)[:60]!r}"


def only(table: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    """The keys of `table` that its shape names, in the shape's order."""
    plain = [key.removesuffix("?") for key in shape]
    return {key: table[key] for key in plain if key in table}


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number

"""What is wrong with a recipe's values: each fault in a phrase, with the nearest known name."""

import contextlib
import dataclasses
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerascls.errors import ConfigError
from kerascls.images.kinds import HEAD_BYTES, image_kind, unread_kind
from kerascls.recipes.catalog import (
    USUAL_KEYS,
    backbones,
    build_options,
    dataset_files,
    is_ours,
    model_file,
    model_files,
    names_beside,
    nearest,
    policy_limits,
    policy_options,
    policy_output_shape,
    required_options,
)

LARGEST_WHOLE = 2**31 - 1
LARGEST_OPTION = 10_000  # of an augmentation that states no range
TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet", ".feather")
_ARCHIVES = (  # where they stand, the bytes, and the kind
    (0, b"PK\x03\x04", "ZIP"),
    (257, b"ustar", "tar"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "RAR"),
)


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


def usual_keys(section: str) -> dict[str, str]:
    """For `nearest`: other tools' names of keys, and the keys, without their section where that is `section`."""
    return {name: key.removeprefix(f"{section}.") for name, key in USUAL_KEYS.items()}


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}


def value_fault(value: Any, rule: Mapping[str, Any]) -> str | None:
    """What `value` should have been, or None if it is right. A bool is never a number here."""
    types = rule["types"]
    wanted = " or ".join(_TYPE_NAMES[kind] for kind in types if not (kind is int and float in types))
    if type(value) not in types:
        return wanted + (f", as in {rule['example']}" if rule["example"] else "")
    if rule["choices"] and value not in rule["choices"]:
        return f"one of {', '.join(rule['choices'])}{nearest(value, rule['choices'])}"
    if rule["items"]:
        if len(value) not in rule["items"] or any(type(item) is not int for item in value):
            lengths = " or ".join(str(length) for length in rule["items"])
            told = f", as in {rule['example']}" if rule["example"] else ""
            return f"a list of {lengths} whole numbers{told}"
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


def data_problems(name: str, key: str) -> list[str]:
    fault = data_fault(name) if name else None  # "" waits for --data
    return [f"{key}: {fault}"] if fault else []


def data_fault(name: str) -> str | None:
    """Why a name means no data; None where it does: a data set of ours, tfds:NAME, a folder, a .npz, or a .py."""
    if name.startswith("tfds:") or name in dataset_files() or Path(name).is_dir():
        return None
    if name.endswith((".npz", ".py")):
        return None if Path(name).is_file() else f"file {name} does not exist.{nearest(name, names_beside(name))}"
    if Path(name).exists():
        return _other_file(Path(name))
    return (
        f"no data set or folder is named {name!r}.{nearest(name, [*dataset_files(), *names_beside(name)])} Known: "
        f"{', '.join(dataset_files())}, FOLDER, tfds:NAME, FILE.npz, ./my_data.py."
    )


def _other_file(path: Path) -> str:
    """What a file is that is no data set, and what to do with it."""
    suffix, head = path.suffix.lower(), b""
    if path.is_file():
        with contextlib.suppress(OSError), path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    if suffix in TABLES:
        return (
            f"{path} is a table, and labels in tables are not read. Put the images into one folder a class, or read "
            "the table in a data set of your own, ./my_data.py (docs/guides/your-own-model-or-data.md)."
        )
    packed = next((kind for at, magic, kind in _ARCHIVES if head.startswith(magic, at)), None)
    if packed:
        return f"{path} is an archive ({packed}). Unpack it, and name the folder."
    if kind := (image_kind(head) or unread_kind(head, path)):
        return (
            f"{path} is one image ({kind.upper()}). Expected a folder with one folder a class. To classify the image: "
            f"kerascls predict RUN {shlex.quote(str(path))}"
        )
    what = f"a file ({suffix})" if suffix else "a file"
    return (
        f"{path} is {what} that is not read. Expected a folder with one folder a class, FILE.npz, or ./my_data.py, "
        "which may read it (docs/guides/your-own-model-or-data.md)."
    )


def model_problems(name: str, options: Mapping[str, Any]) -> list[str]:
    """Faults of `[model]`, found by reading the model's source, not by running it."""
    path = Path(name) if name.endswith(".py") else model_files().get(name)
    if path is None or not path.is_file():
        return [
            f"model.name: no model is named {name!r}.{nearest(name, model_files())} "
            f"Known: {', '.join(model_files())}, or a path, ./my_net.py."
        ]
    known = build_options(path)
    if missing := [key for key in required_options(path) if key not in options]:
        return [
            f"model.{key} is missing: build() of {name} takes {key} and gives it no default. Give it one, or "
            f"--set model.{key}=VALUE."
            for key in missing
        ]
    problems = _option_problems(f"model.{{}} is not an option of {name}.", "model.{}", options, known)
    if not problems and "backbone" in known:
        problems = _backbone_problems({**known, **options})
    return problems


def _backbone_problems(options: Mapping[str, Any]) -> list[str]:
    """Faults of `backbone`, `weights` and `pixel_range`, which mean the same in every model that has them."""
    backbone, weights, pixel_range = (options[key] for key in ("backbone", "weights", "pixel_range"))
    problems = []
    file = model_file(backbone)
    if file is None:
        if backbone not in backbones():
            problems.append(
                f"model.backbone: keras.applications has no network {backbone!r}.{nearest(backbone, backbones())} "
                "Expected one of its names, as ResNet50 or MobileNetV2, or a path, ./my_backbone.keras or a run."
            )
    elif not file.is_file():
        problems.append(f"model.backbone: file {file} does not exist.")
    elif not pixel_range and not is_ours(file):
        problems.append(
            f"model.pixel_range must say in what range {backbone} takes its pixels, as in "
            "--set 'model.pixel_range=[-1, 1]'."
        )
    if pixel_range and not (
        len(pixel_range) == 2
        and all(type(x) in (int, float) and abs(x) <= LARGEST_OPTION for x in pixel_range)
        and pixel_range[0] < pixel_range[1]
    ):
        problems.append(f"model.pixel_range must be [low, high] with low below high. Received: {pixel_range!r}")
    if weights not in ("imagenet", "none"):
        if not weights.endswith((".h5", ".keras")):
            problems.append(
                f"model.weights must be imagenet, none, or a .h5 or .keras file."
                f"{nearest(weights, ('imagenet', 'none'))} Received: {weights!r}"
            )
        elif not Path(weights).is_file():
            problems.append(f"model.weights: file {weights} does not exist.")
    return problems


def policy_problems(policy: list[Any]) -> list[str]:
    """Faults of `augment.policy`, whose entries are functions of augment.py, found by reading its source."""
    known, limits = policy_options(), policy_limits()
    problems = []
    for i, entry in enumerate(policy):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in known:
            problems.append(
                f"augment.policy[{i}] must be a table {{name = ..., ...}} with name one of "
                f"{', '.join(known)}.{nearest(str(name), known)} Received: {entry!r}"
            )
            continue
        options = {key: value for key, value in entry.items() if key != "name"}
        problems.extend(
            _option_problems(
                f"augment.policy[{i}].{{}} is not an option of {name}.",
                f"augment.policy[{i}].{{}}",
                options,
                known[name],
            )
        )
        for key, value in options.items():
            allowed = limits[name].get(key, (0, LARGEST_OPTION))
            if isinstance(allowed, list):
                if isinstance(value, str) and value not in allowed:
                    problems.append(
                        f"augment.policy[{i}].{key} must be one of {', '.join(allowed)}."
                        f"{nearest(value, allowed)} Received: {value!r}"
                    )
            elif isinstance(value, int | float):
                low, high = allowed[0], LARGEST_OPTION if isinstance(allowed[1], str) else allowed[1]
                if not low <= value <= high:
                    problems.append(f"augment.policy[{i}].{key} must be in [{low}, {high}]. Received: {value!r}")
    return problems


def size_problems(canvas: Sequence[int], policy: list[dict[str, Any]], image_shape: Sequence[int]) -> list[str]:
    """What is wrong if training images do not leave the policy with the size that the model takes."""
    begin = [*(canvas or image_shape[:2]), image_shape[2]]
    try:
        end = policy_output_shape(policy, begin)
    except ConfigError as error:
        return [str(error)]
    if end == tuple(image_shape):
        return []
    return [
        f"augment.policy must end at the size of data.image_shape, {image_shape[0]} x {image_shape[1]}. Received: "
        f"{end[0]} x {end[1]}, from {begin[0]} x {begin[1]}"
    ]


def _option_problems(unknown: str, where: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Faults of keyword arguments, held against the names and the types of the defaults in `known`."""
    problems = []
    for key, value in options.items():
        if key not in known:
            usual = usual_keys("model") if where.startswith("model.") else None
            problems.append(f"{unknown.format(key)}{nearest(key, known, usual)} Known: {', '.join(known) or 'none'}.")
        elif (
            known[key] is not None
            and type(value) is not type(known[key])
            and not (type(value) is int and type(known[key]) is float)
        ):
            wanted = _TYPE_NAMES.get(type(known[key]), type(known[key]).__name__)
            problems.append(f"{where.format(key)} must be {wanted}. Received: {value!r}")
    return problems

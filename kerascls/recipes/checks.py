"""What is wrong with a recipe's values: each fault in a phrase, with the nearest known name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerascls.errors import ConfigError
from kerascls.recipes.catalog import (
    backbones,
    build_options,
    is_ours,
    model_file,
    model_files,
    nearest,
    policy_limits,
    policy_options,
    policy_output_shape,
    required_options,
)
from kerascls.recipes.fields import TYPE_NAMES, usual_keys

LARGEST_OPTION = 10_000  # of an augmentation that states no range


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
            wanted = TYPE_NAMES.get(type(known[key]), type(known[key]).__name__)
            problems.append(f"{where.format(key)} must be {wanted}. Received: {value!r}")
    return problems

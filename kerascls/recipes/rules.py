"""Rules that go beyond one key's type and range. A rule adds a line to `problems` for each fault that it finds.

A rule takes the checked tables, `{"train": {"epochs": 3}}`: the keys that are right, and only those that were given.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kerascls.recipes.catalog import dataset_files
from kerascls.recipes.checks import size_problems
from kerascls.recipes.data_names import data_problems
from kerascls.recipes.schema import Data

Tables = Mapping[str, Mapping[str, Any]]
Rule = Callable[[Tables, list[str]], None]


def data_exists(tables: Tables, problems: list[str]) -> None:
    problems.extend(data_problems(tables["data"].get("name", ""), "data.name"))


def fallback_is_embedded(tables: Tables, problems: list[str]) -> None:
    fallback = tables["fallback"].get("data")
    if fallback and fallback not in dataset_files():
        problems.append(f"fallback.data must be an embedded data set. Received: {fallback!r}")


def shares_are_fractions(tables: Tables, problems: list[str]) -> None:
    data, validation = tables["data"], _validation(tables)
    if isinstance(validation, str) and validation != "test":
        problems.append(f'data.validation must be a number or "test". Received: {validation!r}')
    for key in ("validation", "test"):
        if isinstance(data.get(key), float) and data[key] >= 1:
            problems.append(f"data.{key} as a fraction must be below 1. Received: {data[key]!r}")


def lists_hold_names(tables: Tables, problems: list[str]) -> None:
    classes = tables["data"].get("classes", [])
    if not all(isinstance(name, str) and name for name in classes) or len(set(classes)) != len(classes):
        problems.append(f"data.classes must be a list of different names. Received: {classes!r}")
    excluded = tables["train"].get("exclude_from_weight_decay", [])
    if not all(isinstance(name, str) and name for name in excluded):
        problems.append(f"train.exclude_from_weight_decay must be a list of names. Received: {excluded!r}")


def canvas_is_cropped_in_all_epochs(tables: Tables, problems: list[str]) -> None:
    data, augment = tables["data"], tables["augment"]
    if data.get("canvas"):
        if not data.get("image_shape"):
            problems.append(f"data.canvas needs data.image_shape. Received: canvas = {data['canvas']!r}")
        if augment.get("until", 1) < 1:
            problems.append(f"augment.until must be 1 where there is a data.canvas. Received: {augment['until']!r}")


def policy_ends_at_image_shape(tables: Tables, problems: list[str]) -> None:
    """Only of a recipe without faults so far: the policy's sizes are computed, which takes sound values."""
    data, policy = tables["data"], tables["augment"].get("policy", [])
    if data.get("image_shape") and not problems:
        problems.extend(size_problems(data.get("canvas", []), policy, data["image_shape"]))


def images_are_gray_or_rgb(tables: Tables, problems: list[str]) -> None:
    shape = tables["data"].get("image_shape")
    if shape and shape[2:] not in ([1], [3]):
        problems.append(f"data.image_shape must end in 1 or 3 channels. Received: {shape!r}")


def no_epoch_is_chosen_by_test_split(tables: Tables, problems: list[str]) -> None:
    train, validation = tables["train"], _validation(tables)
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


def warmup_is_shorter_than_training(tables: Tables, problems: list[str]) -> None:
    for section in ("train", "finetune"):
        epochs, warmup = tables[section].get("epochs", 0), tables[section].get("warmup_epochs", 0)
        if epochs and warmup >= epochs:
            problems.append(
                f"{section}.warmup_epochs must be below {section}.epochs, {epochs}, or the training is all warm-up. "
                f"Received: {warmup:g}"
            )


def finetuning_unfreezes(tables: Tables, problems: list[str]) -> None:
    finetune = tables["finetune"]
    if finetune.get("epochs") and not finetune.get("unfreeze"):
        problems.append("finetune.unfreeze must say which layers of the backbone train in the finetune.epochs.")


def features_are_of_one_image(tables: Tables, problems: list[str]) -> None:
    policy = [entry.get("name") for entry in tables["augment"].get("policy", []) if isinstance(entry, dict)]
    mixing = [name for name in policy if name in ("mixup", "cutmix")]
    if tables["features"].get("views") and mixing:
        problems.append(f"features.views keeps each image by itself, and {mixing[0]} mixes two. Leave one of them out.")


def _validation(tables: Tables) -> int | float | str:
    return tables["data"].get("validation", Data.validation)


RULES: tuple[Rule, ...] = (
    data_exists,
    fallback_is_embedded,
    shares_are_fractions,
    lists_hold_names,
    canvas_is_cropped_in_all_epochs,
    policy_ends_at_image_shape,
    images_are_gray_or_rgb,
    no_epoch_is_chosen_by_test_split,
    warmup_is_shorter_than_training,
    finetuning_unfreezes,
    features_are_of_one_image,
)
# The data of an old run may be elsewhere, and its warm-up may be longer than this version accepts.
RULES_OF_OLD_RUNS = tuple(rule for rule in RULES if rule not in (data_exists, warmup_is_shorter_than_training))

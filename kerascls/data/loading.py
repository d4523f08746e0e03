"""Data sets as uint8 arrays with class names. `datasets/<name>.py` is the data set `<name>`.

Such a file has `class_names`, `image_shape` and `load(...)`, which returns a `Dataset`. `load` takes, by keyword, those
of root, download, image_shape, background and resize that it has a use for; what it returns is brought to the
image shape that was asked for. A user's `./my_data.py` is the same. `datasets/_*.py` read other kinds: a folder of
images, any TFDS name, a .npz file.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kerascls.data.dataset import Dataset, fit_arrays, rename
from kerascls.errors import DataError, DataMissing, KerasclsError, printable
from kerascls.recipes.catalog import dataset_files
from kerascls.recipes.data_names import TABLES, data_fault
from kerascls.recipes.load import load_config
from kerascls.recipes.notices import fallback_notice
from kerascls.recipes.schema import Config, Data
from kerascls.system.memory import check, shareable
from kerascls.system.names import nfc
from kerascls.system.status import doing


def load_dataset(
    name: str,
    root: str | None = None,
    download: bool = True,
    image_shape: tuple[int, int, int] | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    resize: str = "stretch",
    cache_mb: int = Data.cache_mb,
    on_bad_image: str = Data.on_bad_image,
    max_bad_share: float = Data.max_bad_share,
    classes: Sequence[str] = (),
) -> Dataset:
    """Loads a data set into memory; of a folder that is larger than `cache_mb`, only what is there.

    Args:
        name: a file's name under `datasets/`, a folder of class folders, `tfds:NAME`, a Keras-style `FILE.npz`, or
            `./my_data.py`.
        root: where TFDS keeps prepared data; None for TFDS_DATA_DIR, then TFDS's own default.
        download: whether data that is not prepared may be downloaded.
        image_shape: (height, width, channels) to bring images to, by `images`' rules; None for the data's own.
        background: RGB under transparent pixels.
        resize: how images are brought to `image_shape`, see `images.resize`.
        cache_mb: megabytes that a folder's decoded images may take.
        on_bad_image, max_bad_share: what becomes of a folder's images that cannot be read, see `config.Data`.
        classes: names that the caller expects, if any: a folder's folders of such names are its classes, and it may
            have some of them, where a folder has all that can be trained on otherwise.

    Raises:
        DataMissing: it is not prepared here and cannot be downloaded.
        DataError: it does not exist, is damaged, or is not for image classification.
    """
    if not name:
        raise DataError("This recipe takes any data and brings none. Give --data FOLDER, a folder of class folders.")
    root = root or os.environ.get("TFDS_DATA_DIR")  # TFDS reads it once, when it is imported
    if root and not Path(root).is_dir():
        raise DataError(f"Data folder {root} does not exist. It was named by --data-dir or TFDS_DATA_DIR.")
    if name.startswith("tfds:"):
        from kerascls.data.tfds import load_tfds

        with doing(f"reading {name}"):
            return load_tfds(name.removeprefix("tfds:"), root, download, image_shape, background, resize)
    if name.endswith(".npz"):
        from kerascls.data.npz import load_npz

        with doing(f"reading {Path(name).name}"):
            return load_npz(Path(name), image_shape, resize)
    if is_folder(name):
        from kerascls.data.folder import load_folder

        kept = (image_shape, background, resize, cache_mb)
        dataset = load_folder(Path(name), *kept, on_bad_image, max_bad_share, classes)
        if not classes:
            _check_trainable(dataset)
        return dataset
    return _load_code(name, root, download, image_shape, background, resize)


def _load_code(
    name: str,
    root: str | None,
    download: bool,
    image_shape: tuple[int, int, int] | None,
    background: tuple[int, int, int],
    resize: str,
) -> Dataset:
    """A data set that a Python file loads, ours or a user's, brought to `image_shape`."""
    load = dataset_module(name).load
    offered = {
        "root": root,
        "download": download,
        "image_shape": image_shape,
        "background": background,
        "resize": resize,
    }
    dataset = _call_load(name, load, offered)
    resized_by_load = "resize" in inspect.signature(load).parameters or resize != "center_crop"
    rest = {**vars(dataset)}
    splits = dict(rest.pop("splits"))
    del dataset  # so that each split's images go as soon as they are brought to their shape
    copies = [len(split) * math.prod(image_shape or split.images.shape[1:]) for split in splits.values()]
    held = sum(split.images.nbytes for split in splits.values())
    check(f"{rest['name']}: copies of its images", max(copies), f"Return fewer from {name}.", held)
    for key in splits:
        images = splits[key].images
        if not (resized_by_load and tuple(image_shape or images.shape[1:]) == images.shape[1:]):
            images = fit_arrays(images, image_shape, resize)
        splits[key] = dataclasses.replace(splits[key], images=shareable(images))
        del images
    return Dataset(splits=splits, **rest)


def _call_load(name: str, load: Callable[..., Any], offered: Mapping[str, Any]) -> Dataset:
    """What `load` returns, called with those of the `offered` arguments that it takes."""
    try:
        with doing(f"reading {name}"):
            dataset = load(**{key: offered[key] for key in inspect.signature(load).parameters if key in offered})
    except KerasclsError:
        raise
    except (Exception, SystemExit) as error:
        if not name.endswith(".py"):
            raise
        raise DataError(f"{name}: load() failed: {type(error).__name__}: {error}") from None
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name}: load() must return a kerascls.datasets.Dataset. Received: {type(dataset).__name__}")
    return dataset


def is_folder(name: str) -> bool:
    """Whether a data set's name means a folder of images: one that is there, and no data set of ours."""
    return name not in dataset_files() and not name.startswith("tfds:") and Path(name).is_dir()


def is_data(name: str) -> bool:
    """Whether a name means data, or a file that might: a folder, a file, a data set of ours, or tfds:NAME."""
    return name in dataset_files() or name.startswith("tfds:") or Path(name).exists()


def load_config_data(config: Data, data_dir: str | None = None) -> Dataset:
    """The data that a recipe's `[data]` states.

    Raises:
        DataError: it is not what `data.classes` asks for; else as `load_dataset`.
    """
    dataset = load_dataset(
        config.name,
        data_dir,
        image_shape=tuple(config.image_shape) or None,
        background=tuple(config.background),
        resize=config.resize,
        cache_mb=config.cache_mb,
        on_bad_image=config.on_bad_image,
        max_bad_share=config.max_bad_share,
        classes=config.classes,
    )
    _check_trainable(dataset)
    if not config.classes:
        return dataset
    if sorted(map(nfc, config.classes)) != sorted(dataset.class_names):
        raise DataError(
            f"{dataset.name} must have the classes {', '.join(config.classes)}. Received: "
            f"{', '.join(dataset.class_names[:20])}. `--set 'data.classes=[]'` takes whatever there is."
        )
    return rename(dataset, tuple(config.classes))


def _called(dataset: Dataset) -> str:
    return f"Folder {dataset.name}" if dataset.source == "folder" else dataset.name


def _check_trainable(dataset: Dataset) -> None:
    """Raises DataError if there is nothing to learn, or a class that other splits have and train has not."""
    counts = {
        name: np.bincount(split.labels, minlength=len(dataset.class_names)) for name, split in dataset.splits.items()
    }
    used = np.flatnonzero(sum(counts.values()))
    if len(used) < 2:
        table = next((file for file, _ in dataset.skipped if file.lower().endswith(TABLES)), None)
        hint = f" {printable(table)} is not read: labels come from the names of folders." if table else ""
        raise DataError(
            f"{_called(dataset)} has images of one class alone, {dataset.class_names[used[0]]}. A classifier needs at "
            f"least two.{hint}"
        )
    without = [dataset.class_names[i] for i in used if "train" in counts and not counts["train"][i]]
    if without and dataset.source == "folder":
        raise DataError(
            f"{_called(dataset)}: train/ has no image of {', '.join(without[:5])}, which other splits have."
        )


def load_recipe_data(
    recipe: str, tables: Mapping[str, Mapping[str, Any]], data_dir: str | None, fallback: bool
) -> tuple[Config, Dataset]:
    """A recipe as it will be trained, and its data as published. The fallback is taken, and announced, only here.

    Args:
        recipe: its name, or the path of a .toml file.
        tables: laid over the recipe's.
        data_dir: where TFDS keeps prepared data.
        fallback: whether the recipe's may be taken. It never is where the user named data or a place for it: a
            data.name in `tables`, `data_dir`, or TFDS_DATA_DIR.
    """
    config = load_config(recipe, tables)
    allowed = (
        fallback
        and config.fallback.data
        and "name" not in tables.get("data", {})
        and data_dir is None
        and not os.environ.get("TFDS_DATA_DIR")
    )

    try:
        return config, load_config_data(config.data, data_dir)
    except DataMissing as error:
        if not allowed:
            embedded = config.fallback.data
            hint = f" `--data {embedded}` trains on the embedded data set." if embedded else ""
            raise DataMissing(f"{error}{hint}") from None
    config = load_config(recipe, tables, use_fallback=True)
    print(fallback_notice(config.fallback_for, config.data.name), file=sys.stderr, flush=True)
    return config, load_config_data(config.data, data_dir)


def dataset_module(name: str) -> ModuleType:
    """The Python module behind a data set's name, or behind a user's path."""
    if not name.endswith(".py"):
        if name not in dataset_files():
            raise DataError(data_fault(name))
        return importlib.import_module(f"kerascls.datasets.{name}")
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise DataError(f"{name} cannot be imported: {type(error).__name__}: {error}") from None
    for needed in ("load", "class_names", "image_shape"):
        if not hasattr(module, needed):
            raise DataError(f"{name} has no `{needed}`, which every data set file needs.")
    return module


def describe_dataset(name: str, classes: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[int, int, int] | None]:
    """Class names and image shape of a data set (None where images vary), without its images where that can be.

    `classes` is as `load_dataset` takes it.
    """
    if name.startswith("tfds:"):
        from kerascls.data.tfds import describe_tfds

        return describe_tfds(name.removeprefix("tfds:"))
    if name.endswith(".npz"):
        dataset = load_dataset(name)
        return dataset.class_names, dataset.image_shape
    if is_folder(name):
        from kerascls.data.folder_listing import list_folder

        return list_folder(Path(name), classes).class_names, None
    module = dataset_module(name)
    return tuple(module.class_names), tuple(module.image_shape)

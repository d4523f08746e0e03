"""What a data set or a recipe's data looks like: shapes, class map, counts, a picture of samples."""

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import plots
from kerascls.data.dataset import Dataset, Split
from kerascls.data.loading import is_folder, load_dataset, load_recipe_data
from kerascls.data.remarks import remarks
from kerascls.data.splits import with_all_splits
from kerascls.errors import ConfigError
from kerascls.recipes.catalog import is_recipe
from kerascls.recipes.checks import size_problems
from kerascls.recipes.load import override_tables
from kerascls.recipes.schema import Config

SAMPLES = 9
FOLDER_SHAPE = (224, 224, 3)  # a folder's images are shown as `folder` trains on them


@dataclasses.dataclass(frozen=True)
class Shown:
    """What `kerascls show` prints, and the picture that it drew (None where none was to be written), and its Matplotlib
    figure; `notes` are what is odd about the data."""

    name: str
    source: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    counts: dict[str, list[int]]
    picture: Path | None
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    figure: Any = dataclasses.field(default=None, repr=False, compare=False)

    def _repr_png_(self) -> bytes:
        """In a notebook, the picture."""
        drawn = io.BytesIO()
        self.figure.savefig(drawn, format="png")
        return drawn.getvalue()


def show(
    what: str,
    picture: str | os.PathLike | None = None,
    data_dir: str | None = None,
    augmented: bool = False,
    data: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Shown:
    """Draws nine training images with their names, and counts the examples of every class.

    Args:
        what: a recipe's name or .toml (its data, split as training splits it), a data set's name, or a folder.
        picture: the file to draw; None writes none, and a notebook shows it all the same.
        data: other data than the recipe's.
        augmented: whether to draw the images after the recipe's augmentation, as a first training step would; a
            folder's recipe is `folder`, as `train` takes it.
        overrides: tables laid over the recipe; likewise.

    Raises:
        ConfigError: `augmented` without a recipe that has a policy.

    >>> shown = kerascls.show("digits", "digits.png")
    >>> shown.image_shape, sum(shown.counts["test"])
    ((28, 28, 1), 364)
    """
    tables = override_tables(overrides)
    if is_folder(what) and not is_recipe(what) and (augmented or tables):
        what, data = "folder", what
    config, dataset = _load(what, data, tables, data_dir)
    if augmented and not (config and config.augment.policy):
        raise ConfigError(f"{what} has no augmentation to show: it states no augment.policy.")
    split = samples(dataset.splits.get("train") or next(iter(dataset.splits.values())))
    if config and augmented:
        images, titles = _augmented(split, dataset, config)
    else:
        images, titles = split.images[:], [plots.shorten(dataset.class_names[label]) for label in split.labels]
    heading = dataset.name
    if config and config.fallback_for:
        heading += f" (in place of {config.fallback_for})"
    figure = plots.image_grid(list(images), titles, 3, heading + (", augmented" if augmented else ""))
    picture = Path(picture) if picture is not None else None
    if picture is not None:
        plots.save(figure, picture)
    return Shown(
        dataset.name,
        dataset.source,
        dataset.image_shape,
        dataset.class_names,
        class_counts(dataset),
        picture,
        dataset.skipped,
        tuple(remarks(dataset)),
        figure,
    )


def _load(
    what: str, data: str | None, tables: dict[str, dict[str, Any]], data_dir: str | None
) -> tuple[Config | None, Dataset]:
    """A recipe and its data, split as training splits it; None and the data where `what` is not a recipe."""
    if is_recipe(what):
        if data:
            tables.setdefault("data", {})["name"] = data
        config, dataset = load_recipe_data(what, tables, data_dir, fallback=True)
        return config, with_all_splits(dataset, config.data.validation, config.data.test)
    if tables:
        raise ConfigError(f"--set changes keys of a recipe. Received: {what}, which is none.")
    return None, load_dataset(what, data_dir, image_shape=FOLDER_SHAPE if is_folder(what) else None)


def _augmented(split: Split, dataset: Dataset, config: Config) -> tuple[np.ndarray, list[str]]:
    """The images of `split` as a first training step sees them, and their titles."""
    policy, canvas = config.augment.policy, tuple(config.data.canvas)
    for problem in size_problems(canvas, policy, dataset.image_shape):
        raise ConfigError(problem)
    from kerascls.system import tensorflow

    tensorflow.start()
    from kerascls.data.batches import on_canvas

    split = on_canvas(split, canvas, 0)
    classes = len(dataset.class_names)
    images, shares = augment_like_training(split.images[:], split.labels, classes, policy, config.train.seed)
    return images, [mixed_title(row, dataset.class_names) for row in shares]


def samples(split: Split) -> Split:
    """The first image of each of the first nine classes, then further ones until there are nine."""
    labels = split.labels
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)[:SAMPLES]]
    rest = [i for i in range(min(len(labels), 4 * SAMPLES)) if i not in firsts]
    return split.take(np.array((firsts + rest)[:SAMPLES]))


def augment_like_training(
    images: np.ndarray, labels: np.ndarray, num_classes: int, policy: list[dict[str, Any]], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images under a policy, drawn with the seed of training's first step, and each class's share of their labels.

    Returns:
        uint8 `(n, height, width, channels)` and float32 `(n, num_classes)`. What is mixed is mixed among these n.
    """
    import tensorflow as tf

    from kerascls.augmentation.policy import apply_policy

    one_hot = tf.one_hot(labels, num_classes)
    out, shares = apply_policy(policy, tf.constant(images), one_hot, tf.constant([seed, 0], tf.int32))
    return np.clip(np.round(out.numpy()), 0, 255).astype(np.uint8), shares.numpy()


def mixed_title(shares: np.ndarray, class_names: Sequence[str]) -> str:
    """A class's name, or `7 62 %, 3 38 %` where the label is mixed.

    >>> mixed_title(np.array([0.1, 0.6, 0.3]), "abc")
    'b 60 %, c 30 %, a 10 %'
    """
    order = [cls for cls in np.argsort(-shares, kind="stable") if shares[cls] >= 0.005]
    if len(order) == 1:
        return plots.shorten(class_names[order[0]])
    width = max(6, 24 // len(order))
    return ", ".join(f"{plots.shorten(class_names[cls], width)} {100 * shares[cls]:.0f} %" for cls in order)


def class_counts(dataset: Dataset) -> dict[str, list[int]]:
    """Examples of each class, by split."""
    classes = len(dataset.class_names)
    return {name: np.bincount(split.labels, minlength=classes).tolist() for name, split in dataset.splits.items()}


def table(shown: Shown) -> str:
    """The class map and the counts as `kerascls show` prints them."""
    height, width, channels = shown.image_shape
    lines = [
        f"{shown.name} ({shown.source}): images {height}x{width}x{channels}, {len(shown.class_names)} classes",
        "   id  " + "".join(f"{split:>12}" for split in shown.counts) + "  name",
    ]
    for i, name in enumerate(shown.class_names):
        lines.append(f"{i:>5}  " + "".join(f"{counts[i]:>12,}" for counts in shown.counts.values()) + f"  {name}")
    lines.append("  all  " + "".join(f"{sum(counts):>12,}" for counts in shown.counts.values()))
    return "\n".join(lines)

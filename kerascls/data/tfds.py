"""Any image-classification data set of TFDS, from where it is prepared, else by download."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.dataset import Dataset, Split, check_memory
from kerascls.errors import DataError, DataMissing, first_line
from kerascls.recipes.catalog import nearest
from kerascls.system import machine, tensorflow
from kerascls.system.atomic_files import alone
from kerascls.system.memory import empty
from kerascls.system.network import network_reachable
from kerascls.system.process import quiet_logs

_BATCH = 16 << 20  # bytes of images that are copied at a time


def _builder(name: str, root: str | None) -> Any:
    with quiet_logs():
        import tensorflow_datasets as tfds

    try:
        with quiet_logs():
            return tfds.builder(name, data_dir=root, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)  # those of the community are listed by a download
        raise DataError(f"TFDS has no data set named {name!r}.{nearest(name, known)}") from None
    except (ValueError, AssertionError, ImportError) as error:
        raise DataError(f"tfds:{name} cannot be opened: {str(error).splitlines()[0]}") from None


def _features(builder: Any) -> tuple[str, str]:
    """Names of the one image and the one label feature, by TFDS's supervised keys where it states them."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    named = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    keys = builder.info.supervised_keys
    if keys and len(keys) == 2 and all(isinstance(key, str) for key in keys):
        named = {key: named[key] for key in keys if key in named}
    images = [key for key, feature in named.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in named.items() if isinstance(feature, tfds.features.ClassLabel)]
    if len(images) != 1 or len(labels) != 1 or named[images[0]].np_dtype != np.uint8:
        raise DataError(
            f"tfds:{builder.name} is not for image classification: expected one uint8 image and one class "
            f"label. Its features are {', '.join(sorted(features)) if named else features}"
        )
    return images[0], labels[0]


def describe_tfds(name: str) -> tuple[tuple[str, ...], tuple[int, int, int] | None]:
    """Class names, and the image shape where it is the same for all images, from TFDS's metadata alone."""
    builder = _builder(name, None)
    image, label = _features(builder)
    shape = builder.info.features[image].shape
    names = builder.info.features[label].names
    return tuple(names), tuple(shape) if None not in shape and shape[-1] in (1, 3) else None


def load_tfds(
    name: str,
    root: str | None,
    download: bool,
    image_shape: tuple[int, int, int] | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    resize: str = "stretch",
) -> Dataset:
    """Loads the splits named train, validation and test (those that there are); others are left alone."""
    import tensorflow_datasets as tfds

    builder = _builder(name, root)
    image, label = _features(builder)
    if not builder.is_prepared():
        _prepare(builder, name, download)
    tensorflow.start()  # only now: that data is missing is said without waiting for TensorFlow
    features = builder.info.features
    own_shape = features[image].shape
    fixed = None not in own_shape and own_shape[-1] in (1, 3)
    if image_shape is None and not fixed:
        raise DataError(
            f"tfds:{name} has images of many sizes. Say which size to bring them to: "
            "--set 'data.image_shape=[64, 64, 3]'"
        )
    target = tuple(image_shape or own_shape)
    # TFDS wrote such images itself, as PNG of exactly this shape: its decoder and ours give the same pixels.
    plain = fixed and target == tuple(own_shape) and resize != "center_crop"
    published = builder.info.splits
    counts = {name: published[name].num_examples for name in ("train", "validation", "test") if name in published}
    hidden = [split for split, count in counts.items() if count and _hides_labels(tfds, builder, split, label)]
    counts = {split: count for split, count in counts.items() if count and split not in hidden}
    if not counts:
        raise DataError(f"tfds:{name} has no split named train or test with labels. It has: {', '.join(published)}")
    check_memory(f"tfds:{name}", sum(counts.values()), target)
    splits = {
        split: _load_split(tfds, builder, split, image, label, count, target, background, resize, plain)
        for split, count in counts.items()
    }
    skipped = tuple((f"split {split}", "its labels are hidden: all are -1") for split in hidden)
    source = f"tfds {builder.info.full_name}"
    return Dataset(builder.name, source, tuple(features[label].names), splits, skipped=skipped)


def _prepare(builder: Any, name: str, download: bool) -> None:
    where = "--data-dir DIR or TFDS_DATA_DIR=DIR names a folder where it is"
    if not download:
        raise DataMissing(f"{name} is not prepared here, and downloading is off. {where}.")
    if not network_reachable():
        raise DataMissing(f"{name} is not prepared here and the network cannot be reached. Connect, or {where}.")
    tensorflow.start()
    try:
        with alone(Path(builder.data_dir).parents[1] / f".{builder.name}.lock", f"Another process downloads {name}."):
            if not builder.is_prepared():  # by now
                builder.download_and_prepare()
    except Exception as error:  # TFDS passes on whatever its sources and readers raise
        reason = first_line(error)
        raise DataMissing(f"{name} could not be downloaded: {reason[:200]} Try again later, or {where}.") from None


def _examples(tfds: Any, builder: Any, split: str, decoders: Any) -> Any:
    """A tf.data.Dataset of a split's examples, in the order in which they were written."""
    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=decoders,
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )


def _hides_labels(tfds: Any, builder: Any, split: str, label: str) -> bool:
    """Whether a split's labels are all -1, as of a challenge's test images."""
    labels = _examples(tfds, builder, split, tfds.decode.PartialDecoding({label: True}))
    return all(example[label] == -1 for example in labels.as_numpy_iterator())  # ends with the first that is shown


def _load_split(
    tfds: Any,
    builder: Any,
    split: str,
    image: str,
    label: str,
    count: int,
    shape: tuple[int, int, int],
    background: tuple[int, int, int],
    resize: str,
    plain: bool,
) -> Split:
    import tensorflow as tf

    from kerascls.images.read import to_pixels

    decoders = None if plain else {image: tfds.decode.SkipDecoding()}
    examples = _examples(tfds, builder, split, decoders)

    def pair(example: dict) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = example[image] if plain else to_pixels(example[image], shape, background, resize)
        return pixels, tf.cast(example[label], tf.int32)

    at_once = max(1, min(1000, _BATCH // math.prod(shape)))
    batches = examples.map(pair, num_parallel_calls=machine.cores(), deterministic=True).batch(at_once).prefetch(1)
    images = empty((count, *shape))
    labels = np.empty(count, np.int32)
    at = 0
    try:
        for batch_images, batch_labels in batches.as_numpy_iterator():
            images[at : at + len(batch_labels)] = batch_images
            labels[at : at + len(batch_labels)] = batch_labels
            at += len(batch_labels)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise DataError(
            f"tfds:{builder.name}: the {split} split is damaged near example {at}: {str(error).splitlines()[0][:160]}"
        ) from None
    if at != count:
        raise DataError(f"tfds:{builder.name}: the {split} split should have {count} examples. Received: {at}")
    return Split.of(images, labels)

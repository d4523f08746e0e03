"""What is odd about a data set, in lines: what makes scores flatter or say little, and images that teach nothing."""

from collections.abc import Iterable

import numpy as np

from kerascls.data.dataset import Dataset, Split, spread
from kerascls.data.splits import equal_images
from kerascls.errors import printable
from kerascls.images.files import stored_as

FEW = 2  # images of a class in a split, of which a score says little
LOOKED_AT = 64  # images of a folder that is not in memory
_STRIP = 4096  # images in memory that are looked at together


def remarks(dataset: Dataset) -> list[str]:
    """Lines on what was found by names, on equal images, on classes of few images, and on images without contrast."""
    return [*dataset.notes, *equal_images(dataset), *few_images(dataset), *without_contrast(dataset)]


def few_images(dataset: Dataset) -> list[str]:
    """Lines for each split but train: on classes that train has not, and on those of no image, one or two."""
    splits = dict(dataset.splits)
    base = splits.pop("train", None)
    if splits.get("validation") is splits.get("test"):  # data.validation = "test"
        splits.pop("validation", None)
    lines = []
    for name, split in splits.items() if base is not None else ():
        trained = np.bincount(base.labels, minlength=len(dataset.class_names)) > 0
        counts = np.bincount(split.labels, minlength=len(dataset.class_names))
        if len(unknown := np.flatnonzero(~trained & (counts > 0))):
            lines.append(
                f"{name} has {counts[unknown].sum():,} images of {len(unknown):,} classes of which train has none "
                f"({_named(dataset, unknown)}): they cannot be learnt, and are all answered wrongly"
            )
        none, few = np.flatnonzero(trained & (counts == 0)), np.flatnonzero(trained & (0 < counts) & (counts <= FEW))
        told = [
            f"{what} of {len(found):,} of {trained.sum():,} classes ({_named(dataset, found)})"
            for what, found in (("no image", none), ("one or two images", few))
            if len(found)
        ]
        if told:
            lines.append(f"{name} has {', and '.join(told)}: its scores say little of them")
    return lines


def without_contrast(dataset: Dataset) -> list[str]:
    """Lines on training images of one plain colour, and on images that use a small part of [0, 255] alone."""
    split = dataset.splits.get("train") or next(iter(dataset.splits.values()))
    chosen = _looked_at(split)
    plain, highest = _contrast(split.images if chosen is None else split.images[chosen])
    looked_at = np.arange(len(split)) if chosen is None else chosen
    lines = []
    if plain.any():
        labels = split.labels[looked_at]
        counts = np.bincount(labels, minlength=len(dataset.class_names))
        classes = np.flatnonzero((np.bincount(labels[plain], minlength=len(counts)) == counts) & (counts > 0))
        first = int(looked_at[plain][0])
        every = "every image" if chosen is None else "every image looked at"
        what = (
            f"{every} of {len(classes):,} of {(counts > 0).sum():,} classes ({_named(dataset, classes)}) is"
            if len(classes)
            else f"{plain.sum():,} of {len(looked_at):,} images{'' if chosen is None else ' looked at'} are"
        )
        colour = tuple(np.asarray(split.images[first])[0, 0].tolist())
        lines.append(
            f"{what} of one plain colour, {printable(split.path_of(first))} of {colour} for one: nothing can be learnt "
            f"from that{_transparent(split, first)}"
        )
    if 0 < highest < 16 and not plain.all():
        lines.append(
            f"no pixel of any image{'' if chosen is None else ' looked at'} is above {highest} of 255{_bits(split)}"
        )
    return lines


def _looked_at(split: Split) -> np.ndarray | None:
    """Positions of some images, of all classes alike as far as they go; None for all, where they are in memory."""
    if not split.streamed:
        return None
    by_class = np.argsort(split.labels, kind="stable")
    return np.sort(by_class[spread(len(split), LOOKED_AT)])


def _contrast(images: np.ndarray) -> tuple[np.ndarray, int]:
    """Of each image, whether all its pixels are alike, bool `(n,)`; and the highest value of any pixel, or one that is
    16 or more. Most images are told by a few of their pixels."""
    plain, highest = np.empty(len(images), bool), 0
    rows, columns = (spread(side, 8) for side in images.shape[1:3])
    for at in range(0, len(images), _STRIP):
        strip = images[at : at + _STRIP]
        some = strip[:, rows[:, None], columns]
        alike = (some == some[:, :1, :1]).all((1, 2, 3))
        for i in np.flatnonzero(alike):
            alike[i] = (strip[i] == strip[i, :1, :1]).all()
        plain[at : at + _STRIP] = alike
        highest = max(highest, int(some.max()))
    for at in range(0, len(images), _STRIP) if highest < 16 else ():
        highest = max(highest, int(images[at : at + _STRIP].max()))
    return plain, highest


def _transparent(split: Split, i: int) -> str:
    """What may help where a plain image lies in a file with transparency."""
    if split.origin is None or not stored_as(split.origin.root / split.origin.names[i])[1]:
        return ""
    other = [0, 0, 0] if sum(split.origin.background) > 3 * 127 else [255, 255, 255]
    return f". It has transparent pixels; another colour under them may help: --set 'data.background={other}'"


def _bits(split: Split) -> str:
    """Why images may be so dark, by the first one's file."""
    if split.origin is not None and stored_as(split.origin.root / split.origin.names[0])[0] == 16:
        return (
            ": files of 16 bits a pixel keep their upper 8, so data of 12 bits or fewer lose most. Scale it to 16 bits"
        )
    return ". Expected images in [0, 255]"


def _named(dataset: Dataset, classes: Iterable[int], most: int = 3) -> str:
    names = [dataset.class_names[i] for i in classes]
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")

"""The samples/ of a run: images by which its exports are compared with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.dataset import Split, spread
from kerascls.errors import DataError
from kerascls.system.atomic_files import atomic, write_json
from kerascls.system.json_files import fault, read_json

SAMPLE_BATCH_SIZE = 32  # at which samples/ keeps the run's probabilities


def write_samples(folder: Path, split: Split, classifier: Any, most: int) -> None:
    """Encoded images, spread evenly over a split, with labels and the run's probabilities: what exports are held to.

    samples.json has `files`, `labels` (names), `probabilities` (n, num_classes) and the `batch_size` of those.
    """
    from kerascls.images.files import encode_png

    chosen = spread(len(split), most)
    files = [f"{i:03d}.png" for i in range(len(chosen))]
    with atomic(folder, replace_folder=True) as temporary:
        temporary.mkdir()
        for file, image in zip(files, split.images[chosen], strict=True):
            (temporary / file).write_bytes(encode_png(image))
        seen = np.stack(classifier.read([temporary / file for file in files]))  # under "center_crop" cut once more
        probabilities = classifier.probabilities(seen, SAMPLE_BATCH_SIZE)
        write_json(
            temporary / "samples.json",
            {
                "files": files,
                "labels": [classifier.class_names[i] for i in split.labels[chosen]],
                "probabilities": probabilities.tolist(),
                "batch_size": SAMPLE_BATCH_SIZE,
            },
        )


def read_samples(folder: Path) -> tuple[list[Path], Sequence[str | None]]:
    """The encoded images of a run's samples/, in their order, with their classes; none where the run keeps none."""
    index = folder / "samples.json"
    if not index.is_file():
        return [], []
    try:
        told = read_json(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{index} is damaged: {error}") from None
    if wrong := fault(told, {"files": [str], "labels?": [str]}):
        raise DataError(f"{index} is damaged: {wrong}.")
    files = [folder / Path(name).name for name in told["files"]]
    labels = told.get("labels", [None] * len(files))
    if len(labels) != len(files):
        raise DataError(f"{index} is damaged: it has {len(files)} files and {len(labels)} labels.")
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of the images that samples.json names, first {missing[0]}.")
    return files, labels

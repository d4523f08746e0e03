"""A model that is served, and what it keeps."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerascls.errors import DataError
from kerascls.images.files import Upload
from kerascls.inference.classifier import Classifier
from kerascls.serving.batching import Batcher
from kerascls.serving.limits import Limits


@dataclasses.dataclass(frozen=True)
class Picture:
    """An uploaded image on its way through the batcher."""

    upload: Upload
    invert: bool = False


@dataclasses.dataclass(frozen=True)
class Served:
    """A model with its name and version in URLs."""

    classifier: Classifier
    name: str
    version: str = "1"


class Model:
    """A served model with the queue of its images."""

    def __init__(self, served: Served, limits: Limits, observe: Callable[[int], None]):
        self.classifier, self.name, self.version = served.classifier, served.name, served.version
        self.batcher = Batcher(
            self._read,
            lambda images: self.classifier.probabilities(images, limits.max_batch),
            max_batch=limits.max_batch,
            max_delay=limits.max_delay,
            max_queue=limits.max_queue,
            timeout=limits.timeout,
            observe=observe,
        )

    def _read(self, items: Sequence[Picture | np.ndarray]) -> list[np.ndarray | DataError]:
        """Pixels `image_shape` of encoded images, and of pixels of any size."""
        out: list[Any] = [self.classifier.resize(i[None])[0] if isinstance(i, np.ndarray) else None for i in items]
        for invert in (False, True):
            chosen = [i for i, item in enumerate(items) if isinstance(item, Picture) and item.invert == invert]
            if chosen:
                read = self.classifier.read([items[i].upload for i in chosen], invert)
                for i, answer in zip(chosen, read, strict=True):
                    out[i] = answer
        return out


# The app

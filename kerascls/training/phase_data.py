"""The batches that a training phase reads."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a phase trains on: `pipeline.TrainingBatches`, and a tf.data.Dataset of the validation split or None."""

    batches: Any
    validation: Any

"""Scores what a run saved of every epoch, as plain Keras reads it.

`python -m benchmarks.score RUN FILE.npz` prints a JSON object: `epoch_accuracies`, those of `RUN/epochs/001.keras` and
its successors on the file's `x_test`, `y_test`.
"""

import json
import sys
from pathlib import Path

import numpy as np


def accuracies(run: Path, file: Path) -> list[float]:
    import keras

    with np.load(file) as arrays:
        images, labels = arrays["x_test"], arrays["y_test"]
    models = (keras.saving.load_model(path, compile=False) for path in sorted((run / "epochs").glob("*.keras")))
    return [float(np.mean(model.predict(images, 1000, verbose=0).argmax(1) == labels)) for model in models]


if __name__ == "__main__":
    print(json.dumps({"epoch_accuracies": accuracies(Path(sys.argv[1]), Path(sys.argv[2]))}))

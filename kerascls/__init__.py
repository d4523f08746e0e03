"""From a data set to a trained, scored, exported and reloaded Keras image classifier.

    import kerascls

    run = kerascls.train("mnist_cnn")
    print(kerascls.evaluate(run.path).accuracy)
    print(kerascls.load(run.path).predict(["three.png"]))
    kerascls.export(run.path, "saved_model")

Importing this leaves TensorFlow unimported; the first call imports it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerascls.data.show import show as show
    from kerascls.data.split_folder import split as split
    from kerascls.exporting.adopt import adopt as adopt
    from kerascls.exporting.export import Export as Export
    from kerascls.exporting.export import export as export
    from kerascls.formats.inspect import inspect as inspect
    from kerascls.inference.classifier import Classifier as Classifier
    from kerascls.inference.classifier import Prediction as Prediction
    from kerascls.inference.evaluate import Evaluation as Evaluation
    from kerascls.inference.evaluate import evaluate as evaluate
    from kerascls.inference.explain import Explanation as Explanation
    from kerascls.inference.explain import explain as explain
    from kerascls.inference.heat_maps import heat_maps as heat_maps
    from kerascls.inference.heat_maps import overlay as overlay
    from kerascls.inference.loading import load as load
    from kerascls.training.sweep import SweepResult as SweepResult
    from kerascls.training.sweep import sweep as sweep
    from kerascls.training.train import TrainResult as TrainResult
    from kerascls.training.train import train as train

from kerascls.version import __version__

_HOME = {
    "train": "training.train",
    "TrainResult": "training.train",
    "adopt": "exporting.adopt",
    "evaluate": "inference.evaluate",
    "Evaluation": "inference.evaluate",
    "load": "inference.loading",
    "inspect": "formats.inspect",
    "show": "data.show",
    "split": "data.split_folder",
    "Classifier": "inference.classifier",
    "Prediction": "inference.classifier",
    "sweep": "training.sweep",
    "SweepResult": "training.sweep",
    "explain": "inference.explain",
    "Explanation": "inference.explain",
    "heat_maps": "inference.heat_maps",
    "overlay": "inference.heat_maps",
    "export": "exporting.export",
    "Export": "exporting.export",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kerascls' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"kerascls.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""From a data set to a trained, scored, exported and reloaded Keras image classifier.

    import kerascls

    run = kerascls.train("mnist_cnn")
    print(kerascls.evaluate(run.path).accuracy)
    print(kerascls.load(run.path).predict(["three.png"]))
    kerascls.export(run.path, "saved_model")

Importing this leaves TensorFlow unimported; the first call imports it.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerascls.adopt import adopt as adopt
    from kerascls.evaluate import Evaluation as Evaluation
    from kerascls.evaluate import evaluate as evaluate
    from kerascls.explain import Explanation as Explanation
    from kerascls.explain import explain as explain
    from kerascls.explain import heat_maps as heat_maps
    from kerascls.explain import overlay as overlay
    from kerascls.export import Export as Export
    from kerascls.export import export as export
    from kerascls.inspect import inspect as inspect
    from kerascls.load import Classifier as Classifier
    from kerascls.load import Prediction as Prediction
    from kerascls.load import load as load
    from kerascls.show import show as show
    from kerascls.split import split as split
    from kerascls.sweep import SweepResult as SweepResult
    from kerascls.sweep import sweep as sweep
    from kerascls.train import TrainResult as TrainResult
    from kerascls.train import train as train

__version__ = "0.1.0"

_HOME = {
    "train": "train",
    "TrainResult": "train",
    "adopt": "adopt",
    "evaluate": "evaluate",
    "Evaluation": "evaluate",
    "load": "load",
    "inspect": "inspect",
    "show": "show",
    "split": "split",
    "Classifier": "load",
    "Prediction": "load",
    "sweep": "sweep",
    "SweepResult": "sweep",
    "explain": "explain",
    "Explanation": "explain",
    "heat_maps": "explain",
    "overlay": "explain",
    "export": "export",
    "Export": "export",
}
__all__ = [*_HOME, "__version__"]


class _Package(types.ModuleType):
    """`kerascls.train` is the function, although kerascls/train.py is a module of that name.

    Python binds a submodule to its package when it is imported; here that would hide the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kerascls' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"kerascls.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


sys.modules[__name__].__class__ = _Package

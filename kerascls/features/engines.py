"""The engine and the precision that compute a backbone's features."""

import importlib.metadata
import importlib.util

from kerascls.devices import Placement
from kerascls.errors import ConfigError
from kerascls.recipes.schema import Features

ENGINES = {"tensorflow": "TensorFlow", "openvino": "OpenVINO"}


def choose_engine(wish: str, kind: str) -> str:
    """The engine for the recipe's `features.engine`, on a "cpu" or "gpu"."""
    installed = importlib.util.find_spec("openvino") is not None
    if wish == "openvino" and not installed:
        raise ConfigError("features.engine = openvino needs OpenVINO: pip install 'kerascls[openvino]'")
    return "openvino" if wish == "openvino" or (wish == "auto" and installed and kind == "cpu") else "tensorflow"


def choose_precision(wish: str, placement: Placement) -> str:
    """bf16 where the recipe's `features.precision` asks for it and the device computes in it, else float32."""
    return wish if placement.native_bfloat16() else "float32"


def computed_by(wish: Features, placement: Placement) -> dict[str, dict[str, str]]:
    """For manifest.json's device: what a recipe's features are computed by. Empty where it trains on images.

    Raises:
        ConfigError: the engine that the recipe asks for is not here.
    """
    if not wish.views:
        return {}
    engine, precision = choose_engine(wish.engine, placement.kind), choose_precision(wish.precision, placement)
    told = {"engine": engine, "precision": precision}
    return {"features": told | ({} if engine == "tensorflow" else {engine: importlib.metadata.version(engine)})}


def engine_versions(engine: str) -> list[str]:
    import keras
    import tensorflow as tf

    from kerascls.version import __version__

    return [__version__, keras.__version__, tf.__version__] + (
        [f"openvino {importlib.metadata.version('openvino')}"] if engine == "openvino" else []
    )

"""LiteRT models (.tflite), run without TensorFlow where ai-edge-litert is installed, else by TensorFlow's own copy."""

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import devices
from kerascls.errors import ModelError


class LiteModel:
    """An opened .tflite. Calling it with uint8 `(n, height, width, channels)` gives float32 `(n, num_classes)`.

    Attributes:
        input_shape, output_shape: as a keras.Model has them, (None, height, width, channels) and (None, num_classes).
    """

    def __init__(self, path: Path):
        """Raises ModelError if the file is damaged, is no classifier of float32 pixels, or nothing can run it."""
        interpreter = _interpreter()
        try:
            with devices.quiet_stderr(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TensorFlow's copy says that it will go
                self._interpreter = interpreter(str(path), num_threads=os.cpu_count())
                self._interpreter.allocate_tensors()
            (self._input,), (self._output,) = (
                self._interpreter.get_input_details(),
                self._interpreter.get_output_details(),
            )
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = (str(error).strip().splitlines() or ["damaged"])[0]
            raise ModelError(f"Model {path} cannot be loaded: {reason}") from None
        shapes = [tuple(one["shape_signature"].tolist()) for one in (self._input, self._output)]
        self.input_shape, self.output_shape = ((None, *shape[1:]) for shape in shapes)
        kinds = {self._input["dtype"], self._output["dtype"]}
        if shapes[0][:1] != (-1,) or kinds != {np.float32}:
            raise ModelError(f"Model {path} must take a batch of float32 images. Received: {kinds}, {shapes[0]}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if tuple(self._input["shape"]) != images.shape:
            with devices.quiet_stderr():
                self._interpreter.resize_tensor_input(self._input["index"], images.shape)
                self._interpreter.allocate_tensors()
            self._input = self._interpreter.get_input_details()[0]
        self._interpreter.set_tensor(self._input["index"], images.astype(np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])


def _interpreter() -> Any:
    """The class that runs a model; TensorFlow is imported only where ai-edge-litert is not installed."""
    with contextlib.suppress(ImportError):
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    try:
        devices.start()
        import tensorflow as tf

        return tf.lite.Interpreter
    except ImportError:
        raise ModelError("A .tflite file needs ai-edge-litert to run: pip install 'kerascls[litert]'") from None

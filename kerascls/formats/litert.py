"""LiteRT files (.tflite): writes and runs them."""

import contextlib
import importlib.util
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerascls.errors import ModelError
from kerascls.formats._format import Format, Writer
from kerascls.formats.card import CARD, Card
from kerascls.formats.opening import check, reading, there, utf8
from kerascls.formats.scan.isolated import LONG, SECONDS, apart
from kerascls.formats.scan.programs import read_program
from kerascls.formats.writing import converting
from kerascls.system import machine, tensorflow
from kerascls.system.atomic_files import atomic

if TYPE_CHECKING:  # for `kerascls export --help`
    import numpy as np


def save_litert(
    model: Any, card: Card, path: Path, kind: str = "float32", calibration: "np.ndarray | None" = None
) -> None:
    """Writes a .tflite with a zip of its card behind it, as LiteRT's metadata has it. It needs no Flex ops.

    Args:
        kind: of its weights. "int8" computes in whole numbers too, but for what is too fine for them; it takes and
            gives float32 as the others do.
        calibration: for "int8": uint8 images `(n, *image_shape)` from which the ranges of activations are read.
    """
    import tensorflow as tf

    from kerascls.formats.int8 import quantized

    told: dict[str, Any] = {"weights": kind}
    if kind == "int8":
        told["calibration_images"] = len(calibration)
    with atomic(path) as temporary, converting(model, "LiteRT"):
        if kind == "int8":
            temporary.write_bytes(quantized(model, calibration))
        else:
            options: dict[str, Any] = {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}
            if kind == "float16":
                options["optimizations"] = [tf.lite.Optimize.DEFAULT]
                options["target_spec"]["supported_types"] = [tf.float16]
            model.export(temporary, format="litert", verbose=False, **options)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CARD, card.as_json(**told))


class LiteModel:
    """An opened .tflite, its card in a zip behind it."""

    kind = "a LiteRT file"
    suffix = ".tflite"

    def __init__(self, path: Path):
        """Raises ModelError if the file is damaged, is no classifier of float32 pixels, or nothing can run it."""
        import numpy as np

        program = read_program(path)
        self.card = there(path, program.card)
        alone = importlib.util.find_spec("ai_edge_litert") is not None  # TensorFlow takes long to be imported
        apart(_tried, path, SECONDS if program.loops and alone else LONG)
        self._interpreter = _opened(path, machine.cores())
        (self._input,), (self._output,) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        shapes = [tuple(one["shape_signature"].tolist()) for one in (self._input, self._output)]
        self.input_shape, self.output_shape = ((None, *shape[1:]) for shape in shapes)
        kinds = {self._input["dtype"], self._output["dtype"]}
        check(path, shapes[0][:1] == (-1,) and kinds == {np.float32}, f"{kinds}, {shapes[0]}")

    def __call__(self, images: "np.ndarray") -> "np.ndarray":
        import numpy as np

        if tuple(self._input["shape"]) != images.shape:
            with tensorflow.quiet_stderr():
                self._interpreter.resize_tensor_input(self._input["index"], images.shape)
                self._interpreter.allocate_tensors()
            self._input = self._interpreter.get_input_details()[0]
        self._interpreter.set_tensor(self._input["index"], images.astype(np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])


def _opened(path: Path, threads: int) -> Any:
    """LiteRT's interpreter of a .tflite of one input and one output."""
    interpreter, name = _interpreter(), utf8(path)
    with reading(path), tensorflow.quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's copy says that it will go
        opened = interpreter(name, num_threads=threads)
        opened.allocate_tensors()
        if (counts := (len(opened.get_input_details()), len(opened.get_output_details()))) != (1, 1):
            raise ModelError(f"{counts} inputs and outputs")
    return opened


def _tried(path: Path) -> None:
    """Runs a .tflite on one empty image, and makes room for two: LiteRT crashes on some damaged ones."""
    import numpy as np

    interpreter = _opened(path, 1)
    (entrance,) = interpreter.get_input_details()
    with reading(path):
        shape = [1, *entrance["shape"][1:].tolist()]
        interpreter.resize_tensor_input(entrance["index"], shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entrance["index"], np.zeros(shape, entrance["dtype"]))
        interpreter.invoke()
        interpreter.resize_tensor_input(entrance["index"], [2, *shape[1:]])
        interpreter.allocate_tensors()


def _interpreter() -> Any:
    """The class that runs a .tflite; TensorFlow is imported only where ai-edge-litert is not installed."""
    with contextlib.suppress(ImportError):
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    try:
        tensorflow.start()
        import tensorflow as tf

        return tf.lite.Interpreter
    except ImportError:
        raise ModelError("A .tflite file needs ai-edge-litert to run: pip install 'kerascls[litert]'") from None


def _of(kind: str) -> Writer:
    return lambda model, card, path, calibration: save_litert(model, card, path, kind, calibration)


FORMATS = {
    "litert": Format("model.tflite", ".tflite", _of("float32"), "litert", 1e-5),
    "litert_float16": Format("model_float16.tflite", ".tflite", _of("float16"), "litert", None),
    "litert_int8": Format("model_int8.tflite", ".tflite", _of("int8"), "litert", None, calibrated=True),
}
RUNTIMES = (LiteModel,)

"""Models that other runtimes than TensorFlow run: LiteRT (.tflite), ONNX Runtime (.onnx) and OpenVINO (.xml and .bin).

Each class is called with uint8 `(n, height, width, channels)` in [0, 255] and gives float32 `(n, num_classes)`. Its
`input_shape` and `output_shape` are as a keras.Model has them, `card` is the text of its card, and
`kind` its name for people.
None imports TensorFlow, but for a .tflite where ai-edge-litert is not installed.
"""

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerascls import devices
from kerascls.errors import ModelError
from kerascls.formats.scan.isolated import LONG, SECONDS, apart
from kerascls.formats.scan.programs import read_program


class LiteModel:
    """An opened .tflite, its card in a zip behind it."""

    kind = "a LiteRT file"

    def __init__(self, path: Path):
        """Raises ModelError if the file is damaged, is no classifier of float32 pixels, or nothing can run it."""
        program = read_program(path)
        self.card = _there(path, program.card)
        alone = importlib.util.find_spec("ai_edge_litert") is not None  # TensorFlow takes long to be imported
        apart(_tried, path, SECONDS if program.loops and alone else LONG)
        self._interpreter = _opened(path, devices.cores())
        (self._input,), (self._output,) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        shapes = [tuple(one["shape_signature"].tolist()) for one in (self._input, self._output)]
        self.input_shape, self.output_shape = ((None, *shape[1:]) for shape in shapes)
        kinds = {self._input["dtype"], self._output["dtype"]}
        _check(path, shapes[0][:1] == (-1,) and kinds == {np.float32}, f"{kinds}, {shapes[0]}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if tuple(self._input["shape"]) != images.shape:
            with devices.quiet_stderr():
                self._interpreter.resize_tensor_input(self._input["index"], images.shape)
                self._interpreter.allocate_tensors()
            self._input = self._interpreter.get_input_details()[0]
        self._interpreter.set_tensor(self._input["index"], images.astype(np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])


class OnnxModel:
    """An opened .onnx, its card among the model's properties."""

    kind = "an ONNX file"

    def __init__(self, path: Path):
        """Raises ModelError as LiteModel does."""
        try:
            import onnxruntime
        except ImportError:
            raise ModelError("A .onnx file needs ONNX Runtime to run: pip install 'kerascls[onnx]'") from None
        self.card = _there(path, read_program(path).card)
        name = utf8(path)
        with reading(path):
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
            (self._input,), (self._output,) = self._session.get_inputs(), self._session.get_outputs()
            # A dimension of any size has a name or None.
            self.input_shape, self.output_shape = (
                tuple(size if isinstance(size, int) else None for size in one.shape)
                for one in (self._input, self._output)
            )
            kinds = {self._input.type, self._output.type}
        fits = self.input_shape[:1] == (None,) and kinds == {"tensor(float)"}
        _check(path, fits, f"{kinds}, {self._input.shape}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._session.run([self._output.name], {self._input.name: images.astype(np.float32)})[0]


class OpenvinoModel:
    """An opened OpenVINO model: the .xml, or the folder of model.xml and model.bin. Its card is in the .xml."""

    kind = "an OpenVINO model"

    def __init__(self, path: Path):
        """Raises ModelError as LiteModel does."""
        try:
            import openvino
        except ImportError:
            raise ModelError("An OpenVINO model needs OpenVINO to run: pip install 'kerascls[openvino]'") from None
        self.card = _there(path, read_program(path).card)
        core = openvino.Core()
        with reading(path):
            model = core.read_model(path / "model.xml" if path.is_dir() else path)
            # Else it computes in bfloat16 wherever the processor does, which differs in the third digit.
            options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            self._compiled = core.compile_model(model, "CPU", options)
            (entrance,), (exit_,) = model.inputs, model.outputs
            self.input_shape, self.output_shape = (
                tuple(size.get_length() if size.is_static else None for size in one.partial_shape)
                for one in (entrance, exit_)
            )
            kinds = {one.element_type.to_dtype() for one in (entrance, exit_)}
        _check(path, self.input_shape[:1] == (None,) and kinds == {np.dtype("float32")}, f"{kinds}, {self.input_shape}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._compiled(images.astype(np.float32))[0].copy()  # the next call writes over it


RUNTIMES = {".tflite": LiteModel, ".onnx": OnnxModel, ".xml": OpenvinoModel}


def runtime_of(path: Path) -> type | None:
    """The class that opens `path`; None where that is not for this room."""
    if path.is_dir():
        return OpenvinoModel if (path / "model.xml").is_file() else None
    return RUNTIMES.get(path.suffix)


def utf8(path: Path) -> str:
    """A path for libraries that take no other. Raises ModelError where its bytes are no UTF-8."""
    try:
        return str(path).encode("utf-8").decode()
    except UnicodeEncodeError:
        raise ModelError(f"{path} cannot be opened under a name that is not UTF-8: rename or copy it.") from None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """One line in place of what a runtime says of a damaged file. Each has exceptions of its own."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["damaged"])[0]
        raise ModelError(f"Model {path} cannot be loaded: {reason[:200]}") from None


def _there(path: Path, card: str | None) -> str:
    if card is None:
        raise ModelError(
            f"Model {path} has no card (class names, image shape): it is cut short, or not one that `kerascls export` "
            "wrote."
        )
    return card


def _check(path: Path, fits: bool, received: str) -> None:
    if not fits:
        raise ModelError(f"Model {path} must take a batch of float32 images. Received: {received}")


def _opened(path: Path, threads: int) -> Any:
    """LiteRT's interpreter of a .tflite of one input and one output."""
    interpreter, name = _interpreter(), utf8(path)
    with reading(path), devices.quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's copy says that it will go
        opened = interpreter(name, num_threads=threads)
        opened.allocate_tensors()
        if (counts := (len(opened.get_input_details()), len(opened.get_output_details()))) != (1, 1):
            raise ModelError(f"{counts} inputs and outputs")
    return opened


def _tried(path: Path) -> None:
    """Runs a .tflite on one empty image, and makes room for two: LiteRT crashes on some damaged ones."""
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
        devices.start()
        import tensorflow as tf

        return tf.lite.Interpreter
    except ImportError:
        raise ModelError("A .tflite file needs ai-edge-litert to run: pip install 'kerascls[litert]'") from None

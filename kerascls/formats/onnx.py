"""ONNX files (.onnx): writes them, and runs them by ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerascls.errors import ModelError, OutputError
from kerascls.formats._format import Format, uncalibrated
from kerascls.formats.card import PROPERTY, Card
from kerascls.formats.opening import check, reading, there, utf8
from kerascls.formats.scan.programs import read_program
from kerascls.formats.writing import converting
from kerascls.system.atomic_files import atomic

if TYPE_CHECKING:  # for `kerascls export --help`
    import numpy as np

OPSET = 18  # of ONNX: the newest that tf2onnx 1.17 writes


def save_onnx(model: Any, card: Card, path: Path) -> None:
    """Writes a .onnx: `images` float32 (batch, *image_shape) in [0, 255] to `probabilities`; the card is a property."""
    try:
        import onnx
        import tf2onnx
    except ImportError:
        raise OutputError("ONNX needs tf2onnx and onnx: pip install 'kerascls[onnx]'") from None
    import tensorflow as tf

    images = tf.TensorSpec(model.input_shape, tf.float32, name="images")
    function = tf.function(
        lambda images: {"probabilities": model(images, training=False)}, input_signature=[images], autograph=False
    )
    with atomic(path) as temporary, converting(model, "ONNX"):
        proto, _ = tf2onnx.convert.from_function(function, [images], opset=OPSET)
        onnx.helper.set_model_props(proto, {PROPERTY: card.as_json()})
        onnx.save(proto, temporary)


class OnnxModel:
    """An opened .onnx, its card among the model's properties."""

    kind = "an ONNX file"
    suffix = ".onnx"

    def __init__(self, path: Path):
        """Raises ModelError as LiteModel does."""
        try:
            import onnxruntime
        except ImportError:
            raise ModelError("A .onnx file needs ONNX Runtime to run: pip install 'kerascls[onnx]'") from None
        self.card = there(path, read_program(path).card)
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
        check(path, fits, f"{kinds}, {self._input.shape}")

    def __call__(self, images: "np.ndarray") -> "np.ndarray":
        import numpy as np

        return self._session.run([self._output.name], {self._input.name: images.astype(np.float32)})[0]


FORMATS = {
    "onnx": Format(
        "model.onnx", ".onnx", uncalibrated(save_onnx), "onnx", 1e-5, ("tf2onnx", "onnx", "onnxruntime"), "onnx"
    )
}
RUNTIMES = (OnnxModel,)

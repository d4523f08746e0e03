"""OpenVINO files (.xml and .bin): writes and runs them."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerascls.errors import ModelError, OutputError
from kerascls.formats._format import Format, uncalibrated
from kerascls.formats.card import PROPERTY, Card
from kerascls.formats.opening import check, reading, there
from kerascls.formats.scan.programs import read_program
from kerascls.formats.writing import converting, need_room
from kerascls.system.atomic_files import atomic, cannot_write

if TYPE_CHECKING:  # for `kerascls export --help`
    import numpy as np


def save_openvino(model: Any, card: Card, path: Path) -> None:
    """Writes a folder of model.xml and model.bin in float32: `images` to `probabilities`; the card is in the .xml."""
    try:
        import openvino
    except ImportError:
        raise OutputError("OpenVINO needs its package: pip install 'kerascls[openvino]'") from None
    with atomic(path) as temporary:
        with converting(model, "OpenVINO"):
            converted = to_openvino(model)
            converted.inputs[0].get_tensor().set_names({"images"})
            converted.outputs[0].get_tensor().set_names({"probabilities"})
            converted.set_rt_info(card.as_json(), [PROPERTY])
            temporary.mkdir()
            need_room(model, temporary)
            openvino.save_model(converted, temporary / "model.xml", compress_to_fp16=False)


def to_openvino(model: Any) -> Any:
    """An openvino.Model of float32 images, read by TensorFlow's format for frozen graphs."""
    import openvino

    from kerascls.formats.graph import frozen

    with tempfile.TemporaryDirectory(prefix="kerascls-") as scratch:
        graph = Path(scratch) / "frozen.pb"
        try:
            graph.write_bytes(frozen(model).graph.as_graph_def().SerializeToString())
        except OSError as error:
            raise cannot_write(graph, error) from None
        return openvino.Core().read_model(graph)


class OpenvinoModel:
    """An opened OpenVINO model: the .xml, or the folder of model.xml and model.bin. Its card is in the .xml."""

    kind = "an OpenVINO model"
    suffix, file_name = ".xml", "model.xml"

    def __init__(self, path: Path):
        """Raises ModelError as LiteModel does."""
        import numpy as np

        try:
            import openvino
        except ImportError:
            raise ModelError("An OpenVINO model needs OpenVINO to run: pip install 'kerascls[openvino]'") from None
        self.card = there(path, read_program(path).card)
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
        check(path, self.input_shape[:1] == (None,) and kinds == {np.dtype("float32")}, f"{kinds}, {self.input_shape}")

    def __call__(self, images: "np.ndarray") -> "np.ndarray":
        import numpy as np

        return self._compiled(images.astype(np.float32))[0].copy()  # the next call writes over it


FORMATS = {"openvino": Format("openvino", "", uncalibrated(save_openvino), "openvino", 1e-5, ("openvino",), "openvino")}
RUNTIMES = (OpenvinoModel,)

"""Which class opens a model file, and which files belong to a model."""

import os
from pathlib import Path

from kerascls.formats.litert import LiteModel
from kerascls.formats.onnx import OnnxModel
from kerascls.formats.openvino import OpenvinoModel
from kerascls.formats.scan.containers import ARCHITECTURE
from kerascls.runs.run import Run, is_run

RUNTIMES = {".tflite": LiteModel, ".onnx": OnnxModel, ".xml": OpenvinoModel}


def runtime_of(path: Path) -> type | None:
    """The class that opens `path`; None where that is not for this room."""
    if path.is_dir():
        return OpenvinoModel if (path / "model.xml").is_file() else None
    return RUNTIMES.get(path.suffix)


# Opening


def model_files(path: str | os.PathLike) -> list[Path]:
    """The files that `load` would open, in a fixed order: what they hold is what the model is."""
    path = Path(path)
    if path.is_file():
        return [path]
    if is_run(path):
        return [Run.open(path).model_path]
    folder = path if (path / ARCHITECTURE).is_file() else saved_model_folder(path)
    return sorted(file for file in (folder or path).rglob("*") if file.is_file())


def is_model(path: Path) -> bool:
    """Whether there is something at `path` that `load` would open, but for a run."""
    if path.is_file():
        return True
    return path.is_dir() and bool(runtime_of(path) or (path / ARCHITECTURE).is_file() or saved_model_folder(path))


def saved_model_folder(path: Path) -> Path | None:
    """The folder that has saved_model.pb: `path`, or its highest version folder."""
    if (path / "saved_model.pb").is_file():
        return path
    versions = [child for child in path.iterdir() if child.name.isdigit() and (child / "saved_model.pb").is_file()]
    return max(versions, key=lambda child: int(child.name), default=None)

"""The formats of model files, each in its own file: a further one is that file and its name in FILES.

A format's file may state two things:

- `FORMATS`: {name: Format} of the exports that it writes;
- `RUNTIMES`: classes that open a file or folder by another runtime than TensorFlow, see `formats.opening`.
"""

import importlib
import os
from pathlib import Path

from kerascls.formats._format import Format
from kerascls.formats.scan.containers import ARCHITECTURE
from kerascls.runs.run import Run, is_run

FILES = ("keras", "saved_model", "h5", "weights", "litert", "onnx", "openvino")

_MODULES = [importlib.import_module(f"kerascls.formats.{name}") for name in FILES]
FORMATS: dict[str, Format] = {
    name: format for module in _MODULES for name, format in getattr(module, "FORMATS", {}).items()
}
RUNTIMES: list[type] = [runtime for module in _MODULES for runtime in getattr(module, "RUNTIMES", ())]


# Exporting


def not_installed(format: str) -> str | None:
    """What to install for a format; None where all is there."""
    missing = FORMATS[format].missing
    return f"{format} needs {', '.join(missing)}: pip install 'kerascls[{FORMATS[format].extra}]'" if missing else None


# Opening


def runtime_of(path: Path) -> type | None:
    """The class of RUNTIMES that opens `path`; None where Keras or TensorFlow does."""
    if path.is_dir():
        folders = (runtime for runtime in RUNTIMES if hasattr(runtime, "file_name"))
        return next((runtime for runtime in folders if (path / runtime.file_name).is_file()), None)
    return next((runtime for runtime in RUNTIMES if runtime.suffix == path.suffix), None)


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

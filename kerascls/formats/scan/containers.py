"""Keras files, and folders of architecture and weights, opened within limits: what they hold."""

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerascls.errors import ModelError, first_line
from kerascls.formats.card import CARD, PROPERTY
from kerascls.formats.scan import limits
from kerascls.formats.scan.archives import CONFIG, METADATA, WEIGHTS, entries_of, unpacked
from kerascls.formats.scan.hdf5 import count_values, read_attribute
from kerascls.formats.scan.isolated import apart

ARCHITECTURE = "architecture.json"  # of a folder of architecture and weights


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a Keras file holds.

    Attributes:
        config: the configuration of its model, as JSON has it.
        values: how many numbers its weights are.
        written_with: {package: version}, as far as it says.
        card: the text of its card, or None.
    """

    config: Any
    values: int
    written_with: dict[str, str]
    card: str | None


def read(path: Path) -> Contents:
    """What a .keras or .h5 file, told by its first bytes, or a folder of architecture and weights holds.

    It is read in a process of its own, of which the rest of this module tells nothing: HDF5 can crash or go round for
    ever where a file is damaged. That process reads all that Keras will read, but numbers that lie there as they are.

    Raises:
        ModelError: it is missing, is something else, or as `read_keras` does.
    """
    return Contents(**apart(_contents, path))


def _contents(path: Path) -> dict[str, Any]:
    return vars(_reader(path)(path))


def _reader(path: Path) -> Callable[[Path], Contents]:
    if path.is_dir():
        return read_folder
    if not path.is_file():
        raise ModelError(f"Model {path} does not exist.")
    with path.open("rb") as file:
        magic = file.read(8)
    kind = next((kind for kind in KINDS if magic.startswith(kind)), None)
    if kind is None:
        raise ModelError(
            f"{path} is not a model file: expected .keras or .h5. Received a file that begins with {magic[:4]!r}."
        )
    suffixes, reader = KINDS[kind]
    if path.suffix not in suffixes:
        raise ModelError(f"{path} must end in {' or '.join(suffixes)}.")
    return reader


def read_keras(path: Path) -> Contents:
    """What a .keras file holds.

    Raises:
        ModelError: its zip archive or the HDF5 file in it is damaged, holds what has no business there, or is larger
            than the limits.
    """
    with _reading(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        limits.check_size(path)
        entries = {entry.filename: entry for entry in entries_of(path, archive)}
        for name in (CONFIG, WEIGHTS):
            if name not in entries:
                raise limits.refused(path, f"it has no {name}")
        metadata = _json(path, METADATA, archive.read(METADATA)) if METADATA in entries else {}
        card = archive.read(CARD).decode() if CARD in entries else None
        config = _json(path, CONFIG, archive.read(CONFIG))
        values = count_values(path, unpacked(archive, entries[WEIGHTS], file))
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return Contents(config, values, {"keras": str(version)} if version else {}, card)


def read_h5(path: Path) -> Contents:
    """What a .h5 file holds. Raises ModelError as `read_keras` does."""
    import h5py

    with _reading(path):
        limits.check_size(path)
        values = count_values(path, path)
        with h5py.File(path) as file:
            texts = {name: read_attribute(path, file, name) for name in ("model_config", "keras_version", PROPERTY)}
        if texts["model_config"] is None:
            raise limits.refused(path, "it has weights and no model_config")
        config = _json(path, "model_config", texts["model_config"].encode())
    version = texts["keras_version"]
    return Contents(config, values, {"keras": version} if version else {}, texts[PROPERTY])


def read_folder(folder: Path) -> Contents:
    """What a folder of architecture.json and model.weights.h5 holds. Raises ModelError as `read_keras` does."""
    with _reading(folder):
        for name in (ARCHITECTURE, WEIGHTS):
            if not (folder / name).is_file():
                raise limits.refused(folder, f"it has no {name}")
            limits.check_size(folder / name)
        config = _json(folder, ARCHITECTURE, limits.read_text(folder / ARCHITECTURE))
        card = limits.read_text(folder / CARD).decode() if (folder / CARD).is_file() else None
        return Contents(config, count_values(folder, folder / WEIGHTS), {}, card)


# First bytes, the suffixes that Keras goes by, and what reads them.
KINDS = {b"PK": ((".keras",), read_keras), b"\x89HDF\r\n\x1a\n": ((".h5", ".hdf5"), read_h5)}


def check_weights(path: Path) -> None:
    """Raises ModelError as `read_keras` does, of a file of weights alone, .h5 or .keras."""
    if path.suffix == ".keras":
        read_keras(path)
        return
    if path.suffix not in (".h5", ".hdf5"):
        raise ModelError(f"Weights {path} must be a .h5 or .keras file.")
    apart(_weights, path)


def _weights(path: Path) -> int:
    with _reading(path):
        limits.check_size(path)
        return count_values(path, path)


class _reading:
    """Turns whatever zipfile, json and h5py raise on a damaged file into one ModelError."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, ModelError) or not isinstance(error, Exception):
            return
        reason = first_line(error)
        raise ModelError(
            f"{self.path} cannot be loaded: it is cut short, damaged, or not a model that Keras 3 reads "
            f"({reason[:160]})."
        ) from None


def _json(path: Path, what: str, text: bytes) -> Any:
    if len(text) > limits.MOST_TEXT:
        raise limits.refused(path, f"its {what} has {len(text):,} bytes, more than {limits.MOST_TEXT:,}")
    try:
        return json.loads(text)
    except RecursionError:
        raise limits.refused(path, f"its {what} is nested too deeply") from None

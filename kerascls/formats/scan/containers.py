"""Zip archives, HDF5 files and JSON of Keras models, opened within limits.

Limits are stated once, here. The largest networks of keras.applications come to a tenth of them.
"""

import dataclasses
import io
import json
import math
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from kerascls.errors import ModelError, first_line
from kerascls.formats.card import CARD, PROPERTY
from kerascls.formats.scan.isolated import apart

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
ARCHITECTURE = "architecture.json"  # of a folder of architecture and weights
ENTRIES = {CONFIG, METADATA, WEIGHTS, CARD}

MOST_TEXT = 16 << 20  # bytes of a configuration or card, in memory
MOST_FILE = 16 << 30  # bytes of a file
MOST_UNPACKED = 1 << 30  # bytes that compressed weights may take when unpacked, in memory
MOST_RATIO = 100  # of unpacked to packed; Keras does not compress, and no float weights come near it
SMALL = 1 << 20  # bytes that may be packed as tightly as they like: zeros are
MOST_OBJECTS = 20_000  # groups and data sets of an HDF5 file
MOST_DEPTH = 64  # of groups in groups
MOST_ATTRIBUTE = 4 << 30  # bytes that the strings of one attribute could come to

_FILTERS = {1, 2, 3, 4, 32000}  # gzip, shuffle, checksum, szip, lzf; another one would be looked for on this machine


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
        _check_size(path)
        entries = {entry.filename: entry for entry in _entries(path, archive)}
        for name in (CONFIG, WEIGHTS):
            if name not in entries:
                raise _refused(path, f"it has no {name}")
        metadata = _json(path, METADATA, archive.read(METADATA)) if METADATA in entries else {}
        card = archive.read(CARD).decode() if CARD in entries else None
        config = _json(path, CONFIG, archive.read(CONFIG))
        values = _values(path, _unpacked(archive, entries[WEIGHTS], file))
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return Contents(config, values, {"keras": str(version)} if version else {}, card)


def read_h5(path: Path) -> Contents:
    """What a .h5 file holds. Raises ModelError as `read_keras` does."""
    import h5py

    with _reading(path):
        _check_size(path)
        values = _values(path, path)
        with h5py.File(path) as file:
            texts = {name: _attribute(path, file, name) for name in ("model_config", "keras_version", PROPERTY)}
        if texts["model_config"] is None:
            raise _refused(path, "it has weights and no model_config")
        config = _json(path, "model_config", texts["model_config"].encode())
    version = texts["keras_version"]
    return Contents(config, values, {"keras": version} if version else {}, texts[PROPERTY])


def read_folder(folder: Path) -> Contents:
    """What a folder of architecture.json and model.weights.h5 holds. Raises ModelError as `read_keras` does."""
    with _reading(folder):
        for name in (ARCHITECTURE, WEIGHTS):
            if not (folder / name).is_file():
                raise _refused(folder, f"it has no {name}")
            _check_size(folder / name)
        config = _json(folder, ARCHITECTURE, read_text(folder / ARCHITECTURE))
        card = read_text(folder / CARD).decode() if (folder / CARD).is_file() else None
        return Contents(config, _values(folder, folder / WEIGHTS), {}, card)


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
        _check_size(path)
        return _values(path, path)


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is refused before anything in it runs: {why}.")


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


def _check_size(path: Path) -> None:
    if path.stat().st_size > MOST_FILE:
        raise _refused(path, f"it has {path.stat().st_size:,} bytes, more than {MOST_FILE:,}")


def check_regular(model: Path, *paths: Path) -> None:
    """Raises ModelError where something of a model is there and no file or folder: opening a pipe waits for ever."""
    for path in paths:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise _refused(model, f"{path.name[:100]} is no file, but a pipe or device")


def read_text(path: Path) -> bytes:
    """The bytes of a small file. Raises ModelError where it is larger than text in a model file may be."""
    if path.stat().st_size > MOST_TEXT:
        raise _refused(path, f"it has {path.stat().st_size:,} bytes, more than {MOST_TEXT:,}")
    return path.read_bytes()


def _json(path: Path, what: str, text: bytes) -> Any:
    if len(text) > MOST_TEXT:
        raise _refused(path, f"its {what} has {len(text):,} bytes, more than {MOST_TEXT:,}")
    try:
        return json.loads(text)
    except RecursionError:
        raise _refused(path, f"its {what} is nested too deeply") from None


# Zip


def _entries(path: Path, archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    """The entries of a .keras, each checked."""
    seen: set[str] = set()
    for entry in archive.infolist():
        name = entry.filename
        if name in seen:
            raise _refused(path, f"its archive has {name} twice")
        seen.add(name)
        if name not in ENTRIES:  # nor any path, then
            raise _refused(path, f"its archive has {name[:100]!r}; expected {', '.join(sorted(ENTRIES))} alone")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _refused(path, f"{name} in its archive is a link, not a file")
        if entry.flag_bits & 1:
            raise _refused(path, f"{name} in its archive is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(path, f"{name} in its archive is packed by method {entry.compress_type}")
        most = MOST_TEXT if name != WEIGHTS else MOST_FILE
        packed = entry.compress_type != zipfile.ZIP_STORED
        if packed and entry.file_size > SMALL:
            most = min(most, MOST_UNPACKED, MOST_RATIO * entry.compress_size)
        if entry.file_size > most or (not packed and entry.file_size != entry.compress_size):
            raise _refused(path, f"{name} in its archive unpacks {entry.compress_size:,} bytes to {entry.file_size:,}")
        yield entry


class _Window(io.RawIOBase):
    """A stored entry of an archive as a file of its own, without a copy."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        count = max(0, min(len(buffer), self._size - self._at))
        read = self._file.readinto(memoryview(buffer)[:count])
        self._at += read
        return read


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: BinaryIO) -> BinaryIO:
    if entry.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(entry))
    archive.open(entry).close()  # checks that the entry's own header agrees with the archive's directory
    file.seek(entry.header_offset)
    header = file.read(30)
    start = entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return _Window(file, start, entry.file_size)


# HDF5


def _values(path: Path, source: Any) -> int:
    """How many numbers are in the data sets of an HDF5 file, once all that is in it is found harmless.

    What describes the data is read, and of the data what is packed or in pieces.
    """
    import h5py
    from h5py import h5o

    with h5py.File(source) as file:
        size = file.id.get_filesize()
        names: list[bytes] = []
        faults: list[str] = []

        def visit(name: bytes, info: Any) -> bool | None:
            names.append(name)
            if info.type != h5py.h5l.TYPE_HARD:
                faults.append(f"{_shown(name)} in its HDF5 is a link to another place or file")
            elif len(names) > MOST_OBJECTS:
                faults.append(f"its HDF5 has more than {MOST_OBJECTS:,} objects")
            elif name.count(b"/") >= MOST_DEPTH:
                faults.append(f"its HDF5 is nested more than {MOST_DEPTH} groups deep")
            return True if faults else None

        file.id.links.visit(visit, info=True)
        if faults:
            raise _refused(path, faults[0])
        attributes = [(b"/", file.id)]
        values = stored = unpacked = 0
        for name in names:
            item = h5o.open(file.id, name)
            attributes.append((name, item))
            if isinstance(item, h5py.h5d.DatasetID):
                count, bytes_, declared = _data_set(path, name, item)
                values, stored = values + count, stored + bytes_
                unpacked += max(0, declared - bytes_)
            elif not isinstance(item, h5py.h5g.GroupID):
                raise _refused(path, f"{_shown(name)} in its HDF5 is neither a group nor numbers")
        if stored > size:
            raise _refused(path, f"its HDF5 says that {stored:,} bytes lie in {size:,}")
        if unpacked > MOST_UNPACKED:
            raise _refused(path, f"its HDF5 unpacks {stored:,} bytes to {unpacked + stored:,}")
        for name, item in attributes:
            _attributes(path, name, item, size - stored)
            of = (h5py.Dataset if isinstance(item, h5py.h5d.DatasetID) else h5py.Group)(item)
            for attribute in of.attrs:
                of.attrs[attribute]
            if isinstance(of, h5py.Dataset) and of.chunks:
                for chunk in of.iter_chunks():
                    of[chunk]
    return values


def _data_set(path: Path, name: bytes, item: Any) -> tuple[int, int, int]:
    """(numbers, stored bytes, bytes in memory) of a data set that is found harmless."""
    from h5py import h5d, h5t

    plan = item.get_create_plist()
    if plan.get_external_count() or plan.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
        raise _refused(path, f"the numbers of {_shown(name)} in its HDF5 lie in another file")
    kind = item.get_type()
    if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM):
        raise _refused(path, f"{_shown(name)} in its HDF5 holds no numbers")
    if unknown := {plan.get_filter(i)[0] for i in range(plan.get_nfilters())} - _FILTERS:
        raise _refused(path, f"{_shown(name)} in its HDF5 is packed by a filter that is not HDF5's own: {unknown}")
    count, stored = math.prod(item.shape or ()), item.get_storage_size()
    declared = count * kind.get_size()
    if declared > SMALL and declared > MOST_RATIO * stored:
        raise _refused(
            path,
            f"{_shown(name)} in its HDF5 has the shape {tuple(item.shape)}, {declared:,} bytes, of which "
            f"{stored:,} are there",
        )
    return count, stored, declared


def _attributes(path: Path, name: bytes, item: Any, described: int) -> None:
    """Refuses attributes that are no numbers or strings, or could be larger than the limits when they are read.

    `described` is how many bytes of the file are not data: as long as a string in it can be at most.
    """
    from h5py import h5a, h5t

    for i in range(h5a.get_num_attrs(item)):
        attribute = h5a.open(item, index=i)
        kind = attribute.get_type()
        if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM):
            raise _refused(path, f"an attribute of {_shown(name)} in its HDF5 is neither numbers nor text")
        count = math.prod(attribute.shape or ())
        most = count * described if kind.get_class() == h5t.STRING and kind.is_variable_str() else 0
        if most > MOST_ATTRIBUTE or count * kind.get_size() > MOST_TEXT:
            raise _refused(
                path, f"an attribute of {_shown(name)} in its HDF5 has the oversized shape {attribute.shape}"
            )


def _attribute(path: Path, file: Any, name: str) -> str | None:
    """The text of an attribute of the file, None where it has none of that name."""
    value = file.attrs.get(name)
    if value is None:
        return None
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise _refused(path, f"its attribute {name} is no text")
    return text


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")[:100]

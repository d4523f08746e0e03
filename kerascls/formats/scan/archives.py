"""Zip archives of Keras (.keras): their entries, each checked before it is unpacked."""

import io
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from kerascls.formats.card import CARD
from kerascls.formats.scan import limits

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
ENTRIES = {CONFIG, METADATA, WEIGHTS, CARD}


def entries_of(path: Path, archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    """The entries of a .keras, each checked."""
    seen: set[str] = set()
    for entry in archive.infolist():
        name = entry.filename
        if name in seen:
            raise limits.refused(path, f"its archive has {name} twice")
        seen.add(name)
        if name not in ENTRIES:  # nor any path, then
            raise limits.refused(path, f"its archive has {name[:100]!r}; expected {', '.join(sorted(ENTRIES))} alone")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise limits.refused(path, f"{name} in its archive is a link, not a file")
        if entry.flag_bits & 1:
            raise limits.refused(path, f"{name} in its archive is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise limits.refused(path, f"{name} in its archive is packed by method {entry.compress_type}")
        most = limits.MOST_TEXT if name != WEIGHTS else limits.MOST_FILE
        packed = entry.compress_type != zipfile.ZIP_STORED
        if packed and entry.file_size > limits.SMALL:
            most = min(most, limits.MOST_UNPACKED, limits.MOST_RATIO * entry.compress_size)
        if entry.file_size > most or (not packed and entry.file_size != entry.compress_size):
            raise limits.refused(
                path, f"{name} in its archive unpacks {entry.compress_size:,} bytes to {entry.file_size:,}"
            )
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


def unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: BinaryIO) -> BinaryIO:
    """An entry of an open archive as a file of its own."""
    if entry.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(entry))
    archive.open(entry).close()  # checks that the entry's own header agrees with the archive's directory
    file.seek(entry.header_offset)
    header = file.read(30)
    start = entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return _Window(file, start, entry.file_size)

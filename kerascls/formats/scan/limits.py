"""The sizes that a model file may have. The largest networks of keras.applications come to a tenth of them."""

from pathlib import Path

from kerascls.errors import ModelError

MOST_TEXT = 16 << 20  # bytes of a configuration or card, in memory
MOST_FILE = 16 << 30  # bytes of a file
MOST_UNPACKED = 1 << 30  # bytes that compressed weights may take when unpacked, in memory
MOST_RATIO = 100  # of unpacked to packed; Keras does not compress, and no float weights come near it
SMALL = 1 << 20  # bytes that may be packed as tightly as they like: zeros are
MOST_OBJECTS = 20_000  # groups and data sets of an HDF5 file
MOST_DEPTH = 64  # of groups in groups
MOST_ATTRIBUTE = 4 << 30  # bytes that the strings of one attribute could come to


def refused(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is refused before anything in it runs: {why}.")


def check_size(path: Path) -> None:
    if path.stat().st_size > MOST_FILE:
        raise refused(path, f"it has {path.stat().st_size:,} bytes, more than {MOST_FILE:,}")


def check_regular(model: Path, *paths: Path) -> None:
    """Raises ModelError where something of a model is there and no file or folder: opening a pipe waits for ever."""
    for path in paths:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise refused(model, f"{path.name[:100]} is no file, but a pipe or device")


def read_text(path: Path) -> bytes:
    """The bytes of a small file. Raises ModelError where it is larger than text in a model file may be."""
    if path.stat().st_size > MOST_TEXT:
        raise refused(path, f"it has {path.stat().st_size:,} bytes, more than {MOST_TEXT:,}")
    return path.read_bytes()

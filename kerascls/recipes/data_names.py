"""What a recipe's `data.name` may be, and what is wrong with one that is not."""

import contextlib
import shlex
from pathlib import Path

from kerascls.images.kinds import HEAD_BYTES, image_kind, unread_kind
from kerascls.recipes.catalog import dataset_files, names_beside, nearest

TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet", ".feather")
_ARCHIVES = (  # where they stand, the bytes, and the kind
    (0, b"PK\x03\x04", "ZIP"),
    (257, b"ustar", "tar"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "RAR"),
)


def data_problems(name: str, key: str) -> list[str]:
    fault = data_fault(name) if name else None  # "" waits for --data
    return [f"{key}: {fault}"] if fault else []


def data_fault(name: str) -> str | None:
    """Why a name means no data; None where it does: a data set of ours, tfds:NAME, a folder, a .npz, or a .py."""
    if name.startswith("tfds:") or name in dataset_files() or Path(name).is_dir():
        return None
    if name.endswith((".npz", ".py")):
        return None if Path(name).is_file() else f"file {name} does not exist.{nearest(name, names_beside(name))}"
    if Path(name).exists():
        return _other_file(Path(name))
    return (
        f"no data set or folder is named {name!r}.{nearest(name, [*dataset_files(), *names_beside(name)])} Known: "
        f"{', '.join(dataset_files())}, FOLDER, tfds:NAME, FILE.npz, ./my_data.py."
    )


def _other_file(path: Path) -> str:
    """What a file is that is no data set, and what to do with it."""
    suffix, head = path.suffix.lower(), b""
    if path.is_file():
        with contextlib.suppress(OSError), path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    if suffix in TABLES:
        return (
            f"{path} is a table, and labels in tables are not read. Put the images into one folder a class, or read "
            "the table in a data set of your own, ./my_data.py (docs/guides/your-own-model-or-data.md)."
        )
    packed = next((kind for at, magic, kind in _ARCHIVES if head.startswith(magic, at)), None)
    if packed:
        return f"{path} is an archive ({packed}). Unpack it, and name the folder."
    if kind := (image_kind(head) or unread_kind(head, path)):
        return (
            f"{path} is one image ({kind.upper()}). Expected a folder with one folder a class. To classify the image: "
            f"kerascls predict RUN {shlex.quote(str(path))}"
        )
    what = f"a file ({suffix})" if suffix else "a file"
    return (
        f"{path} is {what} that is not read. Expected a folder with one folder a class, FILE.npz, or ./my_data.py, "
        "which may read it (docs/guides/your-own-model-or-data.md)."
    )

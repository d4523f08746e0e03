"""File names: one form of Unicode, natural order, and names that systems leave in folders."""

import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


_NUMBERS = re.compile(r"(\d+)")


def nfc(text: str) -> str:
    """`text` in the form in which names are compared: macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", text)


def folder_name(root: str | Path) -> str:
    """What a folder is called, as it was typed: a link by its own name; `.` by that of the folder that it is."""
    return Path(os.path.abspath(root)).name or "root"


def natural_key(text: str) -> list[str | int]:
    """Sorts `10` after `9`, and a number before all that may stand in its place, the end too.

    >>> sorted(["b10", "b9", "a", "b"], key=natural_key)
    ['a', 'b9', 'b10', 'b']
    """
    parts: list[str | int] = _NUMBERS.split(text + "\0")
    parts[1::2] = map(int, parts[1::2])
    return parts


_SYSTEM = frozenset(  # that systems and programs leave in folders, as they do hidden files; without case
    (
        *("__macosx", "icon\r", "network trash folder", "temporary items", "desktop db", "desktop df"),  # macOS
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin"),  # Windows
        *("system volume information", "picasa.ini", "zbthumbnail.info"),
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin"),  # Synology
        *("@__thumb", "@recycle", "@recently-snapshot", "@transcode", "~snapshot"),  # QNAP, NetApp
        *("lost+found", "__pycache__"),
    )
)


def is_system(name: str) -> bool:
    """Whether a file's or folder's name is hidden, or one that a system leaves behind.

    >>> is_system("@eaDir"), is_system("._cat.jpg"), is_system("THUMBS.DB"), is_system("recycled")
    (True, True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM

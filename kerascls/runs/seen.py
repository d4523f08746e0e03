"""Digests of the images that a run was trained and validated on."""

import dataclasses
from pathlib import Path

import numpy as np

from kerascls.errors import RunError
from kerascls.runs.run import Run
from kerascls.system.atomic_files import atomic

SEEN = "seen.bin"  # a run's file of the digests of its training and validation images
KEPT = 16  # bytes of each: 20 MB for ImageNet, and chance makes no two alike


@dataclasses.dataclass(frozen=True)
class Seen:
    """The images that a run was trained or validated on.

    Attributes:
        kind: "files" or "pixels", of which the digests are.
        digests: the first bytes of each image's, S16 `(n,)`, ascending.
    """

    kind: str
    digests: np.ndarray

    @classmethod
    def of(cls, kind: str, *contents: np.ndarray) -> "Seen":
        return cls(kind, np.unique(np.concatenate(contents).astype(f"S{KEPT}")))

    def has(self, contents: np.ndarray) -> np.ndarray:
        """Of each digest, whether it is among them: bool `(n,)`."""
        return np.isin(contents.astype(f"S{KEPT}"), self.digests)

    def write(self, folder: Path) -> None:
        with atomic(folder / SEEN) as temporary:
            temporary.write_bytes(self.digests.tobytes())


def seen_by(run: Run) -> Seen | None:
    """What a run has seen; None where it does not say, as one of an earlier version, or one without that file.

    Raises:
        RunError: its file is damaged.
    """
    kind, path = run.manifest["data"].get("contents"), run.path / SEEN
    if kind not in ("files", "pixels") or not path.is_file():
        return None
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from None
    if not raw or len(raw) % KEPT:
        raise RunError(
            f"{path} is damaged: it has {len(raw)} bytes, no multiple of {KEPT}. Put it back, or remove it: then "
            "evaluate says that what the run has seen is not known."
        )
    return Seen(kind, np.frombuffer(raw, f"S{KEPT}"))

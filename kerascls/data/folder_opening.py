"""Opening a folder: what each of its files holds, read from those that changed since the last time."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerascls.data.folder_index import (
    UNSETTLED,
    Index,
    Rule,
    State,
    readable,
    rows_of,
    states_before_reading,
    store_pixels,
    stored_pixels,
)
from kerascls.errors import DataError, TooLarge
from kerascls.images.files import checked_bytes, looks_like_image, read_bytes
from kerascls.system import tensorflow
from kerascls.system.memory import empty
from kerascls.system.names import folder_name
from kerascls.system.read_ahead import ahead
from kerascls.system.status import doing

BATCH = 64  # files that are read at a time; bounds what waits in memory
_KEEP_EVERY = 300  # seconds between two writings of what a long opening has learnt


def examine(root: Path, files: list[str], rule: Rule, kept: bool, stop: bool) -> tuple[Index, np.ndarray | None]:
    """What each file holds, and where they are `kept` the pixels of those that can be read, in order.

    Args:
        stop: whether to end at the first bad image; no other file's row then means anything.
    """
    index = Index.of(root, files)
    unread = ~index.known
    if not kept:
        _read(root, index, np.flatnonzero(unread), rule, None, stop)
        return index, None
    known = np.flatnonzero(index.known & readable(index.rows))
    found, there = decoded_before(root, rule, index.rows["content"][known])
    if there.all() and not unread.any():
        return index, found
    unread[known[~there]] = True
    pixels = empty((len(files), *rule[0]))
    pixels[known] = found
    del found
    _read(root, index, np.flatnonzero(unread), rule, pixels, stop)
    good = np.flatnonzero(readable(index.rows))
    for to, i in enumerate(good.tolist() if len(good) < len(files) else ()):
        pixels[to] = pixels[i]
    pixels = pixels[: len(good)]
    store_pixels(root, rule, index.rows["content"][good], pixels)
    return index, pixels


def decoded_before(root: Path, rule: Rule, contents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the files of these `contents`, SHA-256 `(n, 32)`, and which of them there are, bool `(n,)`."""
    found = stored_pixels(root, rule)
    if found and np.array_equal(found[0], contents):
        return found[1], np.ones(len(contents), bool)
    pixels, there = empty((len(contents), *rule[0])), np.zeros(len(contents), bool)
    if found:
        rows = rows_of(contents, found[0])
        there = rows >= 0
        pixels[there] = found[1][rows[there]]
    return pixels, there


def _read(root: Path, index: Index, positions: np.ndarray, rule: Rule, pixels: np.ndarray | None, stop: bool) -> None:
    """Reads, hashes and decodes the files at `positions`, into `index` and `pixels`. What it has read when it ends,
    however it does, is not read again."""
    if not len(positions):
        index.keep()
        return
    tensorflow.start()
    from kerascls.images.read import checksum, read_batch

    def read(batch: Sequence[int]) -> list[tuple[State, tuple[bytes, int] | None, np.ndarray | DataError | None]]:
        sums = {}

        def checked(path: Path) -> bytes:
            raw = read_bytes(path)
            sums[path] = hashlib.sha256(raw).digest(), int(checksum(raw))
            return checked_bytes(path, raw)

        paths = [root / index.names[i] for i in batch]
        states = states_before_reading(paths)
        answers = read_batch(paths, *rule, checked)
        if pixels is None:
            answers = [answer if isinstance(answer, DataError) else None for answer in answers]
        return [(state, sums.get(path), answer) for state, path, answer in zip(states, paths, answers, strict=True)]

    kept_at = time.monotonic()
    try:
        with doing(f"reading {folder_name(root)}", len(positions)) as progress:
            for batch, answers in ahead(positions.tolist(), BATCH, read):
                for i, (state, sums, answer) in zip(batch, answers, strict=True):
                    if isinstance(answer, DataError):
                        # Of what was not read, or was too much for this machine, another try may tell more.
                        lasting = sums is not None and not isinstance(answer, TooLarge)
                        path = root / index.names[i]
                        reason, image = str(answer).removeprefix(f"{path}: "), looks_like_image(path)
                        index.refuse(i, state if lasting else UNSETTLED, reason, image)
                        if stop and image:
                            return
                    else:
                        index.learn(i, state, *sums)
                        if pixels is not None:
                            pixels[i] = answer
                progress.step(len(batch))
                if time.monotonic() - kept_at > _KEEP_EVERY:
                    index.keep()
                    kept_at = time.monotonic()
    finally:
        index.keep()

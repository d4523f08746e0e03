"""Asks an export in a fresh process: `python -P common.py PROBE PATH QUESTIONS ANSWERS`.

PROBE is a file beside this one, which states two things:

- `HIDDEN` names the packages whose import fails in the process, as where they are not installed;
- `opened(path)` returns the text of the export's card, `by_pixels` and `by_bytes`. `by_pixels` takes uint8
  `(n, height, width, channels)`. `by_bytes` takes a list of encoded images, and is None where the export decodes none.

A probe imports no kerascls. Several have the name of the package that they import: `-P` keeps this folder out of
`sys.path`.
"""

import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def answered(ask: Callable, items: Sequence[Any], size: int) -> np.ndarray:
    """The answers to all items, asked in batches."""
    return np.concatenate([ask(items[at : at + size]) for at in range(0, len(items), size)])


def milliseconds(by_pixels: Callable, pixels: np.ndarray, size: int) -> float:
    """The median time per image in batches of one size."""
    batch = pixels[np.arange(size) % len(pixels)]
    by_pixels(batch)
    took: list[float] = []
    while len(took) < 3 or (sum(took) < 0.5 and len(took) < 100):
        begin = time.perf_counter()
        by_pixels(batch)
        took.append(time.perf_counter() - begin)
    return 1000 * float(np.median(took)) / size


def main(probe: str, path: str, questions: str, answers: str) -> None:
    """Opens the export at `path` and writes its answers to the questions as .npz."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    runtime = runpy.run_path(probe)
    for name in ("kerascls", *runtime["HIDDEN"]):
        sys.modules[name] = None  # its import fails, as where it is not installed
    card, by_pixels, by_bytes = runtime["opened"](path)
    pixels = np.load(os.path.join(questions, "pixels.npy"))
    with open(os.path.join(questions, "sizes.json")) as file:
        size, other, others = json.load(file)
    out = {"pixels": answered(by_pixels, pixels, size), "pixels_again": answered(by_pixels, pixels[:others], other)}
    if by_bytes:
        folder = os.path.join(questions, "encoded")
        files = []
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                files.append(file.read())
        out["bytes"] = answered(by_bytes, files, size)
    ms = [milliseconds(by_pixels, pixels, size) for size in (1, 32)]
    np.savez(answers, card=np.array(card), ms=np.array(ms), **out)


if __name__ == "__main__":
    main(*sys.argv[1:])

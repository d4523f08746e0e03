"""A process that trains and predicts for long: its memory must stay flat once it is warm.

    python -m tests.robustness.soak --trainings 100 --predictions 2000

Trainings are short ones of embedded digits, each in a run folder of its own, with its pictures; predictions are of 1 to
100 images of many sizes and kinds, each by a model opened anew every 50th time. Resident memory is read behind each of
the parts that a series is cut into. It is flat if its median over the last quarter lies at most GROWTH megabytes above
that over the second quarter: the first is the warming up, of TensorFlow's threads, of graphs and of the heap.
"""

import argparse
import gc
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

GROWTH = 40.0  # megabytes between the second and the last quarter of a series


def resident() -> float:
    """Megabytes of this process that lie in memory."""
    gc.collect()
    return int(re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1000


def series(count: int, each: Callable[[int], None], parts: int = 100) -> list[float]:
    """Megabytes behind each of `parts` parts of `count` calls."""
    found = []
    for i in range(count):
        each(i)
        if (i + 1) * parts // count > i * parts // count:
            found.append(resident())
    return found


def growth(megabytes: list[float]) -> float:
    """From the second quarter's median to the last quarter's."""
    quarter = len(megabytes) // 4
    return statistics.median(megabytes[-quarter:]) - statistics.median(megabytes[quarter : 2 * quarter])


def trainings(count: int) -> list[float]:
    import kerascls

    short = {
        "train": {"batch_size": 256, "samples": 4},
        "model": {"name": "small_cnn", "filters": 2, "blocks": 1},
        "augment": {"policy": [{"name": "shift", "pixels": 1}]},
    }

    def each(i: int) -> None:
        kerascls.train("mnist_cnn_bn", data="digits", epochs=1, seed=i, overrides=short, out=f"run{i}")

    return series(count, each)


def predictions(count: int) -> list[float]:
    import numpy as np
    from PIL import Image

    import kerascls

    random = np.random.default_rng(0)
    files = []
    for i in range(200):
        kind = ("png", "jpeg", "bmp", "gif", "webp")[i % 5]
        size = tuple(random.integers(1, 200, 2))
        shape = size if i % 2 else (*size, 3)
        files.append(f"picture{i}.{kind}")
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(files[-1])
    run = kerascls.train("mnist_cnn", data="digits", epochs=1, out="run").path
    opened = {}

    def each(i: int) -> None:
        if i % 50 == 0:
            opened["model"] = kerascls.load(run)
        chosen = random.choice(files, random.integers(1, 101))
        assert all(
            answer.label for answer in opened["model"].predict(list(chosen), batch_size=int(random.integers(1, 65)))
        )

    return series(count, each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--predictions", type=int, default=2000)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, run, count in (
            ("trainings", trainings, options.trainings),
            ("predictions", predictions, options.predictions),
        ):
            if not count:
                continue
            megabytes = run(count)
            quarters = [
                statistics.median(megabytes[i * len(megabytes) // 4 :][: len(megabytes) // 4]) for i in range(4)
            ]
            found[name] = growth(megabytes)
            told = ", ".join(f"{each:.0f}" for each in quarters)
            print(f"{count} {name}: {told} MB in the quarters, growth {found[name]:.1f} MB", flush=True)
        os.chdir("/")
    print(json.dumps(found))
    sys.exit(max(found.values()) > GROWTH)


if __name__ == "__main__":
    main()

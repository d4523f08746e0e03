"""Trainings that are killed or run out of disk at random instants, resumed, and held against one that was left alone.

    python -m tests.robustness.endure --kills 50 --full 10 --seed 0

Each of SCENARIOS is trained once in peace. Then it is trained again and again with its process killed (SIGKILL) after a
random time or at a random write of its own, inside checkpoints too, or with a disk that is full from a random write on,
and gone on with, until it ends. Its weights, epochs and scores must then be those of the first, to the bit.
`test_checkpoint` runs a short form.
"""

import argparse
import csv
import errno
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ENOUGH_WRITES = 60  # more than a short training makes

MNIST_CNN = """
[data]
name = "digits"
[model]
name = "mnist_cnn"
[train]
epochs = 5
optimizer = "adam"
learning_rate = 0.01
schedule = "cosine"
checkpoint_steps = 16
"""

# All that has a memory at once: dropout, augmentation, moving averages, early stopping.
EVERYTHING = """
[data]
name = "digits"
validation = 0.2
[model]
name = "small_cnn"
filters = 4
blocks = 2
dropout = 0.4
[train]
epochs = 8
batch_size = 48
learning_rate = 0.02
ema_momentum = 0.9
early_stopping_patience = 2
checkpoint_steps = 5
[augment]
policy = [{ name = "affine", degrees = 10, shift = 0.1 }, { name = "mixup" }]
"""

FEATURES = """
[data]
name = "shapes"
validation = 0.1
[model]
name = "transfer"
backbone = "MobileNetV2"
weights = "none"
dropout = 0.2
[features]
views = 2
[train]
epochs = 4
learning_rate = 0.01
[augment]
policy = [{ name = "affine", shift = 0.1 }]
[finetune]
epochs = 1
unfreeze = "block_16_project"
learning_rate = 1e-4
"""

# Two logical devices that share every batch, in a mixed precision.
SHARED = (
    EVERYTHING
    + """
[devices]
devices = "cpu:0,1"
precision = "bfloat16"
"""
)

SCENARIOS = {"mnist_cnn": MNIST_CNN, "everything": EVERYTHING, "features": FEATURES, "shared": SHARED}


# In the child


def child() -> None:
    """`kerascls` with a process that ends, or a disk that is full, at the write of its own of that number."""
    kind, at = sys.argv[1], int(sys.argv[2])
    count = 0

    def failing(real: Callable) -> Callable:
        @functools.wraps(real)
        def call(*args, **options):
            nonlocal count
            count += 1
            if kind == "kill" and count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "full" and count >= at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **options)

        return call

    os.fsync, os.replace = failing(os.fsync), failing(os.replace)
    from kerascls.cli import main

    sys.argv = ["kerascls", *sys.argv[3:]]
    main()


# In the parent


def command(kind: str, at: int) -> list[str]:
    return [sys.executable, "-c", "from tests.robustness.endure import child; child()", kind, str(at)]


def run(words: list[str], folder: Path, kind: str = "none", at: int = 0, after: float | None = None):
    """`kerascls WORDS` in `folder`; killed `after` seconds where that is given. Its exit code and stderr."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "KERASCLS_CACHE": str(folder / "cache")}
    process = subprocess.Popen(
        [*command(kind, at), *words], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _, told = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, told = process.communicate()
    return process.returncode, told.decode()


def facts(path: Path) -> dict:
    """What must be equal: all but what time it took."""
    with zipfile.ZipFile(path / "model.keras") as archive:
        weights = _weights(archive.read("model.weights.h5"))
    rows = [{**row, "seconds": ""} for row in csv.DictReader((path / "history.csv").read_text().splitlines())]
    manifest = json.loads((path / "manifest.json").read_text())
    return {
        "weights": weights,
        "history": rows,
        "metrics": (path / "metrics.json").read_bytes(),
        "samples": (path / "samples" / "samples.json").read_bytes(),
        "epochs": (manifest["best_epoch"], manifest["kept_epoch"], manifest["status"]),
        "left behind": sorted(str(left) for left in path.rglob(".*")) + sorted(map(str, path.glob("checkpoint"))),
    }


def _weights(h5: bytes) -> dict[str, str]:
    import io

    import h5py

    found = {}
    with h5py.File(io.BytesIO(h5)) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: hashlib.sha256(item[()].tobytes()).hexdigest()})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def peaceful(scenario: str, folder: Path) -> tuple[dict, float]:
    """The facts of a training that nothing disturbs, and its seconds."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(SCENARIOS[scenario])
    begin = time.monotonic()
    code, told = run(["train", "recipe.toml", "--out", "run", "--quiet"], folder)
    assert code == 0, told
    return facts(folder / "run"), time.monotonic() - begin


def disturbed(scenario: str, folder: Path, disturb: Callable[[], dict], times: int) -> tuple[dict, list[str]]:
    """The facts of a training that is disturbed up to `times` times, and how each of its processes ended."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(SCENARIOS[scenario])
    ends = []
    while True:
        begun = (folder / "run").exists()
        words = (
            ["train", "--resume", "run", "--quiet"] if begun else ["train", "recipe.toml", "--out", "run", "--quiet"]
        )
        options = disturb() if len(ends) < times else {}
        code, told = run(words, folder, **options)
        how = f"{options} exit {code}"
        ends.append(how)
        if code == 0:
            return facts(folder / "run"), ends
        if code == 1 and "is complete" in told:  # killed when all was done
            return facts(folder / "run"), ends
        if options.get("kind") == "full":
            assert code == 1 and "No space left on device" in told, (how, told)
            lines = [line for line in told.splitlines() if line.startswith("Error") or "Cannot write" in line]
            assert len(lines) == 1 and "Traceback" not in told, told
        else:
            assert code == -signal.SIGKILL, (how, told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--full", type=int, default=10, help="processes that end by a full disk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="endure-"))
    names = options.scenarios.split(",")
    known = {}
    for name in names:
        known[name] = peaceful(name, folder / name / "peace")
        print(f"{name}: {known[name][1]:.1f} s undisturbed", flush=True)
    wrong = 0
    counts = {"killed after a time": 0, "killed at a write": 0, "full disk": 0}
    rounds = 0
    while (
        counts["killed after a time"] + counts["killed at a write"] < options.kills
        or counts["full disk"] < options.full
    ):
        name = names[rounds % len(names)]
        truth, seconds = known[name]
        kills = counts["killed after a time"] + counts["killed at a write"] < options.kills

        def disturb(seconds=seconds, kills=kills) -> dict:
            if not kills or (counts["full disk"] < options.full and draw.random() < 0.2):
                return {"kind": "full", "at": draw.randint(1, ENOUGH_WRITES)}
            if draw.random() < 0.5:
                return {"kind": "kill", "at": draw.randint(1, ENOUGH_WRITES)}
            return {"after": draw.uniform(0.3, 1.0) * seconds}

        found, ends = disturbed(name, folder / name / str(rounds), disturb, times=6)
        for end in ends:
            if "full" in end and "exit 1" in end:
                counts["full disk"] += 1
            elif "exit -9" in end:
                counts["killed at a write" if "kill" in end else "killed after a time"] += 1
        differ = [key for key in truth if truth[key] != found[key]]
        wrong += bool(differ)
        print(f"{name} {rounds}: {'equal' if not differ else f'DIFFERENT in {differ}'}; {'; '.join(ends)}", flush=True)
        if not differ:
            shutil.rmtree(folder / name / str(rounds))
        rounds += 1
    told = ", ".join(f"{count} {how}" for how, count in counts.items())
    print(f"{rounds} trainings, {told}: {wrong} differ from the undisturbed ones. Seed {options.seed}.")
    if wrong:
        sys.exit(f"What differs is kept in {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""Naming JPEG files against the least time that decoding and the network alone take on all cores.

As a program, `python -m benchmarks.roofline WHAT FOLDER COUNT` does one part of it and prints its JSON:

    draw     writes the files and a model, untrained
    decode   seconds an image to read, decode and resize, on one core
    forward  seconds an image of the network at batch 32, on all cores
    ours     seconds of `kerascls.predict` over all files, to a CSV, the model's first call left out
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import REPOSITORY, Measurement, run_child, run_loop
from benchmarks.plan import Settings
from kerascls.system.machine import cores

COUNT, TINY_COUNT = 10_000, 64
DIFFERENT = 500  # pictures, which the files repeat
SIDE, MODEL_SIDE, BATCH = 224, 96, 32
TARGET = 0.8


def describe(name: str, settings: Settings) -> dict[str, Any]:
    return {
        "title": f"Naming {_count(settings):,} JPEG files of {SIDE}x{SIDE} (aim: at least {TARGET} of the limit)",
        "stated_accuracy": None,
        "ratio_of": "seconds",
        "sides": {"ours": "`kerascls predict`, to a CSV", "limit": "decoding / cores + the network"},
        "conditions": [f"small_cnn at {MODEL_SIDE}x{MODEL_SIDE}, batch {BATCH}"],
        "method": (
            "The limit is arithmetic: the seconds that reading and decoding an image takes on one core, by the cores, "
            "and those of the network at batch 32 on all of them, both measured in the same turn. "
            "Of ours the first batch is left out."
        ),
    }


def turn(
    name: str, settings: Settings, number: int, before: list[dict[str, Measurement]]
) -> list[dict[str, Measurement]]:
    folder, count = settings.folder / "jpegs", _count(settings)
    if not folder.is_dir():
        run_child(["-m", "benchmarks.roofline", "draw", folder, count], REPOSITORY, settings.seconds_left)
    found = {
        what: run_loop("roofline", what, folder, count, seconds_left=settings.seconds_left)
        for what in ("decode", "ours", "forward")[:: -1 if number % 2 else 1]
    }
    limit = found["decode"]["seconds_an_image"] / cores() + found["forward"]["seconds_an_image"]
    return [{"ours": {**found["ours"], "images": count}, "limit": {"seconds": limit * count, "images": count}}]


def _count(settings: Settings) -> int:
    return TINY_COUNT if settings.tiny else COUNT


def draw(folder: Path, count: int) -> dict[str, Any]:
    import io

    from PIL import Image

    from kerascls.data.loading import load_dataset
    from kerascls.formats.card import Card
    from kerascls.formats.keras import save_keras
    from kerascls.models import build_model
    from kerascls.system.atomic_files import atomic

    dataset = load_dataset("shapes", image_shape=(SIDE, SIDE, 3))
    shape = (MODEL_SIDE, MODEL_SIDE, 3)
    with atomic(folder) as temporary:
        (temporary / "files").mkdir(parents=True)
        encoded = []
        for image in dataset.splits["train"].images[:DIFFERENT]:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=90)
            encoded.append(file.getvalue())
        for i in range(count):
            (temporary / "files" / f"{i:05d}.jpg").write_bytes(encoded[i % len(encoded)])
        model = build_model("small_cnn", shape, len(dataset.class_names))
        save_keras(model, Card(dataset.class_names, shape), temporary / "model.keras")
    return {}


def decode(folder: Path, count: int) -> dict[str, Any]:
    if hasattr(os, "sched_setaffinity"):  # before TensorFlow makes its threads
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from kerascls.images.read import read_batch

    files = sorted((folder / "files").iterdir())[:2000]
    batches = [files[at : at + BATCH] for at in range(0, len(files), BATCH)]
    read_batch(batches[0], (MODEL_SIDE, MODEL_SIDE, 3))
    begin = time.perf_counter()
    for batch in batches:
        read_batch(batch, (MODEL_SIDE, MODEL_SIDE, 3))
    return {"seconds_an_image": (time.perf_counter() - begin) / len(files)}


def forward(folder: Path, count: int) -> dict[str, Any]:
    import numpy as np

    from kerascls.inference.loading import load

    classifier = load(folder / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (BATCH, MODEL_SIDE, MODEL_SIDE, 3), np.uint8)
    classifier.probabilities(images)
    batches = min(100, -(-count // BATCH))
    begin = time.perf_counter()
    for _ in range(batches):
        classifier.probabilities(images)
    return {"seconds_an_image": (time.perf_counter() - begin) / (batches * BATCH)}


def ours(folder: Path, count: int) -> dict[str, Any]:
    from kerascls.inference.predict import predict

    answers = predict(folder / "model.keras", [folder / "files"], csv_file=folder / "answers.csv")
    answered = len(next(answers))
    begin = time.perf_counter()
    rest = sum(map(len, answers))
    seconds = time.perf_counter() - begin
    (folder / "answers.csv").unlink()
    return {"seconds": seconds / rest * (answered + rest)}


if __name__ == "__main__":
    parts = {"draw": draw, "decode": decode, "forward": forward, "ours": ours}
    print(json.dumps(parts[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))

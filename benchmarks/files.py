"""Naming image files: `kerascls predict` on a folder against `model.predict` in a loop, as tutorials write it.

As a program, `python -m benchmarks.files loop MODEL FOLDER` is the loop, and `... draw FOLDER COUNT` writes the
embedded digits as PNG files.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import REPOSITORY, Measurement, NotRun, run_child, run_loop
from benchmarks.plan import RELEASED, Settings

COUNT, TINY_COUNT = 1000, 6


def describe(name: str, settings: Settings) -> dict[str, Any]:
    return {
        "title": f"Naming {_count(settings):,} PNG files of 28x28",
        "stated_accuracy": None,
        "ratio_of": "process_seconds",
        "sides": {
            "ours": "`kerascls predict MODEL FOLDER --csv FILE`",
            "loop": "`model.predict` on each file, in a loop",
        },
        "conditions": [f"model: {RELEASED}", "files: the embedded digits"],
        "method": "The loop's own seconds are without its imports.",
    }


def turn(
    name: str, settings: Settings, number: int, before: list[dict[str, Measurement]]
) -> list[dict[str, Measurement]]:
    """Both on the same files; every second turn in the opposite order. Their labels must agree."""
    folder, answers = settings.folder / "digits", settings.folder / f"answers-{number}.csv"
    if not folder.is_dir():
        run_child(["-m", "benchmarks.files", "draw", folder, _count(settings)], REPOSITORY, settings.seconds_left)
    model = REPOSITORY / RELEASED

    def ours() -> Measurement:
        command = ["-m", "kerascls", "predict", model, folder, "--top-k", 1, "--csv", answers]
        _, cost = run_child(command, settings.folder, settings.seconds_left)
        return {**cost, "images": _count(settings)}

    def loop() -> Measurement:
        return run_loop("files", "loop", model / "model.keras", folder, seconds_left=settings.seconds_left)

    measured: dict[str, Measurement] = {}
    for side, measure in (("loop", loop), ("ours", ours)) if number % 2 else (("ours", ours), ("loop", loop)):
        measured[side] = measure()
    labels = [line.split(",")[1] for line in answers.read_text(encoding="utf-8").splitlines()[1:]]
    if labels != measured["loop"].pop("labels"):
        raise NotRun("the loop and `kerascls predict` named files differently.")
    return [{side: measured[side] for side in ("ours", "loop")}]


def _count(settings: Settings) -> int:
    return TINY_COUNT if settings.tiny else COUNT


def draw(folder: str, count: str) -> None:
    from kerascls.data.loading import load_dataset
    from kerascls.images.files import encode_png
    from kerascls.system.atomic_files import atomic

    splits = load_dataset("digits").splits
    images = [image for split in splits.values() for image in split.images][: int(count)]
    with atomic(Path(folder)) as temporary:
        temporary.mkdir()
        for i, image in enumerate(images):
            (temporary / f"{i:04d}.png").write_bytes(encode_png(image))


def loop(model_file: str, folder: str) -> None:
    import keras
    import numpy as np

    begin = time.perf_counter()
    model = keras.models.load_model(model_file)
    labels = []
    for file in sorted(Path(folder).iterdir()):
        image = keras.utils.img_to_array(keras.utils.load_img(file, color_mode="grayscale"))
        probabilities = model.predict(image[None], verbose=0)
        labels.append(str(np.argmax(probabilities)))
    print(json.dumps({"seconds": time.perf_counter() - begin, "images": len(labels), "labels": labels}))


if __name__ == "__main__":
    {"draw": draw, "loop": loop}[sys.argv[1]](*sys.argv[2:])

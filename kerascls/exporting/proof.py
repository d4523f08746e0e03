"""Whether an export answers as its run does: the same images to both, the export's in a fresh process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.data.dataset import positions
from kerascls.errors import DataError, ProofError
from kerascls.formats.card import Card
from kerascls.inference.classifier import Classifier
from kerascls.system import machine

BATCH_SIZE, OTHER_BATCH_SIZE, OTHERS = 32, 7, 35  # images at a time; and so many of them once more by another size
ACROSS_BATCHES = 1e-6  # what a probability may differ by from another batch size, beside the format's own tolerance
PROBES = Path(__file__).parent / "probes"  # programs of fresh processes, one file for each runtime, and common.py
POINTS = 0.5  # of accuracy, in percent, that a rounded format may be off by


# Images


@dataclasses.dataclass(frozen=True)
class Questions:
    """What run and export are both asked.

    Attributes:
        pixels: uint8 `(n, *image_shape)`, as the run reads each image.
        encoded: the images' files; None where pixels alone are asked, as of a TIFF, which a SavedModel does not decode.
        labels: int ids; -1 where an image's class is not known.
    """

    pixels: np.ndarray
    encoded: Sequence[bytes | None]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def of_files(cls, files: Sequence[Path], names: Sequence[str | None], card: Card) -> tuple["Questions", list[str]]:
        """Of image files with their classes' names, None where not known; and a line for each that cannot be read."""
        from kerascls.images.kinds import image_kind
        from kerascls.images.read import read_batch

        places = positions(card.class_names, [name or "" for name in names])
        pixels, encoded, labels, unread = [], [], [], []
        for at in range(0, len(files), BATCH_SIZE):
            some = files[at : at + BATCH_SIZE]
            read = read_batch(some, card.image_shape, card.background, card.resize)
            for file, place, image in zip(some, places[at : at + BATCH_SIZE], read, strict=True):
                if isinstance(image, DataError):
                    unread.append(str(image))
                    continue
                content = file.read_bytes()
                pixels.append(image)
                encoded.append(None if image_kind(content) == "tiff" else content)
                labels.append(place)
        stacked = np.stack(pixels) if pixels else np.empty((0, *card.image_shape), np.uint8)
        return cls(stacked, encoded, np.array(labels, np.int32)), unread

    @classmethod
    def of_arrays(cls, images: np.ndarray, labels: np.ndarray, card: Card) -> "Questions":
        """Of uint8 images `(n, *image_shape)`, as the run reads them, and int ids."""
        from kerascls.images.files import encode_png

        # Under "center_crop" no file gives these pixels: an image of the model's size would be cut once more.
        encoded = [None if card.resize == "center_crop" else encode_png(image) for image in images]
        return cls(images, encoded, labels.astype(np.int32))

    @classmethod
    def of_noise(cls, card: Card) -> "Questions":
        noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (64, *card.image_shape), np.uint8)
        return cls.of_arrays(noise, np.full(64, -1), card)

    def resized(self, card: Card, most: int = 8) -> "Questions":
        """The first images at another size and shape, which an export that resizes must bring back as the run does."""
        from kerascls.images.files import encode_png
        from kerascls.images.read import decoded_pixels

        pixels, encoded = [], []
        for image in self.pixels[:most]:
            larger = np.repeat(np.repeat(image, 2, 0), 3, 1)[1:, 2:]
            encoded.append(encode_png(larger))
            pixels.append(decoded_pixels("a sample", encoded[-1], card.image_shape, card.background, card.resize))
        return Questions(np.stack(pixels), encoded, self.labels[:most])

    def __add__(self, other: "Questions") -> "Questions":
        return Questions(
            np.concatenate([self.pixels, other.pixels]),
            [*self.encoded, *other.encoded],
            np.concatenate([self.labels, other.labels]),
        )


# Comparison


@dataclasses.dataclass(frozen=True)
class Proof:
    """How an export answered.

    Attributes:
        examples: images on which both were asked.
        max_difference: the largest difference of a probability, at the same batch size, by any entrance.
        agreement: share of images that got the run's label.
        accuracy, run_accuracy: of those images whose class is known; None where none is.
        ms_1, ms_32: milliseconds an image at batch 1 and 32, from pixels (a median of at least 3 calls).
    """

    examples: int
    max_difference: float
    agreement: float
    accuracy: float | None
    run_accuracy: float | None
    ms_1: float
    ms_32: float


def prove(questions: Questions, classifier: Classifier, path: Path, runtime: str, tolerance: float | None) -> Proof:
    """Holds the export at `path` against the run, in a fresh process, at every entrance that it has.

    Args:
        runtime: the name of the file in PROBES that opens it.
        tolerance: that of a probability at the same batch size; None for a rounded format, whose accuracy may be off
            by POINTS, or, where no image's class is known, whose labels may differ on as many.

    Raises:
        ProofError: a probability differs by more (0.0: by a bit), the card differs, or it cannot be opened.
    """
    expected = classifier.probabilities(questions.pixels, BATCH_SIZE)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # which a kill leaves where the next export clears it
        answers = _asked(questions, path, runtime, Path(scratch))
    _compare_cards(classifier.card, answers["card"])
    has_bytes = np.array([content is not None for content in questions.encoded])
    wanted = {"pixels": expected, "pixels_again": expected[:OTHERS], "bytes": expected[has_bytes]}
    largest = agreement = 0.0
    for entrance in ("pixels", "bytes", "pixels_again"):
        if entrance not in answers:
            continue
        found, true = answers[entrance], wanted[entrance]
        difference = float(np.abs(found - true).max()) if found.shape == true.shape else float("nan")
        changed = int((found.argmax(1) != true.argmax(1)).sum()) if found.shape == true.shape else len(true)
        if entrance == "pixels":
            agreement = 1 - changed / len(true)
        again = entrance == "pixels_again"
        allowed = float("inf") if tolerance is None else max(tolerance, ACROSS_BATCHES if again else 0.0)
        if not difference <= allowed:  # NaN is a difference too
            by = "pixels in batches of another size" if again else entrance
            raise ProofError(
                f"The export answers differently by {by}: probabilities by up to {difference:.3g}, {changed} of "
                f"{len(true)} labels. Nothing was kept."
            )
        if not again:
            largest = max(largest, difference)
    known = questions.labels >= 0
    accuracies = [None, None]
    if known.any():
        accuracies = [
            float((rows[known].argmax(1) == questions.labels[known]).mean()) for rows in (answers["pixels"], expected)
        ]
    if tolerance is None:
        off = agreement - 1 if accuracies[0] is None else accuracies[0] - accuracies[1]
        if not abs(off) <= POINTS / 100:
            what = "the run's labels" if accuracies[0] is None else "the run's accuracy"
            raise ProofError(
                f"The export is off {what} by {100 * abs(off):.2f} points on {len(expected)} images; {POINTS} are "
                "allowed. Nothing was kept."
            )
    one, many = (float(value) for value in answers["ms"])
    return Proof(len(expected), largest, agreement, accuracies[0], accuracies[1], one, many)


def _asked(questions: Questions, path: Path, runtime: str, scratch: Path) -> dict[str, Any]:
    np.save(scratch / "pixels.npy", questions.pixels)
    (scratch / "sizes.json").write_text(json.dumps([BATCH_SIZE, OTHER_BATCH_SIZE, OTHERS]))
    (scratch / "encoded").mkdir()
    for i, content in enumerate(questions.encoded):
        if content is not None:
            (scratch / "encoded" / f"{i:06d}").write_bytes(content)
    answers = scratch / "answers.npz"
    process = subprocess.run(
        [sys.executable, "-P", PROBES / "common.py", PROBES / f"{runtime}.py", path, scratch, answers],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "KERASCLS_CORES": str(machine.cores())},
        check=False,
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ProofError(f"The export could not be opened again in a fresh process: {reason}. Nothing was kept.")
    with np.load(answers) as found:
        return dict(found)


def _compare_cards(card: Card, text: np.ndarray) -> None:
    """Names, image shape, resize rule, background, border and data must all be the run's."""
    found = Card.from_json(str(text))
    if found.class_names != card.class_names:
        raise ProofError("The export's class names are not the run's. Nothing was kept.")
    differing = [
        field.name for field in dataclasses.fields(card) if getattr(found, field.name) != getattr(card, field.name)
    ]
    if differing:
        raise ProofError(f"The export's {', '.join(differing)} are not the run's. Nothing was kept.")

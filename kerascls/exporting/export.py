"""Exports of a run, each proven equal to it in a fresh process before it stays."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kerascls.data.dataset import Dataset, spread
from kerascls.errors import DataError, KerasclsError, ModelError, OutputError, ProofError
from kerascls.exporting.proof import Proof, Questions, prove
from kerascls.formats.registry import FORMATS, is_model, not_installed
from kerascls.inference.classifier import Classifier
from kerascls.inference.loading import load
from kerascls.recipes.catalog import USUAL_FORMATS, nearest
from kerascls.runs.run import Run, is_run
from kerascls.runs.samples import read_samples
from kerascls.system.atomic_files import atomic, one_at_a_time, write_json
from kerascls.system.json_files import fault, read_json
from kerascls.system.process import quiet_logs
from kerascls.system.status import doing

CALIBRATION = 200  # training images from which int8 reads the ranges of activations
HELD_OUT = 500  # at most so many of the data's test images, where a rounded format's accuracy is to be compared


@dataclasses.dataclass(frozen=True)
class Export:
    """A written and proven export.

    Attributes:
        path: the file or folder.
        format: as given to `export`.
        size: bytes, of all its files.
        proof: how it answered beside its run.
        notice: what must be said of the run, or None.
    """

    path: Path
    format: str
    size: int
    proof: Proof
    notice: str | None = None

    @property
    def examples(self) -> int:
        return self.proof.examples

    @property
    def max_difference(self) -> float:
        return self.proof.max_difference


class Exporter:
    """Writes and proves exports of one run; model, images and data are opened once.

    Attributes:
        unread: a line for each image of `images` or `calibration` that could not be read.
        without_data: why `data` is None.
    """

    def __init__(
        self,
        run: str | Path,
        images: str | Path | None = None,
        calibration: str | Path | None = None,
        data: str | None = None,
        data_dir: str | None = None,
    ):
        self.path = Path(run)
        # A model file has no samples, no data and no folder of its own.
        self.run = None if is_model(self.path) and not is_run(self.path) else Run.open(run)
        self.folder = self.run.path / "exports" if self.run else self.path.with_name(f"{self.path.stem}-exports")
        self.images, self.calibration, self.data_name, self.data_dir = images, calibration, data, data_dir
        self.unread: list[str] = []
        self.without_data = ""

    @functools.cached_property
    def classifier(self) -> Classifier:
        classifier = load(self.path)
        if classifier.keras_model is None:
            raise ModelError(f"{self.path} is {classifier.kind}, which keeps no Keras layers to export.")
        return classifier

    @quiet_logs()
    def export(self, format: str, out: Path | None = None) -> Export:
        """One format; see the function `export`."""
        kind = FORMATS[format]
        path = out or self.folder / kind.place
        if out is not None and path.exists():
            raise OutputError(f"{path} exists already. Remove it, or give --out another place.")
        if kind.suffix and path.suffix not in kind.suffixes:
            raise OutputError(f"A {format} export must end in {kind.suffix}. Received: {path.name}")
        if reason := not_installed(format):
            raise OutputError(reason)
        questions = self.questions
        if kind.tolerance is None and (held_out := self.held_out()):
            questions += held_out
        calibration = self.calibration_images() if kind.calibrated else None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot make {path.parent}: {error.strerror}.") from None
        with atomic(path, out is None) as temporary:
            with doing(f"{format}: writing"):
                kind.write(self.classifier.keras_model, self.classifier.card, temporary, calibration)
            with doing(f"{format}: answering in a fresh process"):
                proof = prove(questions, self.classifier, temporary, kind.runtime, kind.tolerance)
        made = Export(path, format, _size(path), proof, self.notice)
        if out is None:
            self.note(format, made)
        return made

    @property
    def notice(self) -> str | None:
        """What must be said of the model, or None."""
        return self.run.notice if self.run else self.classifier.notice

    def note(self, format: str, made: Export) -> None:
        """Keeps what was found in exports/export.json."""
        file = self.folder / "export.json"
        with one_at_a_time(file.parent):
            try:
                told = read_json(file.read_text(encoding="utf-8"))
                known = {} if fault(told, {"exports": dict}) else told["exports"]
            except (OSError, ValueError):
                known = {}
            known[format] = {"file": FORMATS[format].place, "bytes": made.size, **dataclasses.asdict(made.proof)}
            write_json(file, {"format": 1, "exports": {name: known[name] for name in FORMATS if name in known}})

    @functools.cached_property
    def questions(self) -> Questions:
        """The run's samples, some of them at another size, and the images that were named."""
        card = self.classifier.card
        files, names = read_samples(self.run.path / "samples") if self.run else ([], [])
        found = Questions.of_noise(card)
        if files:
            found, unread = Questions.of_files(files, names, card)
            if unread:
                raise DataError(f"A sample of {self.path} cannot be read: {unread[0]}")
        found += found.resized(card)
        if self.images is not None:
            found += self.read(self.images)
        return found

    def read(self, folder: str | Path, most: int | None = None) -> Questions:
        """Images of a folder, evenly chosen where there are more than `most`; a subfolder names their class."""
        from kerascls.images.find import image_files

        files = [Path(file) for file in image_files([folder])]
        files = [files[i] for i in spread(len(files), most or len(files))]
        found, unread = Questions.of_files(files, [file.parent.name for file in files], self.classifier.card)
        self.unread += unread
        if not len(found):
            raise DataError(f"No image of {folder} can be read: {unread[0]}")
        return found

    def check_named(self) -> None:
        """Raises DataError if images or data that were named cannot be had."""
        from kerascls.images.find import image_files

        _ = self.questions
        if self.calibration is not None:
            image_files([self.calibration])
        if self.data_name is not None:
            _ = self.data

    @functools.cached_property
    def data(self) -> Dataset | None:
        """The run's data set with its splits. Without it: None, or a KerasclsError where it was named."""
        from kerascls.inference.evaluate import run_data

        try:
            if self.run is None and self.data_name is None:
                raise DataError(f"{self.path} is no run, so its data are not known.")
            return run_data(self.run, self.classifier, self.data_name, self.data_dir, download=False)[0]
        except KerasclsError as error:
            if self.data_name is not None:
                raise
            self.without_data = str(error)
            return None

    def held_out(self) -> Questions | None:
        """Some of the data's test images; None where the data is not here."""
        if self.data is None:
            return None
        splits = self.data.splits
        split = splits.get("test") or splits.get("validation") or splits.get("all")
        if split is None:
            return None
        chosen = spread(len(split), HELD_OUT)
        return Questions.of_arrays(split.images[chosen], split.labels[chosen], self.classifier.card)

    def calibration_images(self) -> np.ndarray:
        """uint8 `(n, *image_shape)`, at most CALIBRATION: of the folder that was named, else training images."""
        if self.calibration is not None:
            return self.read(self.calibration, CALIBRATION).pixels
        if self.data is None:
            raise DataError(f"int8 needs images to be calibrated by: --calibration DIR. {self.without_data}")
        train = self.data.splits.get("train") or next(iter(self.data.splits.values()))
        return train.images[spread(len(train), CALIBRATION)]


def export(
    run: str | Path,
    format: str = "saved_model",
    out: str | Path | None = None,
    *,
    images: str | Path | None = None,
    calibration: str | Path | None = None,
    data: str | None = None,
    data_dir: str | None = None,
) -> Export:
    """Writes a run's model in another format and proves that it answers alike.

    The export is opened again by its own runtime, in a fresh process without kerascls, and compared at every entrance
    that it has, on the run's samples (on 64 images of noise where the run keeps none), some of them resized. Only then
    does it take its name. What was found is kept in the run's exports/export.json.

    Args:
        run: the run folder, or a .keras or .h5 file, whose exports then lie in a folder NAME-exports beside it.
        format: one of FORMATS: "keras", "saved_model", "h5", "weights" (architecture.json and model.weights.h5),
            "litert", "litert_float16", "litert_int8" (a .tflite), "onnx", "openvino" (model.xml and model.bin).
        out: where to; must not exist. Defaults to a place under the run's exports/, where an older one is replaced.
        images: a folder of more images to compare on; in folders named by their classes, accuracy is compared too.
        calibration: a folder of images for "litert_int8", in place of 200 of the run's training images.
        data: where the run's data is, where it is not where its recipe says; images for rounded formats are from it.
        data_dir: where TFDS keeps it.

    Raises:
        ProofError: the export answers differently; nothing is left behind.
        RunError, OutputError, DataError, ModelError.

    >>> made = kerascls.export("saved_models/released/mnist_cnn", "h5", "mnist_cnn.h5")
    >>> str(made.path), made.max_difference
    ('mnist_cnn.h5', 0.0)
    """
    if format not in FORMATS:
        hint = nearest(str(format), FORMATS, USUAL_FORMATS)
        raise OutputError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format!r}.{hint}")
    return Exporter(run, images, calibration, data, data_dir).export(format, Path(out) if out is not None else None)


def export_all(exporter: Exporter, tell: Callable[[str, Export | str], None]) -> KerasclsError | None:
    """Every format whose packages are here: `tell` takes each with its Export, or with why there is none.

    Returns:
        the error that ends the command: a failed proof before a network that cannot be converted; None where every
        format was written but those that lack a package, or images to be calibrated by.

    Raises:
        DataError, OutputError: images or data that were named are not there, or the run cannot be written to.
    """
    exporter.check_named()
    errors: list[KerasclsError] = []
    with doing("export", len(FORMATS), "formats", stays=True) as progress:
        for name in FORMATS:
            try:
                if reason := not_installed(name):
                    tell(name, f"not made: {reason}")
                else:
                    tell(name, exporter.export(name))
            except DataError as error:
                tell(name, f"not made: {error}")
            except (ProofError, ModelError) as error:
                tell(name, f"FAILED: {error}")
                errors.append(error)
            progress.step()
    return max(errors, key=lambda error: error.exit_code, default=None)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())

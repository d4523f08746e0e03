"""Where in an image a network sees its class: heat maps by CAM and Grad-CAM, and pictures of them.

CAM (Zhou et al., "Learning Deep Features for Discriminative Localization", 2016), where one Dense layer follows the
last feature map A, `(height, width, channels)`, through global average pooling: the map of class c is
sum_k w[k, c] A[:, :, k], with the Dense layer's weights w. Its mean is the class's logit, but for the bias. Where A is
flattened instead, each place has weights of its own: sum_k w[:, :, k, c] A[:, :, k], whose sum is the logit, but for
the bias. (HiResCAM, Draelos and Carin, 2020, is the same there. Grad-CAM takes each channel's mean weight, which says
little of a flattened map: by the released `mnist_cnn`, no six and no nine of the digits would have a warm place.)

Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017),
for any other network: CAM's first sum, with the mean over all places of d logit_c / d A[:, :, k] in place of w[k, c].
The logit is what the softmax is taken of; a probability near 1 has hardly a gradient.

Of either map the negative part is cut off, it is laid over the image, and divided by its maximum. Each place of the map
lies over the middle of the pixels that it is computed of; between them it is linear. A map stretched over the image
would be off: by up to 4 of 28 pixels in `mnist_cnn`, which does not pad, and by 15 of 224 in Keras' ResNet50 and
MobileNetV2, whose strides lean to one side. (There the gradient's centre of gravity, with random weights, lies within 1
of ours.)
"""

import dataclasses
import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.errors import ModelError, OutputError, printable
from kerascls.images.borders import border_warning
from kerascls.inference.classifier import Classifier, Prediction
from kerascls.inference.csv_table import BATCH_SIZE
from kerascls.inference.heat_maps import heat_maps, method, overlay
from kerascls.inference.inputs import given_images
from kerascls.inference.loading import opened
from kerascls.recipes.catalog import nearest
from kerascls.system.json_files import json_text
from kerascls.system.names import nfc
from kerascls.system.status import doing

SIDE = 3.6  # inches of each image in a picture, 100 pixels each


# Pictures


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What was explained of one image. On an `error`, which says why it could not be read, all else is None.

    Attributes:
        file: the image.
        label, probability: the model's answer.
        class_name, class_probability: what the map speaks for: the answer, if no other class was asked for.
        method: "CAM" or "Grad-CAM".
        heat_map: the picture's path; None where none was written.
        pixels, heat: what the model saw, uint8 `(height, width, channels)`, and its heat in [0, 1], float32 `(height,
            width)`; None where a picture was written. `overlay(pixels, heat)` lays one over the other.
    """

    file: str
    label: str | None = None
    probability: float | None = None
    class_name: str | None = None
    class_probability: float | None = None
    method: str | None = None
    heat_map: str | None = None
    error: str | None = None
    pixels: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)
    heat: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    def figure(self) -> Any:
        """The picture, a Matplotlib figure: the image beside itself under its heat."""
        from kerascls import plots

        titles = [
            f"{plots.shorten(self.label)} {self.probability:.1%}",
            f"{self.method}: {plots.shorten(self.class_name)} {self.class_probability:.1%}",
        ]
        return plots.image_grid([self.pixels, overlay(self.pixels, self.heat)], titles, 2, side=SIDE)

    def _repr_png_(self) -> bytes | None:
        """In a notebook, the picture."""
        if self.heat is None:
            return None
        drawn = io.BytesIO()
        self.figure().savefig(drawn, format="png")
        return drawn.getvalue()


def explain(
    model: Classifier | str | os.PathLike,
    images: Any,
    out: str | os.PathLike | None = None,
    class_name: str | None = None,
    *,
    invert: bool = False,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    pixel_range: Sequence[float] | str | None = None,
    each: Callable[[Explanation], None] = lambda explanation: None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Explanation]:
    """Explains each image: its answer, and the heat map of where in it the model saw that.

    With `out`, each becomes a picture there, `<name>_explained.png`. A second image of the same name gets
    `<name>-2_explained.png`, and so does one whose picture would replace an image that is explained. An older picture
    is replaced.

    Args:
        model: a loaded classifier, or what `load` takes: a run folder, a .keras or .h5 file, or a folder of
            architecture and weights.
        images: what `Classifier.predict` takes.
        out: a folder for pictures, made if it is missing. None writes none.
        class_name: the class to explain in place of each image's most probable one.
        invert: turn black into white first.
        class_names, pixel_range: as `load` takes them, of a model that is not loaded.
        each: takes each explanation as soon as it is there.
        tell: takes each line to report beside them.

    Returns:
        An `Explanation` an image, in order; one that does not decode has its `error` and costs no other. In a notebook
        each shows its picture.

    Raises:
        ModelError: the model keeps no Keras layers, has no feature map, or no class `class_name`.
        DataError: what was given is no image, or a folder has no images.
        OutputError: `out` cannot be written.

    >>> explanation = kerascls.explain("saved_models/released/mnist_cnn", "seven.png", "maps", invert=True)[0]
    >>> explanation.label, explanation.method
    ('7', 'CAM')
    """
    found = list(given_images(images))
    classifier = opened(model, class_names=class_names, pixel_range=pixel_range)
    with doing("looking for the last feature map"):
        how = method(classifier)
    class_name = _known_class(classifier, class_name)
    if classifier.notice:
        tell(classifier.notice)
    pictures = itertools.repeat(None) if out is None else iter(_pictures(found, out))
    done, other_polarity = [], 0
    with doing("explaining", len(found)) as progress:
        for prediction, explanation in _explanations(classifier, found, class_name, how, invert, pictures, tell):
            done.append(explanation)
            other_polarity += prediction.other_polarity
            each(explanation)
            progress.step()
    if other_polarity:
        tell(border_warning(other_polarity, classifier.card.border, invert))
    return done


def _known_class(classifier: Classifier, class_name: str | None) -> str | None:
    """`class_name` in NFC; None stays None. Raises ModelError if the model has no such class."""
    from kerascls import plots

    if class_name is None:
        return None
    ids = _ids(classifier)
    class_name = nfc(class_name)
    if class_name not in ids:
        shown = [plots.shorten(name) for name in itertools.islice(ids, 20)] + ["..."] * (len(ids) > 20)
        raise ModelError(
            f"No class is named {class_name!r}.{nearest(class_name, ids)} The {len(ids)} classes: {', '.join(shown)}."
        )
    return class_name


def _ids(classifier: Classifier) -> dict[str, int]:
    return {nfc(name): i for i, name in enumerate(classifier.class_names)}


def _explanations(
    classifier: Classifier,
    found: Sequence[Any],
    class_name: str | None,
    how: str,
    invert: bool,
    pictures: Iterator[Path | None],
    tell: Callable[[str], None],
) -> Iterator[tuple[Prediction, Explanation]]:
    """Each image's prediction and explanation, in order; where `pictures` has a path for it, its picture is drawn."""
    from kerascls import plots

    ids = _ids(classifier)
    for batch in classifier.batches(found, len(ids) if class_name else 1, invert, BATCH_SIZE):
        read = [(prediction, pixels) for prediction, pixels in batch if pixels is not None]
        heats = iter(())
        if read:
            classes = [ids[class_name or prediction.label] for prediction, _ in read]
            heats = iter(heat_maps(classifier, np.stack([pixels for _, pixels in read]), classes))
        for prediction, pixels in batch:
            picture = next(pictures)
            if pixels is None:
                yield prediction, Explanation(prediction.file, error=prediction.error)
                continue
            explanation = _explanation(prediction, class_name or prediction.label, how, pixels, next(heats))
            if not explanation.heat.any():
                tell(f"{prediction.file}: no place speaks for {explanation.class_name}: its heat map is empty.")
            if picture is not None:
                plots.save(explanation.figure(), picture)
                explanation = dataclasses.replace(explanation, heat_map=str(picture), pixels=None, heat=None)
            yield prediction, explanation


def _explanation(
    prediction: Prediction, class_name: str, how: str, pixels: np.ndarray, heat: np.ndarray
) -> Explanation:
    answer = (prediction.label, prediction.probability, class_name, dict(prediction.top)[class_name])
    return Explanation(prediction.file, *answer, how, pixels=pixels, heat=heat)


def _pictures(found: Sequence[Any], out: str | os.PathLike) -> list[Path]:
    """The picture's path for each image, in folder `out`, which is made. Raises OutputError where it cannot be."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make folder {out}: {error.strerror}.") from None
    return _free_names([str(each) for each in found], Path(out))


def _free_names(files: Sequence[str], folder: Path) -> list[Path]:
    """A picture's path for each file: none twice, on a disk that ignores case too, and none that is a file's own."""

    def place(path: str | Path) -> str:
        return os.path.realpath(path).casefold()

    taken = {place(file) for file in files}
    names = []
    for file in files:
        numbers = itertools.chain([""], (f"-{i}" for i in itertools.count(2)))
        free = (folder / f"{Path(file).stem}{number}_explained.png" for number in numbers)
        names.append(next(path for path in free if place(path) not in taken))
        taken.add(place(names[-1]))
    return names


# Lines


def as_json(explanation: Explanation) -> str:
    """One line: {"file", "label", "probability", "class", "class_probability", "method", "heat_map"} or {"file",
    "error"}."""
    if explanation.error is not None:
        return json_text({"file": explanation.file, "error": explanation.error})
    line = {
        "file": explanation.file,
        "label": explanation.label,
        "probability": explanation.probability,
        "class": explanation.class_name,
        "class_probability": explanation.class_probability,
        "method": explanation.method,
        "heat_map": explanation.heat_map,
    }
    return json_text(line)


def as_text(explanation: Explanation) -> str:
    """One line for people."""
    if explanation.error is not None:
        return f"{printable(explanation.file)}: {printable(explanation.error)}"
    answer = f"{printable(explanation.file)}: {explanation.label} {explanation.probability:.1%}"
    other = explanation.class_name != explanation.label
    speaks = f" for {explanation.class_name} ({explanation.class_probability:.1%})" if other else ""
    return f"{answer}, {explanation.method}{speaks} in {printable(str(explanation.heat_map))}"

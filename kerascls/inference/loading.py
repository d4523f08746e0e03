"""Opens model files: runs, .keras, .h5, weights, SavedModels, and those of other runtimes.

All of them pass through `scan` first, which executes nothing. Nothing but Keras' own layers is loaded, in safe mode and
uncompiled.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerascls.errors import ModelError
from kerascls.formats.card import Card, read_class_names, read_pixel_range
from kerascls.formats.opening import utf8
from kerascls.formats.registry import runtime_of, saved_model_folder
from kerascls.formats.scan.containers import ARCHITECTURE
from kerascls.formats.scan.graphs import check_graph, read_graph
from kerascls.formats.scan.layers import read_checked
from kerascls.formats.scan.limits import check_regular
from kerascls.inference.classifier import Classifier
from kerascls.runs.run import Run, is_run
from kerascls.system import tensorflow
from kerascls.system.status import doing


def load(
    path: str | os.PathLike,
    trust: bool = False,
    *,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    pixel_range: Sequence[float] | str | None = None,
) -> Classifier:
    """Opens a run folder, a .keras, .h5, .tflite or .onnx file, or a folder: architecture and weights, OpenVINO's
    model.xml and model.bin, or a SavedModel.

    A .tflite, .onnx or OpenVINO model opens without TensorFlow, by its own runtime. A SavedModel is named by the folder
    of its saved_model.pb or by the one above, as TensorFlow Serving takes it.

    Model files are programs, so each is looked through before anything in it runs: Keras files hold Keras' own layers
    alone, a SavedModel operations that reach no file, network or Python.

    Args:
        trust: load a SavedModel of other operations too, from a maker whose programs you would run. It lifts nothing
            else.
        class_names: of a Keras file that kerascls did not write, in the order of its outputs: a list, "a,b,c", or a
            file of one name a line. Of one sigmoid output, the class of 0 and that of 1.
        pixel_range: (low, high) that such a file takes pixels in, as (0, 1) or (-1, 1); None where its own layers scale
            pixels from 0 to 255. What is not stated is taken for granted, and `Classifier.notice` says so.

    Raises:
        ModelError: it is missing, truncated, not a model, not an image classifier, or refused for what it holds.
        RunError: a run folder without a kept model.

    >>> classifier = kerascls.load("saved_models/released/mnist_cnn")
    >>> classifier.predict("seven.png", invert=True)[0].label
    '7'
    """
    path = Path(path)
    stated: dict[str, Any] = {}
    if class_names is not None:
        stated["class_names"] = read_class_names(class_names)
    if pixel_range is not None:
        stated["pixel_range"] = read_pixel_range(pixel_range)
    if not path.exists():
        raise ModelError(
            f"Model {path} does not exist. Give a run folder, a .keras, .h5, .tflite or .onnx file, or the folder of a "
            "SavedModel or an OpenVINO model."
        )
    check_regular(path, path)
    with doing(f"loading the model {path.name}"):
        classifier = _load(path, trust, stated)
    classifier.path = path
    return classifier


def _load(path: Path, trust: bool, stated: dict[str, Any]) -> Classifier:
    if runtime := runtime_of(path):
        _nothing_stated(path, stated)
        return _load_by(runtime, path)
    if is_run(path):
        return _load_keras(Run.open(path).model_path, stated)
    if path.is_file() or (path / ARCHITECTURE).is_file():
        return _load_keras(path, stated)
    folder = saved_model_folder(path)
    if folder is None:
        raise ModelError(
            f"{path} is not a model: expected a run (manifest.json), a SavedModel (saved_model.pb, or a "
            "version folder that has it), architecture.json with model.weights.h5, or OpenVINO's model.xml."
        )
    _nothing_stated(path, stated)
    return _load_saved_model(folder, trust)


def opened(model: Classifier | str | os.PathLike, trust: bool = False, **stated: Any) -> Classifier:
    """`model` itself where it is loaded, else `load` of it."""
    return model if isinstance(model, Classifier) else load(model, trust, **stated)


def _load_keras(path: Path, stated: dict[str, Any]) -> Classifier:
    contents = read_checked(path)  # before TensorFlow is imported
    if contents.card:
        _nothing_stated(path, stated)
    tensorflow.start()
    from kerascls.formats.keras import read_model

    model = read_model(path, contents)
    try:
        if contents.card:
            return Classifier(Card.from_json(contents.card).check(model), model)
        from kerascls.formats.foreign import adopted

        found = adopted(model, path.name, **stated)
        return Classifier(found.card, found.model, remark=found.notice)
    except ModelError:
        raise
    except Exception as error:
        raise _not_loadable(path, error) from None


def _nothing_stated(path: Path, stated: dict[str, Any]) -> None:
    if stated:
        raise ModelError(f"{path} has a card, which says its names and its pixels. Leave out {' and '.join(stated)}.")


def _load_by(runtime: type, path: Path) -> Classifier:
    model = runtime(path)
    return Classifier(Card.from_json(model.card).check(model), runtime=model)


def _load_saved_model(folder: Path, trust: bool) -> Classifier:
    graph = read_graph(folder)
    if "pixels" not in graph.signatures or graph.card is None:
        raise ModelError(
            f"{folder} is a SavedModel, but not one that kerascls exported: it has signatures "
            f"{list(graph.signatures)}, expected pixels and serving_default."
        )
    if not trust:
        check_graph(folder, graph)
    name = utf8(folder)
    tensorflow.start()
    import tensorflow as tf

    try:
        card = Card.from_json(graph.card)
        model = tf.saved_model.load(name)
        pixels = model.signatures["pixels"]
        takes, returns = pixels.structured_input_signature[1]["images"], pixels.structured_outputs["probabilities"]
        sides = [side or own for side, own in zip(takes.shape[1:], card.image_shape, strict=True)]  # it resizes itself
        return Classifier(card.check(_Shapes((None, *sides), tuple(returns.shape))), saved_model=model)
    except ModelError:
        raise
    except Exception as error:
        raise _not_loadable(folder, error) from None


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """Of a model that is a graph: what it takes and returns, as keras.Model tells it, None for a batch of any size."""

    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]


def _not_loadable(path: Path, error: Exception) -> ModelError:
    from kerascls.formats.keras import not_loadable

    return not_loadable(path, error)

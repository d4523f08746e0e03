"""What a model file is, said without running, building or trusting any of it."""

import hashlib
import os
from pathlib import Path
from typing import Any

from kerascls.errors import ModelError
from kerascls.formats.card import Card
from kerascls.formats.registry import model_files, runtime_of, saved_model_folder
from kerascls.formats.scan.containers import ARCHITECTURE, read
from kerascls.formats.scan.graphs import check_graph, read_graph
from kerascls.formats.scan.layers import check_config, image_shape, layer_classes
from kerascls.formats.scan.programs import read_program
from kerascls.runs.run import Run, is_run
from kerascls.system.status import doing


def inspect(path: str | os.PathLike) -> dict[str, Any]:
    """What is known of a model file, folder or run without loading it, and whether `load` would take it.

    Returns:
        kind: what it is, for people.
        files: `{"file", "bytes", "sha256"}` of each file that makes the model, in order.
        written_with: {package: version}, as far as it says.
        layers: {class: count}, of a Keras model.
        parameters: how many numbers its weights are; None where it does not say.
        class_names, image_shape, resize, data: of its card; without one, the shape that the model itself states.
        signatures: of a SavedModel, {name: {"inputs", "outputs"}} with the type and shape of each.
        needs_trust: `{"op", "function"}` of each operation that only `--trust` loads.
        refused: why `load` would not take it, or None. What only building it can tell is not in it.

    Raises:
        ModelError: there is nothing at `path`, or nothing that could be a model.
        RunError: a run folder without a kept model.

    >>> found = kerascls.inspect("saved_models/released/mnist_cnn")
    >>> found["kind"], found["parameters"], found["refused"]
    ("a run's Keras model", 1198, None)
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"Model {path} does not exist.")
    found: dict[str, Any] = {
        "kind": "",
        "files": [],
        "written_with": {},
        "layers": {},
        "parameters": None,
        "class_names": None,
        "image_shape": None,
        "resize": None,
        "data": None,
        "signatures": {},
        "needs_trust": [],
        "refused": None,
    }
    try:
        if runtime := runtime_of(path):
            _runtimes(path, runtime, found)
        elif path.is_file() or is_run(path) or (path / ARCHITECTURE).is_file():
            _keras(path, found)
        elif folder := saved_model_folder(path):
            _saved_model(folder, found)
        else:
            raise ModelError(f"{path} is not a model: expected what `kerascls predict` takes.")
    except ModelError as error:
        if not found["kind"]:
            raise
        found["refused"] = " ".join(str(error).split())
    found["files"] = [_digest(file, path) for file in model_files(path)]
    return found


def _keras(path: Path, found: dict[str, Any]) -> None:
    found["kind"] = (
        "a run's Keras model" if is_run(path) else f"a Keras model ({path.suffix or 'architecture, weights'})"
    )
    path = Run.open(path).model_path if is_run(path) else path
    contents = read(path)
    found |= {"written_with": contents.written_with, "parameters": contents.values}
    found["layers"] = layer_classes(contents.config)
    found["image_shape"] = image_shape(contents.config)
    _card(contents.card, found)
    check_config(path, contents)


def _saved_model(folder: Path, found: dict[str, Any]) -> None:
    found["kind"] = "a SavedModel"
    graph = read_graph(folder)
    found |= {"written_with": graph.written_with, "parameters": graph.values, "signatures": graph.signatures}
    found["needs_trust"] = [{"op": op, "function": function} for op, function in graph.foreign]
    _card(graph.card, found)
    if graph.card is None or "pixels" not in graph.signatures:
        raise ModelError(f"{folder} is no SavedModel that kerascls exported: it lacks the signature pixels, or a card.")
    check_graph(folder, graph)


def _runtimes(path: Path, runtime: type, found: dict[str, Any]) -> None:
    found["kind"] = runtime.kind
    program = read_program(path)
    found |= {"written_with": program.written_with, "parameters": program.values}
    _card(program.card, found)
    if program.card is None:
        raise ModelError(f"Model {path} has no card (class names, image shape).")


def _card(text: str | None, found: dict[str, Any]) -> None:
    if text is None:
        return
    card = Card.from_json(text)
    found["class_names"], found["image_shape"] = list(card.class_names), list(card.image_shape)
    found |= {"resize": card.resize, "data": card.data}


def _digest(file: Path, within: Path) -> dict[str, Any]:
    name = file.relative_to(within).as_posix() if within.is_dir() else file.name
    with doing(f"reading {file.name}"), file.open("rb") as opened:
        return {
            "file": name,
            "bytes": file.stat().st_size,
            "sha256": hashlib.file_digest(opened, "sha256").hexdigest(),
        }


def table(found: dict[str, Any]) -> str:
    """As people read it; the class names and operations of a large model are cut short."""

    def some(items: list[str], most: int = 12) -> str:
        return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")

    lines = {
        "kind": found["kind"],
        "written with": some([f"{name} {version}" for name, version in found["written_with"].items()]),
        "parameters": f"{found['parameters']:,}" if found["parameters"] is not None else "",
        "layers": some([f"{count} {name}" for name, count in found["layers"].items()]),
        "images": " x ".join(map(str, found["image_shape"] or []))
        + (f", {found['resize']}" if found["resize"] else ""),
        "classes": f"{len(found['class_names'])}: {some(found['class_names'])}" if found["class_names"] else "",
        "data": found["data"] or "",
        "signatures": some(list(found["signatures"])),
        "needs --trust": some([f"{one['op']} in {one['function'] or 'the graph'}" for one in found["needs_trust"]]),
        "loads": f"no: {found['refused']}" if found["refused"] else "yes",
    }
    told = [f"{name:<14}{text}" for name, text in lines.items() if text]
    return "\n".join(told + [f"{one['sha256']}  {one['file']}  {one['bytes']:,} bytes" for one in found["files"]])

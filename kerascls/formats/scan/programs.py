"""Files of other runtimes, looked through before these get them: .tflite, .onnx, and OpenVINO's .xml and .bin.

Their own operations compute and no more. What is refused: operations that a plug-in would have to bring, numbers that
lie in other folders, and shapes that the file does not hold.
"""

import contextlib
import dataclasses
import math
import mmap
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kerascls.errors import ModelError, first_line
from kerascls.formats.card import CARD, PROPERTY
from kerascls.formats.scan.layers import MOST_VALUES
from kerascls.formats.scan.limits import MOST_FILE, MOST_TEXT, check_regular
from kerascls.formats.scan.protobuf import schema, text

MOST_ITEMS = 100_000  # tensors, operations or buffers of a .tflite
_CUSTOM, _DELEGATE, _WHILE = 32, 51, 119  # of LiteRT's operations: those of a plug-in, of another processor's, a loop
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}  # of ONNX's own operations

_SCHEMA = """
    Model: producer=2 string, producer_version=3 string, graph=7 Graph, property=14 Entry*, function=25 Function*
    Graph: node=1 Node*, initializer=5 Tensor*, sparse=15 Sparse*
    Function: node=7 Node*
    Node: op=4 string, attribute=5 Attribute*, domain=7 string
    Attribute: tensor=5 Tensor, graph=6 Graph, tensors=10 Tensor*, graphs=11 Graph*, sparse=22 Sparse, more=23 Sparse*
    Sparse: values=1 Tensor, indices=2 Tensor
    Tensor: side=1 int*, name=8 string, external=13 Entry*
    Entry: key=1 string, value=2 string
"""


@dataclasses.dataclass(frozen=True)
class Program:
    """What a file of another runtime holds.

    Attributes:
        operations: how many it has.
        values: how many numbers its weights are; None where it does not say.
        written_with: {package: version}.
        card: the text of its card, or None.
        loops: whether it has an operation that may go round for ever; told of a .tflite alone.
    """

    operations: int
    values: int | None
    written_with: dict[str, str]
    card: str | None
    loops: bool = False


def read_program(path: Path) -> Program:
    """What a .tflite, .onnx or .xml file, or a folder of OpenVINO's, holds.

    Raises:
        ModelError: it is damaged, larger than the limits, or holds what its runtime could not run by itself.
    """
    file = path / "model.xml" if path.is_dir() else path
    check_regular(path, file, *([file.with_suffix(".bin")] if file.suffix == ".xml" else []))
    if file.stat().st_size > MOST_FILE:
        raise _refused(path, f"it has {file.stat().st_size:,} bytes, more than {MOST_FILE:,}")
    try:
        return {".tflite": _read_litert, ".onnx": _read_onnx, ".xml": _read_openvino}[file.suffix](file)
    except ModelError:
        raise
    except Exception as error:  # struct, google.protobuf and ElementTree each have their own
        reason = first_line(error)
        raise ModelError(f"Model {path} cannot be loaded: it is cut short or damaged ({reason[:160]}).") from None


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is refused before anything in it runs: {why}.")


# LiteRT


class _Table:
    """A table of a FlatBuffer, which a .tflite is. Every read is held against the end of the file."""

    def __init__(self, data: Any, at: int):
        self._data, self._at = data, at
        self._fields = at - self._number("<i", at)

    def _number(self, kind: str, at: int) -> int:
        if at < 0:  # which struct would count from the end
            raise ValueError(f"an offset of {at}")
        return struct.unpack_from(kind, self._data, at)[0]

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry >= self._number("<H", self._fields):
            return None
        offset = self._number("<H", self._fields + entry)
        return self._at + offset if offset else None

    def number(self, field: int, kind: str = "<i") -> int:
        place = self._place(field)
        return 0 if place is None else self._number(kind, place)

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """(place, length) of a vector of items of `size` bytes."""
        place = self._place(field)
        if place is None:
            return 0, 0
        place += self._number("<I", place)
        length = self._number("<I", place)
        if place + 4 + length * size > len(self._data):
            raise ValueError(f"a list of {length:,} items ends behind the file")
        return place + 4, length

    def numbers(self, field: int) -> list[int]:
        place, length = self._vector(field, 4)
        return list(struct.unpack_from(f"<{length}i", self._data, place)) if length else []

    def text(self, field: int) -> str:
        place, length = self._vector(field, 1)
        return text(self._data[place : place + length])

    def length(self, field: int, size: int) -> int:
        return self._vector(field, size)[1]

    def tables(self, field: int) -> Iterator["_Table"]:
        place, length = self._vector(field, 4)
        if length > MOST_ITEMS:
            raise ValueError(f"a list of {length:,} items")
        for at in range(place, place + 4 * length, 4):
            yield _Table(self._data, at + self._number("<I", at))


def _read_litert(path: Path) -> Program:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:8] != b"TFL3":
            raise ModelError(f"Model {path} cannot be loaded: it is no .tflite.")
        model = _Table(data, struct.unpack_from("<I", data)[0])
        codes = []
        for operator in model.tables(1):
            code = max(operator.number(0, "<b"), operator.number(3))
            codes.append(code)
            if code in (_CUSTOM, _DELEGATE) or operator.length(1, 1):
                raise _refused(path, f"operation {operator.text(1)[:100] or 'of a delegate'} is none of LiteRT's own")
        bytes_ = [buffer.length(0, 1) for buffer in model.tables(4)]
        operations = 0
        for graph in model.tables(2):
            tensors = 0
            for tensor in graph.tables(0):
                tensors += 1
                shape = tensor.numbers(0)
                if math.prod(max(1, abs(side)) for side in shape) > MOST_VALUES:
                    raise _refused(path, f"tensor {tensor.text(3)[:100]} has the oversized shape {shape}")
                if tensor.number(2, "<I") >= len(bytes_):
                    raise ValueError("a tensor without a buffer")
            ends = [*graph.numbers(1), *graph.numbers(2)]
            for operation in graph.tables(3):
                operations += 1
                ends += operation.numbers(2)
                if operation.number(0, "<I") >= len(codes):
                    raise ValueError("an operation without a code")
                if not all(-1 <= tensor < tensors for tensor in operation.numbers(1)):  # -1: it is left out
                    raise ValueError("an operation of a tensor that is not there")
            if not all(0 <= tensor < tensors for tensor in ends):
                raise ValueError("a result that is no tensor")
    return Program(operations, None, {}, _card_behind(path), _WHILE in codes)


def _card_behind(path: Path) -> str | None:
    """The card of a .tflite, which lies in a zip archive behind the model."""
    with contextlib.suppress(zipfile.BadZipFile, KeyError, ValueError), zipfile.ZipFile(path) as archive:
        if archive.getinfo(CARD).file_size > MOST_TEXT:
            raise _refused(path, f"its card has {archive.getinfo(CARD).file_size:,} bytes, more than {MOST_TEXT:,}")
        return archive.read(CARD).decode()
    return None


# ONNX


def _read_onnx(path: Path) -> Program:
    model = schema(_SCHEMA)["Model"].FromString(path.read_bytes())
    size = path.stat().st_size
    operations = values = 0
    bodies = [model.graph, *model.function]
    while bodies:
        body = bodies.pop()
        tensors = [*getattr(body, "initializer", ())]
        sparse = [*getattr(body, "sparse", ())]
        for node in body.node:
            operations += 1
            if text(node.domain) not in _DOMAINS:
                raise _refused(path, f"operation {text(node.domain)}.{text(node.op)} is none of ONNX's own"[:300])
            for one in node.attribute:
                bodies += [one.graph, *one.graphs]
                tensors += [one.tensor, *one.tensors]
                sparse += [one.sparse, *one.more]
        for tensor in [*tensors, *(part for one in sparse for part in (one.values, one.indices))]:
            stated = {text(entry.key): text(entry.value) for entry in tensor.external}
            if stated:
                _check_inside(path, stated.get("location", ""))
            count = math.prod(tensor.side)
            if count < 0 or count > 2 * (size if not stated else MOST_FILE):  # of four bits each, at the least
                raise _refused(
                    path, f"{text(tensor.name)[:100]} has the shape {list(tensor.side)}, larger than the file"
                )
            values += count if tensor.side else 0
    card = {text(entry.key): text(entry.value) for entry in model.property}.get(PROPERTY)
    producer = text(model.producer)
    return Program(operations, values, {producer: text(model.producer_version)} if producer else {}, card)


def _check_inside(path: Path, location: str) -> None:
    folder = path.parent.resolve()
    if not location or not (folder / location).resolve().is_relative_to(folder):
        raise _refused(path, f"some of its numbers lie in {location[:100]!r}, which is not in its folder")
    check_regular(path, folder / location)


# OpenVINO


def _read_openvino(path: Path) -> Program:
    if path.stat().st_size > MOST_TEXT:
        raise _refused(path, f"it has {path.stat().st_size:,} bytes, more than {MOST_TEXT:,}")
    written = path.read_bytes().decode("utf-8")
    if "<!DOCTYPE" in written or "<!ENTITY" in written:  # which can grow without bound, or name files
        raise _refused(path, "it declares entities of its own")
    root = ElementTree.fromstring(written)
    numbers = path.with_suffix(".bin")
    size = numbers.stat().st_size if numbers.is_file() else 0
    operations = values = 0
    for layer in root.iter("layer"):
        operations += 1
        kind, version, data = layer.get("type", ""), layer.get("version", ""), layer.find("data")
        if not re.fullmatch(r"opset\d+", version):
            raise _refused(path, f"operation {version}.{kind} is none of OpenVINO's own"[:300])
        stated = data.attrib if data is not None else {}
        if kind == "Const":
            end = int(stated.get("offset", 0)) + int(stated.get("size", 0))
            if int(stated.get("offset", 0)) < 0 or int(stated.get("size", 0)) < 0 or end > size:
                raise _refused(path, f"numbers of {layer.get('name', '')[:100]} end at {end:,} of {size:,} in its .bin")
            values += math.prod(int(side) for side in stated.get("shape", "").split(",") if side.strip())
        for port in layer.iter("port"):
            sides = [int(side.text or 0) for side in port.iter("dim")]
            if math.prod(max(1, side) for side in sides) > MOST_VALUES:
                raise _refused(path, f"{layer.get('name', '')[:100]} has the oversized shape {sides}")
    card = root.find(f"rt_info/{PROPERTY}")
    return Program(operations, values, {}, card.get("value") if card is not None else None)

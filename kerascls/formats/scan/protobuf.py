"""Protocol buffers, as SavedModel and ONNX are written: messages of the fields that we ask for, all others skipped.

TensorFlow's own classes for them come with all of TensorFlow. These are read by the same library, so that a file which
states a field twice, or in pieces, means the same here and there.
"""

import functools
from typing import Any

_TYPES = {"int": 3, "string": 12, "message": 11}  # bytes for a string: damaged text is then for us to refuse


@functools.cache
def schema(text: str) -> dict[str, Any]:
    """Message classes by name, of lines `Name: field=number type, ...`.

    A type is int, string or the name of a message; with a star behind it, the field repeats. A map is written as what
    it is on disk, a repeated message of key and value.

    >>> Pair = schema("Pair: key=1 string, value=2 int*")["Pair"]
    >>> Pair.FromString(Pair(key=b"a", value=[1, 2]).SerializeToString()).value
    [1, 2]
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    lines = [line.strip() for line in text.strip().splitlines()]
    file = descriptor_pb2.FileDescriptorProto(name=f"{hash(text)}.proto", package="kerascls", syntax="proto2")
    for line in lines:
        name, _, fields = line.partition(": ")
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            label, _, kind = field.partition(" ")
            label, _, number = label.partition("=")
            of = kind.rstrip("*")
            added = message.field.add(
                name=label, number=int(number), label=3 if kind.endswith("*") else 1, type=_TYPES.get(of, 11)
            )
            if of not in _TYPES:
                added.type_name = f".kerascls.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kerascls.{message.name}"))
        for message in file.message_type
    }


def text(value: bytes) -> str:
    """As it may be shown: what is not UTF-8 is replaced."""
    return value.decode("utf-8", "replace")

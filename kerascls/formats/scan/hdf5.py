"""HDF5 files of Keras: groups, numbers and attributes that are found harmless, within limits."""

import math
from pathlib import Path
from typing import Any

from kerascls.formats.scan import limits

_FILTERS = {1, 2, 3, 4, 32000}  # gzip, shuffle, checksum, szip, lzf; another one would be looked for on this machine


def count_values(path: Path, source: Any) -> int:
    """How many numbers are in the data sets of an HDF5 file, once all that is in it is found harmless.

    What describes the data is read, and of the data what is packed or in pieces.
    """
    import h5py
    from h5py import h5o

    with h5py.File(source) as file:
        size = file.id.get_filesize()
        names: list[bytes] = []
        faults: list[str] = []

        def visit(name: bytes, info: Any) -> bool | None:
            names.append(name)
            if info.type != h5py.h5l.TYPE_HARD:
                faults.append(f"{_shown(name)} in its HDF5 is a link to another place or file")
            elif len(names) > limits.MOST_OBJECTS:
                faults.append(f"its HDF5 has more than {limits.MOST_OBJECTS:,} objects")
            elif name.count(b"/") >= limits.MOST_DEPTH:
                faults.append(f"its HDF5 is nested more than {limits.MOST_DEPTH} groups deep")
            return True if faults else None

        file.id.links.visit(visit, info=True)
        if faults:
            raise limits.refused(path, faults[0])
        attributes = [(b"/", file.id)]
        values = stored = unpacked = 0
        for name in names:
            item = h5o.open(file.id, name)
            attributes.append((name, item))
            if isinstance(item, h5py.h5d.DatasetID):
                count, bytes_, declared = _data_set(path, name, item)
                values, stored = values + count, stored + bytes_
                unpacked += max(0, declared - bytes_)
            elif not isinstance(item, h5py.h5g.GroupID):
                raise limits.refused(path, f"{_shown(name)} in its HDF5 is neither a group nor numbers")
        if stored > size:
            raise limits.refused(path, f"its HDF5 says that {stored:,} bytes lie in {size:,}")
        if unpacked > limits.MOST_UNPACKED:
            raise limits.refused(path, f"its HDF5 unpacks {stored:,} bytes to {unpacked + stored:,}")
        for name, item in attributes:
            _attributes(path, name, item, size - stored)
            of = (h5py.Dataset if isinstance(item, h5py.h5d.DatasetID) else h5py.Group)(item)
            for attribute in of.attrs:
                of.attrs[attribute]
            if isinstance(of, h5py.Dataset) and of.chunks:
                for chunk in of.iter_chunks():
                    of[chunk]
    return values


def _data_set(path: Path, name: bytes, item: Any) -> tuple[int, int, int]:
    """(numbers, stored bytes, bytes in memory) of a data set that is found harmless."""
    from h5py import h5d, h5t

    plan = item.get_create_plist()
    if plan.get_external_count() or plan.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
        raise limits.refused(path, f"the numbers of {_shown(name)} in its HDF5 lie in another file")
    kind = item.get_type()
    if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM):
        raise limits.refused(path, f"{_shown(name)} in its HDF5 holds no numbers")
    if unknown := {plan.get_filter(i)[0] for i in range(plan.get_nfilters())} - _FILTERS:
        raise limits.refused(
            path, f"{_shown(name)} in its HDF5 is packed by a filter that is not HDF5's own: {unknown}"
        )
    count, stored = math.prod(item.shape or ()), item.get_storage_size()
    declared = count * kind.get_size()
    if declared > limits.SMALL and declared > limits.MOST_RATIO * stored:
        raise limits.refused(
            path,
            f"{_shown(name)} in its HDF5 has the shape {tuple(item.shape)}, {declared:,} bytes, of which "
            f"{stored:,} are there",
        )
    return count, stored, declared


def _attributes(path: Path, name: bytes, item: Any, described: int) -> None:
    """Refuses attributes that are no numbers or strings, or could be larger than the limits when they are read.

    `described` is how many bytes of the file are not data: as long as a string in it can be at most.
    """
    from h5py import h5a, h5t

    for i in range(h5a.get_num_attrs(item)):
        attribute = h5a.open(item, index=i)
        kind = attribute.get_type()
        if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.STRING, h5t.ENUM):
            raise limits.refused(path, f"an attribute of {_shown(name)} in its HDF5 is neither numbers nor text")
        count = math.prod(attribute.shape or ())
        most = count * described if kind.get_class() == h5t.STRING and kind.is_variable_str() else 0
        if most > limits.MOST_ATTRIBUTE or count * kind.get_size() > limits.MOST_TEXT:
            raise limits.refused(
                path, f"an attribute of {_shown(name)} in its HDF5 has the oversized shape {attribute.shape}"
            )


def read_attribute(path: Path, file: Any, name: str) -> str | None:
    """The text of an attribute of the file, None where it has none of that name."""
    value = file.attrs.get(name)
    if value is None:
        return None
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise limits.refused(path, f"its attribute {name} is no text")
    return text


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")[:100]

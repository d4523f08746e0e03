"""A writer of TIFF files of any kind (TIFF 6.0 and BigTIFF), by hand, so that no library is trusted with them."""

import struct
import zlib

import numpy as np


def tiff(
    samples,
    order="<",
    *,
    bits=None,
    photometric=None,
    compression=1,
    planar=1,
    tile=None,
    rows=None,
    big=False,
    more=(),
):
    """`samples` `(height, width)` or `(height, width, n)` as a TIFF's bytes; those of fewer bits than 8, or of 12, are
    packed. `compression` is 1 for none, 8 for deflate; `tile` a square's side, `rows` those of a strip; `more` are
    further tags, as (tag, values)."""
    samples = samples if samples.ndim == 3 else samples[..., None]
    height, width, count = samples.shape
    bits = bits or 8 * samples.itemsize
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[samples.dtype.kind]
    photometric = photometric if photometric is not None else (2 if count >= 3 else 1)

    def packed(part):
        if bits >= 8 and bits != 12:
            return part.astype(part.dtype.newbyteorder(order)).tobytes()
        flat = part.reshape(len(part), -1).astype(np.uint16)
        digits = (flat[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
        return b"".join(np.packbits(row).tobytes() for row in digits.reshape(len(part), -1))

    planes = [samples] if planar == 1 else [samples[..., i : i + 1] for i in range(count)]
    parts = []
    for plane in planes:
        if tile:
            down, across = -(-height // tile), -(-width // tile)
            padded = np.pad(plane, ((0, down * tile - height), (0, across * tile - width), (0, 0)))
            parts += [
                padded[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile] for y in range(down) for x in range(across)
            ]
        else:
            parts += [plane[y : y + (rows or height)] for y in range(0, height, rows or height)]
    data = [packed(part) if compression == 1 else zlib.compress(packed(part)) for part in parts]
    word = "Q" if big else "I"
    start = 16 if big else 8
    places = [start + sum(map(len, data[:i])) for i in range(len(data))]
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * count),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        277: ("H", [count]),
        284: ("H", [planar]),
        339: ("H", [kind] * count),
    }
    where, sizes = (324, 325) if tile else (273, 279)
    tags |= {where: (word, places), sizes: (word, [len(one) for one in data])}
    tags |= {322: ("I", [tile]), 323: ("I", [tile])} if tile else {278: ("I", [rows or height])}
    tags |= {tag: ("H", list(values)) for tag, values in more}
    body = b"".join(data)
    body += bytes(len(body) % 2)
    directory = start + len(body)
    behind = directory + (8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4)
    entries, outside = b"", b""
    for tag, (fmt, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{fmt}", *values)
        room = 8 if big else 4
        if len(value) > room:
            held = struct.pack(order + word, behind + len(outside))
            outside += value + bytes(len(value) % 2)
        else:
            held = value.ljust(room, b"\0")
        entries += struct.pack(f"{order}HH{word}", tag, {"H": 3, "I": 4, "Q": 16}[fmt], len(values)) + held
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, directory) if big else struct.pack(f"{order}HI", 42, directory)
    return (
        mark
        + head
        + body
        + struct.pack(order + ("Q" if big else "H"), len(tags))
        + entries
        + bytes(8 if big else 4)
        + outside
    )

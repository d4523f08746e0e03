"""Hypothesis strategies of bad input, a `Case` each: a folder of files, and what is asked of kerascls beside them.

What is valid comes from `templates`: a tiny run, its model in every format, data sets, pictures. Strategies break it:
bytes are flipped, cut and spliced, headers lie, archives are rewritten, JSON and TOML get values of every kind, and
payloads stand where code might run, each of which would write the file `pwned`.
"""

import base64
import dataclasses
import io
import json
import marshal
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

PWNED = "pwned"  # the file that every payload would write
FIFO, FOLDER = "fifo", "folder"


@dataclasses.dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        kind: of KINDS.
        call: what is done with it: a name of `fuzz.CALLS` and its arguments, JSON.
        tree: what lies in the folder: of each path bytes, FIFO, FOLDER, or "link TARGET".
        writes: patterns of paths that the call may write, or change, if it succeeds.
        leaves: and those that it may leave behind when it fails, since they are whole.
    """

    kind: str
    call: list[Any]
    tree: dict[str, bytes | str] = dataclasses.field(default_factory=dict, repr=False)
    writes: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()

    def as_json(self, found: str) -> str:
        tree = {
            name: {"bytes": base64.b64encode(zlib.compress(value, 9)).decode()} if isinstance(value, bytes) else value
            for name, value in self.tree.items()
        }
        return json.dumps({"found": found, **dataclasses.asdict(self), "tree": tree}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Case":
        told = json.loads(text)
        tree = {
            name: zlib.decompress(base64.b64decode(value["bytes"])) if isinstance(value, dict) else value
            for name, value in told["tree"].items()
        }
        return cls(told["kind"], told["call"], tree, tuple(told["writes"]), tuple(told["leaves"]))


class Templates:
    """The files of a folder that `fuzz.make_templates` filled, in memory: path below it to bytes."""

    def __init__(self, folder: Path):
        self.files = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        self.images = {name: self.files[name] for name in self.files if name.startswith("images/")}

    def below(self, folder: str, as_: str | None = None) -> dict[str, bytes]:
        """The files of one folder, under another name where one is given."""
        inside = {name: data for name, data in self.files.items() if name.startswith(f"{folder}/")}
        return {f"{as_ or folder}{name[len(folder) :]}": data for name, data in inside.items()}


# Bytes

_EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@st.composite
def mutated(draw, data: bytes, most: int = 6, head: int = 0) -> bytes:
    """`data` after one to `most` edits, among its first `head` bytes alone where that is given."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        end = min(len(out), head or len(out))
        at = draw(st.integers(0, max(0, end - 1)))
        length = draw(st.sampled_from([1, 2, 4, 16, 256, 4096]))
        match draw(
            st.sampled_from(["flip", "flip", "number", "number", "cut", "truncate", "insert", "repeat", "zero"])
        ):
            case "flip":
                out[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "number":
                kind = draw(st.sampled_from(["<I", ">I", "<H", ">H"]))
                largest = 256 ** struct.calcsize(kind) - 1
                number = struct.pack(kind, draw(st.sampled_from(_EDGES)) & largest)
                out[at : at + len(number)] = number
            case "cut":
                del out[at : at + length]
            case "truncate":
                del out[at:]
            case "insert":
                out[at:at] = draw(st.binary(max_size=16))
            case "repeat":
                out[at:at] = out[at : at + length]
            case "zero":
                out[at : at + length] = bytes(len(out[at : at + length]))
    return bytes(out)


@st.composite
def patched(draw, data: bytes) -> bytes:
    """`data` with one to four numbers in it changed and nothing moved, so that what is read first mostly stands."""
    out = bytearray(data)
    stated = [at for at, byte in enumerate(data) if byte]  # most of a model file is nothing: spared, or zeros
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        at = stated[draw(st.integers(0, len(stated) - 1))]
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8]))
        number = draw(st.one_of(st.integers(0, 255), st.integers(0, len(data)), st.sampled_from([0, 1, -1, *_EDGES])))
        out[at : at + length] = (number % 256**length).to_bytes(length, "little")[: len(out) - at]
    return bytes(out)


def garbage() -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=64), st.sampled_from([b"", b"\0", b"\n", b"\xff\xfe", b"PK", bytes(4096)]))


# Images


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


_SIDES = [0, 1, 2, 7, 8, 255, 4000, 20_000, 65_535, 2**20, 2**30, 2**31 - 1, 2**31, 2**32 - 1]


@st.composite
def lying_images(draw) -> bytes:
    """Whole headers that declare any size; behind them lies almost nothing."""
    width, height = draw(st.sampled_from(_SIDES)), draw(st.sampled_from(_SIDES))
    kind = draw(st.sampled_from(["png", "gif", "bmp", "jpeg", "webp", "tiff"]))
    if kind == "png":
        depth, colour = draw(st.sampled_from([1, 2, 4, 8, 16, 3])), draw(st.sampled_from([0, 2, 3, 4, 6, 1]))
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, draw(st.integers(0, 1)))
        palette = _png_chunk(b"PLTE", bytes(range(12))) if colour == 3 else b""
        data = zlib.compress(bytes(draw(st.sampled_from([0, 9, 99, 100_000]))))
        chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
        first, *rest = (_png_chunk(*chunk) for chunk in chunks)
        return b"\x89PNG\r\n\x1a\n" + first + palette + b"".join(rest)
    if kind == "gif":
        size = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
        flags = bytes([draw(st.sampled_from([0x80, 0x00, 0xF7])), 0, 0])
        picture = b"," + bytes(4) + struct.pack("<HH", draw(st.integers(0, 65535)), height & 0xFFFF) + b"\0"
        return b"GIF89a" + size + flags + bytes(6) + picture + b"\x02\x02\x4c\x01\0;"
    if kind == "bmp":
        bits, compression = draw(st.sampled_from([0, 1, 4, 8, 16, 24, 32, 99])), draw(st.integers(0, 4))
        size = draw(st.sampled_from([40, 40, 40, 12, 56, 108, 124, 0, 2**31]))
        colours = draw(st.sampled_from([0, 2, 256, 2**31 - 1, 2**32 - 1]))
        signed = lambda side: (side + 2**31) % 2**32 - 2**31  # noqa: E731
        header = struct.pack(
            "<IiiHHIIiiII", size, signed(width), signed(height), 1, bits, compression, 0, 0, 0, colours, 0
        )
        start = draw(st.sampled_from([54, 0, 14, 2**31, 2**32 - 1]))
        return b"BM" + struct.pack("<IHHI", 60, 0, 0, start) + header + bytes(draw(st.sampled_from([0, 100, 3000])))
    if kind == "jpeg":
        frame = struct.pack(">BHHB", 8, height & 0xFFFF, width & 0xFFFF, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
        return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"
    if kind == "webp":
        flags = bytes([draw(st.integers(0, 255)), 0, 0, 0])
        sides = (max(0, width - 1) & 0xFFFFFF).to_bytes(3, "little") + (max(0, height - 1) & 0xFFFFFF).to_bytes(
            3, "little"
        )
        body = b"WEBPVP8X" + struct.pack("<I", 10) + flags + sides
        return b"RIFF" + struct.pack("<I", len(body)) + body
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, draw(st.sampled_from([1, 5, 7, 8, 32773])))]
    tags += [(262, 3, draw(st.integers(0, 6))), (273, 4, 8), (278, 4, height), (279, 4, draw(st.sampled_from(_SIDES)))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def images(templates: Templates) -> st.SearchStrategy[bytes]:
    whole = st.sampled_from(sorted(templates.images.values()))
    return st.one_of(
        whole.flatmap(mutated),
        whole.flatmap(lambda data: mutated(data, head=64)),
        st.tuples(whole, whole, st.integers(0, 400)).map(lambda both: both[0][: both[2]] + both[1][both[2] :]),
        lying_images(),
        st.tuples(
            st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*"]), garbage()
        ).map(b"".join),
        garbage(),
    )


_IMAGE_NAMES = ["a.png", "b.jpg", "c.tiff", "d.bmp", "e.gif", "f.webp", "ü.png", "no suffix", "\udcff.png", "n\nl.png"]


@st.composite
def image_cases(draw, templates: Templates) -> Case:
    """Images read by both roads, as files and as uploads."""
    tree = draw(st.dictionaries(st.sampled_from(_IMAGE_NAMES), images(templates), min_size=1, max_size=4))
    shape = draw(st.sampled_from([[8, 8, 1], [8, 8, 3], [1, 1, 1], [9, 4, 3]]))
    rule = draw(st.sampled_from(["stretch", "nearest", "center_crop"]))
    return Case("image", ["read", sorted(tree), shape, rule], tree)


# Values of JSON and TOML

_NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 255, 256, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30, 1e300, -1e300, 1e-320, 0.5]),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0]),
)
_TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "a\nb", "\0", "\u202e", "日本", "../..", "/", "~", "x" * 5000, "%s%n{0}", "[/]", "nan", "adam"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=8),
)


def values(depth: int = 3) -> st.SearchStrategy[Any]:
    """JSON of every kind."""
    leaves = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS)
    return st.recursive(
        leaves,
        lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(_TEXTS, inside, max_size=3)),
        max_leaves=depth,
    )


def nested(value: Any, count: int) -> Any:
    for _ in range(count):
        value = [value]
    return value


@st.composite
def edited(draw, value: Any, replacements: st.SearchStrategy[Any]) -> Any:
    """JSON with one of its values, at any depth, replaced, removed or repeated."""
    value = json.loads(json.dumps(value))
    parent, at = None, None
    while isinstance(value if parent is None else parent[at], dict | list):
        inside = value if parent is None else parent[at]
        keys = sorted(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys or (parent is not None and draw(st.integers(0, 4)) == 0):
            break
        parent, at = inside, draw(st.sampled_from(keys))
    if parent is None:
        return draw(replacements)
    match draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat"])):
        case "replace":
            parent[at] = draw(replacements)
        case "remove":
            del parent[at]
        case "repeat":
            if isinstance(parent, list):
                parent.insert(at, parent[at])
            else:
                parent[draw(_TEXTS)] = parent[at]
    return value


@st.composite
def json_texts(draw, text: bytes, replacements: st.SearchStrategy[Any] | None = None) -> bytes:
    """A JSON file, edited in its values or in its bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.one_of(mutated(text), garbage(), st.just(b"[" * 100_000), st.just(b"9" * 10_000)))
    value = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        value = draw(edited(value, values() if replacements is None else replacements))
    return json.dumps(value).encode("utf-8", "surrogatepass")


# Recipes

_SECTIONS = ["data", "model", "train", "finetune", "features", "augment", "devices", "fallback", "trian", "", "a.b"]


def _toml(value: Any) -> str:
    """TOML of a value of any kind; None, which it has not, as a word that is no TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inside)}" for key, inside in value.items()) + "}"
    return "nothing"


@st.composite
def recipe_tables(draw, keys: dict[str, list[str]], policies: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """A recipe that is right, but for some values."""
    tables: dict[str, dict[str, Any]] = {
        "data": {"name": "data.npz"},
        "model": {"name": "small_cnn"},
        "train": {"epochs": 1},
    }
    for _ in range(draw(st.integers(1, 4))):
        section = draw(st.sampled_from(_SECTIONS))
        known = [*keys.get(section, []), "nme", "", "a b"]
        tables.setdefault(section, {})[draw(st.sampled_from(known))] = draw(values())
    if draw(st.booleans()):
        entries = []
        for _ in range(draw(st.integers(1, 3))):
            name = draw(st.sampled_from(sorted(policies)))
            options = draw(st.dictionaries(st.sampled_from([*policies[name], "x"]), values(), max_size=2))
            entries.append({"name": name, **options})
        tables.setdefault("augment", {})["policy"] = entries
    return tables


_RECIPE_NAMES = ["r.toml", "ü.toml", "a b.toml", "-r.toml", "r"]


@st.composite
def recipe_cases(draw, templates: Templates) -> Case:
    keys = json.loads(templates.files["keys.json"])
    tables = draw(recipe_tables(keys["sections"], keys["policies"]))
    text = "".join(
        f"[{section}]\n" + "".join(f"{json.dumps(k)} = {_toml(v)}\n" for k, v in table.items())
        for section, table in tables.items()
    ).encode("utf-8", "surrogatepass")
    text = draw(
        st.one_of(
            st.just(text),
            st.just(text),
            mutated(text),
            garbage(),
            st.sampled_from(
                [
                    text + b"[train]\n",
                    text + b"x = " + b"[" * 5000,
                    text + b"x = " + b"{a=" * 5000,
                    b"a." * 5000 + b"a = 1\n",
                    text + b"x = " + b"9" * 10_000,
                    b"\xef\xbb\xbf" + text,
                    text.replace(b"\n", b"\r"),
                ]
            ),
        )
    )
    name = draw(st.sampled_from(_RECIPE_NAMES))
    tree = {name: text, "data.npz": templates.files["data.npz"]}
    what = draw(st.sampled_from(["config", "config", "train", "sets", "summary", "show"]))
    if what == "config":
        return Case("recipe", ["config", name], tree)
    if what == "sets":
        section, key = draw(st.sampled_from(_SECTIONS)), draw(st.sampled_from(["epochs", "name", "policy", "x", ""]))
        setting = f"{section}.{key}={draw(st.one_of(values().map(_toml), _TEXTS))}".replace("\0", "0")
        return Case("recipe", ["cli", "train", "mnist_cnn", "--data", "gone.npz", "--set", setting], tree)
    if what == "train":  # the data is gone, so that nothing trains, whatever the recipe says
        return Case("recipe", ["cli", "train", name, "--data", "gone.npz", "--out", "run"], tree)
    if what == "summary":
        return Case("recipe", ["cli", "summary", name, "--json"], tree)
    return Case("recipe", ["cli", "show", name, "--plot", "p.png"], tree, ("p.png",))


_FEW = st.integers(1, 12)


@st.composite
def train_cases(draw, templates: Templates) -> Case:
    """Recipes without a fault whose values lie at the ends of their ranges, trained for an epoch."""
    choices = {
        "data.image_shape": st.tuples(_FEW, _FEW, st.sampled_from([1, 3])).map(list),
        "data.validation": st.one_of(st.integers(0, 14), st.sampled_from([0.01, 0.5, 0.99])),
        "data.test": st.one_of(st.integers(0, 14), st.sampled_from([0.01, 0.99])),
        "data.classes": st.sampled_from([["1", "0"], ["0"], ["0", "1", "2"], ["0", "ü"]]),
        "data.resize": st.sampled_from(["stretch", "nearest", "center_crop"]),
        "train.batch_size": st.sampled_from([1, 5, 12, 13, 2**31 - 1]),
        "train.learning_rate": st.sampled_from([1e-30, 1e30, 1e10, 1]),
        "train.optimizer": st.sampled_from(["adam", "adamw", "sgd", "rmsprop", "nadam", "lion"]),
        "train.warmup_epochs": st.sampled_from([0.001, 1, 1e30]),
        "train.momentum": st.sampled_from([0, 1]),
        "train.beta_2": st.sampled_from([0, 1]),
        "train.epsilon": st.sampled_from([1e-30, 1e30]),
        "train.weight_decay": st.sampled_from([1e-30, 1e30]),
        "train.ema_momentum": st.sampled_from([0.99999, 1e-30]),
        "train.label_smoothing": st.sampled_from([0, 1]),
        "train.class_weight": st.just("balanced"),
        "train.keep": st.sampled_from(["best", "last"]),
        "train.drop_remainder": st.booleans(),
        "train.steps_per_execution": st.sampled_from([1, 100, 2**31 - 1]),
        "train.checkpoint_steps": st.sampled_from([1, 2**31 - 1]),
        "train.save_epochs": st.just(True),
        "train.samples": st.sampled_from([0, 1, 2**31 - 1]),
        "augment.until": st.sampled_from([0, 1e-30]),
    }
    tables: dict[str, dict[str, Any]] = {"train": {"epochs": 1}, "data": {}}
    for name in draw(st.lists(st.sampled_from(sorted(choices)), min_size=1, max_size=3, unique=True)):
        section, key = name.split(".")
        tables.setdefault(section, {})[key] = draw(choices[name])
    tables["data"]["name"] = "data.npz"
    tables["model"] = {"name": "small_cnn", "filters": draw(_FEW), "blocks": draw(st.integers(1, 2))}
    text = "".join(
        f"[{section}]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in table.items()) for section, table in tables.items()
    )
    tree = {"r.toml": text.encode(), "data.npz": templates.files["data.npz"]}
    # A training that fails leaves its run, which says so.
    return Case("train", ["cli", "train", "r.toml", "--out", "run", "--quiet"], tree, ("run*",), ("run*",))


# Folders of images

_NAMES = [
    "a",
    "b",
    "cat",
    "dog",
    "train",
    "test",
    "val",
    "validation",
    "Train",
    "valid",
    "c c",
    "ü",
    "日本",
    "\u202e",
    "-x",
]
_NAMES += [
    ".hidden",
    "n\nl",
    "\udcff",
    "x" * 255,
    "ü" * 127,
    "9" * 40,
    "é",
    "e\u0301",
    "[a]",
    "%s",
    "'",
    '"',
    "splits.csv",
]
_FILES = [
    "1.png",
    "2.jpg",
    "10.PNG",
    "readme.txt",
    "no",
    "\udcfe.png",
    ".png",
    "n\nl.png",
    "x" * 251 + ".png",
    "9" * 200,
]


@st.composite
def folder_trees(draw, templates: Templates, at: str) -> dict[str, bytes | str]:
    tree: dict[str, bytes | str] = {}
    good = templates.images["images/L.png"]
    files = st.one_of(st.just(good), st.just(good), images(templates), garbage())
    links = [
        "link .",
        "link ..",
        "link gone",
        "link a",
        f"link ../{at}",
        "link /dev/zero",
        "link /dev/null",
        FIFO,
        FOLDER,
    ]

    def fill(folder: str, depth: int) -> None:
        for name in draw(st.lists(st.sampled_from(_NAMES), max_size=3, unique=True)) if depth else []:
            tree[f"{folder}/{name}"] = FOLDER
            fill(f"{folder}/{name}", depth - 1)
        for name in draw(st.lists(st.sampled_from(_FILES), max_size=3, unique=True)):
            odd = draw(st.integers(0, 9)) == 0
            tree[f"{folder}/{name}"] = draw(st.sampled_from(links)) if odd else draw(files)

    tree[at] = FOLDER
    if draw(st.booleans()):  # classes that can be divided, beside which the rest lies
        tree |= {f"{at}/{name}/{i}.png": good + bytes([i]) for name in ("cat", "dog") for i in range(4)}
    fill(at, draw(st.integers(0, 3)))
    return tree


@st.composite
def folder_cases(draw, templates: Templates) -> Case:
    tree = draw(folder_trees(templates, "data"))
    size = draw(st.sampled_from(["data.image_shape=[8, 8, 3]", "data.cache_mb=0"]))
    recipe = b'[data]\nname = "data"\nimage_shape = [8, 8, 1]\n[model]\nname = "small_cnn"\n[train]\nepochs = 1\n'
    tree["r.toml"] = recipe
    match draw(st.sampled_from(["show", "show", "split", "split", "link", "predict", "csv", "train"])):
        case "show":
            return Case("folder", ["cli", "show", "r.toml", "--plot", "p.png"], tree, ("p.png",))
        case "split":
            counts = ["--train", draw(st.sampled_from(["0.5", "2", "0", "1.0", "99", "-1", "nan", "1e9", "0.8"]))]
            counts += ["--validation", draw(st.sampled_from(["0", "0.1", "1", "0.9"]))]
            return Case("folder", ["cli", "split", "data", "out", *counts], tree, ("out", "out/*"))
        case "link":
            where = draw(st.sampled_from(["out", "data/out", "data", "gone/out"]))
            writes = (where, f"{where}/*") if where != "data" else ()
            return Case("folder", ["cli", "split", "data", where, "--link"], tree, (*writes, "gone"))
        case "predict":
            return Case("folder", ["cli", "predict", "@run", "data", "--json"], tree)
        case "csv":
            where = draw(st.sampled_from(["t.csv", "data", "gone/t.csv", "r.toml/t.csv"]))
            return Case("folder", ["cli", "predict", "@run", "data", "--csv", where], tree, ("t.csv",), ("t.csv",))
    return Case("folder", ["cli", "train", "data", "--set", size, "--set", "model.name=gone.py"], tree)


# Model files


def _lambda(code: str) -> dict[str, Any]:
    """A Keras Lambda layer whose function is marshalled bytecode."""
    function = marshal.dumps(compile(f"lambda x: {code}", "x", "eval").co_consts[0])
    told = {"class_name": "__lambda__", "config": {"code": base64.b64encode(function).decode(), "defaults": None}}
    config = {"name": "l", "function": {**told, "config": {**told["config"], "closure": None}}}
    return {"module": "keras.layers", "class_name": "Lambda", "config": config, "registered_name": None}


_RUN = f"__import__('os').system('touch {PWNED}')"
_SHELL = f"touch {PWNED}"
PAYLOADS = [
    _lambda(_RUN),
    {"module": "os", "class_name": "system", "config": _SHELL, "registered_name": "system"},
    {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
    {"module": "builtins", "class_name": "eval", "config": {"source": _RUN}, "registered_name": None},
    {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"},
    {"module": "keras.src.utils.file_utils", "class_name": "function", "config": "get_file", "registered_name": None},
    {"module": "pickle", "class_name": "loads", "config": {"data": "cos\nsystem\n(S'touch pwned'\ntR."}},
    {"class_name": "__lambda__", "config": {"code": _RUN}},
    {"class_name": "__tensor__", "config": {"value": [1e30], "dtype": "float32"}},
    {"class_name": "TFOpLambda", "config": {"name": "x", "function": "io.write_file"}},
    {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/", "call_endpoint": "serve"}},
    {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "cG9z"}},
]
_CLASSES = [
    "Dense",
    "Conv2D",
    "Lambda",
    "LSTM",
    "Flatten",
    "Functional",
    "Sequential",
    "TextVectorization",
    "Embedding",
]
_CLASSES += [
    "StringLookup",
    "IntegerLookup",
    "Hashing",
    "Bidirectional",
    "RNN",
    "TFSMLayer",
    "JaxLayer",
    "Nope",
    "system",
]
_MODULES = [
    "keras.layers",
    "keras",
    "keras.src.models.functional",
    "os",
    "builtins",
    "subprocess",
    "kerascls",
    "nope",
    "",
]


def model_values() -> st.SearchStrategy[Any]:
    """What may stand somewhere in a model's configuration. Sizes are such that a layer takes a gigabyte at most."""
    return st.one_of(
        values(),
        st.sampled_from(PAYLOADS),
        st.sampled_from(_CLASSES),
        st.sampled_from(_MODULES),
        st.sampled_from([0, -1, 1, 7, 10_000, [3, 3], [None, 8, 8, 1], [8, 8], "float16", "int8", "string", "relu"]),
        st.just(nested(1, 900)),
    )


@st.composite
def zips(draw, data: bytes, edits: dict[str, Callable[[bytes], st.SearchStrategy[bytes]]]) -> bytes:
    """A zip with its entries edited, renamed, left out, twice there or declared otherwise than they are."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = draw(st.integers(0, len(members) - 1))
    name, content = members[at]
    change = edits.get(name, mutated)
    match draw(st.sampled_from(["edit", "edit", "edit", "edit", "remove", "rename", "twice", "add", "bomb", "text"])):
        case "edit":
            members[at] = (name, draw(change(content)))
        case "remove":
            del members[at]
        case "rename":
            other = draw(st.sampled_from([f"../{PWNED}", f"/{PWNED}", "a/" * 100 + name, "", name.upper(), "\0"]))
            members[at] = (other, content)
        case "twice":
            members.append((name, draw(change(content))))
        case "add":
            members.append((draw(st.sampled_from([f"../{PWNED}", f"../../{PWNED}", "assets/x", PWNED])), b"x"))
        case "bomb":  # 50 MB of nothing in some 50 kB
            members[at] = (name, content + b" " * 50_000_000)
        case "text":
            members[at] = (name, draw(garbage()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, inside in members:
            archive.writestr(zipfile.ZipInfo(each), inside, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _cards(text: bytes) -> st.SearchStrategy[bytes]:
    sizes = st.sampled_from(
        [[8, 8, 3], [0, 0, 1], [8, 8], [-1, 8, 1], [2**31, 8, 1], [8.0, 8, 1], "ab", ["a", "a"], []]
    )
    names = st.sampled_from(
        [["a"], ["a", "b", "c"], ["a", 3], ["", "\n"], [["a"], ["b"]], {"a": 1, "b": 2}, "up", "in"]
    )
    rules = st.sampled_from(["nearest", "center_crop", "cover", "x", [300, -1, 0], [0, 0, 0], [1, 2]])
    return json_texts(text, st.one_of(sizes, names, rules, values()))


@st.composite
def keras_files(draw, data: bytes) -> bytes:
    configs = lambda text: json_texts(text, model_values())  # noqa: E731
    return draw(
        st.one_of(
            mutated(data),
            zips(data, {"model.weights.h5": patched}),
            zips(data, {"config.json": configs, "metadata.json": json_texts, "kerascls.json": _cards}),
            zips(data, {"config.json": configs, "metadata.json": configs, "kerascls.json": _cards}),
        )
    )


@st.composite
def h5_files(draw, data: bytes) -> bytes:
    """Bytes of an HDF5 file, or its two JSON attributes with other values."""
    if draw(st.booleans()):
        return draw(st.one_of(mutated(data), patched(data), patched(data)))
    import h5py

    held = io.BytesIO(data)
    with h5py.File(held, "a") as archive:
        name = draw(st.sampled_from(["model_config", "model_config", "kerascls"]))
        if name in archive.attrs:
            text = archive.attrs[name].encode() if isinstance(archive.attrs[name], str) else bytes(archive.attrs[name])
            changed = draw(json_texts(text, model_values()) if name == "model_config" else _cards(text))
            del archive.attrs[name]
            short = changed[:60_000].decode("utf-8", "replace").replace("\0", "")
            archive.attrs[name] = short
    return held.getvalue()


@st.composite
def xmls(draw, data: bytes) -> bytes:
    words = [b'"8"', b'"f32"', b"Parameter", b"Convolution", b'"0"', b'id="1"', b"model.bin", b"<layer", b"opset1"]
    word = draw(st.sampled_from([word for word in words if word in data]))
    other = draw(st.sampled_from([b'"-1"', b'"99999999999999999999"', b"", b'"x"', b"&lol;", b"<" * 5000, b'"i64"']))
    entities = b'<!DOCTYPE x [<!ENTITY lol "' + b"lol" * 99 + b'"><!ENTITY b SYSTEM "file:///dev/zero">]>'
    return draw(st.one_of(mutated(data), st.just(data.replace(word, other, 1)), st.just(entities + data)))


FORMATS = ["m.keras", "m.keras", "m.h5", "m.h5", "m.tflite", "m.int8.tflite", "m.onnx"]
FORMATS += ["weights", "saved_model", "openvino"]


@st.composite
def model_trees(draw, templates: Templates, model: str) -> dict[str, bytes | str]:
    """One of the tiny model's files, broken."""
    if model in templates.files:
        kinds = {"m.keras": keras_files, "m.h5": h5_files}
        data = templates.files[model]
        return {model: draw(kinds[model](data) if model in kinds else st.one_of(mutated(data), patched(data)))}
    tree: dict[str, bytes | str] = dict(templates.below(model))
    for name in draw(st.lists(st.sampled_from(sorted(tree)), min_size=1, max_size=2, unique=True)):
        data = tree[name]
        kind = Path(name).name
        if draw(st.integers(0, 6)) == 0:
            del tree[name]
        elif kind == "kerascls.json":
            tree[name] = draw(_cards(data))
        elif kind == "architecture.json":
            tree[name] = draw(json_texts(data, model_values()))
        elif kind == "model.xml":
            tree[name] = draw(xmls(data))
        else:
            tree[name] = draw(st.one_of(mutated(data), patched(data), garbage()))
    return tree


@st.composite
def model_cases(draw, templates: Templates) -> Case:
    model = draw(st.sampled_from(FORMATS))
    tree = draw(model_trees(templates, model))
    if draw(st.integers(0, 29)) == 0:  # as another format, or a link to itself
        other = draw(st.sampled_from(["x.keras", "x.h5", "x.tflite", "x.onnx", "x.xml", "x.hdf5", "x"]))
        tree, model = {other: draw(st.one_of(st.sampled_from([*tree.values(), FIFO, FOLDER, "link x"])))}, other
    tree["a.png"] = templates.images["images/L.png"]
    match draw(st.sampled_from(["predict", "predict", "predict", "summary", "explain"])):
        case "predict":
            return Case("model", ["cli", "predict", model, "a.png"], tree)
        case "summary":
            return Case("model", ["cli", "summary", model, "--json"], tree)
    return Case("model", ["cli", "explain", model, "a.png"], tree, ("*_explained.png",))


# Run folders


@st.composite
def run_cases(draw, templates: Templates) -> Case:
    what = draw(st.sampled_from(["evaluate", "predict", "summary", "explain", "resume", "resume", "export"]))
    tree: dict[str, bytes | str] = dict(
        templates.below("stopped", "run") if what == "resume" else templates.below("run")
    )
    tree["data.npz"] = templates.files["data.npz"]
    names = [name for name in sorted(tree) if name.startswith("run/") and not name.endswith(".png")]
    first = [
        "run/manifest.json",
        "run/config.toml",
        "run/metrics.json",
        "run/class_names.json",
        "run/checkpoint/state.npz",
    ]
    names += [name for name in first if name in tree] * 3
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
        data = tree[name]
        if draw(st.integers(0, 9)) == 0:
            tree[name] = draw(st.sampled_from([FOLDER, "link gone", b""]))
        elif name.endswith(".json"):
            tree[name] = draw(json_texts(data))
        elif name.endswith(".npz"):
            tree[name] = draw(st.one_of(mutated(data), npzs(data), states(data)))
        elif name.endswith(".keras"):
            tree[name] = draw(keras_files(data))
        else:
            tree[name] = draw(st.one_of(mutated(data), garbage()))
    more = {
        "evaluate": (["run", "--json"], ("run/*.png", "run/metrics.json"), ("run/*.png", "run/metrics.json")),
        "predict": (["run", "run/samples/000.png"], (), ()),
        "summary": (["run"], (), ()),
        "explain": (["run", "run/samples/000.png"], ("000_explained.png",), ()),
        "export": (["run", "--format", "keras", "--out", "run"], (), ()),  # what is there already is never replaced
        "resume": (["--resume", "run", "--quiet"], ("run/*",), ("run/*",)),
    }
    arguments, writes, leaves = more[what]
    command = "train" if what == "resume" else what
    return Case("run", ["cli", command, *arguments], tree, writes, leaves)


@st.composite
def states(draw, data: bytes) -> bytes:
    """A checkpoint whose JSON was edited."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = dict(archive)
    numbers = st.sampled_from([-1, 1, 2**40, 1e999, None, True, "", [], {}])
    text = draw(json_texts(bytes(arrays["state"]), st.one_of(numbers, values())))
    out = io.BytesIO()
    np.savez(out, **arrays | {"state": np.frombuffer(text, np.uint8)})
    return out.getvalue()


# Arrays


@st.composite
def npys(draw, data: bytes) -> bytes:
    """An array's file with a header that lies, or with another array."""
    header = draw(
        st.sampled_from(
            [
                "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
                "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
                "{'descr': '|u1', 'fortran_order': True, 'shape': (-1, 8)}",
                "{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
                "{'descr': '|u1', 'fortran_order': False, 'shape': ()}",
                "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}",
                "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (0,)}",
                "{'descr': '|V8', 'fortran_order': False, 'shape': (2,)}",
                f"{{'descr': {_RUN}}}",
                "(" * 500,
                "",
            ]
        )
    ).encode()
    pickled = b"cos\nsystem\n(S'" + _SHELL.encode() + b"'\ntR."
    arrays = st.sampled_from(
        [
            np.zeros((12, 8, 8), np.float32),
            np.zeros((0, 8, 8, 1), np.uint8),
            np.zeros((12, 8, 8, 2), np.uint8),
            np.full(12, 2**40),
            np.full(12, -1),
            np.zeros(12, bool),
            np.array(["a", "b"]),
            np.array([[0], [1]] * 6),
            np.arange(12) * 100_000_000,
            np.zeros((12, 65_536, 1), np.uint8),
            np.array(3),
        ]
    )

    def saved(array: np.ndarray) -> bytes:
        out = io.BytesIO()
        np.save(out, array)
        return out.getvalue()

    lying = (
        b"\x93NUMPY\x01\0"
        + struct.pack("<H", len(header) + 1)
        + header
        + b"\n"
        + draw(st.sampled_from([b"", pickled, bytes(64)]))
    )
    return draw(st.one_of(mutated(data), st.just(lying), arrays.map(saved), garbage()))


def npzs(data: bytes) -> st.SearchStrategy[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zips(data, {name: npys for name in archive.namelist()})


@st.composite
def npz_cases(draw, templates: Templates) -> Case:
    data = templates.files["data.npz"]
    tree: dict[str, bytes | str] = {"data.npz": draw(st.one_of(npzs(data), npzs(data), mutated(data), garbage()))}
    match draw(st.sampled_from(["show", "predict", "evaluate"])):
        case "show":
            return Case("npz", ["cli", "show", "data.npz", "--plot", "p.png"], tree, ("p.png",))
        case "predict":
            return Case("npz", ["cli", "predict", "@run", "--data", "data.npz", "--csv", "t.csv"], tree, ("t.csv",))
    tree |= templates.below("run")
    return Case("npz", ["cli", "evaluate", "run", "--data", "data.npz", "--json"], tree, ("run/evaluate-*",))


# Tables


@st.composite
def table_cases(draw, templates: Templates) -> Case:
    """An interrupted table of answers, or a run's history, that somebody has touched."""
    if draw(st.integers(0, 3)) == 0:
        tree: dict[str, bytes | str] = dict(templates.below("run"))
        tree["data.npz"] = templates.files["data.npz"]
        history = tree["run/history.csv"]
        tree["run/history.csv"] = draw(st.one_of(mutated(history), garbage(), st.just(history * 500)))
        return Case("table", ["cli", "evaluate", "run", "--json"], tree, ("run/*.png", "run/metrics.json"))
    whole = b"".join(b"-," + line for line in templates.files["table.csv"].splitlines(True)).replace(
        b"-", b"known_by", 1
    )
    name = json.loads(templates.files["keys.json"])["partial"]
    changed = draw(
        st.one_of(
            mutated(whole),
            garbage(),
            st.sampled_from([whole * 3, whole + b'"', whole.replace(b",", b";"), whole.replace(b"0.", b"nan")]),
            st.sampled_from([whole[:-1], whole + b"\0", whole.replace(b"\n", b"\r\n"), b'"' * 10_000, FIFO, FOLDER]),
        )
    )
    tree = {f"pictures/{i:02}.png": templates.images["images/L.png"] for i in range(40)}
    if draw(st.booleans()):  # what is not there is known by a dash, so its rows are taken over
        tree = dict.fromkeys(tree, "link gone")
    tree[name] = changed
    if draw(st.integers(0, 5)) == 0:
        tree["t.csv"] = draw(st.sampled_from([FIFO, FOLDER, b"old", "link gone", "link /dev/full"]))
    # A partial table goes when the whole one stands.
    return Case("table", ["cli", "predict", "@run", "pictures", "--csv", "t.csv"], tree, ("t.csv", name), (name,))


# Requests

_METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "X"]
_PATHS = ["/", "/healthz", "/metrics", "/predict", "/explain", "/v1/models/model", "/v1/models/model:predict"]
_PATHS += [
    "/v1/models/model/metadata",
    "/v1/models/model/versions/1:predict",
    "/v1/models/other:predict",
    "/v1/",
    "/v1",
]
_PATHS += ["/v1/models/model/versions/99999999999999999999", "/v1/models/model/labels/x", "/v1/models/model:classify"]
_PATHS += ["//", "/..", "/%00", "/predict/", "/é", "/v1/models/model:PREDICT", "/" + "a" * 5000, "*", ""]


@st.composite
def _bodies(draw, templates: Templates) -> tuple[bytes, str]:
    """A body and its type."""
    image = draw(st.one_of(st.sampled_from(sorted(templates.images.values())), images(templates)))
    match draw(st.sampled_from(["json", "json", "pixels", "any", "image", "form", "form", "garbage", "deep"])):
        case "json":
            text = base64.b64encode(image).decode()
            b64 = draw(st.one_of(st.just(text), mutated(text.encode()).map(lambda b: b.decode("latin-1")), _TEXTS))
            request = {draw(st.sampled_from(["instances", "inputs"])): [{"b64": b64}] * draw(st.integers(1, 3))}
            request |= {"signature_name": draw(st.sampled_from([None, "", "pixels", "serving_default", "x", 3]))}
            request = draw(st.one_of(st.just(request), edited(request, values())))
            return json.dumps(request).encode("utf-8", "surrogatepass"), "application/json"
        case "pixels":
            shape = draw(st.sampled_from([(1, 8, 8, 1), (2, 3, 9, 1), (1, 1, 1, 1), (0,), (1, 8, 8, 3), (70, 1, 1, 1)]))
            request = {
                "signature_name": draw(st.sampled_from(["pixels", "serve"])),
                "instances": np.full(shape, 9).tolist(),
            }
            request = draw(st.one_of(st.just(request), edited(request, values())))
            return json.dumps(request).encode("utf-8", "surrogatepass"), "application/json"
        case "any":
            return json.dumps(draw(values(8))).encode("utf-8", "surrogatepass"), "application/json"
        case "image":
            return image, "application/octet-stream"
        case "form":
            mark = draw(st.sampled_from(["x", "x" * 70, "a b", '"', ""]))
            name = draw(
                st.sampled_from(
                    ['; filename="a.png"', '; filename=""', "", '; filename="\u202e\\"', "; filename*=utf-8''%ff"]
                )
            )
            head = f'--{mark}\r\nContent-Disposition: form-data; name="image"{name}\r\n\r\n'.encode()
            top = f'\r\n--{mark}\r\nContent-Disposition: form-data; name="top"\r\n\r\n{draw(_TEXTS)}'.encode(
                "utf-8", "surrogatepass"
            )
            body = (head + image + top) * draw(st.sampled_from([1, 1, 2, 12])) + f"\r\n--{mark}--\r\n".encode()
            body = draw(st.one_of(st.just(body), mutated(body), mutated(body, head=120)))
            return body, draw(
                st.sampled_from([f"multipart/form-data; boundary={mark}", "multipart/form-data", "text/x"])
            )
        case "deep":
            return draw(st.sampled_from([b"[" * 50_000, b'{"instances":' * 20_000, b"9" * 50_000])), "application/json"
    return draw(garbage()), draw(st.sampled_from(["", "application/json", "multipart/form-data; boundary=x", "\xff"]))


@st.composite
def request_cases(draw, templates: Templates) -> Case:
    """Requests of every kind, to the app itself or, one in four, as bytes over a socket."""
    body, kind = draw(_bodies(templates))
    method, path = (
        draw(st.sampled_from([*_METHODS, *["POST"] * 20])),
        draw(st.sampled_from([*_PATHS, *_PATHS[3:7] * 6])),
    )
    query = draw(
        st.sampled_from(["", "", "", "top=3", "top=0", "top=99999999", "invert=1", "top=%ff&top=1", "a" * 3000])
    )
    headers = [("content-type", kind)] if kind else []
    length = draw(st.sampled_from([*[str(len(body))] * 6, "0", "-1", "99999999999999999999", "x", "1e3", ""]))
    headers += [("content-length", length)]
    headers += draw(
        st.lists(
            st.sampled_from(
                [
                    ("content-length", "5"),
                    ("expect", "100-continue"),
                    ("x", "y" * 9000),
                    ("host", ""),
                    ("cookie", "a" * 99),
                ]
                + [("content-encoding", "gzip"), ("accept", "\xff"), ("connection", "close"), ("range", "bytes=0-1")]
            ),
            max_size=2,
        )
    )
    if draw(st.integers(0, 3)):
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
        chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        told = [base64.b64encode(chunk).decode() for chunk in chunks]
        if draw(st.integers(0, 15)) == 0:
            told.append(None)  # the client goes away
        return Case("request", ["request", method, path, query, headers, told])
    target = (path + ("?" + query if query else "")).encode("utf-8", "surrogatepass")
    version = draw(st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"", b"X"]))
    end = draw(st.sampled_from([b"\r\n"] * 4 + [b"\n", b"\r"]))
    if draw(st.integers(0, 2)) == 0:
        headers = [
            ("content-type", kind),
            ("transfer-encoding", draw(st.sampled_from(["chunked", "Chunked, gzip", "x"]))),
        ]
        size = draw(
            st.sampled_from([b"%x" % len(body), b"0", b"-1", b"FFFFFFFFFFFFFFFFF", b"zz", b"%x;a=b" % len(body)])
        )
        body = size + end + body + end + draw(st.sampled_from([b"0\r\n\r\n", b"", b"0\r\nx: y\r\n\r\n"]))
    lines = [
        b" ".join([method.encode(), target, version]),
        *(f"{k}: {v}".encode("latin-1", "replace") for k, v in headers),
    ]
    whole = end.join(lines) + end + end + body
    whole = draw(st.one_of(st.just(whole), st.just(whole), mutated(whole), mutated(whole, head=200), garbage()))
    return Case("request", ["socket", base64.b64encode(whole).decode()])


KINDS: dict[str, Callable[[Templates], st.SearchStrategy[Case]]] = {
    "recipe": recipe_cases,
    "image": image_cases,
    "folder": folder_cases,
    "model": model_cases,
    "run": run_cases,
    "npz": npz_cases,
    "table": table_cases,
    "request": request_cases,
    "train": train_cases,
}

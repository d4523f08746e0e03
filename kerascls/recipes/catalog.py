"""What there is: recipes, models, data sets and augmentations, and their options.

All of it is read from file names and source text, so nothing here imports or runs a model, and TensorFlow stays out.
"""

import ast
import contextlib
import difflib
import functools
import importlib.util
import itertools
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerascls.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
MOST_BESIDE = 1000  # names that a mistyped one is compared with


def configs_dir() -> Path:
    """Where the recipes are: inside the installed package, or beside it in a checkout."""
    return PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"


def recipe_names() -> list[str]:
    """Names of all recipes that kerascls brings, the articles' last."""
    root = configs_dir()
    names = [path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.toml")]
    return sorted(names, key=lambda name: ("/" in name, name))


def is_recipe(word: str) -> bool:
    """Whether `word` names a recipe: one of ours, or a path that ends in .toml."""
    return word.endswith(".toml") or word in recipe_names()


def names_beside(path: str) -> list[str]:
    """What lies in the folder where a path that does not exist would be, written as the path is."""
    head, slash, _ = path.rstrip("/").rpartition("/")
    with contextlib.suppress(OSError), os.scandir(head + slash or ".") as entries:
        return [head + slash + entry.name for entry in itertools.islice(entries, MOST_BESIDE)]
    return []


# What other tools call a recipe's keys and the formats of an export: told to who types them.
USUAL_KEYS = {
    **dict.fromkeys(("lr", "lr0", "rate", "learning_rate"), "train.learning_rate"),
    **dict.fromkeys(("bs", "batch", "batchsize", "batch_size"), "train.batch_size"),
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "max_epochs", "epochs"), "train.epochs"),
    **dict.fromkeys(("opt", "optim", "optimiser", "optimizer"), "train.optimizer"),
    **dict.fromkeys(("wd", "decay", "weight_decay"), "train.weight_decay"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule", "schedule"), "train.schedule"),
    **dict.fromkeys(("warmup", "warmup_epochs"), "train.warmup_epochs"),
    **dict.fromkeys(("patience", "early_stopping", "early_stopping_patience"), "train.early_stopping_patience"),
    **dict.fromkeys(("smoothing", "label_smoothing"), "train.label_smoothing"),
    **dict.fromkeys(("class_weights", "class_weight"), "train.class_weight"),
    **dict.fromkeys(("ema", "ema_momentum"), "train.ema_momentum"),
    **dict.fromkeys(
        ("size", "imgsz", "img_size", "image_size", "input_size", "resolution", "input_shape", "image_shape"),
        "data.image_shape",
    ),
    **dict.fromkeys(("val", "val_split", "validation_split", "valid_pct", "validation"), "data.validation"),
    **dict.fromkeys(("test_split", "test_size"), "data.test"),
    **dict.fromkeys(("model", "arch", "architecture", "net", "network"), "model.name"),
    **dict.fromkeys(("backbone", "base_model", "encoder"), "model.backbone"),
    **dict.fromkeys(("pretrained", "weights"), "model.weights"),
    **dict.fromkeys(("aug", "augment", "augmentation", "augmentations", "transforms", "policy"), "augment.policy"),
    **dict.fromkeys(("device", "gpu", "gpus", "accelerator"), "devices.devices"),
    **dict.fromkeys(("amp", "fp16", "half", "mixed_precision", "precision"), "devices.precision"),
}
USUAL_FORMATS = {
    **dict.fromkeys(("tflite", "tf_lite", "lite"), "litert"),
    **dict.fromkeys(("tf", "tensorflow", "savedmodel", "pb", "serving"), "saved_model"),
    **dict.fromkeys(("hdf5", "hdf", "legacy"), "h5"),
    **dict.fromkeys(("int8", "tflite_int8", "quantized"), "litert_int8"),
    **dict.fromkeys(("fp16", "float16", "half", "tflite_float16"), "litert_float16"),
}


def nearest(name: str, known: Iterable[str], usual: Mapping[str, str] | None = None) -> str:
    """` Did you mean X?`: what other tools' `name` is by `usual`, else the nearest known; "" where there is none."""
    meant = (usual or {}).get(name.lower().replace("-", "_"))
    close = [meant] if meant else difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def recipe_path(word: str) -> Path:
    if word.endswith(".toml"):
        if not Path(word).is_file():
            raise ConfigError(f"Recipe {word} does not exist. Write one with `kerascls new {Path(word).stem}`.")
        return Path(word)
    if word in recipe_names():
        return configs_dir() / f"{word}.toml"
    beside = [name for name in names_beside(word) if name.endswith(".toml") or os.path.isdir(name)]
    if "/" in word and word.rpartition("/")[0] not in {name.rpartition("/")[0] for name in recipe_names()}:
        raise ConfigError(f"No such folder: {word}.{nearest(word.rstrip('/'), beside)}")
    if Path(word).is_dir():
        raise ConfigError(f"{word} is a folder, where a recipe is expected. `kerascls list` shows all recipes.")
    raise ConfigError(
        f"No recipe is named {word!r}, nor is there such a folder.{nearest(word, [*recipe_names(), *beside])} "
        "`kerascls list` shows all recipes; one of your own is named by its path, NAME.toml."
    )


def model_files() -> dict[str, Path]:
    """The models that kerascls brings: name to source file."""
    return {path.stem: path for path in sorted((PACKAGE / "models").glob("[a-z]*.py"))}


def model_path(name: str) -> Path:
    """The source file of a model that exists: one of ours by name, or a user's by path."""
    return model_files().get(name) or Path(name)


def model_file(backbone: str) -> Path | None:
    """The .keras file that a backbone given by a path is, or that a run keeps; None of a name of keras.applications."""
    if backbone.endswith(".keras"):
        return Path(backbone)
    return Path(backbone) / "model.keras" if (Path(backbone) / "manifest.json").is_file() else None


def is_ours(path: Path) -> bool:
    """Whether a .keras file has a card, which says its pixels."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "kerascls.json" in archive.namelist()
    except (OSError, zipfile.BadZipFile):  # which is told when it is read
        return False


def backbones() -> dict[str, str]:
    """Networks of keras.applications: name to its module there, read from Keras' source."""
    keras = Path(importlib.util.find_spec("keras").origin).parent
    tree = ast.parse((keras / "applications" / "__init__.py").read_text(encoding="utf-8"))
    prefix = "keras.src.applications."
    return {
        alias.name: node.module.removeprefix(prefix)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith(prefix)
        for alias in node.names
    }


def dataset_files() -> dict[str, Path]:
    """The data sets that kerascls brings: name to source file."""
    return {path.stem: path for path in sorted((PACKAGE / "datasets").glob("[a-z]*.py"))}


def first_sentence(path: Path) -> str:
    """First line of a source file's docstring, or of a recipe's second comment line, without running it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        comments = [line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")]
        return comments[1] if len(comments) > 1 else ""
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0] if text else ""


def _functions(path: Path) -> tuple[dict[str, ast.FunctionDef], dict[str, ast.expr]]:
    """A source file's functions, and what its top level assigns to single names, unrun."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid Python: {error}") from None
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    assigned = [node for node in body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    return functions, {node.targets[0].id: node.value for node in assigned}


def _options(function: ast.FunctionDef) -> dict[str, Any]:
    """A function's keyword-only arguments and their defaults (None where not a literal)."""
    return _literals(function.args.kwonlyargs, function.args.kw_defaults)


def _literals(arguments: Sequence[ast.arg], defaults: Sequence[ast.expr | None]) -> dict[str, Any]:
    options = {}
    for argument, default in zip(arguments, defaults, strict=True):
        try:
            value = ast.literal_eval(default)
        except (ValueError, TypeError):
            value = None
        options[argument.arg] = list(value) if isinstance(value, tuple) else value
    return options


def build_options(path: Path) -> dict[str, Any]:
    """The options of a model: the arguments of its `build` behind image_shape and num_classes, and their defaults; None
    where there is none, or it is not a literal."""
    build = _build_function(path)
    positional = build.args.args[2:]
    defaults = [None] * (len(positional) - len(build.args.defaults)) + build.args.defaults
    return _literals(positional, defaults[-len(positional) :] if positional else []) | _options(build)


def required_options(path: Path) -> list[str]:
    """Those that have no default."""
    arguments = _build_function(path).args
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    positional = arguments.args[2 : len(arguments.args) - len(arguments.defaults)]
    return [argument.arg for argument in positional] + [argument.arg for argument, value in keywords if value is None]


def _build_function(path: Path) -> ast.FunctionDef:
    functions, _ = _functions(path)
    if "build" not in functions:
        raise ConfigError(f"{path.name} has no `def build(image_shape, num_classes)`, which every model file needs.")
    return functions["build"]


@functools.cache
def _policies() -> tuple[dict[str, tuple[ast.FunctionDef, Path]], dict[str, ast.expr]]:
    """The augmentations with their files, and what these assign: the public functions of images, labels and seed."""
    policies: dict[str, tuple[ast.FunctionDef, Path]] = {}
    assigned: dict[str, ast.expr] = {}
    for path in sorted((PACKAGE / "augmentation").glob("[a-z]*.py")):
        functions, names = _functions(path)
        assigned |= names
        for name, node in functions.items():
            if [argument.arg for argument in node.args.args] == ["images", "labels", "seed"] and name[0] != "_":
                policies[name] = node, path
    return policies, assigned


def policy_files() -> dict[str, Path]:
    """The augmentations: name to source file."""
    return {name: path for name, (_, path) in _policies()[0].items()}


def policy_options() -> dict[str, dict[str, Any]]:
    """The augmentations and their options, with defaults."""
    return {name: _options(function) for name, (function, _) in _policies()[0].items()}


def policy_docs() -> dict[str, str]:
    """The augmentations and what each says of itself and of its options."""
    return {name: ast.get_docstring(function) for name, (function, _) in _policies()[0].items()}


def policy_sentences() -> dict[str, str]:
    """The augmentations and the first line of what each says of itself."""
    return {name: doc.splitlines()[0] for name, doc in policy_docs().items()}


@functools.cache
def policy_limits() -> dict[str, dict[str, list[str] | tuple[float, float | str]]]:
    """What an augmentation's options may be, where their annotations say it: a list of texts, or (low, high).

    Both ends are included; a high of "height" or "width" is that of the images.
    """
    functions, assigned = _policies()
    limits: dict[str, dict[str, Any]] = {name: {} for name in functions}
    for name, (function, _) in functions.items():
        for argument in function.args.kwonlyargs:
            kind = argument.annotation
            kind = assigned.get(kind.id, kind) if isinstance(kind, ast.Name) else kind
            if isinstance(kind, ast.Subscript):
                inside = [ast.literal_eval(part) for part in kind.slice.elts if isinstance(part, ast.Constant)]
                limits[name][argument.arg] = tuple(inside) if kind.value.id == "Annotated" else inside
    return limits


def policy_output_shape(policy: Iterable[dict[str, Any]], image_shape: Sequence[int]) -> tuple[int, int, int]:
    """The (height, width, channels) that a policy without faults makes of images of `image_shape`.

    An entry whose options `height` and `width` are not 0 ends at them; no other changes a size.

    Raises:
        ConfigError: an entry cuts out more than there is.
    """
    limits = policy_limits()
    height, width, channels = image_shape
    size = {"height": height, "width": width}
    for position, entry in enumerate(policy):
        for side, most in size.items():
            value = entry.get(side) or most
            if limits[entry["name"]].get(side, ())[1:] == (side,) and value > most:
                raise ConfigError(
                    f"augment.policy[{position}].{side} must be at most {most}, the {side} of the images that "
                    f"{entry['name']} is given. Received: {value}"
                )
            size[side] = value
    return size["height"], size["width"], channels

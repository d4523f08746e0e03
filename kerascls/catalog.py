"""What there is: recipes, models, data sets and augmentations, and their options.

All of it is read from file names and source text, so nothing here imports or runs a model, and TensorFlow stays out.
"""

import ast
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kerascls.errors import ConfigError


def configs_dir() -> Path:
    """Where the recipes are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """Names of all recipes that kerascls brings, the articles' last."""
    root = configs_dir()
    names = [path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.toml")]
    return sorted(names, key=lambda name: ("/" in name, name))


def is_recipe(word: str) -> bool:
    """Whether `word` names a recipe: one of ours, or a path that ends in .toml."""
    return word.endswith(".toml") or word in recipe_names()


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean X?`, or nothing if no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def recipe_path(word: str) -> Path:
    if word.endswith(".toml"):
        if not Path(word).is_file():
            raise ConfigError(f"Recipe {word} does not exist. Write one with `kerascls new {Path(word).stem}`.")
        return Path(word)
    if word in recipe_names():
        return configs_dir() / f"{word}.toml"
    raise ConfigError(
        f"No recipe is named {word!r}.{nearest(word, recipe_names())} `kerascls list` shows them all; "
        "a recipe of your own is named by its path, NAME.toml."
    )


def model_files() -> dict[str, Path]:
    """The models that kerascls brings: name to source file."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "models").glob("[a-z]*.py"))}


def dataset_files() -> dict[str, Path]:
    """The data sets that kerascls brings: name to source file."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "datasets").glob("[a-z]*.py"))}


def first_sentence(path: Path) -> str:
    """First line of a source file's docstring, or of a recipe's second comment line, without running it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        comments = [line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")]
        return comments[1] if len(comments) > 1 else ""
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0] if text else ""


def _keyword_options(path: Path) -> dict[str, dict[str, Any]]:
    """Each function of a source file: its keyword-only arguments and their defaults (None where not a literal)."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid Python: {error}") from None
    functions = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            options = functions[node.name] = {}
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                try:
                    value = ast.literal_eval(default)
                except (ValueError, TypeError):
                    value = None
                options[argument.arg] = list(value) if isinstance(value, tuple) else value
    return functions


def build_options(path: Path) -> dict[str, Any]:
    """The options of a model: keyword-only arguments of its `build` and their defaults."""
    functions = _keyword_options(path)
    if "build" not in functions:
        raise ConfigError(f"{path.name} has no `def build(image_shape, num_classes)`, which every model file needs.")
    return functions["build"]


def policy_options() -> dict[str, dict[str, Any]]:
    """The augmentations, which are the public functions of augment.py with options, and those options."""
    functions = _keyword_options(Path(__file__).parent / "augment.py")
    return {name: options for name, options in functions.items() if options and not name.startswith("_")}

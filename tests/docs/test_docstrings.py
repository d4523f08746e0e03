"""The examples in docstrings are run."""

import doctest
import importlib
import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

import kerascls

NAMES = {"np": np, "keras": keras, "kerascls": kerascls}
PACKAGE = Path(kerascls.__file__).parent
MODULES = [  # that have examples
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8") and path != PACKAGE / "__init__.py"
]
FUNCTIONS = [name for name in kerascls.__all__ if inspect.isfunction(getattr(kerascls, name))]


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_hold(module, readers_folder):
    loaded = importlib.import_module(module)
    public = {getattr(kerascls, name).__name__ for name in FUNCTIONS}  # each has a test of its own below
    for example in doctest.DocTestFinder().find(loaded, module, extraglobs=NAMES):
        if example.examples and example.name.rpartition(".")[2] not in public:
            assert not doctest.DocTestRunner().run(example).failed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    assert "\n>>> " in inspect.getdoc(getattr(kerascls, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_a_public_function_holds(name, readers_folder, capsys):
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(kerascls, name), name, globs=dict(NAMES))
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed, capsys.readouterr().out

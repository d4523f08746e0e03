"""The examples in docstrings are run."""

import doctest
import importlib
import inspect

import keras
import numpy as np
import pytest

import kerascls

NAMES = {"np": np, "keras": keras, "kerascls": kerascls}
FUNCTIONS = [name for name in kerascls.__all__ if inspect.isfunction(getattr(kerascls, name))]


@pytest.mark.parametrize(
    "module", ["metrics", "split", "pipeline", "datasets", "datasets._layout", "show", "timing", "tf_serving", "serve"]
)
def test_docstring_examples_hold(module, readers_folder):
    result = doctest.testmod(importlib.import_module(f"kerascls.{module}"), extraglobs=NAMES)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    assert "\n>>> " in inspect.getdoc(getattr(kerascls, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_a_public_function_holds(name, readers_folder, capsys):
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(kerascls, name), name, globs=dict(NAMES))
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed, capsys.readouterr().out

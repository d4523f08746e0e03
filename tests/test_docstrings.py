"""The examples in docstrings are run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["metrics", "split", "pipeline", "datasets", "datasets._layout", "show", "timing", "tf_serving", "serve"]
)
def test_docstring_examples_hold(module):
    result = doctest.testmod(importlib.import_module(f"kerascls.{module}"), extraglobs={"np": __import__("numpy")})
    assert result.attempted and not result.failed

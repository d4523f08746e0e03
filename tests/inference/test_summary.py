"""Parameter counts, from a recipe alone and from what was trained."""

import json

import pytest
from conftest import here, one_line_error

import kerascls


@pytest.mark.parametrize(
    "recipe, total, trainable",
    [
        ("mnist_cnn", 1198, 1198),
        ("articles/mnist_tensorflow", 1198, 1198),
        ("mnist_cnn_bn", 2190, 2174),
        ("articles/mnist_pytorch", 2190, 2174),
    ],
)
def test_recipes_have_the_articles_parameters(recipe, total, trainable, capsys):
    code, out, err = here("summary", recipe, "--json", capsys=capsys)
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["total"], found["trainable"], found["non_trainable"]) == (total, trainable, total - trainable)
    assert found["layers"][0]["output_shape"] == [None, 28, 28, 1]
    assert sum(layer["parameters"] for layer in found["layers"]) == total


def test_the_table_is_keras_own(capsys):
    code, out, _ = here("summary", "mnist_cnn", capsys=capsys)
    assert code == 0 and "MaxPooling2D" in out and "1,198 parameters, 1,198 trainable" in out


@pytest.mark.slow
def test_runs_and_files_are_summarised(digits_run, tmp_path, capsys):
    for what in (digits_run, digits_run / "model.keras"):
        assert json.loads(here("summary", what, "--json", capsys=capsys)[1])["total"] == 1198
    saved_model = kerascls.export(digits_run, "saved_model", out=tmp_path / "sm").path
    assert "keeps no Keras layers" in one_line_error("summary", saved_model, capsys=capsys)


def test_a_bare_word_is_a_recipe_and_anything_else_a_path(capsys):
    assert "Did you mean mnist_cnn?" in one_line_error("summary", "mnist_cn", capsys=capsys)
    assert "does not exist" in one_line_error("summary", "runs/nowhere", capsys=capsys)

"""Exports: equal to their run to the bit, able to stand alone, and caught when they are not."""

import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import here, one_line_error

import kerascls
from kerascls.datasets import load_dataset
from kerascls.errors import OutputError, ProofError
from kerascls.images import encode_png

export_module = importlib.import_module("kerascls.export")


@pytest.fixture(scope="module")
def exported(digits_run, tmp_path_factory):
    """A copy of the digits run with every export in it."""
    run = shutil.copytree(digits_run, tmp_path_factory.mktemp("exported") / "run")
    return run, {name: kerascls.export(run, name) for name in export_module.FORMATS}


@pytest.mark.parametrize("name", list(export_module.FORMATS))
def test_probabilities_equal_the_runs_at_the_same_batch_size(exported, name):
    run, exports = exported
    digits = load_dataset("digits")
    images = np.concatenate([digits.splits[split].images for split in ("train", "test")])[:1000]
    expected = kerascls.load(run).probabilities(images, 32)
    loaded = kerascls.load(exports[name].path)
    assert loaded.card == kerascls.load(run).card
    tolerance = 1e-5 if name == "litert" else 0.0
    assert np.abs(loaded.probabilities(images, 32) - expected).max() <= tolerance
    assert np.abs(loaded.probabilities(images, 7) - expected).max() <= max(tolerance, 1e-6)
    assert exports[name].examples == 64 and exports[name].max_difference <= tolerance


def test_the_saved_model_answers_bytes_where_tensorflow_alone_is_imported(exported, digit_pngs, tmp_path):
    run, exports = exported
    folder, _ = digit_pngs
    program = """
import sys, json, glob, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
files = [f"{sys.argv[2]}/digit{i}.png" for i in range(12)]
out = model.signatures["serving_default"](image_bytes=tf.constant([open(f, "rb").read() for f in files]))
assert not [m for m in sys.modules if m.split(".")[0] == "kerascls"]
print(json.dumps({"label": [x.decode() for x in out["label"].numpy()],
                  "shapes": {k: v.shape.as_list() for k, v in out.items()},
                  "names": [x.decode() for x in model.class_names().numpy()],
                  "signatures": sorted(model.signatures), "top": [x.decode() for x in out["top_labels"].numpy()[0]]}))
"""
    process = subprocess.run(
        [sys.executable, "-c", program, exports["saved_model"].path / "1", folder],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(process.stdout.splitlines()[-1])
    predictions = kerascls.load(run).predict([folder / f"digit{i}.png" for i in range(12)], top_k=5)
    assert answer["label"] == [prediction.label for prediction in predictions]
    assert answer["top"] == [name for name, _ in predictions[0].top]
    assert answer["names"] == list("0123456789")
    assert answer["signatures"] == ["pixels", "serve", "serving_default"]
    assert answer["shapes"] == {
        "probabilities": [12, 10],
        "label": [12],
        "top_labels": [12, 5],
        "top_probabilities": [12, 5],
    }
    assets = exports["saved_model"].path / "1" / "assets"
    assert (assets / "class_names.txt").read_text().split() == list("0123456789")


def test_tfsm_layer_calls_the_saved_model(exported):
    import keras

    run, exports = exported
    images = load_dataset("digits").splits["test"].images[:32]
    out = keras.layers.TFSMLayer(str(exports["saved_model"].path / "1"))(images)
    assert np.array_equal(out["probabilities"], kerascls.load(run).probabilities(images, 32))


def test_the_saved_model_takes_any_size_kind_and_batch(exported):
    import tensorflow as tf
    from PIL import Image

    run, exports = exported
    model = tf.saved_model.load(str(exports["saved_model"].path / "1"))
    big = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(big).save("big.jpg")
    Image.fromarray(big).save("big.bmp")
    encoded = [open_bytes("big.jpg"), open_bytes("big.bmp"), encode_png(big)]
    out = model.signatures["serving_default"](image_bytes=tf.constant(encoded))["probabilities"].numpy()
    (open("big.png", "wb")).close()
    with open("big.png", "wb") as file:
        file.write(encoded[2])
    expected = kerascls.load(run).predict(["big.jpg", "big.bmp", "big.png"], top_k=10)
    for row, prediction in zip(out, expected, strict=True):
        for name, probability in prediction.top:
            assert abs(row[int(name)] - probability) <= 1e-6
    gray = tf.zeros((5, 33, 17, 1), tf.uint8)
    assert model.signatures["pixels"](images=gray)["probabilities"].shape == (5, 10)


def open_bytes(path):
    with open(path, "rb") as file:
        return file.read()


QUICK = ("saved_model", "litert")  # one of each kind of proof; the others are slow


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in export_module.FORMATS]
)
def test_a_damaged_export_is_caught_and_nothing_is_left(digits_run, tmp_path, name, monkeypatch):
    """A changed weight, and swapped names, in every format."""
    import dataclasses

    run = shutil.copytree(digits_run, tmp_path / "run")
    kind = export_module.FORMATS[name]

    def changed_weight(classifier, path):
        model = classifier.keras_model
        weight = model.get_layer("classes").weights[1]
        kept = np.array(weight)
        weight.assign(kept + np.eye(10)[0] * 1e-3)
        kind.write(classifier, path)
        weight.assign(kept)

    def swapped_names(classifier, path):
        names = classifier.class_names
        card = dataclasses.replace(classifier.card, class_names=(names[1], names[0], *names[2:]))
        kind.write(type(classifier)(card, classifier.keras_model), path)

    for damage, reason in ((changed_weight, "answers differently"), (swapped_names, "class names are not the run's")):
        monkeypatch.setitem(export_module.FORMATS, name, dataclasses.replace(kind, write=damage))
        with pytest.raises(ProofError, match=reason):
            kerascls.export(run, name)
        assert not list((run / "exports").iterdir())


def test_exports_replace_their_elders_but_nothing_else(exported, tmp_path, capsys):
    run, _ = exported
    again = kerascls.export(run, "saved_model")
    assert again.path == run / "exports" / "saved_model" and sorted(p.name for p in again.path.iterdir()) == ["1"]
    with pytest.raises(OutputError, match="exists already"):
        kerascls.export(run, "keras", out=run / "model.keras")
    assert "must end in .h5" in one_line_error("export", run, "--format", "h5", "--out", "model.keras", capsys=capsys)
    assert "does not exist" in one_line_error("export", "nowhere", capsys=capsys)
    assert here("export", run, "--format", "onnx", capsys=capsys)[0] == 2
    code, out, _ = here("export", run, "--format", "h5", "--out", tmp_path / "mine.h5", capsys=capsys)
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "mine.h5")


def test_a_run_without_samples_is_proven_on_noise(digits_run, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "run")
    shutil.rmtree(run / "samples")
    assert kerascls.export(run, "weights").examples == 64

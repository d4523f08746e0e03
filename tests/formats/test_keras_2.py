"""Files of Keras 2 are called that, by `inspect` as by `predict`, with the way out; those that can be are read."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import kerascls
from kerascls.errors import ModelError
from kerascls.formats.inspect import inspect


def as_keras_2(model, path, change=lambda config: None):
    """A file as Keras 2.15 wrote it, as far as what Keras 3 stumbles over: version, batch_input_shape, `change`."""
    model.save(path)

    def old(text):
        config = json.loads(text)
        for layer in config["config"]["layers"]:
            shape = layer["config"].pop("batch_shape", None)
            if shape:
                layer["config"]["batch_input_shape"] = shape
            layer.pop("module", None)
            layer["config"]["dtype"] = "float32"
            change(layer)
        return json.dumps(config)

    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            text = old(file.attrs["model_config"])
            file.attrs["model_config"], file.attrs["keras_version"] = text, "2.15.0"
        return path
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["config.json"] = old(entries["config.json"])
    entries["metadata.json"] = json.dumps({"keras_version": "2.15.0", "date_saved": "2024-01-01@00:00:00"})
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def network(*more):
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Rescaling(1 / 255),
            *more,
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax"),
        ]
    )


def grouped(layer):
    if layer["class_name"] in ("DepthwiseConv2D", "Conv2DTranspose", "SeparableConv2D"):
        layer["config"]["groups"] = 1


def called(layer):
    if layer["class_name"] == "Conv2D":
        layer["class_name"] = "TFOpLambda"


def engine(layer):
    if layer["class_name"] == "Conv2D":
        layer["module"] = "keras.src.engine.functional"


@pytest.mark.parametrize(
    "suffix, layer, change, why",
    [
        (".h5", layers.DepthwiseConv2D(3), grouped, "DepthwiseConv2D has groups"),
        (".h5", layers.Conv2DTranspose(4, 3), grouped, "Conv2DTranspose has groups"),
        (".h5", layers.SeparableConv2D(4, 3), grouped, "SeparableConv2D has groups"),
        (".h5", layers.RandomFlip("horizontal"), lambda layer: None, "RandomFlip keeps another state"),
        (".h5", layers.Conv2D(4, 3), called, "it has TFOpLambda"),
        (".h5", layers.Conv2D(4, 3), engine, "it has keras.src.engine.functional.Conv2D"),
        (".h5", layers.Conv2D(4, 3), lambda layer: layer["config"].update(odd=1), ""),  # told when it is built
        (".keras", layers.Conv2D(4, 3), lambda layer: None, "its .keras files have another form"),
    ],
)
def test_what_keras_3_cannot_read_is_called_a_file_of_keras_2(tmp_path, suffix, layer, change, why):
    path = as_keras_2(network(layer), tmp_path / f"old{suffix}", change)
    with pytest.raises(ModelError) as error:
        kerascls.load(path)
    told = str(error.value)
    assert f"old{suffix} was written by Keras 2.15.0, and Keras 3 cannot read it ({why}" in told
    assert "tf-keras" in told and "\n" not in told
    found = inspect(path)
    assert found["written_with"] == {"keras": "2.15.0"}
    assert not why or found["refused"] == told


def test_a_plain_network_of_keras_2_is_read_as_ever(tmp_path):
    model = network(layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D())
    path = as_keras_2(model, tmp_path / "old.h5")
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    assert np.allclose(kerascls.load(path).probabilities(images), model.predict(images, verbose=0), atol=1e-6)
    assert inspect(path)["refused"] is None


def test_code_in_a_file_of_keras_2_is_refused_for_being_code(tmp_path):
    def code(layer):
        if layer["class_name"] == "Conv2D":
            layer["class_name"] = "Lambda"

    path = as_keras_2(network(layers.Conv2D(4, 3)), tmp_path / "old.h5", code)
    with pytest.raises(ModelError, match="refused before anything in it runs: Lambda"):
        kerascls.load(path)

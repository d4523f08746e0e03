"""Features of a frozen backbone: the same network in two parts, a cache that is never wrong, and what it costs."""

import csv
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import one_line_error, tiny_transfer

import kerascls
from kerascls.augmentation.policy import apply_policy
from kerascls.data.dataset import Split
from kerascls.errors import ConfigError, ModelError, RunError
from kerascls.features import engines
from kerascls.features.backbone import folded, split_model
from kerascls.features.extractor import CHUNK, Extractor
from kerascls.models import build_model
from kerascls.runs.run import Run
from kerascls.system import cache
from kerascls.training import resume
from kerascls.training.callbacks.checkpoints import SaveState

RECIPE = """dense = 4

[train]
epochs = 3
batch_size = 8
learning_rate = 0.01
"""
FLIP = {"augment": {"policy": [{"name": "flip"}]}}


@pytest.fixture
def tiny(empty_folder, monkeypatch):
    monkeypatch.setenv("KERASCLS_CACHE", "cache")
    return tiny_transfer(RECIPE)


def classifier(**options):
    return build_model("transfer", (12, 12, 3), 3, backbone="tiny.keras", pixel_range=[-1, 1], **options)


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 12, 3), np.uint8)


def history(run):
    with open(f"{run}/history.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def manifest(run):
    return json.loads(Path(run, "manifest.json").read_text())


# Two halves


@pytest.mark.parametrize("options", [{}, {"dense": 4}, {"dense": 4, "dropout": 0.5}, {"dropout": 0.5}])
def test_body_and_head_are_the_model_in_two_parts(tiny, options):
    model = classifier(**options)
    body, head = split_model(model)
    images = noise(5)
    assert body.output_shape == (None, 8) and not head.get_layer(index=0).weights
    assert np.array_equal(head(body(images)), model(images))
    head.trainable_weights[0].assign_add(np.ones(head.trainable_weights[0].shape))
    assert np.array_equal(head(body(images)), model(images))


def test_a_model_without_a_frozen_backbone_or_a_chain_behind_it_is_refused(tiny):
    with pytest.raises(ModelError, match="no layer named backbone"):
        split_model(build_model("small_cnn", (32, 32, 3), 3))
    model = classifier()
    model.get_layer("backbone").trainable = True
    with pytest.raises(ModelError, match="not frozen"):
        split_model(model)
    inputs = keras.Input((12, 12, 3))
    base = keras.saving.load_model("tiny.keras")
    base = keras.Model(base.input, base.output, name="backbone", trainable=False)
    x = keras.layers.GlobalAveragePooling2D()(base(inputs))
    both = keras.layers.Add()([keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)])
    with pytest.raises(ModelError, match="no chain"):
        split_model(keras.Model(inputs, keras.layers.Softmax()(both)))


def test_folding_multiplies_each_normalisation_into_the_layer_before_it():
    keras.utils.set_random_seed(0)
    draw = np.random.default_rng(0)
    inputs = x = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = keras.layers.BatchNormalization(scale=False, epsilon=0.1)(x)
    y = keras.layers.Conv2D(8, 1, activation="relu")(x)
    y = keras.layers.BatchNormalization()(y)  # behind an activation: stays
    x = keras.layers.Add()([x, y])
    z = keras.layers.Conv2D(8, 1)(x)
    x = keras.layers.Add()([z, keras.layers.BatchNormalization(center=False)(z)])  # its convolution feeds two: stays
    base = keras.Model(inputs, x, name="backbone")
    for layer in base.layers:
        layer.set_weights([draw.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    pixels = keras.Input((8, 8, 3))
    body = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(base(pixels, training=False)))
    images = draw.uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
    wanted = np.array(body(images))
    exact = folded(body, "float32")
    assert np.allclose(exact(images), wanted, rtol=1e-5, atol=0)
    kinds = [type(layer).__name__ for layer in exact.get_layer("backbone").layers]
    assert (kinds.count("BatchNormalization"), kinds.count("Pass")) == (2, 2)
    assert np.allclose(folded(body)(images), wanted, rtol=0.03, atol=0)  # 8 bits


# Training from features


def test_losses_labels_and_model_are_those_of_training_on_the_images(tiny):
    ends = kerascls.train(tiny, out="images")
    on_features = kerascls.train(tiny, out="features", overrides={"features": {"views": 1}})
    for ours, theirs in zip(history("features"), history("images"), strict=True):
        for key in ("loss", "val_loss"):
            assert float(ours[key]) == pytest.approx(float(theirs[key]), rel=1e-4)
        assert ours["accuracy"] == theirs["accuracy"] and ours["learning_rate"] == theirs["learning_rate"]
    images = noise(50)
    one, other = (kerascls.load(run).probabilities(images) for run in ("images", "features"))
    assert np.array_equal(one.argmax(1), other.argmax(1)) and np.allclose(one, other, rtol=0, atol=1e-4)
    assert on_features.test["accuracy"] == ends.test["accuracy"]
    assert manifest("features")["parameters"] == manifest("images")["parameters"]
    assert manifest("features")["features"]["accuracy_difference"] == 0
    assert kerascls.evaluate("features").scores["loss"] == pytest.approx(on_features.test["loss"], rel=1e-6)


@pytest.mark.slow
def test_two_runs_from_the_same_features_are_equal_and_the_second_computes_nothing(tiny, capsys):
    change = {"features": {"views": 3}, **FLIP, "model": {"dropout": 0.5}}
    kerascls.train(tiny, out="first", overrides=change)
    kerascls.train(tiny, out="second", overrides=change, quiet=False)
    assert (
        "features by OpenVINO of 134 images, 134 from the cache" in capsys.readouterr().err
    )  # 3 x 43 and 5 validation images
    told = manifest("first")["features"]
    assert (told["views"], told["computed"], told["from_cache"]) == (3, 134, 0)
    for one, other in zip(history("first"), history("second"), strict=True):
        assert one | {"seconds": ""} == other | {"seconds": ""}
    weights = [keras.saving.load_model(f"{run}/model.keras").get_weights() for run in ("first", "second")]
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.slow
def test_fine_tuning_goes_on_from_the_head_that_features_trained(tiny):
    change = {
        "features": {"views": 2},
        "finetune": {"epochs": 2, "unfreeze": "conv2", "learning_rate": 0.001},
        "train": {"keep": "last"},
        **FLIP,
    }
    for precision in ("float32", "bfloat16"):
        kerascls.train(tiny, out=precision, overrides=change, precision=precision)
        rows = history(precision)
        assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
        assert float(rows[3]["val_loss"]) < float(rows[0]["val_loss"])
        tuned, before = keras.saving.load_model(f"{precision}/model.keras"), keras.saving.load_model("tiny.keras")
        conv1, conv2 = (tuned.get_layer("backbone").get_layer(name).get_weights()[0] for name in ("conv1", "conv2"))
        assert np.array_equal(conv1, before.get_layer("conv1").get_weights()[0])
        assert not np.array_equal(conv2, before.get_layer("conv2").get_weights()[0])
        assert "accuracy_difference" not in manifest(precision)["features"]  # the kept epoch saw images


@pytest.mark.slow
def test_bf16_is_computed_where_the_processor_has_it_and_said_where_not(tiny, monkeypatch, capsys):
    change = {"features": {"views": 1, "precision": "bf16"}}
    monkeypatch.setattr("kerascls.system.machine.cpu_has_bfloat16", lambda: True)
    kerascls.train(tiny, out="bf16", overrides=change)
    told = manifest("bf16")["features"]
    assert told["precision"] == "bf16" and 0.99 < told["cosine_min"] < 1
    monkeypatch.setattr("kerascls.system.machine.cpu_has_bfloat16", lambda: False)
    kerascls.train(tiny, out="float32", overrides=change, quiet=False)
    assert "features.precision is float32: this processor" in capsys.readouterr().err
    told = manifest("float32")["features"]
    assert told["precision"] == "float32" and "cosine_min" not in told


@pytest.mark.slow
def test_one_view_with_a_policy_says_that_nothing_is_drawn(tiny, capsys):
    kerascls.train(tiny, out="run", overrides={"features": {"views": 1}, **FLIP}, quiet=False)
    err = capsys.readouterr().err
    assert "features.views = 1: the backbone sees each image as it is, and augment.policy is not applied." in err
    assert "3 epochs of features are few, and cheap: --epochs 50 --set train.early_stopping_patience=5" in err
    scored = Run.open("run").metrics["splits"]["validation"]["accuracy"]
    assert re.search(rf"The saved model has validation accuracy {scored:.4f} on the images; its head had \d", err)


@pytest.mark.slow
def test_the_engine_is_openvino_where_it_is_installed_and_tensorflow_elsewhere(tiny, monkeypatch):
    for name, wish in (("auto", "auto"), ("plain", "tensorflow")):
        kerascls.train(tiny, out=name, overrides={"features": {"views": 1, "engine": wish}})
    assert [manifest(name)["features"]["engine"] for name in ("auto", "plain")] == ["openvino", "tensorflow"]
    assert manifest("plain")["features"]["computed"] > 0  # rows of the other engine are not taken
    assert engines.choose_engine("auto", "gpu") == "tensorflow"
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert engines.choose_engine("auto", "cpu") == "tensorflow"
    with pytest.raises(ConfigError, match=r"pip install 'kerascls\[openvino\]'"):
        kerascls.train(tiny, out="none", overrides={"features": {"views": 1, "engine": "openvino"}})
    assert not Path("none").exists()


@pytest.mark.slow
def test_a_run_goes_on_by_what_computed_its_features_alone(tiny, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SaveState, "on_epoch_begin", interrupt)
        kerascls.train(tiny, out="run", overrides={"features": {"views": 1}})
    by = manifest("run")["device"]["features"]
    assert (by["engine"], by["precision"]) == ("openvino", "float32") and by["openvino"][:2] == "20"
    other = monkeypatch.context
    with other() as patch:
        patch.setattr(engines.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(RunError, match="device.features.engine was openvino, and is tensorflow"):
            kerascls.train(resume="run")
    with other() as patch:
        patch.setattr(engines.importlib.metadata, "version", lambda name: "2020.1")
        patch.setattr(resume, "versions", lambda: manifest("run")["versions"])
        with pytest.raises(RunError, match=rf"device.features.openvino was {by['openvino']}, and is 2020.1"):
            kerascls.train(resume="run")
    assert kerascls.train(resume="run").status == "complete"


# The rows


def extractor(seed=0, **options):
    body, _ = split_model(classifier())
    return Extractor(body, "float32", [{"name": "flip"}], seed, **options)


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_rows_are_the_bodys_answers_view_by_view(tiny, engine):
    images = noise(CHUNK + 5)
    split = Split.of(images, np.arange(CHUNK + 5) % 3)
    made = extractor(engine=engine)
    found = made.features(split, "some", views=2)
    plain, drawn = found.images.reshape(2, CHUNK + 5, 8)
    assert found.labels.tolist() == split.labels.tolist() * 2
    assert np.allclose(plain, made.body(images), rtol=1e-5, atol=1e-6)
    turned = np.array(made.body(images[:, :, ::-1]))
    kept = np.isclose(drawn, plain, rtol=1e-5, atol=1e-6).all(1)
    assert np.allclose(drawn[~kept], turned[~kept], rtol=1e-5, atol=1e-6)
    assert 10 < kept.sum() < CHUNK - 5
    other = extractor(seed=1, engine=engine).features(split, "some", views=2).images.reshape(2, CHUNK + 5, 8)
    assert np.array_equal(other[0], plain) and not np.array_equal(other[1], drawn)


def test_an_entry_is_for_what_it_was_computed_from_and_nothing_else(tiny):
    split = Split.of(noise(6), np.arange(6) % 3)

    def computed(extractor, split=split, views=1):
        extractor.features(split, "some", views)
        return extractor.computed

    assert computed(extractor()) == 6 and computed(extractor()) == 0
    assert computed(extractor(), views=2) == 6  # the second view alone
    changed = split.images.copy()
    changed[3, 0, 0, 0] ^= 1
    assert computed(extractor(), Split.of(changed, split.labels)) == 6
    assert computed(extractor(), Split.of(split.images, split.labels[::-1].copy())) == 0
    assert computed(extractor(engine="openvino")) == 6 and computed(extractor(engine="openvino")) == 0
    assert computed(extractor(seed=1), views=2) == 6
    other = extractor()
    other.policy = [{"name": "shift", "pixels": 1}]
    assert computed(other, views=2) == 6
    backbone = keras.saving.load_model("tiny.keras")
    backbone.get_layer("conv2").bias.assign_add(np.full(8, 1e-6))
    backbone.save("tiny.keras")
    assert computed(extractor()) == 6


class Stop(Exception):
    pass


def test_what_was_interrupted_goes_on_where_it_stopped(tiny, monkeypatch):
    split = Split.of(noise(3 * CHUNK + 5), np.arange(3 * CHUNK + 5) % 3)
    wanted = extractor().features(split, "some", views=2).images
    assert cache.clear()[0] == 2
    calls = []

    def counting(stop_at):
        original = Extractor.drawn

        def drawn(self, image_shape):
            compute = original(self, image_shape)

            def one(images, seed):
                if len(calls) == stop_at:
                    raise Stop
                calls.append(seed.numpy().tolist())
                return compute(images, seed)

            return one

        return drawn

    original = Extractor.drawn
    monkeypatch.setattr(Extractor, "drawn", counting(2))
    with pytest.raises(Stop):
        extractor().features(split, "some", views=2)
    monkeypatch.setattr(Extractor, "drawn", original)
    part = next(Path("cache").rglob("features.part"))
    with part.open("ab") as file:
        file.write(b"cut")  # of a row that was being written
    monkeypatch.setattr(Extractor, "drawn", counting(-1))
    again = extractor()
    assert np.array_equal(again.features(split, "some", views=2).images, wanted)
    assert [seed[2] for seed in calls] == [0, 1, 2, 3]  # each chunk once
    assert not list(Path("cache").rglob("features.part"))


def test_apply_policy_is_what_views_are_drawn_by(tiny):
    """A view repeats from its seed alone."""
    import tensorflow as tf

    images = noise(4)
    made = extractor(seed=3)
    found = made.features(Split.of(images, np.arange(4) % 3), "some", views=3).images.reshape(3, 4, 8)
    for view in (1, 2):
        seed = tf.random.experimental.stateless_fold_in(tf.constant([3, view]), 0)
        drawn, _ = apply_policy(made.policy, tf.constant(images), tf.zeros((4, 1)), seed)
        assert np.allclose(found[view], made.body(drawn), rtol=1e-5, atol=1e-6)


def test_a_canvas_is_what_views_are_drawn_from(tiny):
    split = Split.of(noise(5), np.arange(5) % 3)
    made = extractor(canvas=(16, 16), cache_mb=0)
    made.policy = [{"name": "center_crop", "height": 12, "width": 12}]
    plain, drawn = made.features(split, "some", views=2).images.reshape(2, 5, 8)
    assert not np.allclose(plain, drawn, rtol=1e-3)
    from kerascls.data.batches import on_canvas

    middle = on_canvas(split, (16, 16), 0).images[:, 2:14, 2:14]
    assert np.allclose(drawn, made.body(middle), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"features": {"views": -1}}, "features.views must be at least 0"),
        ({"features": {"precision": "bf32"}}, "one of float32, bf16"),
        ({"features": {"views": 2}, "augment": {"policy": [{"name": "mixup"}]}}, "mixup mixes two"),
    ],
)
def test_faults_of_the_recipe_are_told(tiny, change, fault):
    with pytest.raises(ConfigError, match=fault):
        kerascls.train(tiny, out="run", overrides=change)
    assert not Path("run").exists()


def test_a_model_without_a_backbone_is_refused_before_anything_is_written(tiny, capsys):
    line = one_line_error("train", "mnist_cnn", "--data", "digits", "--set", "features.views=1", capsys=capsys)
    assert "no layer named backbone" in line and not Path("saved_models").exists()

"""`kerascls train --profile`: what it measures, and that the run is the same with it."""

import csv
import json
import time

import numpy as np
import pytest
from conftest import command, here, tiny_backbone

import kerascls
from kerascls.training import profiling

WITH_CHANCE = {  # a policy, dropout and class weights: everything that draws or weighs
    "model": {"name": "small_cnn", "filters": 4, "blocks": 2, "dropout": 0.3},
    "train": {"batch_size": 100, "warmup_epochs": 0, "class_weight": "balanced", "steps_per_execution": 5},
    "augment": {"policy": [{"name": "affine", "degrees": 10}, {"name": "mixup"}]},
}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(profiling, "SECONDS", 0)
    monkeypatch.setattr(profiling, "SPAN_SECONDS", 0.05)


def history(run):
    with (run / "history.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_run_is_the_same_to_the_bit_with_and_without_a_profile(tmp_path, quick, capsys):
    runs = []
    for profile in (False, True):
        out = tmp_path / f"run-{profile}"
        kerascls.train("mnist_cnn", data="digits", epochs=2, overrides=WITH_CHANCE, profile=profile, out=out)
        runs.append(out)
    weights = [kerascls.load(run).keras_model.get_weights() for run in runs]
    assert len(weights[0]) == len(weights[1])
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    assert history(runs[0]) == history(runs[1])
    assert (runs[0] / "metrics.json").read_bytes() == (runs[1] / "metrics.json").read_bytes()
    assert [(run / "profile.json").exists() for run in runs] == [False, True]
    assert capsys.readouterr().err == ""  # from Python nothing is told unless asked for


@pytest.mark.slow
def test_the_parts_add_up_to_a_step(tmp_path, quick, capsys):
    arguments = ["--data", "digits", "--epochs", 1, "--set", "train.warmup_epochs=0", "--out", tmp_path / "run"]
    code, _, err = here("train", "mnist_cnn", *arguments, "--profile", capsys=capsys)
    assert code == 0
    profile = json.loads((tmp_path / "run" / "profile.json").read_text())
    # The digits' fallback policy is not taken where the digits are asked for.
    assert list(profile["parts"]) == ["forward", "backward", "metrics", "input", "python"]
    assert sum(part["ms"] for part in profile["parts"].values()) == pytest.approx(profile["step_ms"])
    assert sum(part["share"] for part in profile["parts"].values()) == pytest.approx(1)
    assert profile["step_ms"] == profile["timed"]["python"]["ms"]
    assert all(0 < found["low"] <= found["ms"] <= found["high"] for found in profile["timed"].values())
    assert profile["rounds"] == profiling.ROUNDS
    assert profile["parts"]["forward"]["ms"] < profile["timed"]["backward"]["ms"]
    assert f"a step takes {profile['step_ms']:.2f} ms" in err
    assert "  backward and update   " in err and "ms alone)" in err


def steps_on(prepare, policy=()):
    """The profile of a small network on batches of 8 that `prepare` makes: `(images, labels)` to the same."""
    import keras
    import tensorflow as tf

    from kerascls.models import build_model
    from kerascls.training.step import TrainingModel

    images, labels = np.zeros((8, 28, 28, 1), "uint8"), np.eye(10, dtype="float32")[:8]
    dataset = tf.data.Dataset.from_tensors((images, labels)).repeat(40).map(prepare).prefetch(2)
    model = TrainingModel(build_model("mnist_cnn", (28, 28, 1), 10), policy)
    model.compile(optimizer="sgd", loss=keras.losses.CategoricalCrossentropy(), metrics=["accuracy"])
    before = model.classifier.get_weights()
    profile = profiling.time_steps(model, lambda: keras.optimizers.SGD(0.1), dataset)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.classifier.get_weights(), strict=True))
    return profile


@pytest.mark.slow
def test_slow_input_is_told_as_input(quick):
    import tensorflow as tf

    def slowly(images, labels):
        waited = tf.py_function(lambda: time.sleep(0.05) or 0.0, [], tf.float32)
        with tf.control_dependencies([waited]):
            return tf.identity(images), labels

    profile = steps_on(slowly)
    assert profile["input_alone_ms"] > 45
    assert profile["parts"]["input"]["share"] > 0.5
    assert profile["parts"]["forward"]["ms"] < 25


@pytest.mark.slow
def test_a_slow_policy_is_told_as_augmentation(quick, monkeypatch):
    import tensorflow as tf

    from kerascls.augmentation import geometry

    def slow(images, labels, seed):
        waited = tf.py_function(lambda: time.sleep(0.05) or 0.0, [], tf.float32)
        with tf.control_dependencies([waited]):
            return tf.identity(images), labels

    monkeypatch.setattr(geometry, "flip", slow)
    profile = steps_on(lambda images, labels: (images, labels), [{"name": "flip"}])
    assert profile["parts"]["augmentation"]["ms"] > 45
    assert profile["parts"]["augmentation"]["share"] > 0.5


@pytest.mark.slow
def test_devices_that_share_are_refused_before_anything_is_written(tmp_path):
    done = command("train", "mnist_cnn", "--data", "digits", "--devices", "cpu:0,1", "--profile", cwd=tmp_path, check=1)
    assert done.stderr == "Error: --profile times one device without sharing. Received: devices.devices = cpu:0,1.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_head_on_features_is_timed_alone(tmp_path, quick):
    model = {"name": "transfer", "backbone": str(tiny_backbone(tmp_path / "tiny.keras")), "pixel_range": [0, 1]}
    overrides = {"model": model, "train": {"warmup_epochs": 0}, "features": {"views": 1}}
    kerascls.train("mnist_cnn", data="digits", epochs=1, overrides=overrides, profile=True, out=tmp_path / "run")
    profile = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert list(profile["parts"]) == ["forward", "backward", "metrics", "input", "python"]

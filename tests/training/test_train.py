"""Training: what a run folder holds, that it repeats to the bit, and how it ends when it must."""

import csv
import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import command, here, one_line_error, small_npz

import kerascls
from kerascls.data.loading import dataset_module
from kerascls.errors import OutputError, TrainingFailed
from kerascls.models import build_model
from kerascls.recipes.catalog import recipe_names
from kerascls.recipes.load import load_config
from kerascls.recipes.schema import Train
from kerascls.runs.run import Run
from kerascls.training.fit import steps_per_execution
from kerascls.training.optimizers import learning_rate, make_optimizer

FAST = {
    "train": {"optimizer": "adam", "learning_rate": 0.01, "warmup_epochs": 0, "batch_size": 4, "schedule": "constant"}
}


def history(run):
    with (run / "history.csv").open(encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def weights(run):
    import keras

    return [np.array(weight) for weight in keras.saving.load_model(run / "model.keras").weights]


def test_a_run_folder_holds_what_the_contract_says(digits_run):
    names = {path.name for path in digits_run.iterdir()}
    assert {
        "config.toml",
        "manifest.json",
        "model.keras",
        "history.csv",
        "metrics.json",
        "class_names.json",
        "samples",
        "curves.png",
        "confusion.png",
        "most_wrong.png",
    } <= names
    run = Run.open(digits_run)
    manifest, metrics = run.manifest, run.metrics
    assert manifest["format"] == 1 and manifest["status"] == "complete" and manifest["seed"] == 0
    assert manifest["recipe"] == "mnist_cnn" and manifest["parameters"] == {"total": 1198, "trainable": 1198}
    device = {"kind", "name", "count", "cores", "threads", "strategy", "precision", "deterministic"}
    assert set(manifest["device"]) == device
    assert set(manifest["versions"]) >= {"python", "tensorflow", "keras", "numpy"}
    assert len(manifest["seconds"]["epochs"]) == 5
    assert manifest["seconds"]["fit"] >= sum(manifest["seconds"]["epochs"]) * 0.9
    assert manifest["data"]["examples"] == {"train": 1250, "validation": 183, "test": 364}
    assert re.fullmatch("[0-9a-f]{64}", manifest["data"]["fingerprint"]) and manifest["data"]["border"] == "dark"
    rows = history(digits_run)
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert manifest["best_epoch"] == manifest["kept_epoch"] == int(best["epoch"])
    assert metrics["data"] == "digits" and metrics["fallback_for"] is None
    assert set(metrics["splits"]) == {"test", "validation"} and metrics["splits"]["test"]["examples"] == 364
    assert metrics["splits"]["validation"]["loss"] == pytest.approx(float(best["val_loss"]), abs=1e-5)
    assert metrics["splits"]["test"]["accuracy"] > 0.7  # a broken model guesses 0.1
    assert json.loads((digits_run / "class_names.json").read_text()) == list("0123456789")


def test_samples_hold_the_runs_own_answers(digits_run):
    samples = json.loads((digits_run / "samples" / "samples.json").read_text())
    assert len(samples["files"]) == len(samples["labels"]) == 64
    classifier = kerascls.load(digits_run)
    predictions = classifier.predict(
        [digits_run / "samples" / name for name in samples["files"]], batch_size=samples["batch_size"]
    )
    for prediction, row in zip(predictions, samples["probabilities"], strict=True):
        assert prediction.probability == max(row)


@pytest.mark.slow
def test_no_path_user_or_host_stands_in_a_run(tmp_path):
    data = small_npz(tmp_path / "secret_place.npz")
    out = tmp_path / "run"
    command("train", "mnist_cnn", "--data", data, "--out", out, "--epochs", "1", "--quiet", check=0)
    import socket

    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(tmp_path).encode() not in content, path
            assert socket.gethostname().encode() not in content or len(socket.gethostname()) < 4, path
    assert "secret_place.npz" in (out / "manifest.json").read_text()


def test_one_seed_gives_the_same_run_twice_and_another_another(tmp_path):
    small_npz("data.npz", count=30)
    runs = []
    for i, seed in enumerate((3, 3, 4)):
        runs.append(tmp_path / str(i))
        kerascls.train("mnist_cnn", data="data.npz", seed=seed, epochs=3, out=runs[i], overrides=FAST)
    first, same, other = runs
    assert history(first) == history(same) and history(first) != history(other)
    assert (first / "metrics.json").read_bytes() == (same / "metrics.json").read_bytes()
    assert all(np.array_equal(a, b) for a, b in zip(weights(first), weights(same), strict=True))


@pytest.mark.slow
def test_one_seed_gives_the_same_run_in_another_process(tmp_path):
    small_npz("data.npz", count=30)
    for name in ("a", "b"):
        command(
            "train",
            "mnist_cnn",
            "--data",
            "data.npz",
            "--seed",
            "3",
            "--epochs",
            "2",
            "--out",
            name,
            "--quiet",
            "--set",
            'augment.policy=[{name = "affine", degrees = 10, shift = 0.1}, {name = "flip"}]',
            check=0,
        )
    a, b = tmp_path / "a", tmp_path / "b"
    assert history(a) == history(b)
    assert (a / "metrics.json").read_bytes() == (b / "metrics.json").read_bytes()
    assert all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_ten_images_at_batch_four_train_and_score_as_ten(tmp_path):
    small_npz("data.npz", count=10)
    result = kerascls.train(
        "mnist_cnn", data="data.npz", epochs=2, out="run", batch_size=4, overrides={"data": {"validation": 0}}
    )
    assert result.test["examples"] == 10
    manifest = Run.open("run").manifest
    assert manifest["data"]["examples"] == {"train": 10, "test": 10}
    assert manifest["best_epoch"] is None and manifest["kept_epoch"] == 2
    assert history(tmp_path / "run")[0]["val_loss"] == ""


@pytest.mark.slow
def test_a_set_smaller_than_a_batch_trains():
    small_npz("data.npz", count=6)
    result = kerascls.train(
        "mnist_cnn",
        data="data.npz",
        epochs=1,
        batch_size=100,
        out="run",
        overrides={"data": {"validation": 0}, "train": {"drop_remainder": True}},
    )
    assert result.status == "complete" and result.test["examples"] == 6


@pytest.mark.slow
def test_last_and_best_epochs_are_kept_as_asked(tmp_path):
    small_npz("data.npz", count=30)
    overrides = {"train": {**FAST["train"], "learning_rate": 0.2}}  # far too high: the last epoch is not the best
    best = kerascls.train("mnist_cnn", data="data.npz", epochs=6, out="best", overrides=overrides)
    last = kerascls.train(
        "mnist_cnn", data="data.npz", epochs=6, out="last", overrides={"train": {**overrides["train"], "keep": "last"}}
    )
    assert Run.open(last.path).manifest["kept_epoch"] == 6
    manifest = Run.open(best.path).manifest
    losses = [float(row["val_loss"]) for row in history(best.path)]
    assert manifest["kept_epoch"] == 1 + losses.index(min(losses))


def test_early_stopping_stops_early_and_says_so(capsys):
    small_npz("data.npz", count=30)
    overrides = {"train": {**FAST["train"], "learning_rate": 0.5, "early_stopping_patience": 2}}
    kerascls.train("mnist_cnn", data="data.npz", epochs=40, out="run", overrides=overrides, quiet=False)
    manifest = Run.open("run").manifest
    assert capsys.readouterr().err.splitlines()[-1] == "stopped: no better validation loss for 2 epochs"
    assert len(manifest["seconds"]["epochs"]) == manifest["best_epoch"] + 2 < 40


@pytest.mark.slow
def test_balanced_class_weight_weighs_every_example_by_its_class(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.array([0] * 36 + [1] * 4)
    images = generator.integers(0, 256, (40, 28, 28), np.uint8)
    np.savez("rare.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for name in ("none", "balanced"):
        still = {**FAST["train"], "class_weight": name, "learning_rate": 1e-12}
        overrides = {"data": {"validation": 0}, "train": still}
        run = kerascls.train("mnist_cnn", data="rare.npz", epochs=1, out=name, overrides=overrides).path
        probabilities = kerascls.load(run).probabilities(images[..., None])
        losses = -np.log(probabilities[np.arange(40), labels])
        weight = np.array([40 / (2 * 36), 40 / (2 * 4)])[labels] if name == "balanced" else 1.0
        assert float(history(run)[0]["loss"]) == pytest.approx((losses * weight).mean(), rel=1e-5)


def test_nan_loss_stops_with_epoch_and_step_and_keeps_what_was_best(tmp_path, capsys):
    small_npz("data.npz", count=30)
    line = one_line_error(
        "train",
        "mnist_cnn",
        "--data",
        "data.npz",
        "--out",
        "run",
        "--quiet",
        "--set",
        "train.learning_rate=1e30",
        "--set",
        "train.warmup_epochs=0",
        capsys=capsys,
    )
    assert re.search(
        r"(after epoch \d+|in epoch \d+, (at|in) steps? [\d to]+ of \d+)\. Usually the learning rate", line
    )
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert (manifest["kept_epoch"] is None) == (not (tmp_path / "run" / "model.keras").exists())
    with pytest.raises(TrainingFailed):
        kerascls.train(
            "mnist_cnn", data="data.npz", out="again", overrides={"train": {"learning_rate": 1e30, "warmup_epochs": 0}}
        )


@pytest.mark.slow
def test_what_is_held_out_is_said_and_the_test_split_is_not(capsys):
    small_npz("data.npz", count=10)
    first = [
        here("train", recipe, "--data", "data.npz", "--epochs", "1", capsys=capsys)[2].splitlines()
        for recipe in ("mnist_cnn", "articles/mnist_tensorflow")
    ]
    assert first[0][:2] == [
        "data.npz: 9 train, 1 validation (held out), 10 test images of 28x28x1, 3 classes",
        "held out at random, each class in its share, equal images together: data.validation = 0.08",
    ]
    assert first[1][0] == "data.npz: 10 train, 10 test images of 28x28x1, 3 classes"  # which the article watches
    assert "held out" not in "".join(first[1])


@pytest.mark.slow
def test_the_fallback_is_announced_written_and_repeated(tmp_path):
    process = command("train", "mnist_cnn", "--epochs", "1", "--quiet", check=0)
    assert "DIGITS STANDS IN FOR IT" in process.stderr
    assert process.stdout.strip().splitlines()[-1] == os.path.join("saved_models", "mnist_cnn-digits")
    run = Run.open(tmp_path / "saved_models" / "mnist_cnn-digits")
    assert (run.metrics["data"], run.metrics["fallback_for"]) == ("digits", "mnist")
    assert run.manifest["data"]["fallback_for"] == "mnist"
    later = command("predict", run.path, run.path / "samples" / "000.png", check=0)
    assert "DIGITS STANDS IN FOR IT" in later.stderr


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(name, marks=() if name in ("cifar_cnn", "articles/cifar_cnn") else pytest.mark.slow)
        for name in recipe_names()
        if load_config(name).data.name == "cifar10"
    ],
)
def test_every_colour_recipe_takes_a_few_steps_on_shapes(recipe, monkeypatch, capsys):
    monkeypatch.setattr(dataset_module("shapes"), "SIZES", {"train": 40, "validation": 20, "test": 20})
    article = "/" in recipe  # an article's numbers are its data set's: it has no fallback
    result = kerascls.train(recipe, data="shapes" if article else None, epochs=1, overrides={"train": {"samples": 2}})
    run = Run.open(result.path)
    assert run.metrics["data"] == "shapes" and run.metrics["splits"]["test"]["examples"] == 20
    assert run.metrics["fallback_for"] == (None if article else "cifar10")
    assert ("SHAPES STANDS IN FOR IT" in capsys.readouterr().err) == (not article)
    loss = float(history(result.path)[0]["loss"])
    assert 0 < loss < 10


@pytest.mark.parametrize("arguments", [["--no-fallback"], ["--data", "mnist"], ["--data-dir", "."]])
def test_missing_data_is_an_error_where_the_fallback_is_not_allowed(arguments, capsys):
    begin = time.perf_counter()
    line = one_line_error("train", "mnist_cnn", *arguments, capsys=capsys)
    assert "mnist is not prepared here" in line and "--data digits" in line
    assert time.perf_counter() - begin < 30 and not os.listdir(".")


def test_the_users_data_folder_forbids_the_fallback(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert "mnist is not prepared here" in one_line_error("train", "mnist_cnn", capsys=capsys)


def test_json_ends_with_one_line_and_quiet_leaves_the_path(capsys):
    small_npz("data.npz", count=10)
    code, out, err = here(
        "train", "mnist_cnn", "--data", "data.npz", "--epochs", "1", "--json", "--quiet", capsys=capsys
    )
    answer = json.loads(out)
    assert (code, err) == (0, "") and answer["run"] == os.path.join("saved_models", "mnist_cnn-data")
    assert answer["test"] == Run.open(answer["run"]).metrics["splits"]["test"]


@pytest.mark.slow
def test_seeds_train_once_each_and_end_with_mean_and_range(capsys):
    small_npz("data.npz", count=12)
    code, out, _ = here("train", "mnist_cnn", "--data", "data.npz", "--epochs", "1", "--seeds", "0,1", capsys=capsys)
    runs = [Run.open(f"saved_models/mnist_cnn-data-seed{seed}") for seed in (0, 1)]
    assert [run.manifest["seed"] for run in runs] == [0, 1]
    scores = [run.metrics["splits"]["test"]["accuracy"] for run in runs]
    assert code == 0 and f"mean {np.mean(scores):.4f}, range {min(scores):.4f} to {max(scores):.4f}" in out
    alone = kerascls.train("mnist_cnn", data="data.npz", epochs=1, seed=1, out="alone")
    assert history(alone.path) == history(runs[1].path)
    assert here("train", "mnist_cnn", "--seeds", "0,0", capsys=capsys)[0] == 2


@pytest.mark.slow
def test_progress_is_a_plain_line_an_epoch_and_a_bar_on_a_terminal(tmp_path):
    small_npz("data.npz", count=10)
    arguments = [
        "train",
        "mnist_cnn",
        "--data",
        "data.npz",
        "--epochs",
        "2",
        "--log-steps",
        "1",
        "--batch-size",
        "4",
        "--set",
        "train.steps_per_execution=1",
        "--set",
        "data.validation=0.2",
    ]
    process = command(*arguments, check=0)
    lines = [line for line in process.stderr.splitlines() if line.startswith("epoch")]
    assert sum("step" in line for line in lines) == 4
    assert re.fullmatch(
        r"epoch 2/2  loss \d+\.\d+  accuracy \d\.\d+  val_loss \d+\.\d+  val_accuracy \d\.\d+  \d+\.\d s", lines[-1]
    )
    import pty

    reader, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "kerascls", *arguments], stdout=subprocess.DEVNULL, stderr=terminal
    ) as on:
        os.close(terminal)
        seen = b""
        while True:
            try:
                chunk = os.read(reader, 4096)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
        assert on.wait() == 0
    os.close(reader)
    assert b"images/s" in seen and b"epoch 2/2" in seen and b"\r" in seen


def test_ctrl_c_keeps_the_best_epoch_so_far(tmp_path):
    small_npz("data.npz", count=200)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "kerascls",
            "train",
            "mnist_cnn",
            "--data",
            "data.npz",
            "--epochs",
            "100000",
            "--out",
            "run",
            "--set",
            "train.schedule=constant",
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    manifest = Run.open(tmp_path / "run").manifest
    kept = f"Epoch {manifest['kept_epoch']} is kept and scored; `kerascls train --resume run` continues from there."
    assert re.search(rf"Interrupted (in epoch \d+, step \d+|after epoch \d+)\. {re.escape(kept)}", err)
    assert manifest["status"] == "interrupted" and manifest["kept_epoch"] >= 1
    assert kerascls.evaluate("run").accuracy == Run.open("run").metrics["splits"]["test"]["accuracy"]


def test_an_existing_or_unwritable_place_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert "exists already" in one_line_error("train", "mnist_cnn", "--data", "digits", "--out", "there", capsys=capsys)
    with pytest.raises(OutputError, match="exists already"):
        kerascls.train("mnist_cnn", data="digits", out=tmp_path / "there")
    (tmp_path / "file").write_text("")
    assert "Cannot make" in one_line_error("train", "mnist_cnn", "--data", "digits", "--out", "file/run", capsys=capsys)
    assert sorted(os.listdir()) == ["file", "there"]


def test_a_model_that_does_not_fit_the_images_leaves_nothing(capsys):
    line = one_line_error(
        "train", "mnist_cnn", "--data", "digits", "--set", "data.image_shape=[6, 6, 1]", capsys=capsys
    )
    assert "cannot be built for images of (6, 6, 1)" in line and not os.listdir(".")


def test_steps_per_execution_follows_the_batch():
    assert steps_per_execution(1875, 32, (28, 28, 1)) == 32
    assert steps_per_execution(7, 32, (28, 28, 1)) == 7
    assert steps_per_execution(500, 32, (224, 224, 3)) == 1


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("constant", [0.25, 0.5, 0.5, 0.5, 0.5]),
        ("linear", [0.25, 0.5, 0.5, 0.25, 0.0]),
        ("cosine", [0.25, 0.5, 0.5, 0.25, 0.0]),
    ],
)
def test_schedules_are_as_worked_by_hand(schedule, expected):
    # Two steps an epoch, one epoch of warm-up, two of schedule; at its middle both curves are at half.
    train = Train(epochs=3, learning_rate=0.5, schedule=schedule, warmup_epochs=1, optimizer="sgd")
    rate = make_optimizer(train, steps=2)._learning_rate
    assert [float(rate(step)) for step in (0, 1, 2, 4, 6)] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop", "nadam", "lion"])
def test_every_optimiser_takes_the_recipes_numbers(name):
    made = make_optimizer(
        Train(epochs=1, optimizer=name, learning_rate=0.5, weight_decay=0.1, epsilon=1e-4, momentum=0.8, beta_2=0.9),
        steps=1,
    )
    config = made.get_config()
    assert type(made).__name__.lower() == name and math.isclose(config["learning_rate"], 0.5)
    assert config["weight_decay"] == 0.1
    for key, value in (("epsilon", 1e-4), ("momentum", 0.8)):
        assert config.get(key, value) == value


@pytest.mark.slow
@pytest.mark.parametrize("recipe, floor", [("cifar_cnn", 0.72), ("cifar_lenet", 0.78), ("cifar_cnn_bn", 0.88)])
def test_a_small_network_tells_shapes_which_a_linear_model_cannot(recipe, floor):
    assert kerascls.train(recipe).accuracy >= floor  # a linear model: below 0.25, see test_datasets.py


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["mnist_cnn", "mnist_cnn_bn"])
def test_the_fallback_reaches_its_accuracy_within_its_time(recipe):
    begin = time.perf_counter()
    for seed in (0, 1, 2):
        assert kerascls.train(recipe, seed=seed).accuracy >= 0.95
    assert time.perf_counter() - begin < 3 * 90


@pytest.mark.slow
def test_every_epoch_can_be_kept_as_a_file(tmp_path):
    small_npz("d.npz")
    result = kerascls.train("mnist_cnn", data="d.npz", epochs=3, out="run", overrides={"train": {"save_epochs": True}})
    names = [f"{epoch:03d}.keras" for epoch in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "run" / "epochs").iterdir()) == names
    kept = kerascls.load(result.path / "epochs" / names[result.kept_epoch - 1])
    images = np.load("d.npz")["x_test"]
    assert np.array_equal(kept.probabilities(images), kerascls.load(result.path).probabilities(images))


@pytest.mark.parametrize(
    "options",
    [
        ("train", "--epochs", 2),
        pytest.param(("train", "--set", "train.epochs=2"), marks=pytest.mark.slow),
        pytest.param(("sweep", "--epochs", 2), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_short_training_reaches_the_recipes_rate_and_says_what_it_scaled(options, capsys):
    small_npz("data.npz", count=20)
    command, *rest = options
    sets = ["--set", "train.batch_size=2", "--out", "out.csv" if command == "sweep" else "run"]
    code, _, err = here(command, "mnist_cnn", "--data", "data.npz", *rest, *sets, capsys=capsys)
    line = "train.warmup_epochs = 0.2857 for train.epochs = 2: the recipe's 4 of 28, scaled."
    assert code == 0 and err.count(line) == 1
    if (
        command == "train"
    ):  # 9 steps an epoch, 3 of warm-up; then half a cosine over 15 steps, by whose half it is at 0.01
        rates = [float(row["learning_rate"]) for row in history(Path("run"))]
        assert rates == pytest.approx([0.01 * (1 + math.cos(math.pi * done / 15)) for done in (5, 14)], rel=1e-5)


def test_a_schedule_has_a_step_after_its_warmup():
    rate = learning_rate(Train(epochs=1, learning_rate=0.5, warmup_epochs=0.9, schedule="linear"), steps=3)
    assert [float(rate(step)) for step in range(3)] == [0.25, 0.5, 0.5]  # 0.9 of 3 steps would be all of them


def test_history_has_the_rate_of_each_epochs_last_step():
    # Two steps an epoch: 0.25 and 0.5 of warm-up; 0.5, 0.375, 0.25 and 0.125 on the way to 0.
    small_npz("data.npz", count=10)
    recipe = {"batch_size": 5, "optimizer": "sgd", "learning_rate": 0.5, "schedule": "linear", "warmup_epochs": 1}
    run = kerascls.train("mnist_cnn", data="data.npz", epochs=3, overrides={"train": recipe}, out="run")
    assert [float(row["learning_rate"]) for row in history(run.path)] == [0.5, 0.375, 0.125]


def test_weight_decay_leaves_biases_and_normalisation_alone():
    # No gradient comes, so a variable changes by decay alone: to 1 - rate * decay = 0.95 of it.
    model = build_model("mnist_cnn_bn", (28, 28, 1), 10)
    train = Train(epochs=1, optimizer="adamw", learning_rate=0.5, weight_decay=0.1)
    for excluded, decayed in (
        (train.exclude_from_weight_decay, {"kernel"}),
        ([], {"kernel", "bias", "gamma", "beta"}),
        (["kern", "bias"], {"kernel", "gamma", "beta"}),
    ):
        for variable in model.trainable_variables:
            variable.assign(np.ones(variable.shape))
        optimizer = make_optimizer(dataclasses.replace(train, exclude_from_weight_decay=excluded), steps=1)
        optimizer.apply(
            [np.zeros(variable.shape, "float32") for variable in model.trainable_variables], model.trainable_variables
        )
        for variable in model.trainable_variables:
            expected = 0.95 if variable.name in decayed else 1.0
            np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)


def test_a_name_that_no_variable_has_is_refused(capsys):
    small_npz("data.npz", count=10)
    line = one_line_error(
        "train", "mnist_cnn", "--data", "data.npz", "--set", 'train.exclude_from_weight_decay=["gama"]', capsys=capsys
    )
    assert line == ("Error: train.exclude_from_weight_decay: no variable is named 'gama'. The model has bias, kernel.")
    assert not os.path.exists("saved_models")

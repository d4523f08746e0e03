"""Sweeps: every combination once, compared on validation data alone."""

import csv
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import here, one_line_error, small_npz, tiny_transfer

import kerascls
from kerascls.data.dataset import Split
from kerascls.data.folder import FileImages
from kerascls.data.splits import folds_of
from kerascls.errors import ConfigError, DataError, OutputError
from kerascls.features.extractor import Extractor
from kerascls.training.grid import parse_grid
from kerascls.training.sweep import SweepResult, Trial, table

RECIPE = """
[train]
epochs = 2
batch_size = 8
learning_rate = 0.01

[features]
views = 2

[augment]
policy = [{ name = "flip" }]
"""


@pytest.fixture
def tiny(empty_folder, monkeypatch):
    monkeypatch.setenv("KERASCLS_CACHE", "cache")
    return tiny_transfer(RECIPE, validation=0.25)


def rows_of(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "given, values",
    [
        ("train.learning_rate=1e-3,3e-3", [0.001, 0.003]),
        ("train.optimizer=adam, sgd", ["adam", "sgd"]),
        ("train.optimizer=adam", ["adam"]),
        ("data.image_shape=[32, 32, 3]", [[32, 32, 3]]),
        ("data.image_shape=[32, 32, 3],[64, 64, 3]", [[32, 32, 3], [64, 64, 3]]),
        ('augment.policy=[{name = "flip"}],[]', [[{"name": "flip"}], []]),
        ('data.name="a,b"', ["a,b"]),
    ],
)
def test_values_are_divided_at_commas_outside_of_brackets(given, values):
    assert list(parse_grid([given]).values()) == [values]


def test_every_combination_is_trained_once_a_seed_and_the_table_has_all(tiny, capsys):
    code, out, err = here(
        *("sweep", tiny, "--set", "train.learning_rate=0.001,0.03", "--set", "train.batch_size=8"),
        *("--seeds", "3,4", "--out", "table.csv"),
        capsys=capsys,
    )
    assert code == 0, err
    rows = rows_of("table.csv")
    tried = [(row["train.learning_rate"], row["train.batch_size"], row["seed"]) for row in rows]
    assert tried == [(rate, size, seed) for rate in ("0.001", "0.03") for size in ("8",) for seed in ("3", "4")]
    lines = out.splitlines()
    assert lines[0] == "all with --set train.batch_size=8"
    assert lines[1].split() == ["accuracy", "lowest", "highest", "balanced", "loss", "seconds"]
    assert len(lines) == 2 + 2 + 1
    assert lines[-1].startswith("kerascls train tiny.toml --seeds 3,4 --set train.learning_rate=")
    means = [float(line.split()[0]) for line in lines[2:4]]
    assert means == sorted(means, reverse=True)
    assert all(line.split()[-1].startswith("train.learning_rate=") for line in lines[2:4])
    best = lines[2].split("--set train.learning_rate=")[1].split()[0]
    assert f"train.learning_rate={best} " in lines[-1] and lines[-1].endswith("--set train.batch_size=8")
    assert all(line.startswith("--set train.learning_rate=") for line in err.splitlines() if "validation" in line)


@pytest.mark.parametrize(
    "key, value",
    [
        ("learning_rate", 0.02),
        pytest.param("label_smoothing", 0.5, marks=pytest.mark.slow),
        pytest.param("class_weight", "balanced", marks=pytest.mark.slow),
    ],
)
def test_a_trial_has_the_validation_score_of_a_training_with_its_settings(tiny, key, value):
    result = kerascls.sweep(tiny, {f"train.{key}": [value]}, out="table.csv")
    trained = kerascls.train(tiny, overrides={"train": {key: value}}, out="run")
    [trial] = result.trials
    assert (trial.accuracy, trial.epoch) == (pytest.approx(trained.validation["accuracy"]), trained.kept_epoch)
    assert trial.loss == pytest.approx(trained.validation["loss"], rel=1e-5)
    assert trial.balanced_accuracy == pytest.approx(trained.validation["balanced_accuracy"])
    assert float(rows_of("table.csv")[0]["val_balanced_accuracy"]) == trial.balanced_accuracy
    assert not list(Path(".").rglob("*.keras.*")) and not Path("saved_models").exists()


@pytest.mark.slow
def test_sweeps_at_once_have_tables_of_their_own(tiny, monkeypatch):
    module, inner = importlib.import_module("kerascls.training.sweep"), []
    original = module._fit

    def at_once(*arguments):
        monkeypatch.setattr(module, "_fit", original)
        assert Path("saved_models/sweep-tiny.csv").read_text().startswith("train.learning_rate,fold,seed,epoch")
        inner.append(kerascls.sweep(tiny, {"train.learning_rate": [0.01]}))
        with pytest.raises(OutputError, match="exists already"):
            kerascls.sweep(tiny, {"train.learning_rate": [0.01]}, out="saved_models/sweep-tiny.csv")
        return original(*arguments)

    monkeypatch.setattr(module, "_fit", at_once)
    outer = kerascls.sweep(tiny, {"train.learning_rate": [0.02]})
    assert [str(one.path) for one in (outer, *inner)] == [f"saved_models/sweep-tiny{i}.csv" for i in ("", "-2")]
    assert [row["train.learning_rate"] for row in rows_of(outer.path)] == ["0.02"]
    assert [row["train.learning_rate"] for row in rows_of(inner[0].path)] == ["0.01"]


def test_a_sweep_that_comes_to_nothing_leaves_no_table(tiny):
    Path("broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError):
        kerascls.sweep(tiny, {"train.learning_rate": [0.01]}, data="broken.npz")
    with pytest.raises(OutputError, match="Cannot write tiny.toml/table.csv"):
        kerascls.sweep(tiny, {"train.learning_rate": [0.01]}, out="tiny.toml/table.csv")
    assert not list(Path(".").rglob("*.csv")) and not Path("saved_models").exists()


@pytest.mark.slow
def test_the_test_split_has_no_say(tiny):
    before = kerascls.sweep(tiny, {"train.learning_rate": [0.02]}, out="before.csv").trials
    arrays = dict(np.load("small.npz"))
    arrays["x_test"] = 255 - arrays["x_test"]
    np.savez("small.npz", **arrays)
    after = kerascls.sweep(tiny, {"train.learning_rate": [0.02]}, out="after.csv").trials
    assert (before[0].accuracy, before[0].loss) == (after[0].accuracy, after[0].loss)


@pytest.mark.slow
def test_folds_share_the_features_of_the_whole_train_split(tiny, monkeypatch):
    computed = []
    original = Extractor.extract

    def extract(self, entry, source, *rest):
        computed.append(len(source))
        return original(self, entry, source, *rest)

    monkeypatch.setattr(Extractor, "extract", extract)
    result = kerascls.sweep(tiny, {"train.learning_rate": [0.01, 0.02]}, folds=3, out="table.csv")
    assert computed == [48, 48]  # two views, once
    assert [(trial.settings["train.learning_rate"], trial.fold) for trial in result.trials] == [
        (rate, fold) for rate in (0.01, 0.02) for fold in range(3)
    ]
    assert [row["fold"] for row in rows_of("table.csv")] == ["1", "2", "3"] * 2


def test_folds_deal_each_class_out_and_keep_equal_files_together():
    labels = np.repeat([0, 1, 2], [10, 20, 5]).astype(np.int32)
    split = Split.of(np.arange(35 * 12, dtype=np.uint16).view(np.uint8).reshape(-1, 2, 2, 3)[:35], labels)
    fold = folds_of(split, 5)
    for cls, count in ((0, 2), (1, 4), (2, 1)):
        assert np.bincount(fold[labels == cls]).tolist() == [count] * 5
    contents = tuple(bytes([i // 2]) * 32 for i in range(36))  # each file twice
    files = FileImages(
        Path("."), tuple(map(str, range(36))), contents, tuple(range(36)), (2, 2, 3), (0, 0, 0), "stretch"
    )
    pairs = folds_of(Split(files, np.zeros(36, np.int32), np.arange(36), files), 3)
    assert (pairs[::2] == pairs[1::2]).all() and np.bincount(pairs).tolist() == [12, 12, 12]


def test_a_failed_training_costs_no_other_and_is_last(tiny, capsys):
    Path("my_net.py").write_text(
        "import keras\n"
        "def build(image_shape, num_classes, *, scale=1.0):\n"
        "    inputs = keras.Input(image_shape)\n"
        "    x = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Rescaling(scale)(inputs)))\n"
        "    return keras.Model(inputs, keras.layers.Softmax()(x))\n"
    )
    values = ("model.name=./my_net.py", "model.scale=1e30,0.01", "train.optimizer=sgd", "train.learning_rate=1e-3")
    code, out, err = here(
        *("sweep", "folder_scratch", "--data", "small.npz", "--epochs", "3"),
        *(word for value in values for word in ("--set", value)),
        capsys=capsys,
    )
    assert code == 0, err
    lines = out.splitlines()
    head, best, worst = next(lines[i : i + 3] for i in range(len(lines)) if "accuracy" in lines[i])
    assert "scale=0.01" in best and worst.split()[0] == "failed" and "model.scale=0.01" in lines[-1]
    assert "The loss became" in rows_of("saved_models/sweep-folder_scratch.csv")[0]["error"]


def test_the_last_line_has_every_option_that_was_given(tiny, capsys):
    options = ["--data", "small.npz", "--epochs", 1, "--devices", "cpu", "--no-fallback"]
    code, out, _ = here("sweep", tiny, *options, "--out", "t.csv", "--quiet", capsys=capsys)
    assert code == 0 and out.splitlines()[1].split()[-4:] == ["(the", "recipe", "as", "it", "is)"][-4:]
    words = "kerascls train tiny.toml --data small.npz --epochs 1 --devices cpu --no-fallback"
    assert out.splitlines()[-1] == words


def test_ctrl_c_keeps_what_has_ended(tiny, monkeypatch, capsys):
    from kerascls.training.fit import Fit

    original, calls = Fit.fit_phase, []

    def fit_phase(self, *given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *given)

    monkeypatch.setattr(Fit, "fit_phase", fit_phase)
    code, out, _ = here("sweep", tiny, "--set", "train.learning_rate=0.01,0.02", "--out", "t.csv", capsys=capsys)
    assert code == 130 and len(rows_of("t.csv")) == 1


def test_summary_is_worked_by_hand():
    def trial(rate, accuracy, loss=1.0):
        return Trial({"rate": rate}, None, 0, 1, accuracy, loss, 2.0, None if accuracy is not None else "NaN")

    trials = [trial(1, 0.5), trial(1, 0.7), trial(2, 0.6, 0.5), trial(2, 0.6, 0.7), trial(3, 0.9), trial(3, None)]
    rows = SweepResult(Path("t.csv"), "complete", trials).summary()
    assert [row["settings"]["rate"] for row in rows] == [2, 1, 3]  # equal means: by loss; one failure: last
    assert rows[1]["accuracy"] == {"mean": pytest.approx(0.6), "min": 0.5, "max": 0.7}
    assert (rows[0]["loss"], rows[0]["seconds"], rows[2]["failed"], rows[2]["accuracy"]) == (0.6, 4.0, 1, None)
    assert table(SweepResult(Path("t.csv"), "complete", trials)).splitlines()[3].split()[0] == "failed"


@pytest.mark.slow
def test_json_lists_the_combinations(tiny, capsys):
    code, out, _ = here(
        "sweep", tiny, "--set", "train.batch_size=8,16", "--json", "--quiet", "--out", "t.csv", capsys=capsys
    )
    found = json.loads(out)
    assert code == 0 and {row["settings"]["train.batch_size"] for row in found} == {8, 16}


def test_bad_input_is_told_before_anything_is_trained(tiny, capsys, monkeypatch):
    monkeypatch.setattr("kerascls.training.fit.Fit.fit", lambda self: pytest.fail("trained"))
    for arguments, fault in (
        (("--set", "train.learning_rate=0.1,-1"), "train.learning_rate must be above 0"),
        (("--set", "train.learning_rat=0.1,1"), "Did you mean learning_rate"),
        (("--set", "data.validation=0"), "compares on validation data"),
        (("--set", "train.epochs"), "--set takes SECTION.KEY=VALUE"),
    ):
        assert fault in one_line_error("sweep", tiny, *arguments, capsys=capsys)
    Path("there.csv").write_text("")
    assert "exists already" in one_line_error("sweep", tiny, "--out", "there.csv", capsys=capsys)
    with pytest.raises(ConfigError, match="folds must be 0, or at least 2"):
        kerascls.sweep(tiny, {}, folds=1)
    with pytest.raises(ConfigError, match="12 different training images, too few for 40 folds"):
        small_npz("small.npz", count=12, shape=(12, 12, 3))
        kerascls.sweep(tiny, {}, folds=40)

"""The benchmarks: their arithmetic, the networks that they compare, and the table of docs/results/benchmarks.md."""

import doctest
import importlib.util
import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY

from benchmarks import __main__ as runner
from benchmarks import measure, plan, table, trainings
from benchmarks.measure import NotRun, extrapolated, run_child, summary

PARAMETERS = {"mnist": 1198, "cifar_cnn": 81302, "cifar_lenet": 62006, "cifar_cnn_bn": 121374, "avp": 23850242}


@pytest.mark.parametrize("module", [measure, table])
def test_the_examples_in_docstrings_hold(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def turn(ours, plain, **more):
    return {"ours": {"seconds": ours, "process_seconds": ours + 5, "images": 100}, "plain": {"seconds": plain, **more}}


def test_a_summary_has_medians_and_the_ratio_of_medians_with_the_spread_of_single_turns():
    turns = [turn(1.0, 3.0, accuracy=0.7), turn(2.0, 2.0, accuracy=0.9), turn(4.0, 10.0)]
    found = summary(turns, "seconds")
    assert found["ours"] == {
        "seconds": 2.0,
        "process_seconds": 7.0,
        "peak_mb": None,
        "accuracy": None,
        "epochs": None,
        "images_per_second": 50.0,
        "turns": 3,
        "extrapolated": False,
    }
    assert found["plain"]["ratio"] == {"of_medians": 1.5, "low": 1.0, "high": 3.0}
    assert found["plain"]["accuracy"] == pytest.approx(0.8)  # of the two turns that measured it


def test_a_side_that_failed_in_a_turn_is_summed_up_by_the_others():
    failed = {"ours": {"seconds": 100.0}, "plain": {"not_run": "no reason"}}
    assert (
        summary([turn(2.0, 3.0), failed], "seconds")["plain"] | {"turns": 1}
        == summary([turn(2.0, 3.0)], "seconds")["plain"]
    )
    assert summary([failed], "seconds")["plain"] == {"not_run": "no reason"}


def test_the_ratio_may_be_of_the_whole_process():
    turns = [{"ours": {"process_seconds": 4.0}, "plain": {"seconds": 1.0, "process_seconds": 6.0}}]
    assert summary(turns, "process_seconds")["plain"]["ratio"]["of_medians"] == 1.5


def test_extrapolation_multiplies_the_blocks_steps_and_keeps_the_processs_start():
    block = {"seconds": 6.0, "steps": 2000, "fit_seconds": 13.0, "process_seconds": 20.0, "peak_mb": 500.0}
    whole = extrapolated(block, 500_000, 5_000_000)
    assert whole["seconds"] == 1500.0
    assert whole["process_seconds"] == 20 - 13 + 1500
    assert (whole["steps"], whole["block_steps"], whole["images"], whole["extrapolated"]) == (
        500_000,
        2000,
        5_000_000,
        True,
    )


def test_a_childs_time_and_memory_are_measured(tmp_path):
    program = (  # by a small process, as `python -m benchmarks` is: a child begins with its parent's memory
        "import json; from pathlib import Path; from benchmarks.measure import run_child; "
        "print(json.dumps(run_child(['-c', \"b = b'x' * 200_000_000; print(len(b))\"], Path.cwd(), 60)))"
    )
    own = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=own, capture_output=True, text=True)
    stdout, cost = json.loads(done.stdout)
    assert stdout == "200000000\n"
    assert 200 < cost["peak_mb"] < 2000
    assert 0 < cost["process_seconds"] < 60


def test_a_child_that_fails_or_takes_too_long_is_a_reason(tmp_path):
    with pytest.raises(NotRun, match="^no data in tfds here$"):  # a results file names no folder of a machine
        run_child(["-c", "import sys; sys.exit('a line before\\nError: no data in /home/me/tfds here')"], tmp_path, 60)
    begin = time.monotonic()
    with pytest.raises(NotRun, match="^stopped after 1 s"):
        run_child(["-c", "import time; time.sleep(60)"], tmp_path, 1)
    assert time.monotonic() - begin < 30


def test_ours_is_read_from_its_run_folder(digits_run):
    found = trainings.read_run(digits_run)
    manifest = json.loads((digits_run / "manifest.json").read_text())
    assert found["seconds"] == pytest.approx(sum(manifest["seconds"]["epochs"]))
    assert found["images"] == 5 * 1250
    scores = json.loads((digits_run / "metrics.json").read_text())["splits"]["test"]
    assert found["accuracy"] == scores["accuracy"]


def test_the_first_recipe_that_exists_is_ours():
    training = plan.Training("", "", ("not_written_yet", "mnist_cnn", "cifar_cnn"), "mnist")
    assert training.recipe == "mnist_cnn"
    assert all(training.recipe for training in plan.TRAININGS.values())


# The networks


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_keras_loops_networks_are_the_articles(name):
    from benchmarks.keras_loop import network

    model = network(name)
    assert model.count_params() == PARAMETERS[name]
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert trainable == {"cifar_cnn_bn": 121278, "avp": 262530}.get(name, PARAMETERS[name])


@pytest.fixture
def torch_loop():
    pytest.importorskip("torch", reason="needs PyTorch: pip install '.[bench]'")
    return importlib.import_module("benchmarks.torch_loop")


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_torch_loops_networks_are_the_articles(name, torch_loop):
    import torch

    model = torch_loop.network(name)
    # PyTorch counts no moving statistics, and its ResNet50 has no biases of convolutions, which batch normalisation
    # would take off again: 23,508,032 without its top.
    count = {"cifar_cnn_bn": 121278, "avp": 23508032 + 262530}.get(name, PARAMETERS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trainable == (262530 if name == "avp" else count)
    shape = {"mnist": (1, 28, 28), "avp": (3, 64, 64)}.get(name, (3, 32, 32))
    assert model.eval()(torch.zeros(2, *shape)).shape == (2, 2 if name == "avp" else 10)


@pytest.fixture
def avp_folder(tmp_path):
    from PIL import Image

    for split in ("train", "validation"):
        for i, name in enumerate(("alien", "predator")):
            (tmp_path / "avp" / split / name).mkdir(parents=True)
            for k in range(2):
                Image.new("RGB", (60, 40), (200 * i, 30 * k, 99)).save(tmp_path / "avp" / split / name / f"{k}.png")
    return tmp_path / "avp"


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # how ImageDataGenerator imports SciPy
def test_the_keras_loop_reads_and_augments_a_folder(avp_folder):
    from benchmarks.keras_loop import folders

    training, validation = folders(avp_folder, 3)
    images, labels = next(validation)
    assert images.shape == (3, 224, 224, 3) and labels.tolist() == [[1, 0], [1, 0], [0, 1]]
    # BGR, ImageNet's mean taken off: a flat image stays flat.
    assert np.allclose(images[2, 5, 5], [99 - 103.939, 0 - 116.779, 200 - 123.68], atol=1e-3)
    assert next(training)[0].shape == (3, 224, 224, 3)


def test_the_torch_loop_reads_and_augments_a_folder(avp_folder, torch_loop):
    training = torch_loop.Folder(avp_folder / "train", augment=True)
    image, label = training[3]
    assert (len(training), tuple(image.shape), label) == (4, (3, 224, 224), 1)
    centre = (image[:, 112, 112] * training.std[:, 0, 0] + training.mean[:, 0, 0]) * 255
    assert np.allclose(centre, [200, 30, 99], atol=0.01)


def digits():
    from kerascls.data.loading import load_dataset

    return load_dataset("digits").splits["train"]


@pytest.mark.parametrize(
    "way", ["our_epoch", *[pytest.param(way, marks=pytest.mark.slow) for way in ("usual_epoch", "by_hand")]]
)
def test_every_way_to_make_an_epoch_learns(way):
    from benchmarks import epochs

    train = digits()
    epoch = getattr(epochs, way)(train.images, train.labels)
    told = [epoch(number) for number in range(8)]
    assert all(seconds > 0 for seconds, _ in told)
    losses = [loss for _, loss in told]
    assert 2 < losses[0] < 2.4 and losses[7] < 1, losses


# The runner


def invoke(*arguments):
    return CliRunner().invoke(runner.main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_what_cannot_be_run_is_kept_with_its_reason_and_costs_no_other_entry(tmp_path):
    results = tmp_path / "results.json"
    runner.write_entry(results, "while_loop", {"title": "kept", "not_run": "before"})
    done = invoke("avp", "--tiny", "--results", results)
    assert done.exit_code == 0
    entries = json.loads(results.read_text())["entries"]
    assert list(entries) == ["avp", "while_loop"]  # in the order of the benchmarks
    assert entries["while_loop"] == {"title": "kept", "not_run": "before"}
    assert "`--avp DIR`" in entries["avp"]["not_run"]
    assert f"- {entries['avp']['title']}: {entries['avp']['not_run']}" in done.stdout
    assert entries["avp"]["machine"]["cores"] >= 1 and entries["avp"]["versions"]["keras"]


def test_a_training_of_other_epochs_or_precision_is_ours_too(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(trainings, "run_child", lambda command, *_, **__: (commands.append(command), ("", {}))[1])
    monkeypatch.setattr(trainings, "read_run", lambda run: {"run": run.name})
    settings = plan.Settings(tmp_path, 0, avp=tmp_path)
    names = [
        trainings.ours(plan.TRAININGS[name], "articles/avp_resnet50", tmp_path, settings, 0, bf16)["run"]
        for name in ("avp", "avp_30")
        for bf16 in (0, 1)
    ]
    assert len(set(names)) == 4
    assert [("features.precision=bf16" in command, "--epochs" in command) for command in commands] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    ]
    assert commands[3][commands[3].index("--epochs") + 1] == 30 and "features.views=4" in commands[3]


def test_a_loop_that_ran_whole_once_runs_whole_in_every_turn(tmp_path, monkeypatch):
    known = {}
    monkeypatch.setattr(trainings, "arrays_file", lambda *_: tmp_path)
    monkeypatch.setattr(trainings, "ours", lambda *_: {})
    monkeypatch.setattr(trainings, "loop", lambda side, *rest: known.update({side: rest[-1]}) or {})
    settings = plan.Settings(tmp_path, 0)
    trainings.turn("avp", settings, 1, [{"keras": {"seconds": 1}, "torch": {"extrapolated": True}}])
    assert known == {"keras": False, "torch": True}
    trainings.turn("avp", settings, 1, [{"keras": {"not_run": "why"}, "torch": {"seconds": 1}}])
    assert known == {"keras": None, "torch": False}


def test_an_articles_sides_train_its_schedule_and_are_scored_after_every_epoch(tmp_path, monkeypatch):
    commands, found = [], {"epoch_seconds": [4.0, 2.0, 2.0], "images": 30, "fit_seconds": 9.0, "process_seconds": 20.0}
    found["epoch_accuracies"] = [0.5, 0.6, 0.7]
    monkeypatch.setattr(trainings, "run_child", lambda command, *_, **__: (commands.append(command), ("", {}))[1])
    monkeypatch.setattr(trainings, "run_loop", lambda *command, **_: (commands.append(command), dict(found))[1])
    monkeypatch.setattr(trainings, "read_run", lambda run: dict(found))
    monkeypatch.setattr(trainings, "arrays_file", lambda *_: tmp_path / "cifar10.npz")
    monkeypatch.setattr(trainings, "_check_installed", lambda side: None)
    (measured,) = trainings.turn("cifar_cnn", plan.Settings(tmp_path, 0), 0, [])
    assert list(measured) == ["ours", "article", "keras", "torch"]
    fast, score, article, _, keras, torch = [list(map(str, command)) for command in commands]
    assert "cifar_cnn_fast" in fast and "--epochs" not in fast and "train.save_epochs=true" in fast
    assert score[0] == "score" and score[-1].endswith("cifar10.npz")
    assert "articles/cifar_cnn" in article and article[article.index("--epochs") + 1] == "5"
    for command in (keras, torch):
        assert command[-6:] == ["--epochs", "5", "--least", "3", "--until", "0.57"]
    # 100 epochs: the first takes 4 s, 99 take 2 s each; 9 s less 8 s of epochs went into scoring.
    assert measured["keras"]["seconds"] == 4 + 99 * 2 and measured["keras"]["extrapolated"]
    assert measured["keras"]["process_seconds"] == 20 - 1 - 8 + 202
    assert measured["keras"]["images"] == 30 * 100 and measured["keras"]["accuracy"] is None
    assert measured["keras"]["reached"] == {"epochs": 2, "seconds": 6.0, "accuracy": 0.6}


@pytest.fixture
def tiny_arrays(tmp_path):
    """96 flat images of MNIST's shape, brighter with their label: what any network learns at once."""
    labels = np.arange(96) % 10
    images = np.repeat(labels * 25, 784).reshape(-1, 28, 28, 1).astype("uint8")
    np.savez(tmp_path / "flat.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    return tmp_path / "flat.npz"


@pytest.mark.slow
@pytest.mark.parametrize("side", ["keras_loop", "torch_loop"])
def test_a_loop_times_and_scores_each_epoch_and_ends_where_it_may(side, tiny_arrays):
    if side == "torch_loop" and not importlib.util.find_spec("torch"):
        pytest.skip("needs PyTorch: pip install '.[bench]'")
    options = ["--epochs", 4, "--until", 0.01, "--least", 2]
    found = measure.run_loop(side, "mnist", tiny_arrays, *options, seconds_left=300)
    epochs = len(found["epoch_seconds"])
    assert 2 <= epochs == len(found["epoch_accuracies"])
    # It ends with the first epoch, from the second on, that has the accuracy.
    assert all(score < 0.01 for score in found["epoch_accuracies"][1:-1])
    assert epochs == 4 or found["epoch_accuracies"][-1] >= 0.01
    assert found["images"] == 96 and found["fit_seconds"] > sum(found["epoch_seconds"])


def test_what_a_run_saved_of_each_epoch_is_scored(tiny_arrays, tmp_path):
    import keras

    from benchmarks.score import accuracies
    from kerascls.models import build_model

    (tmp_path / "run" / "epochs").mkdir(parents=True)
    model = build_model("mnist_cnn", (28, 28, 1), 10)
    for number, answer in enumerate((3, 9), 1):  # 20 labels: 0 to 9, twice
        bias = keras.ops.one_hot(answer, 10) * 1e6
        model.layers[-1].bias.assign(bias)
        model.save(tmp_path / "run" / "epochs" / f"{number:03d}.keras")
    assert accuracies(tmp_path / "run", tiny_arrays) == [0.1, 0.1]


def test_missing_data_is_a_reason(tmp_path):
    results = tmp_path / "results.json"
    (tmp_path / "empty").mkdir()
    invoke("mnist", "--data-dir", tmp_path / "empty", "--results", results)
    assert "mnist" in json.loads(results.read_text())["entries"]["mnist"]["not_run"].lower()


def test_tiny_never_writes_the_real_results():
    done = invoke("avp", "--tiny")
    assert done.exit_code == 2 and "--results" in done.stderr


def test_turns_alternate_and_stop_when_the_time_is_up(tmp_path, monkeypatch):
    told = []

    class Fake:
        @staticmethod
        def describe(name, settings):
            return {"title": name, "ratio_of": "seconds"}

        @staticmethod
        def turn(name, settings, number, before):
            told.append((name, number, len(before)))
            if name == "slow":
                time.sleep(0.5)
            return [turn(1.0, 2.0)]

    monkeypatch.setattr(runner, "BENCHMARKS", {"slow": Fake, "quick": Fake})
    settings = plan.Settings(tmp_path, time.monotonic() + 0.9)
    runner.run(["slow", "quick"], settings, 2, tmp_path / "results.json")
    assert told == [("slow", 0, 0), ("quick", 0, 0), ("quick", 1, 1)]
    assert len(runner.read_results(tmp_path / "results.json")["entries"]["quick"]["turns"]) == 2


@pytest.mark.slow
def test_a_tiny_pair_from_end_to_end(tmp_path):
    results = tmp_path / "results.json"
    assert invoke("mnist", "predict", "roofline", "--tiny", "--turns", 1, "--results", results).exit_code == 0
    entries = json.loads(results.read_text())["entries"]
    found = entries["mnist"]["summary"]
    for side in ("ours", "keras"):
        assert found[side]["seconds"] > 0 and found[side]["process_seconds"] > found[side]["seconds"]
        assert 0.1 < found[side]["accuracy"] <= 1
        assert found[side]["peak_mb"] > 100
    assert entries["mnist"]["turns"][0]["keras"]["parameters"] == 1198
    assert entries["mnist"]["turns"][0]["keras"]["images"] == 1250
    assert found["keras"]["reached"]["turns"] == found["ours"]["reached"]["turns"] == 1
    missing = importlib.util.find_spec("torch") is None
    assert found["torch"].get("not_run", "").startswith("PyTorch is not installed") == missing
    assert entries["predict"]["summary"]["loop"]["ratio"]["of_medians"] > 0
    assert entries["roofline"]["summary"]["limit"]["seconds"] > 0 < entries["roofline"]["summary"]["ours"]["seconds"]


# The table


def test_the_pages_table_is_what_results_json_has():
    page = runner.PAGE.read_text(encoding="utf-8")
    assert table.with_table(page, runner.read_results(runner.RESULTS)) == page


def test_a_table_compares_seconds_to_an_accuracy_and_whole_schedules():
    def training(seconds, reached, **more):
        return {
            "seconds": seconds,
            "process_seconds": seconds + 5,
            "images": 600,
            "epochs": 3,
            "reached": reached,
        } | more

    never = {"epochs": None, "seconds": None, "tried_epochs": 4, "tried_seconds": 32.0, "best_accuracy": 0.5}
    fast = {"epochs": 2, "seconds": 4.0, "accuracy": 0.6}
    late = {"epochs": 3, "seconds": 12.0, "accuracy": 0.6}
    turns = [
        {"ours": training(6.0, fast), "plain": training(60.0, late, accuracy=0.6), "slow": training(80.0, never)}
        | {"other": {"not_run": "it is not installed."}}
        for late in (late, never, late)
    ]
    for turn in turns:
        turn["slow"] |= {"extrapolated": True, "epochs": 10}
    entry = {
        "title": "Numbers",
        "stated_accuracy": 0.55,
        "ratio_of": "seconds",
        "sides": {"ours": "`ours`", "plain": "the plain way", "slow": "a slow way", "other": "another"},
        "conditions": ["data: none"],
        "method": "By hand.",
        "date": "2026-01-31",
        "load": 0.25,
        "machine": {"cpu": "a processor", "cores": 2, "memory_gb": 25.0, "instructions": ["avx2"]},
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1"},
        "turns": turns,
        "summary": summary(turns, "seconds"),
    }
    second = {**entry, "title": "Again", "stated_accuracy": None}
    entries = {"numbers": entry, "again": second, "missing": {**entry, "title": "Missing", "not_run": "no data."}}
    lines = table.table({"entries": entries}).splitlines()
    assert lines[2:6] == [
        "| **Numbers: 0.55** | | | | |",
        "| `ours` | 2 | 4.00 | 2.00 |  |",
        "| the plain way | 3 (reached in 2 of 3 turns) | 12.0 | 4.00 | 3.00 |",
        "| a slow way | not reached in 4 | over 32.0 | 8.00 | over 8.00 |",
    ]
    assert lines[9:13] == [
        "| **Numbers** | | | | | | | |",
        "| `ours` | 3 |  | 6.00 | 11.0 | 100 |  |  |",
        "| the plain way | 3 | 0.6000 | 60.0 | 65.0 | 10 |  | 10.00 (10.00 to 10.00) |",
        "| a slow way, extrapolated | 10 |  | 80.0 | 85.0 | 8 |  | 13.33 (13.33 to 13.33) |",
    ]
    assert lines.count("By hand.") == 1  # however many benchmarks share a footnote
    machine = "On 2 cores of a processor (avx2), 25 GB; Python 3.11.7, tensorflow 2.21.0, keras 3.15.1."
    assert machine in lines
    assert "- Numbers: data: none; 3 turns; 2026-01-31, load 0.2 before it." in lines
    assert lines[-3:] == [
        "- Numbers, another: it is not installed.",
        "- Again, another: it is not installed.",
        "- Missing: no data.",
    ]


def test_a_table_of_nothing_says_so():
    assert table.table({"entries": {}}).startswith("Nothing has been measured yet")
    with pytest.raises(ValueError, match="must have the lines"):
        table.with_table("no markers", {"entries": {}})

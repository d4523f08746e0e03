"""Checkpoints: a training that was ended goes on to the bits that it would have had, or says why it cannot."""

import csv
import importlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import small_npz, tiny_transfer
from PIL import Image

import kerascls
from kerascls.cli import run as kerascls_command
from kerascls.data.loading import load_dataset
from kerascls.data.splits import with_all_splits
from kerascls.errors import ConfigError, OutputError, RunError
from kerascls.recipes.load import load_config
from kerascls.runs import checkpoint
from kerascls.runs.run import Run
from kerascls.system.status import doing
from kerascls.training import resume
from kerascls.training.callbacks.checkpoints import SaveState
from tests.robustness import endure

SMALL = {"train": {"epochs": 4, "batch_size": 64, "learning_rate": 0.01, "optimizer": "adam", "warmup_epochs": 0}}


class Killed(BaseException):
    """What no handler of ours expects, as a kill."""


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["mnist_cnn", "everything", "features", "shared"])
def test_a_training_killed_at_any_write_ends_with_the_same_bits(scenario, tmp_path):
    truth, _ = endure.peaceful(scenario, tmp_path / "peace")
    kills = iter([{"kind": "kill", "at": 11}, {"kind": "kill", "at": 14}])
    found, ends = endure.disturbed(scenario, tmp_path / "work", lambda: next(kills), times=2)
    assert found == truth and [end.endswith("exit -9") for end in ends] == [True, True, False]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_training_goes_on_to_the_same_bits(tmp_path):
    truth, _ = endure.peaceful("everything", tmp_path / "peace")
    full = iter([{"kind": "full", "at": 17}])
    found, ends = endure.disturbed("everything", tmp_path / "work", lambda: next(full), times=1)
    assert found == truth and ends[0].endswith("exit 1")


def test_a_training_killed_while_it_is_scored_is_only_scored(tmp_path, monkeypatch):
    recipe = tiny_transfer("[features]\nviews = 1\n\n[train]\nepochs = 2\nbatch_size = 8\n", count=24)
    whole = kerascls.train(recipe, out="whole")
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.import_module("kerascls.training.train"),
            "write_samples",
            lambda *_: (_ for _ in ()).throw(Killed),
        )
        with pytest.raises(Killed):
            kerascls.train(recipe, out="parts")
    assert checkpoint.read(Path("parts")).place.ended
    before = Path("parts/model.keras").stat().st_mtime_ns
    resumed = kerascls.train(resume="parts")
    assert Path("parts/model.keras").stat().st_mtime_ns == before and resumed.validation == whole.validation
    assert endure.facts(Path("parts")) == endure.facts(Path("whole"))
    features = [Run(path).manifest["features"] for path in (Path("parts"), Path("whole"))]
    assert features[0]["accuracy_difference"] == features[1]["accuracy_difference"]


# In [train] behind its best epoch, at its end, in [finetune].
@pytest.mark.parametrize("after", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(5, marks=pytest.mark.slow)])
def test_fine_tuning_begins_from_the_kept_epoch_whenever_the_run_was_killed(monkeypatch, after):
    train = '[train]\nepochs = 4\nbatch_size = 8\noptimizer = "sgd"\nlearning_rate = 0.3\n'
    recipe = tiny_transfer(f'{train}[finetune]\nepochs = 2\nunfreeze = "conv2"\n', count=24)
    whole = kerascls.train(recipe, out="whole")
    ended(Path("parts"), after, monkeypatch, recipe=recipe, overrides={})
    kept = checkpoint.read(Path("parts")).arrays["kept"]
    assert len(kept) == (2 if after <= 4 else 0)
    assert kerascls.train(resume="parts").validation == whole.validation
    assert endure.facts(Path("parts")) == endure.facts(Path("whole"))


def ended(out: Path | None, after, monkeypatch, recipe="mnist_cnn", **options):
    """A run whose process ended when its checkpoint of that number was written."""
    options = {"overrides": SMALL, **({"data": "digits"} if recipe == "mnist_cnn" else {}), **options}
    written = []
    save = SaveState.save

    def counting(self):
        save(self)
        written.append(1)
        if len(written) == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SaveState, "save", counting)
        patch.setattr("kerascls.training.callbacks.checkpoints.SAVED_SHARE", 0)
        with pytest.raises(Killed):
            kerascls.train(recipe, out=out, **options)
    run = Run(out or Path("saved_models/mnist_cnn-digits"))
    run.write_manifest({**run.manifest, "status": "running"})  # a kill leaves no other word
    return run.path


def test_ctrl_c_saves_within_an_epoch_and_the_run_goes_on(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(endure.EVERYTHING.replace("epochs = 8", "epochs = 2"))
    whole = kerascls.train("recipe.toml", out="whole")
    steps = []

    def interrupt(self, batch, logs=None, original=SaveState.on_train_batch_end):
        original(self, batch, logs)
        steps.append(batch)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveState, "on_train_batch_end", interrupt)
        patch.setattr("kerascls.training.fit.steps_per_execution", lambda *_: 2)
        assert kerascls_command(["train", "recipe.toml", "--out", "parts"]) == 130
    place = checkpoint.read(Path("parts")).place
    assert (place.epoch, place.step) == (0, 6)
    err = capsys.readouterr().err
    assert "Finishing the step and saving" in err
    resume = "`kerascls train --resume parts` continues from there."
    assert f"Interrupted in epoch 1, step 6. Nothing scored yet; {resume}" in err
    with pytest.MonkeyPatch.context() as patch:
        told = []
        patch.setattr(
            "kerascls.training.callbacks.reporting.doing",
            lambda *what, **more: told.append((*what, more)) or doing(*what),
        )
        resumed = kerascls.train(resume="parts")
    images = Run.open("parts").manifest["data"]["examples"]["train"]
    assert told[0] == ("epoch 1/2", images, {"done": 6 * 48, "ahead": images})
    assert told[-2] == ("epoch 2/2", images, {"done": 0, "ahead": 0})
    assert resumed.status == "complete" and resumed.test == whole.test
    assert endure.facts(Path("parts")) == endure.facts(Path("whole"))
    assert not Path("parts/checkpoint").exists()
    manifest = Run.open("parts").manifest
    assert [entry["epoch"] for entry in manifest["resumed"]] == [0] and manifest["status"] == "complete"
    for changes in ({}, {"epochs": 4}):
        with pytest.raises(RunError, match="parts is complete: there is nothing to go on with. A longer") as error:
            kerascls.train(resume="parts", **changes)
    command = re.search("`kerascls train (.*) --epochs 4`", str(error.value))  # which does so
    assert load_config(command[1], {"train": {"epochs": 4}}).train.epochs == 4


@pytest.mark.slow
def test_ctrl_c_in_validation_loses_none_of_the_epoch(tmp_path):
    (tmp_path / "recipe.toml").write_text(endure.EVERYTHING.replace("epochs = 8", "epochs = 2"))
    kerascls.train("recipe.toml", out="whole")

    def interrupt(self, logs=None, original=SaveState.on_test_begin):
        original(self, logs)
        signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveState, "on_test_begin", interrupt)
        assert kerascls.train("recipe.toml", out="parts").status == "interrupted"
    place = checkpoint.read(Path("parts")).place
    assert place.epoch == 0 and place.step > 0  # all steps of the epoch
    kerascls.train(resume="parts")
    assert endure.facts(Path("parts")) == endure.facts(Path("whole"))


def test_what_differs_is_told_and_nothing_is_written(monkeypatch, tmp_path, capsys):
    ended(Path("run"), 2, monkeypatch)
    before = sorted((path, path.stat().st_mtime_ns) for path in Path("run").rglob("*") if path.name != "lock")
    manifest = Path("run/manifest.json")
    text = manifest.read_text()

    def refused(*words):
        assert kerascls_command(["train", *words, "--resume", "run"]) == 1
        [line] = capsys.readouterr().err.splitlines()
        return line

    line = refused("mnist_cnn", "--data", "digits", "--seed", "3")
    assert "of another recipe" in line and "train.seed was 0, and is 3" in line
    assert "train.epochs was 4, and is" in line
    for key, value, told in (
        ("versions", {"keras": "3.14.0"}, "versions.keras was 3.14.0, and is 3."),
        ("data", {"fingerprint": "other"}, "data.fingerprint was other, and is "),
        ("device", {"precision": "bfloat16"}, "device.precision was bfloat16, and is float32"),
    ):
        changed = json.loads(text)
        changed[key] |= value
        manifest.write_text(json.dumps(changed))
        assert told in refused()
    changed = json.loads(text)
    changed["device"] |= {"cores": 99}
    manifest.write_text(json.dumps(changed))
    kerascls.train(resume=shutil.copytree("run", "moved"))
    assert "last bits of the numbers may differ: cores was 99, and is" in capsys.readouterr().err
    assert Run.open("moved").manifest["resumed"][0]["moved"].startswith("cores was 99")
    manifest.write_text(text.replace(json.loads(text)["code"], "0123456789abcdef"))
    assert "code was 0123456789abcdef, and is " in refused()
    for key in ("device", "versions", "code"):
        manifest.write_text(json.dumps({name: value for name, value in json.loads(text).items() if name != key}))
        assert f"cannot go on to the same numbers: {key}" in refused()
    manifest.write_text(text)
    after = sorted((path, path.stat().st_mtime_ns) for path in Path("run").rglob("*") if path.name != "lock")
    assert [path for path, _ in after] == [path for path, _ in before]
    assert kerascls_command(["train", "--epochs", "4", "--resume", "run"]) == 1
    assert capsys.readouterr().err == (
        "Error: run goes on as it was begun: leave out --epochs, --set and what else would change it. A longer "
        "training, or another, begins from its first epoch: `kerascls train run/config.toml --epochs 8`.\n"
    )
    with pytest.raises(ConfigError, match="leave out `out` and `profile`"):
        kerascls.train(resume="run", out="elsewhere")
    state = Path("run/checkpoint/state.npz")
    whole = state.read_bytes()
    with np.load(state) as archive:
        arrays = dict(archive)
    np.savez(state, **arrays | {"weights/0/0": arrays["weights/0/0"].astype(str)})
    assert "The checkpoint's weights are not those of this training" in refused("--quiet")
    del arrays["weights/0/0"]
    np.savez(state, **arrays)
    with zipfile.ZipFile(state, "a") as archive:
        archive.writestr("weights/0/0.npy", b"no array")
    assert "state.npz is damaged (weights/0/0 is no array)" in refused("--quiet")
    state.write_bytes(whole[:-40])
    line = refused()
    assert "state.npz is damaged" in line and "Remove it to train run from its beginning" in line


def test_two_trainings_never_share_a_run(monkeypatch, capsys):
    ended(Path("run"), 1, monkeypatch)
    with Run(Path("run")).locked(), pytest.raises(RunError, match="Another process trains run"):
        kerascls.train(resume="run")
    with pytest.raises(OutputError, match=r"run exists already. Its training was ended: `kerascls train --resume run`"):
        kerascls.train("mnist_cnn", data="digits", out="run")


def test_a_training_that_is_under_way_is_neither_taken_up_nor_offered(monkeypatch):
    """Whether it began or goes on, from its first step to its last score."""
    asked = []

    def ask(*_):
        run = Path("saved_models/mnist_cnn-digits")
        with pytest.raises(RunError, match="Another process trains saved_models/mnist_cnn-digits"):
            kerascls.train(resume=run)
        asked.append(resume.interrupted("mnist_cnn-digits", Run(run).config))

    def killed(*_):
        ask()
        raise Killed

    options = {"data": "digits", "overrides": SMALL, "epochs": 1}
    with monkeypatch.context() as patch:
        patch.setattr(SaveState, "on_epoch_begin", ask)
        patch.setattr(importlib.import_module("kerascls.training.train"), "write_samples", killed)
        with pytest.raises(Killed):
            kerascls.train("mnist_cnn", **options)
        with pytest.raises(Killed):
            kerascls.train(resume="saved_models/mnist_cnn-digits")
    assert asked == [None] * 3  # at the one epoch's beginning, and twice at the scores
    run = Run(Path("saved_models/mnist_cnn-digits"))
    run.write_manifest({**run.manifest, "status": "running"})  # a kill leaves no other word
    assert resume.interrupted("mnist_cnn-digits", run.config) == (run, "after epoch 1")

    def completed_meanwhile(run, data):
        run.write_manifest({**run.manifest, "status": "complete"})
        return run.config

    monkeypatch.setattr(resume, "_own", completed_meanwhile)
    before = (run.path / "model.keras").stat()
    with pytest.raises(RunError, match="is complete"):
        kerascls.train(resume=run.path)
    assert (run.path / "model.keras").stat() == before and not (run.path / "checkpoint").exists()


@pytest.mark.slow
def test_the_same_command_again_offers_the_run_that_was_ended(monkeypatch, capsys):
    ended(None, 2, monkeypatch)
    offered = []

    def offer(answer):
        return lambda path, how_far: offered.append((str(path), how_far)) or answer

    options = {"data": "digits", "overrides": SMALL}
    new = kerascls.train("mnist_cnn", **options, offer=offer(False))
    went_on = kerascls.train("mnist_cnn", **options, offer=offer(True))
    assert offered == [("saved_models/mnist_cnn-digits", "after epoch 2")] * 2
    assert (new.path.name, went_on.path.name) == ("mnist_cnn-digits-2", "mnist_cnn-digits")
    assert endure.facts(new.path) == endure.facts(went_on.path)
    kerascls.train("mnist_cnn", **options, offer=offer(True))  # nothing is left to offer
    other = {"train": {**SMALL["train"], "seed": 5, "epochs": 1}}
    kerascls.train("mnist_cnn", data="digits", overrides=other, offer=offer(True))
    assert len(offered) == 2


def test_your_own_code_runs_only_where_it_is_typed(monkeypatch, tmp_path):
    shutil.copy(Path(kerascls.__file__).parent / "models" / "mnist_cnn.py", "my_net.py")
    Path("recipe.toml").write_text(endure.MNIST_CNN.replace('"mnist_cnn"', '"./my_net.py"'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveState, "on_epoch_end", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            kerascls.train("recipe.toml", out="run")
    with pytest.raises(RunError, match=r"of your own code, ./my_net.py, which runs only where you name it"):
        kerascls.train(resume="run")
    Path("helper.py").write_text("from package import inside\n")
    Path("package").mkdir()
    Path("package/__init__.py").touch()
    Path("package/inside.py").write_text("import json, helper, keras, not_here\n")
    network = Path("my_net.py").read_text()
    Path("my_net.py").write_text(f"def more():\n    import helper\n\n{network}")
    config = Run(Path("run")).config
    shutil.move("helper.py", "elsewhere.py")
    assert resume.imported_by([Path("my_net.py")]) == []
    without = resume.code_digest(config)
    shutil.move("elsewhere.py", "helper.py")  # beside it, as it would add to sys.path itself
    with_helper = resume.code_digest(config)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [])  # whatever code of the user's own has done to it
        assert resume.code_digest(config) == with_helper
    found = resume.imported_by([Path("my_net.py")])
    assert sorted(path.name for path in found) == ["__init__.py", "helper.py", "inside.py"]
    Path("package/inside.py").write_text("LEVEL = 2\n")
    assert len({without, with_helper, resume.code_digest(config)}) == 3
    Path("my_net.py").write_text(network)
    assert kerascls.train("recipe.toml", resume="run").status == "complete"


@pytest.mark.slow
def test_data_that_was_moved_is_named(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 28, 28, 1), np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    ended_here = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveState, "on_epoch_end", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            kerascls.train("mnist_cnn", data=tmp_path / "mine.npz", out=ended_here, epochs=2)
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(tmp_path / "mine.npz", tmp_path / "elsewhere" / "mine.npz")
    with pytest.raises(kerascls.errors.DataError, match="is not here. Say where: data=PATH"):
        kerascls.train(resume=ended_here)
    shutil.copytree(ended_here, "typed")
    whole = kerascls.train("mnist_cnn", data=moved, out="whole", epochs=2)
    assert kerascls.train(resume=ended_here, data=moved).status == "complete"
    assert kerascls.train("mnist_cnn", resume="typed", data=moved, epochs=2).test == whole.test
    other = shutil.copy(moved, "other.npz")
    np.savez(other, x_train=images[:30], y_train=labels[:30], x_test=images[:9], y_test=labels[:9])
    shutil.copytree("typed", "again")
    manifest = Run(Path("again")).manifest
    Run(Path("again")).write_manifest({**manifest, "status": "interrupted"})
    with pytest.raises(RunError, match="data.fingerprint was"):
        kerascls.train("mnist_cnn", resume="again", data=other, epochs=2)


@pytest.mark.slow
def test_a_run_keeps_the_name_of_its_data_and_its_seconds(tmp_path, monkeypatch):
    """Gone on with where its data have another name, to the bytes that it would have had."""
    tree = {f"{kind}/{i}.png": i for kind in ("ape", "bee") for i in range(8)}
    for (name, i), shade in zip(tree.items(), range(100, 200), strict=False):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 12, 3), shade + i, np.uint8)).save(tmp_path / "pets" / name)
    options = {"overrides": {"data": {"image_shape": [32, 32, 3]}}, "epochs": 2}
    whole = kerascls.train("folder_scratch", data="pets", out="whole", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveState, "on_epoch_begin", lambda self, epoch, logs: epoch and (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            kerascls.train("folder_scratch", data="pets", out="run", **options)
    before = checkpoint.read(Path("run")).progress["seconds"]
    assert before["total"] > before["fit"] > 0
    shutil.copytree("run", "renamed")
    shutil.copytree("run", "without")
    moved = shutil.move("pets", "animals")
    kerascls.train(resume="run", data=moved)
    for file in ("metrics.json", "splits.csv"):
        assert Path("run", file).read_bytes() == Path("whole", file).read_bytes()
    assert kerascls.load("run").card == kerascls.load(whole.path).card
    after = Run(Path("run")).manifest["seconds"]
    assert after["total"] > before["total"] and after["fit"] > before["fit"]
    first = csv_rows("whole/splits.csv")[1][2]
    shutil.move(Path(moved, first), Path(moved, first).with_name("zebra.png"))
    with pytest.raises(RunError, match=r"splits.csv has \['train', .*where now is"):
        kerascls.train(resume="renamed", data=moved)
    Path("without/splits.csv").unlink()
    with pytest.raises(RunError, match="splits.csv is missing"):
        kerascls.train(resume="without", data=moved)


def csv_rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_where_going_on_would_end_alike_it_is_not_promised(monkeypatch):
    ended(Path("run"), 1, monkeypatch)
    Path("run/model.keras").unlink()
    for status, told in (("interrupted", "goes on with it.$"), ("failed", "once what it failed by is mended")):
        run = Run(Path("run"))
        run.write_manifest({**run.manifest, "status": status})
        with pytest.raises(RunError, match=told):
            kerascls.load("run")
        with pytest.raises(OutputError, match=rf"Its training was ended:.*{told.rstrip('$')}"):
            kerascls.train("mnist_cnn", data="digits", out="run")


@pytest.mark.slow
def test_sigterm_ends_a_training_as_ctrl_c_does(tmp_path):
    words = [
        sys.executable,
        "-m",
        "kerascls",
        "train",
        "mnist_cnn",
        "--data",
        "digits",
        "--epochs",
        "400",
        "--out",
        "run",
    ]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while not (tmp_path / "run" / "history.csv").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Interrupted" in told
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "interrupted"
    assert checkpoint.read(tmp_path / "run").place.epoch >= 1


@pytest.mark.slow
def test_moving_averages_are_what_is_validated_and_saved(tmp_path):
    recipe = endure.EVERYTHING.replace("epochs = 8", "epochs = 2").replace('keep = "last"', "")
    (tmp_path / "recipe.toml").write_text(recipe)
    averaged = kerascls.train("recipe.toml", out="averaged")
    plain = kerascls.train("recipe.toml", out="plain", overrides={"train": {"ema_momentum": 0}})
    rows = [
        path.read_text().splitlines()[1].split(",")
        for path in (Path("averaged/history.csv"), Path("plain/history.csv"))
    ]
    assert rows[0][2:4] == rows[1][2:4]  # the first epoch trains alike,
    assert rows[0][4] != rows[1][4]  # and is validated otherwise
    row = Path("averaged/history.csv").read_text().splitlines()[averaged.kept_epoch].split(",")
    assert float(row[4]) == pytest.approx(averaged.validation["loss"], abs=1e-5)
    assert averaged.test != plain.test


@pytest.mark.slow
def test_averaged_weights_have_their_own_moments():
    """One step an epoch, of all training images: the saved moments are what the saved first layer gives on these."""
    small_npz("data.npz", count=40)
    change = {
        "augment": {"policy": []},
        "train": {
            "ema_momentum": 0.8,
            "learning_rate": 0.05,
            "schedule": "constant",
            "batch_size": 100,
            "keep": "last",
        },
    }
    result = kerascls.train("mnist_cnn_bn", data="data.npz", epochs=5, overrides=change, out="run")
    model = keras.saving.load_model("run/model.keras")
    train = with_all_splits(load_dataset("data.npz"), 0.08, 0.1).splits["train"]
    first = keras.Model(model.inputs, model.get_layer("conv1").output)
    seen = first.predict(np.asarray(train.images, "float32"), verbose=0)
    np.testing.assert_allclose(model.get_layer("bn1").moving_mean, seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.get_layer("bn1").moving_variance, seen.var((0, 1, 2)), rtol=1e-4)
    row = Path("run/history.csv").read_text().splitlines()[-1].split(",")
    assert float(row[4]) == pytest.approx(result.validation["loss"], rel=1e-4)


@pytest.mark.slow
def test_averages_with_moments_and_dropout_go_on_to_the_same_bits(monkeypatch):
    recipe = endure.EVERYTHING.replace("epochs = 8", "epochs = 2\nsteps_per_execution = 5")
    Path("mine.toml").write_text(recipe)
    kerascls.train("mine.toml", out="whole")
    ended(Path("parts"), 8, monkeypatch, recipe="mine.toml", overrides={})
    assert checkpoint.read(Path("parts")).place.step
    assert kerascls.train(resume="parts").status == "complete"
    assert endure.facts(Path("parts")) == endure.facts(Path("whole"))


def test_a_checkpoint_of_another_network_is_refused(monkeypatch):
    ended(Path("run"), 2, monkeypatch)
    state = checkpoint.read(Path("run"))
    state.arrays["weights"].pop()
    checkpoint.write(Path("run"), state)
    with pytest.raises(RunError, match="checkpoint's weights are not those of this training"):
        kerascls.train(resume="run")


@pytest.mark.slow
def test_a_checkpoint_that_says_what_no_training_does_is_refused(monkeypatch):
    """Each part of its JSON, of another type or out of the recipe's range: one line, and the run stays as it was."""
    ended(Path("run"), 2, monkeypatch)
    path = Path("run/checkpoint/state.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    told = json.loads(bytes(arrays["state"]))
    manifest = Path("run/manifest.json").read_bytes()
    assert told["place"] == {"phase": 0, "begin": 0, "epoch": 2, "step": 0, "ended": False}
    row = told["callbacks"]["WriteHistory"]["rows"][0]
    for keys, value, line in (
        (["format"], 2, "format is '2'; this kerascls reads format 1"),
        (["place"], [], "place is '[]'"),
        (["place", "phase"], 2, "place.phase is '2'"),
        (["place", "phase"], 1, "place, epoch 2, is not one of this training"),  # the recipe has no [finetune]
        (["place", "begin"], 1, "place, epoch 2, is not one of this training"),
        (["place", "epoch"], 99, "place, epoch 99, is not one of this training"),
        (["place", "epoch"], -1, "place, epoch -1, is not one of this training"),
        (["place", "step"], 10**6, "place, epoch 2 and 1000000 steps, is not one of this training"),
        (["place", "ended"], "no", "place.ended is 'no'"),
        (["place", "more"], 1, "unexpected keyword argument 'more'"),
        (["arrays", "weights"], {"0": 1}, "arrays.weights is"),
        (["arrays", "weights", 0], 9, "weights/0/1 is not a file"),
        (["progress", "seconds", "epochs"], ["long"], "progress.seconds.epochs.0 is 'long'"),
        (["progress", "seconds", "total"], float("inf"), "Infinity is no finite number"),
        (["progress", "kept_epoch"], {}, "progress.kept_epoch is '{}'"),
        (["callbacks"], {}, "it lacks KeepEpoch"),
        (["callbacks", "KeepEpoch", "best"], "low", "KeepEpoch.best is 'low'"),
        (["callbacks", "WriteHistory", "seconds"], None, "WriteHistory.seconds is 'None'"),
        (["callbacks", "WriteHistory", "rows"], [{**row, "loss": "x"}], "WriteHistory.rows.0.loss is 'x'"),
    ):
        changed = json.loads(json.dumps(told))
        inside = changed
        for key in keys[:-1]:
            inside = inside[key]
        inside[keys[-1]] = value
        np.savez(path, **arrays | {"state": np.frombuffer(json.dumps(changed).encode(), np.uint8)})
        Path("run/manifest.json").write_bytes(manifest)
        with pytest.raises(RunError) as error:
            if line.startswith(("place, ", "KeepEpoch", "WriteHistory", "it lacks")):
                kerascls.train(resume="run")
            else:
                checkpoint.read(Path("run"))
        assert line in str(error.value) and "\n" not in str(error.value), keys
    np.savez(path, **arrays)
    assert kerascls.train(resume="run").status == "complete"


def test_a_damaged_checkpoint_is_not_offered_and_stops_no_other_training(monkeypatch):
    ended(None, 2, monkeypatch)
    Path("saved_models/mnist_cnn-digits/checkpoint/state.npz").write_bytes(b"PK")
    new = kerascls.train("mnist_cnn", data="digits", overrides=SMALL, offer=lambda *_: pytest.fail("offered"))
    assert new.status == "complete" and new.path.name == "mnist_cnn-digits-2"

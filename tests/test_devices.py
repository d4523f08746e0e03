"""Starting TensorFlow without its noise, and saying what there is."""

import csv
import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import REPOSITORY, here, one_line_error, small_npz

import kerascls
from kerascls import devices
from kerascls.data import batches
from kerascls.errors import ConfigError, TrainingFailed
from kerascls.models import build_model
from kerascls.recipes.catalog import recipe_names
from kerascls.recipes.fields import parse_devices
from kerascls.recipes.load import load_config
from kerascls.runs.run import Run
from kerascls.system import machine, tensorflow


@pytest.mark.slow
def test_starting_writes_nothing_and_leaves_the_process_as_it_was():
    program = (
        "import os, logging; env = dict(os.environ); from kerascls.system.tensorflow import start; start(); start(); "
        "import tensorflow as tf; from tensorflow.python.framework import config; "
        "print(config.is_op_determinism_enabled(), tf.zeros(1).shape, tf.get_logger().level, env == dict(os.environ))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (process.stdout, process.stderr) == ("False (1,) 0 True\n", "")


def test_what_went_wrong_while_starting_is_shown():
    program = (
        "import os\nfrom kerascls.system.tensorflow import quiet_stderr\nwith quiet_stderr():\n"
        "    os.write(2, b'the reason\\n')\n    raise SystemExit(3)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (3, "the reason\n")


def test_env_prints_versions_and_devices(capsys):
    code, out, _ = here("env", capsys=capsys)
    assert code == 0
    for key in ("python: ", "tensorflow: 2.21", "keras: 3.15", "kerascls: ", "device: "):
        assert key in out
    assert devices.choose().describe()["deterministic"] is True


def test_a_choice_of_devices_is_read():
    assert parse_devices("auto") == ("auto", ()) and parse_devices("mirrored") == ("mirrored", ())
    assert parse_devices("gpu:1") == ("gpu", (1,)) and parse_devices("cpu:0,1") == ("cpu", (0, 1))
    for wrong in ("", "tpu", "gpu:", "gpu:0,0", "gpu:-1", "auto:0", "cpu:0,", "gpu:1000"):
        assert parse_devices(wrong) is None, wrong


def test_auto_is_tensorflows_own_device_without_a_strategy():
    for choice in ("auto", "cpu", "mirrored"):
        place = devices.choose(choice)
        assert (place.kind, place.devices, place.replicas, place.strategy_name) == ("cpu", ("CPU:0",), 1, "default")
        assert place.precision == "float32" and place.sharing(64) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--devices", "gpu"], "TensorFlow sees no GPU here. Choose auto or cpu"),
        (["--devices", "gpu:0,1"], "sees no GPU here"),
        (["--devices", "cpu:0,1"], "has started with 1 CPU device and cannot make CPU:1 any more"),
        (["--devices", "gpu:0,0"], "must be auto, cpu, gpu, mirrored, or numbers that differ"),
        (["--set", "devices.precision=float16"], "is for GPUs only. Choose float32, bfloat16 or auto."),
        (["--set", "devices.precision=bf16"], "one of float32, bfloat16, float16, auto"),
    ],
)
def test_what_is_not_here_is_one_line_and_leaves_nothing(arguments, words, capsys, tmp_path):
    line = one_line_error("train", "mnist_cnn", "--data", "digits", *arguments, capsys=capsys)
    assert words in line and not list(tmp_path.iterdir())


def test_auto_precision_is_bfloat16_where_the_processor_has_it(monkeypatch):
    for native, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(machine, "cpu_has_bfloat16", lambda native=native: native)
        assert devices.choose("cpu", "auto").precision == precision


@pytest.mark.slow
def test_a_run_in_bfloat16_is_saved_in_float32():
    import keras

    small_npz("data.npz", count=30)
    slow = {"augment": {"policy": []}, "train": {"learning_rate": 1e-3}}
    common = {"data": "data.npz", "epochs": 2, "batch_size": 8, "overrides": slow}
    runs = [kerascls.train("mnist_cnn_bn", precision=name, out=name, **common).path for name in ("bfloat16", "float32")]
    assert [Run.open(run).manifest["device"]["precision"] for run in runs] == ["bfloat16", "float32"]
    models = [keras.saving.load_model(run / "model.keras") for run in runs]
    assert {layer.dtype_policy.name for layer in models[0].layers} == {"float32"}
    assert models[0].get_config() == models[1].get_config()
    differences = [
        np.abs(np.array(a) - np.array(b)).max() for a, b in zip(models[0].weights, models[1].weights, strict=True)
    ]
    assert 0 < max(differences) < 0.05  # it has trained in another precision, to almost the same


@pytest.mark.slow
def test_float16_scales_the_loss_and_is_saved_in_float32(monkeypatch):
    """Keras' loss scaling, tried on the CPU; not run on a GPU."""
    import keras

    small_npz("data.npz", count=30)
    seen = []
    scale_loss = keras.optimizers.LossScaleOptimizer.scale_loss
    monkeypatch.setattr(devices, "_settle_precision", lambda precision, kind, device: precision)
    monkeypatch.setattr(
        keras.optimizers.LossScaleOptimizer, "scale_loss", lambda self, loss: seen.append(1) or scale_loss(self, loss)
    )
    run = kerascls.train("mnist_cnn", data="data.npz", precision="float16", epochs=1, out="run").path
    assert seen and Run.open(run).manifest["device"]["precision"] == "float16"
    assert keras.saving.load_model(run / "model.keras").layers[2].dtype_policy.name == "float32"


def test_out_of_memory_names_a_batch_size_to_try(monkeypatch):
    import tensorflow as tf

    from kerascls.training.step import TrainingModel

    def train_step(self, data):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(TrainingModel, "train_step", train_step)
    small_npz("data.npz", count=30)
    with pytest.raises(TrainingFailed, match="Out of memory at 24 images a step. Try `batch_size` 12."):
        kerascls.train("mnist_cnn", data="data.npz", batch_size=24, out="run")
    assert json.loads(Path("run/manifest.json").read_text())["status"] == "failed"


@pytest.fixture
def three_gpus(monkeypatch):
    """What TensorFlow is told on a machine with three GPUs, in a process that has not begun; not run on a GPU."""
    import tensorflow as tf

    told = SimpleNamespace(visible=["gpu 0", "gpu 1", "gpu 2"], grown=[], running=False)

    def before_it_runs(change):
        def changed(*arguments):
            if told.running:
                raise RuntimeError("cannot be modified after being initialized")
            change(*arguments)

        return changed

    def logical(kind="CPU"):
        return [SimpleNamespace(name=f"/device:{kind}:{i}") for i in range(len(told.visible) if kind == "GPU" else 1)]

    def see(gpus, kind):
        told.visible = gpus

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: told.visible)
    monkeypatch.setattr(tf.config, "list_logical_devices", logical)
    monkeypatch.setattr(tf.config, "set_visible_devices", before_it_runs(see))
    grow = before_it_runs(lambda gpu, on: told.grown.append(gpu))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", grow)
    monkeypatch.setattr(devices, "_mirrored", lambda chosen: None)
    monkeypatch.setattr(machine, "_share", lambda: math.inf)
    for kind in ("seen", "hidden"):
        monkeypatch.setitem(tensorflow.opened_gpus, kind, ())
    monkeypatch.setattr(tensorflow.start, "done", False)
    return told


@pytest.mark.parametrize(
    "choice, opened, strategy, logical",
    [
        ("auto", ["gpu 0"], "default", ("GPU:0",)),
        ("gpu", ["gpu 0"], "default", ("GPU:0",)),
        ("gpu:1", ["gpu 1"], "default", ("GPU:0",)),
        ("gpu:0,2", ["gpu 0", "gpu 2"], "mirrored", ("GPU:0", "GPU:1")),
        ("gpu:2,1", ["gpu 2", "gpu 1"], "mirrored", ("GPU:0", "GPU:1")),
        ("mirrored", ["gpu 0", "gpu 1", "gpu 2"], "mirrored", ("GPU:0", "GPU:1", "GPU:2")),
        ("cpu", [], "default", ("CPU:0",)),
    ],
)
def test_a_training_opens_the_gpus_that_it_asks_for_alone(choice, opened, strategy, logical, three_gpus, capsys):
    place = devices.choose(choice)
    assert three_gpus.visible == three_gpus.grown == opened
    assert (place.strategy_name, place.devices) == (strategy, logical)
    if choice == "gpu:0,2":
        assert place.sharing(64) == "mirrored on GPU:0, GPU:2: 64 images a step, 32 a device"
    assert devices.choose(choice) == place and capsys.readouterr().err == ""


def test_what_does_not_train_opens_the_first_gpu_and_devices_lists_all(three_gpus, monkeypatch):
    tensorflow.start()
    assert three_gpus.visible == three_gpus.grown == ["gpu 0"]
    # No command asks for more.
    calls = re.compile(r"tensorflow\.start\((.*)\)")
    found = [
        call for path in (REPOSITORY / "kerascls").rglob("*.py") for call in calls.findall(path.read_text("utf-8"))
    ]
    assert len(found) > 8 and set(found) == {""}
    three_gpus.visible, three_gpus.grown = ["gpu 0", "gpu 1", "gpu 2"], []
    monkeypatch.setattr(tensorflow.start, "done", False)
    monkeypatch.setattr(devices, "choose", lambda *wish: SimpleNamespace(describe=dict))
    devices.survey()
    assert three_gpus.visible == three_gpus.grown == ["gpu 0", "gpu 1", "gpu 2"]


@pytest.mark.parametrize(
    "first, then, told",
    [
        ("auto", "gpu:1", "this process began with GPU:0, and TensorFlow cannot open GPU:1 any more. Choose it in the"),
        ("auto", "mirrored", "devices.devices = mirrored: this process began with GPU:0, and TensorFlow cannot open"),
        ("gpu:1", "gpu:0,1", "this process began with GPU:1, and TensorFlow cannot open GPU:0 any more."),
        ("cpu", "gpu", "this process began with the CPU, and TensorFlow cannot open GPU:0 any more."),
        ("cpu", "mirrored", "this process began with the CPU"),
        ("gpu:1", "gpu:7", "there is no GPU:7. This machine has GPU:0, GPU:1, GPU:2."),
        ("gpu:1", "cpu:1", "has started with 1 CPU device and cannot make CPU:1 any more."),
    ],
)
def test_a_gpu_that_cannot_be_opened_any_more_is_one_line(first, then, told, three_gpus):
    devices.choose(first)
    with pytest.raises(ConfigError, match=re.escape(told)):
        devices.choose(then)


def test_a_gpu_that_is_not_here_leaves_the_first_for_the_next_training(three_gpus):
    with pytest.raises(ConfigError, match=re.escape("there is no GPU:7. This machine has GPU:0, GPU:1, GPU:2.")):
        devices.choose("gpu:7")
    assert devices.choose("gpu").devices == ("GPU:0",) and three_gpus.visible == ["gpu 0"]


@pytest.mark.parametrize("choice, logical", [("gpu:1", "GPU:1"), ("cpu", "CPU:0"), ("mirrored", "GPU:2")])
def test_what_a_running_tensorflow_keeps_is_told_once(choice, logical, three_gpus, capsys, monkeypatch):
    three_gpus.running = True
    place = devices.choose(choice)
    devices.choose(choice)
    stays = "" if choice == "mirrored" else "all 3 GPUs that it sees stay open; "
    assert capsys.readouterr().err == (
        f"TensorFlow ran in this process before kerascls, so that {stays}GPU memory does not grow as needed. Call "
        "kerascls first to have it otherwise.\n"
    )
    assert place.devices[-1] == logical and len(three_gpus.visible) == 3


@pytest.mark.slow
def test_threads_beyond_a_containers_share_are_told_where_tensorflow_runs_already():
    program = """
import tensorflow as tf
tf.zeros(1)
from kerascls.system import machine, tensorflow
machine.schedulable, machine.cores = (lambda: 64), (lambda: 2)
tensorflow.start(), tensorflow.start()
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [line for line in process.stderr.splitlines() if "kerascls" in line] == [
        "TensorFlow ran in this process before kerascls, so that it has more threads than this container's 2 cores. "
        "Call kerascls first to have it otherwise."
    ]


def test_xla_that_cannot_be_is_said(capsys):
    small_npz("data.npz", count=30)
    arguments = ["--epochs", 1, "--set", "devices.xla=true", "--devices", "mirrored"]
    code, _, err = here("train", "mnist_cnn", "--data", "data.npz", *arguments, capsys=capsys)
    assert code == 0 and "devices.xla is off: it needs one GPU" in err
    assert "devices.devices = mirrored: there is one device, CPU:0" in err


def test_devices_says_what_each_choice_would_be(capsys):
    code, out, _ = here("devices", "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0 and found["devices"] == ["CPU:0"] and set(found["choices"]) == {"auto", "cpu", "gpu", "mirrored"}
    assert found["choices"]["cpu"]["device"]["strategy"] == "default"
    assert "sees no GPU" in found["choices"]["gpu"]["error"]
    assert "gpu       devices.devices = gpu: TensorFlow sees no GPU here." in here("devices", capsys=capsys)[1]


# Two logical CPU devices, which only a fresh process can have.

ON_TWO = """
import csv, json, sys
import kerascls
from kerascls.runs.run import Run

def histories(model, data, epochs, batch_size, **train):
    found = {}
    for choice in ("cpu", "cpu:0,1"):
        name = f"{model}-{data}-{choice[4:] or 'one'}"
        result = kerascls.train(
            model, data=data, devices=choice, epochs=epochs, batch_size=batch_size, out=name,
            overrides={
                "augment": {"policy": []},
                "data": {"validation": "test"},
                "train": {"keep": "last", "samples": 1, "optimizer": "sgd", "schedule": "constant", "warmup_epochs": 0,
                          "weight_decay": 0, "learning_rate": 0.05, **train},
            },
        )
        with open(f"{name}/history.csv") as file:
            rows = [[float(row[key]) for key in ("loss", "accuracy", "val_loss", "val_accuracy")]
                    for row in csv.DictReader(file)]
        found[choice] = {"rows": rows, "test": result.test, "device": Run.open(name).manifest["device"]}
    return found
"""


def on_two(program, *arguments):
    """Runs `program` where `cpu:0,1` is the first choice of a process, and returns what it prints as JSON."""
    first = "from kerascls import devices\ndevices.choose('cpu:0,1')\n"
    process = subprocess.run(
        [sys.executable, "-c", first + ON_TWO + program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def assert_alike(found, tolerance):
    one, two = found["cpu"], found["cpu:0,1"]
    assert (one["device"]["strategy"], one["device"]["count"]) == ("default", 1)
    assert (two["device"]["strategy"], two["device"]["count"]) == ("mirrored", 2)
    for row, other in zip(one["rows"], two["rows"], strict=True):
        assert all(math.isfinite(number) for number in other)
        assert other[0] == pytest.approx(row[0], rel=tolerance)
        assert other[2] == pytest.approx(row[2], rel=10 * tolerance)
        assert other[1::2] == pytest.approx(row[1::2], abs=0.1 if tolerance > 1e-3 else 0.004)  # 2 images of 516
    assert two["test"]["examples"] == one["test"]["examples"]
    assert two["test"]["loss"] == pytest.approx(one["test"]["loss"], rel=10 * tolerance)


@pytest.mark.slow
def test_shards_give_each_operation_one_thread_and_train_on_one_cpu_alone():
    program = """
import json
from kerascls import devices
from kerascls.recipes.load import load_config
wish = load_config("mnist_cnn").devices
devices.prepare(wish)
here, two = devices.placement_for(wish), devices.choose("cpu", shards=3)
print(json.dumps([here.shards, here.threads, here.describe()["threads"], two.shards]))
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == [2, 1, 1, 3]
    assert on_two("print(json.dumps(devices.choose('cpu:0,1', shards=2).shards))") == 1
    # TensorFlow runs here already: what it has is told.
    assert devices.choose("cpu", shards=2).describe()["threads"] == machine.cores()


@pytest.mark.slow
def test_a_batch_is_whole_where_batch_normalisation_takes_its_moments(capsys):
    small_npz("data.npz", count=33)
    results = []
    for shards in (1, 2):
        arguments = ["--data", "data.npz", "--epochs", 1, "--set", "train.warmup_epochs=0", "--out", f"run{shards}"]
        code, _, err = here("train", "mnist_cnn_bn", *arguments, "--set", f"devices.shards={shards}", capsys=capsys)
        assert code == 0 and ("devices.shards is 1 here" in err) == (shards == 2)
        results.append(Path(f"run{shards}/metrics.json").read_bytes())
    assert results[0] == results[1]
    for name in recipe_names():  # none of ours asks for what cannot be
        config = load_config(name)
        if config.devices.shards > 1:
            layers = build_model(config.model.name, (32, 32, 3), 10, **config.model.options)._flatten_layers()
            assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers), name


@pytest.mark.parametrize(
    "count", [pytest.param(35, marks=pytest.mark.slow), 33]
)  # a last batch of 3, shared 2 and 1; of 1, of which a replica gets none
def test_two_devices_train_as_one(count):
    test = small_npz("test.npz", count=9)
    with np.load(test) as arrays:
        small_npz("data.npz", count=count, x_test=arrays["x_test"], y_test=arrays["y_test"])
    assert_alike(on_two('print(json.dumps(histories("mnist_cnn_bn", "data.npz", 2, 16)))'), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape", "count", "tolerance"),
    [
        ("mnist_cnn", (28, 28, 1), 516, 1e-5),
        ("mnist_cnn", (28, 28, 1), 513, 1e-5),
        ("cifar_cnn_bn", (32, 32, 3), 516, 1e-4),  # 1e-7 to 2e-5, by the machine
        ("cifar_cnn_bn", (32, 32, 3), 513, 1e-3),  # the last batch is one image, by whose moments alone it is normed
    ],
)
def test_two_devices_train_as_one_for_three_epochs_of_many_batches(model, shape, count, tolerance):
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (count + 100, *shape), np.uint8)
    labels = np.arange(count + 100) % 10
    np.savez("data.npz", x_train=images[100:], y_train=labels[100:], x_test=images[:100], y_test=labels[:100])
    program = f'print(json.dumps(histories("{model}", "data.npz", 3, 64, optimizer="adam", learning_rate=1e-3)))'
    assert_alike(on_two(program), tolerance)


@pytest.mark.slow
def test_replicas_draw_augmentation_and_dropout_of_their_own():
    program = """
import keras, numpy as np, tensorflow as tf
from kerascls.augmentation import policy
from kerascls.training.callbacks.epoch_state import EpochState
from kerascls.training.step import TrainingModel

seen = []
def probe(images, labels, seed, *, unused=0):
    tf.numpy_function(lambda value: seen.append(value.tolist()) or value, [seed], tf.int32)
    return images, labels
policy.augmentation = lambda name: probe
found = {}
for choice in ("cpu", "cpu:0,1"):
    seen.clear()
    place = devices.choose(choice)
    with place.strategy.scope():
        layers = [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(2, "softmax")]
        classifier = keras.Sequential([keras.Input((4, 4, 1)), *layers])
        model = TrainingModel(classifier, [{"name": "probe"}], seed=3)
        model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    state = EpochState(3)
    state.set_model(model)
    state.on_epoch_begin(2)
    generator = model.classifier.layers[1].seed_generator.state.value
    states = [part.numpy().tolist() for part in place.strategy.experimental_local_results(generator)]
    images, labels = np.zeros((4, 4, 4, 1), "uint8"), np.eye(2, dtype="float32")[[0, 1, 0, 1]]
    model.fit(tf.data.Dataset.from_tensors((images, labels)), verbose=0, shuffle=False)
    found[choice] = {"seeds": sorted(seen), "states": states}
print(json.dumps(found))
"""
    found = on_two(program)
    one, two = found["cpu"], found["cpu:0,1"]
    assert len(one["seeds"]) == len(one["states"]) == 1 and one["states"] == [[3 * 1009, 2 << 20]]
    assert len(two["seeds"]) == 2 and two["seeds"][0] != two["seeds"][1] and one["seeds"][0] in two["seeds"]
    assert two["states"][0] == one["states"][0] and two["states"][1] != one["states"][0]


@pytest.mark.slow
def test_a_device_that_is_not_tensorflows_own_trains_and_scores():
    small_npz("data.npz", count=12)
    program = """
from kerascls import devices
result = kerascls.train("mnist_cnn", data="data.npz", epochs=1, devices="cpu:1", out="run")
print(json.dumps([Run.open("run").manifest["device"], result.test["examples"]]))
"""
    device, examples = on_two(program)
    assert (device["strategy"], device["count"], examples) == ("one_device", 1, 12)


@pytest.mark.slow
def test_batches_lie_on_the_device_ahead_with_the_bits_order_and_places_that_they_had():
    """As on a GPU, tried on a second logical CPU device; not run on a GPU."""
    program = """
import itertools, numpy as np, tensorflow as tf
from kerascls.data.dataset import Split
from kerascls.data.batches import TrainingBatches, ahead_on
images = np.arange(11 * 4 * 4, dtype=np.uint8).reshape(11, 4, 4, 1)
batches = TrainingBatches(Split(images, np.arange(11) % 3, np.arange(11)), 3, 4, seed=5)

def taken(dataset, count):
    return [[part.numpy().tolist() for part in batch] for batch in itertools.islice(dataset, count)]

ahead = {part.device[-5:] for part in next(iter(ahead_on("CPU:1", batches.dataset())))}
plain = taken(batches.dataset(), 9)
iterator = iter(ahead_on("CPU:1", batches.dataset()))

@tf.function(autograph=False)
def two(iterator):  # inside a function, as a step takes them
    return next(iterator), next(iterator)

same = [[part.numpy().tolist() for part in batch] for _ in range(3) for batch in two(iterator)] == plain[:6]
resumed = taken(ahead_on("CPU:1", batches.dataset(1, 2)), 4) == plain[5:]
print(json.dumps([sorted(ahead), same, resumed, len(plain[2][0])]))
"""
    assert on_two(program) == [["CPU:1"], True, True, 3]


def test_a_training_on_a_gpu_takes_batches_that_lie_there(monkeypatch):
    """The default road of a GPU, with the CPU in its place; not run on a GPU."""
    small_npz("data.npz", count=30)
    change = {"augment": {"policy": []}}
    runs = [kerascls.train("mnist_cnn", data="data.npz", epochs=2, batch_size=8, out="one", overrides=change).path]
    asked, plain = [], batches.ahead_on
    choose, describe = devices.choose, devices.Placement.describe
    monkeypatch.setattr(devices, "choose", lambda *wish: dataclasses.replace(choose(*wish), kind="gpu"))
    monkeypatch.setattr(devices.Placement, "describe", lambda self: describe(dataclasses.replace(self, kind="cpu")))
    monkeypatch.setattr(batches, "ahead_on", lambda device, fed: asked.append(device) or plain(device, fed))
    runs.append(kerascls.train("mnist_cnn", data="data.npz", epochs=2, batch_size=8, out="two", overrides=change).path)
    assert asked == ["CPU:0"]
    losses = [[row["loss"] for row in csv.DictReader((run / "history.csv").read_text().splitlines())] for run in runs]
    assert losses[0] == losses[1] and len(losses[0]) == 2


@pytest.mark.slow
def test_different_networks_train_in_turn_on_the_same_devices_in_any_thread():
    small_npz("data.npz", count=12)
    program = """
import threading
def train(model):
    results[model] = kerascls.train(model, data="data.npz", epochs=1, devices="cpu:0,1", out=model, overrides=change)
results, change = {}, {"augment": {"policy": []}, "train": {"ema_momentum": 0.5}}  # batch normalisation of averages too
train("mnist_cnn_bn")
thread = threading.Thread(target=train, args=("mnist_cnn",))
thread.start()
thread.join()
swept = kerascls.sweep(
    "mnist_cnn", {"model.name": ["mnist_cnn_bn", "mnist_cnn"]}, data="data.npz", epochs=1, devices="cpu:0,1"
)
strategies = {id(devices.choose("cpu:0,1").strategy) for _ in range(2)}
print(json.dumps([[result.status for result in results.values()], swept.status, len(swept.trials), len(strategies)]))
"""
    assert on_two(program) == [["complete"] * 2, "complete", 2, 1]


@pytest.mark.slow
def test_devices_that_the_caller_made_are_shared_by_mirrored():
    small_npz("data.npz", count=12)
    program = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import kerascls
result = kerascls.train("mnist_cnn", data="data.npz", epochs=1, devices="mirrored", out="run")
from kerascls.runs.run import Run
print(Run.open("run").manifest["device"]["count"])
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.stdout == "2\n", process.stderr


def test_a_device_beyond_those_there_are_is_named():
    with pytest.raises(ConfigError, match="cannot make CPU:7 any more"):
        devices.choose("cpu:7")


def test_cores_are_those_of_the_affinity_and_of_the_containers_share(tmp_path, monkeypatch):
    """A container of 1.5 cores on a machine of many: two threads, not many that are stopped all at once."""

    def share(groups, **files):
        for name, text in {"proc/self/cgroup": groups, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return machine._share(tmp_path)

    top = "sys/fs/cgroup"

    assert machine._share(tmp_path) == math.inf
    assert share("0::/a/b\n") == math.inf
    assert share("0::/a/b\n", **{f"{top}/a/b/cpu.max": "max 100000\n"}) == math.inf
    above = {f"{top}/a/b/cpu.max": "800000 100000\n", f"{top}/a/cpu.max": "150000 100000\n"}
    assert share("0::/a/b\n", **above) == 1.5
    assert share("0::/of/the/host\n", **{f"{top}/cpu.max": "50000 100000\n"}) == 0.5
    docker = {f"{top}/cpu/d/cpu.cfs_quota_us": "300000\n", f"{top}/cpu/d/cpu.cfs_period_us": "100000\n"}
    assert share("4:memory:/d\n3:cpu,cpuacct:/d\n", **docker) == 3
    assert share("3:cpu,cpuacct:/d\n", **{f"{top}/cpu/d/cpu.cfs_quota_us": "-1\n"}) == math.inf
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    for share, cores in ((math.inf, 64), (1.5, 2), (0.2, 1), (100.0, 64)):
        monkeypatch.setattr(machine, "_share", lambda share=share: share)
        assert machine.cores() == cores


def test_nothing_counts_cores_by_itself():
    """One function says how many there are; a container's share or an affinity is nowhere forgotten."""
    counting = re.compile(r"cpu_count|sched_getaffinity")
    found = {path.name for path in (REPOSITORY / "kerascls").rglob("*.py") if counting.search(path.read_text("utf-8"))}
    assert found == {"machine.py"}

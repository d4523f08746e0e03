"""Transfer models and fine-tuning: preprocessing, weights, what trains and what does not."""

import csv
import http.server
import importlib
import json
import threading
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import here, one_line_error, tiny_transfer
from keras.src.utils import file_utils

import kerascls
from kerascls.data.batches import scoring_batch_size
from kerascls.errors import ConfigError, ModelError, TrainingFailed, WeightsMissing
from kerascls.models import build_model, transfer
from kerascls.recipes.catalog import backbones
from kerascls.system.atomic_files import alone
from kerascls.training.callbacks.saving import KeepEpoch
from kerascls.training.finetuning import unfreeze_backbone
from kerascls.training.step import TrainingModel

RECIPE = """dense = 4

[train]
epochs = 2
batch_size = 8
learning_rate = 0.01

[finetune]
epochs = 2
unfreeze = "conv2"
learning_rate = 0.001
"""


@pytest.fixture
def tiny(empty_folder):
    return tiny_transfer(RECIPE, count=24)


@pytest.mark.parametrize(
    "recipe, total, trainable",
    [
        ("resnet50", 23_850_242, 262_530),
        pytest.param("articles/avp_resnet50", 23_850_242, 262_530, marks=pytest.mark.slow),
        pytest.param("articles/caltech10_resnet50", 24_114_826, 527_114, marks=pytest.mark.slow),
    ],
)
def test_resnet50_with_its_head_has_the_articles_parameters(recipe, total, trainable, capsys):
    code, out, _ = here("summary", recipe, "--json", capsys=capsys)
    found = json.loads(out)
    assert (code, found["total"], found["trainable"]) == (0, total, trainable)
    assert [layer["parameters"] for layer in found["layers"] if layer["name"] == "backbone"] == [23_587_712]


def test_a_head_begins_by_kerass_rule_or_by_pytorchs(tiny):
    options = {"backbone": "tiny.keras", "pixel_range": [-1, 1], "dense": 4}
    for name, width in (("dense", 8), ("classes", 4)):  # inputs of each
        kernel, bias = (
            build_model("transfer", (12, 12, 3), 3, initializer="pytorch", **options).get_layer(name).get_weights()
        )
        for values in (kernel, bias):
            assert 0 < np.abs(values).max() <= width**-0.5
        assert not build_model("transfer", (12, 12, 3), 3, **options).get_layer(name).get_weights()[1].any()


# Preprocessing


def preprocessing_model(flip, scale, offset):
    inputs = keras.Input((4, 5, 3))
    outputs = transfer.preprocess(inputs, flip, scale, offset)
    return keras.Model(inputs, keras.layers.Activation("linear")(outputs))


@pytest.mark.parametrize("module", sorted(set(backbones().values())))
def test_each_familys_pixels_are_what_its_preprocess_input_makes_of_them(module):
    name = next(name for name, its_module in backbones().items() if its_module == module)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype("float32")
    wanted = importlib.import_module(f"keras.applications.{module}").preprocess_input(images.copy())
    answer = preprocessing_model(*transfer.preprocessing(name))(images)
    assert np.allclose(answer, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name, pixel",
    [
        ("ResNet50", (128 - 103.939, -116.779, 255 - 123.68)),  # blue, green, red, less ImageNet's mean
        ("MobileNetV2", (1, -1, 128 / 127.5 - 1)),
        ("DenseNet121", ((1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225)),
        ("EfficientNetB0", (255, 0, 128)),
    ],
)
def test_a_pixel_worked_by_hand(name, pixel):
    image = np.broadcast_to(np.array([255, 0, 128], np.uint8), (1, 4, 5, 3))
    answer = np.array(preprocessing_model(*transfer.preprocessing(name))(image))
    assert np.allclose(answer, pixel, rtol=1e-6, atol=1e-6)


def test_the_turn_from_rgb_to_bgr_outlives_every_file_format(empty_folder):
    model = preprocessing_model(True, [1.0, 0.5, 2.0], [1.0, 2.0, 3.0])
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    wanted = images[..., ::-1] * np.float32([1, 0.5, 2]) + np.float32([1, 2, 3])
    assert np.array_equal(model(images), wanted)
    for file in ("model.keras", "model.h5"):
        model.save(file)
        assert np.array_equal(keras.saving.load_model(file)(images), wanted), file
    assert np.array_equal(keras.models.model_from_json(model.to_json())(images), wanted)


def test_a_backbone_by_path_gets_its_pixel_range(tiny):
    model = build_model("transfer", (6, 6, 3), 2, backbone="tiny.keras", pixel_range=[-1, 1])
    black_and_white = np.stack([np.zeros((6, 6, 3), np.uint8), np.full((6, 6, 3), 255, np.uint8)])
    scaled = keras.Model(model.input, model.get_layer("scale").output)(black_and_white)
    assert np.array_equal(np.unique(scaled[0]), [-1]) and np.allclose(scaled[1], 1, rtol=0, atol=1e-6)


def test_gray_images_are_repeated_to_rgb(tiny):
    options = {"backbone": "tiny.keras", "pixel_range": [0, 1]}
    gray, rgb = (build_model("transfer", (6, 6, channels), 2, **options) for channels in (1, 3))
    rgb.set_weights(gray.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 1), np.uint8)
    assert np.array_equal(gray(image), rgb(np.repeat(image, 3, axis=-1)))


# Weights


def test_weights_that_cannot_be_had_are_one_line_with_three_ways_on(tiny, capsys, monkeypatch):
    monkeypatch.setattr(transfer, "keras_home", lambda: "cache")
    line = one_line_error("train", "folder", "--data", "small.npz", "--out", "run", capsys=capsys)
    for part in (
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        f"into {Path('cache', 'models')}",
        "--set model.weights=PATH",
        "`kerascls train folder_scratch --data small.npz`",
    ):
        assert part in line
    assert not Path("run").exists() and not Path("cache").exists()


def test_weights_in_kerass_cache_or_in_a_file_need_no_network(empty_folder, monkeypatch):
    monkeypatch.setattr(transfer, "keras_home", lambda: "cache")
    Path("cache/models").mkdir(parents=True)
    source = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    source.save("cache/models/mobilenet_1_0_224_tf_no_top.h5")
    Path("mine.h5").write_bytes(Path("cache/models/mobilenet_1_0_224_tf_no_top.h5").read_bytes())
    for weights in ("imagenet", "mine.h5"):
        model = build_model("transfer", (32, 32, 3), 2, backbone="MobileNet", weights=weights)
        for ours, theirs in zip(model.get_layer("backbone").get_weights(), source.get_weights(), strict=True):
            assert np.array_equal(ours, theirs)
    with pytest.raises(ModelError, match=r"mine.h5 do not fit MobileNetV2 without its top .*Expected .* mobilenet_v2_"):
        build_model("transfer", (32, 32, 3), 2, backbone="MobileNetV2", weights="mine.h5")


def test_a_damaged_file_in_the_cache_is_not_taken_for_weights(empty_folder, monkeypatch):
    monkeypatch.setattr(transfer, "keras_home", lambda: "cache")
    Path("cache/models").mkdir(parents=True)
    Path("cache/models/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"cut short")
    with pytest.raises(WeightsMissing, match="ResNet50 are not here"):
        build_model("transfer", (32, 32, 3), 2)


@pytest.mark.slow
def test_random_weights_are_said_in_capitals_and_ever_after(tiny, capsys):
    code, _, err = here(
        "train", tiny, "--set", "model.weights=none", "--set", "finetune.epochs=0", "--out", "run", capsys=capsys
    )
    said = "THE BACKBONE HAS RANDOM WEIGHTS"
    assert code == 0 and said in err
    assert json.loads(Path("run/manifest.json").read_text())["parameters"]["random_backbone"] is True
    assert said in here("evaluate", "run", capsys=capsys)[2]
    assert said in here("predict", "run", "run/samples/000.png", capsys=capsys)[2]
    ours = kerascls.load("run").keras_model.get_layer("backbone").get_weights()
    file = keras.saving.load_model("tiny.keras").get_weights()
    assert not np.array_equal(ours[0], file[0])


# What trains


def train_graph(model):
    """Kinds of the operations that one training step of `model`, which is compiled, runs.

    The tape also writes down gradients that nobody asks for; TensorFlow prunes them, as this does.
    """
    shapes = [
        tf.TensorSpec((4, *model.classifier.input_shape[1:])),
        tf.TensorSpec((4, model.classifier.output_shape[1])),
    ]
    step = tf.function(lambda images, labels: model.train_step((images, labels)), autograph=False)
    model(np.zeros(shapes[0].shape, "float32"))
    model.optimizer.build(model.trainable_variables)
    graph = step.get_concrete_function(*shapes).graph
    reached, waiting = set(), [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    while waiting:
        operation = waiting.pop()
        if operation not in reached:
            reached.add(operation)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return [operation.type for operation in reached]


def test_a_frozen_backbone_is_not_differentiated_through(tiny):
    classifier = build_model("transfer", (12, 12, 3), 2, backbone="tiny.keras", pixel_range=[-1, 1])
    model = TrainingModel(classifier)
    model.compile("adam", "categorical_crossentropy")
    kinds = train_graph(model)
    assert kinds.count("Conv2D") == 2
    assert not [kind for kind in kinds if kind.startswith("Conv2DBackprop")]
    unfreeze_backbone(classifier, "conv2")
    model = TrainingModel(classifier)
    model.compile("adam", "categorical_crossentropy")
    kinds = train_graph(model)
    assert (kinds.count("Conv2DBackpropFilter"), kinds.count("Conv2DBackpropInput")) == (1, 0)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_fine_tuning_changes_what_it_unfreezes_and_nothing_else(tiny, precision):
    result = kerascls.train(tiny, out="run", precision=precision, overrides={"train": {"keep": "last"}})
    with open("run/history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[1]["learning_rate"]) == pytest.approx(0.01)
    assert float(rows[2]["learning_rate"]) <= 0.001
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert (result.status, manifest["kept_epoch"], len(manifest["seconds"]["epochs"])) == ("complete", 4, 4)
    head, conv2 = 8 * 4 + 4 + 4 * 3 + 3, 3 * 3 * 4 * 8 + 8
    assert manifest["parameters"]["trainable"] == head
    assert manifest["parameters"]["finetuned"] == head + conv2
    model = keras.saving.load_model("run/model.keras")
    tuned, before = model.get_layer("backbone"), keras.saving.load_model("tiny.keras")
    for name in ("conv1", "bn1", "bn2"):
        for ours, theirs in zip(tuned.get_layer(name).get_weights(), before.get_layer(name).get_weights(), strict=True):
            assert np.array_equal(ours, theirs), name
    assert not np.array_equal(tuned.get_layer("conv2").get_weights()[0], before.get_layer("conv2").get_weights()[0])
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == head + conv2


@pytest.mark.slow
def test_a_loss_that_becomes_infinite_in_the_second_phase_ends_it_there(tiny):
    with pytest.raises(TrainingFailed, match="in epoch 3"):
        kerascls.train(tiny, out="run", overrides={"finetune": {"learning_rate": 1e30, "schedule": "constant"}})
    assert json.loads(Path("run/manifest.json").read_text())["kept_epoch"] in (1, 2)


@pytest.mark.slow
def test_ctrl_c_between_the_phases_keeps_the_first(tiny, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kerascls.training.finetuning.unfreeze_backbone", interrupt)
    result = kerascls.train(tiny, out="run")
    assert result.status == "interrupted" and result.kept_epoch in (1, 2) and result.test is not None


@pytest.mark.parametrize(
    "views, precision, ema",
    [
        (0, "float32", 0.5),
        pytest.param(0, "bfloat16", 0.0, marks=pytest.mark.slow),
        pytest.param(1, "float32", 0.0, marks=pytest.mark.slow),
    ],
)
def test_fine_tuning_begins_from_the_kept_epoch(tiny, monkeypatch, views, precision, ema):
    original = KeepEpoch.on_epoch_end
    decreed = [3.0, 1.0, 2.0, 4.0, 5.0]  # the second is the best, whatever it is
    monkeypatch.setattr(
        KeepEpoch, "on_epoch_end", lambda self, epoch, logs: original(self, epoch, {"val_loss": decreed[epoch]})
    )
    change = {
        "train": {"epochs": 3, "ema_momentum": ema},
        "finetune": {"learning_rate": 1e-20},  # with which nothing changes
        "features": {"views": views},
        "devices": {"precision": precision},
    }
    assert kerascls.train(tiny, out="run", overrides=change).kept_epoch == 2
    with open("run/history.csv", encoding="utf-8") as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    assert abs(losses[2] / losses[1] - 1) > 1e-4
    assert losses[3:] == pytest.approx([losses[1]] * 2, rel=1e-5)


@pytest.fixture
def phases(monkeypatch):
    """(first step, steps with augmentation) of each phase that is trained."""
    made = []
    original = TrainingModel.__init__

    def init(self, *arguments, **more):
        original(self, *arguments, **more)
        made.append((self.first_step, self.policy_steps))

    monkeypatch.setattr(TrainingModel, "__init__", init)
    return made


@pytest.mark.slow
def test_a_phase_that_stops_early_shortens_what_until_is_a_share_of(tiny, phases):
    change = {
        "train": {"epochs": 8, "early_stopping_patience": 1, "learning_rate": 1e-20},
        "augment": {"policy": [{"name": "flip"}], "until": 0.5},
    }
    kerascls.train(tiny, out="run", overrides=change)
    steps = 3
    # Ten epochs are planned. After two, of which the second is no better, [train] stops: of four, two are augmented.
    assert phases == [(0, 5 * steps), (2 * steps, 2 * steps)]


@pytest.mark.slow
def test_augmentation_goes_on_counting_its_steps_in_the_second_phase(tiny, phases):
    kerascls.train(tiny, out="run", overrides={"augment": {"policy": [{"name": "flip"}], "until": 0.75}})
    steps = 3  # 24 images, of which validation takes a tenth: 22 in batches of 8
    assert phases == [(0, 3 * steps), (2 * steps, 3 * steps)]


def test_large_images_are_scored_in_smaller_batches():
    assert [scoring_batch_size((side, side, 3)) for side in (28, 64, 96, 224, 1000)] == [256, 256, 113, 32, 32]


# A run stands alone


def test_a_run_keeps_the_best_epoch_of_both_phases_and_needs_no_backbones_file(tiny):
    backbone = Path("tiny.keras").resolve()
    kerascls.train(tiny, out="run", overrides={"model": {"backbone": str(backbone)}})
    with open("run/history.csv", encoding="utf-8") as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["kept_epoch"] == manifest["best_epoch"] == np.argmin(losses) + 1
    assert tomllib.loads(Path("run/config.toml").read_text())["model"]["backbone"] == "tiny.keras"
    for file in Path("run").glob("*.*"):
        if file.suffix in (".toml", ".json", ".csv"):
            assert str(backbone.parent) not in file.read_text(), file
    backbone.unlink()
    assert kerascls.load("run").probabilities(np.zeros((1, 12, 12, 3), np.uint8)).shape == (1, 3)
    assert kerascls.evaluate("run").scores["examples"] == 24


# Bad input


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"model": {"backbone": "Resnet50"}}, "no network 'Resnet50'. Did you mean ResNet50?"),
        ({"model": {"backbone": "nothing.keras"}}, "file nothing.keras does not exist"),
        ({"model": {"pixel_range": []}}, "model.pixel_range must say in what range tiny.keras takes its pixels"),
        ({"model": {"pixel_range": [1, -1]}}, "low below high"),
        ({"model": {"pixel_range": ["a", 1]}}, "low below high"),
        ({"model": {"weights": "imagnet"}}, "Did you mean imagenet?"),
        ({"model": {"weights": "nothing.h5"}}, "file nothing.h5 does not exist"),
        ({"finetune": {"unfreeze": 0}}, "finetune.unfreeze must say"),
    ],
)
def test_faults_of_a_recipe_are_told_before_anything_runs(tiny, change, fault):
    with pytest.raises(ConfigError) as error:
        kerascls.train(tiny, out="run", overrides=change)
    assert fault in str(error.value)


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"finetune": {"unfreeze": "conv3"}}, "no layer of the backbone begins with 'conv3'. Did you mean conv"),
        ({"finetune": {"unfreeze": 2}}, "leaves nothing to train: bn2, relu2"),
        ({"data": {"image_shape": [12, 12, 1]}, "model": {"backbone": "gray.keras"}}, "gray.keras takes"),
        ({"model": {"backbone": "broken.keras"}}, "broken.keras cannot be loaded"),
    ],
)
def test_what_does_not_fit_is_one_error_and_writes_nothing(tiny, change, fault):
    inputs = keras.Input((12, 12, 1))
    keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs)).save("gray.keras")
    Path("broken.keras").write_bytes(Path("tiny.keras").read_bytes()[:500])
    with pytest.raises(ModelError) as error:
        kerascls.train(tiny, out="run", overrides=change)
    assert fault in str(error.value) and "\n" not in str(error.value)
    assert not Path("run").exists()


def test_a_model_without_a_backbone_cannot_be_fine_tuned(tiny):
    with pytest.raises(ModelError, match="mnist_cnn has no backbone"):
        kerascls.train("mnist_cnn", data="digits", overrides={"finetune": {"epochs": 1, "unfreeze": 1}}, out="run")


def test_a_recipe_without_data_asks_for_it(capsys):
    assert "--data" in one_line_error("train", "folder", capsys=capsys)


@pytest.mark.slow
def test_the_folder_recipe_from_scratch_trains(tiny):
    small = {"data": {"image_shape": [32, 32, 3]}}
    result = kerascls.train("folder_scratch", data="small.npz", epochs=1, overrides=small, out="run")
    assert result.status == "complete" and result.test["examples"] == 24


@pytest.fixture
def weights_server(monkeypatch, tmp_path):
    """What a network is downloaded from: `answer` is sent, under a declared length of 1000 bytes."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(transfer, "keras_home", lambda: str(tmp_path / "keras"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()

        def do_GET(self):
            server.asked += 1
            self.do_HEAD()
            self.wfile.write(server.answer)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.answer = 0, b"w" * 1000
        server.place = tmp_path / "keras" / "models"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def fetched(server):
    with transfer._weights_from(None, "Net"):
        return file_utils.get_file("w.h5", f"http://127.0.0.1:{server.server_port}/w.h5", cache_subdir="models")


def test_a_download_is_whole_or_absent(weights_server):
    weights_server.answer = b"w" * 400  # and the connection ends
    with pytest.raises(WeightsMissing, match=r"weights of Net cannot be downloaded .*Put w.h5 .* into"):
        fetched(weights_server)
    assert [path.name for path in weights_server.place.iterdir() if path.name != ".w.h5.lock"] == []
    weights_server.answer = b"w" * 1000
    assert Path(fetched(weights_server)).read_bytes() == b"w" * 1000
    assert fetched(weights_server) and weights_server.asked == 2


def test_two_processes_download_once(weights_server, capsys):
    weights_server.place.mkdir(parents=True)
    found = []
    with alone(weights_server.place / ".w.h5.lock", "never said"):
        second = threading.Thread(target=lambda: found.append(fetched(weights_server)))
        second.start()
        second.join(1.0)
        assert second.is_alive() and found == []
        (weights_server.place / "w.h5").write_bytes(b"first")
    second.join(10)
    assert Path(found[0]).read_bytes() == b"first" and weights_server.asked == 0
    assert "Another process downloads w.h5: waiting for it." in capsys.readouterr().err


# A classifier in the place of a backbone


def test_a_run_is_a_backbone_without_its_head(digits_run):
    run = kerascls.load(digits_run)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    (last,) = [layer for layer in run.keras_model.layers if isinstance(layer, keras.layers.Dense)]
    expected = keras.Model(run.keras_model.inputs[0], last.input)(images.astype("float32"))
    # The range that a recipe states, as `folder` does, is that of files of others.
    for backbone, stated in ((digits_run, []), (digits_run / "model.keras", []), (digits_run, [-1, 1])):
        model = build_model("transfer", (28, 28, 1), 3, backbone=str(backbone), pixel_range=stated)
        base = model.get_layer("backbone")
        assert np.allclose(base(images.astype("float32")), expected, atol=1e-6)
        assert base.output_shape == (None, last.kernel.shape[0]) and model.output_shape == (None, 3)
        assert not [layer for layer in model.layers if layer.name in ("scale", "rgb")]  # its pixels are [0, 255]
    with pytest.raises(ModelError, match="takes"):
        build_model("transfer", (28, 28, 3), 3, backbone=str(digits_run))


def test_the_pixels_of_a_backbone_are_reported(tiny, digits_run, capsys):
    """A recipe's pixel_range is that of files from other programs: a run ignores it."""
    kerascls.train(tiny, epochs=1, overrides={"finetune": {"epochs": 0}}, quiet=False)
    assert "tiny.keras gets pixels in [-1, 1], by model.pixel_range\n" in capsys.readouterr().err
    changes = {
        "model": {"backbone": str(digits_run)},
        "data": {"image_shape": [28, 28, 1]},
        "finetune": {"epochs": 0},
    }
    kerascls.train(tiny, epochs=1, overrides=changes, quiet=False)
    expected = f"{digits_run} is a kerascls model: its head is removed, and it gets pixels as in its training\n"
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_training_goes_on_from_a_transfer_model_by_its_backbone(tiny):
    first = kerascls.train(tiny, out="first", epochs=1)
    changes = {"model": {"backbone": "first"}, "finetune": {"epochs": 0}}  # the recipe states a pixel_range
    second = kerascls.train(tiny, out="second", epochs=1, overrides=changes)
    a, b = (kerascls.load(result.path).keras_model for result in (first, second))
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype("float32")
    pooled = keras.Model(a.inputs[0], a.get_layer("pool").output)(images)
    again = keras.Model(b.inputs[0], b.get_layer("pool").output)(images)
    assert np.allclose(pooled, again, atol=1e-5)
    assert kerascls.load("second").probabilities(images.astype(np.uint8)).shape == (3, 3)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_classifier_of_others_is_no_backbone(activation):
    inputs = keras.Input((12, 12, 3))
    keras.Model(inputs, keras.layers.Dense(4, activation)(keras.layers.Flatten()(inputs))).save("theirs.keras")
    with pytest.raises(ModelError) as error:
        build_model("transfer", (12, 12, 3), 3, backbone="theirs.keras", pixel_range=[0, 1])
    assert f"theirs.keras ends in a {activation}: it is a classifier, not a backbone." in str(error.value)

"""One harness for every file in models/, so a new one is tested the day it appears."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import REPOSITORY, here, one_line_error, small_npz, tiny_backbone

import kerascls
from kerascls.errors import ModelError
from kerascls.models import build_model, check_model
from kerascls.recipes.catalog import build_options, model_files
from kerascls.recipes.checks import model_problems
from kerascls.training.replicas import copy_for_training

# Image shape, and (total, trainable) parameters on it and 10 classes; a model that is not here fails.
PARAMETERS = {
    "mnist_cnn": ((28, 28, 1), 1198, 1198),
    "mnist_cnn_bn": ((28, 28, 1), 2190, 2174),
    "cifar_cnn": ((32, 32, 3), 81302, 81302),
    "cifar_lenet": ((32, 32, 3), 62006, 62006),
    "cifar_cnn_bn": ((32, 32, 3), 121374, 121278),
    "cifar_resnet": ((32, 32, 3), 1974122, 1971650),
    "small_cnn": ((28, 28, 1), 391850, 390890),
    "transfer": ((28, 28, 1), 546, 90),
}
OPTIONS = {"transfer": {"backbone": "tiny.keras", "pixel_range": [-1, 1]}}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "cifar_resnet")) for name in sorted(model_files())]
)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    tiny_backbone("tiny.keras")
    keras.utils.set_random_seed(0)
    return build_model(name, PARAMETERS[name][0], 10, **OPTIONS.get(name, {}))


@pytest.fixture
def images(model):
    return np.random.default_rng(0).integers(0, 256, (6, *model.input_shape[1:]), np.uint8)


def test_parameters_are_counted(name, model):
    _, total, trainable = PARAMETERS[name]
    assert model.count_params() == total
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable


def test_pixels_of_either_type_become_probabilities(model, images):
    out = model(images, training=False)
    assert out.shape == (6, 10) and out.dtype == "float32"
    assert np.allclose(np.sum(out, axis=1), 1, atol=1e-6)
    assert np.array_equal(out, model(images.astype("float32"), training=False))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_and_loaded_it_answers_alike(model, images, suffix, tmp_path):
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"model{suffix}", compile=False)
    assert np.array_equal(model.predict(images, verbose=0), loaded.predict(images, verbose=0))


def test_a_few_steps_lower_the_loss(model, images):
    labels = np.eye(10)[np.arange(6)]
    model.compile("adam", "categorical_crossentropy")
    losses = model.fit(images, labels, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_it_summarises_and_its_layers_have_names_of_their_own(name, model):
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert name in "".join(lines)
    assert not [layer.name for layer in model.layers if layer.name[-1].isdigit() and "_" in layer.name]


def test_other_shapes_and_class_counts_build(name):
    tiny_backbone("tiny.keras")
    assert build_model(name, (32, 40, 3), 2, **OPTIONS.get(name, {}))(np.zeros((1, 32, 40, 3), np.uint8)).shape == (
        1,
        2,
    )


def test_the_articles_cifar_networks_pool_before_they_normalise():
    order = [layer.name for layer in build_model("cifar_cnn_bn", (32, 32, 3), 10).layers]
    assert order[2:8] == ["conv1", "pool1", "bn1", "conv2", "pool2", "bn2"]
    bn = build_model("cifar_cnn_bn", (32, 32, 3), 10).get_layer("bn1")
    assert (bn.momentum, bn.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize("name", ["cifar_cnn", "cifar_lenet", "cifar_cnn_bn"])
def test_low_is_where_black_pixels_are_scaled_to(name):
    for low in (0.0, -1.0):
        scale = build_model(name, (32, 32, 3), 10, low=low).get_layer("scale")
        black_and_white = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
        assert np.ravel(scale(black_and_white)) == pytest.approx([low, 1.0], abs=1e-6)


def test_cifar_resnet_in_half_precision_scales_and_answers_in_float32():
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_model("cifar_resnet", (32, 32, 3), 10)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    computed = {layer.name: layer.compute_dtype for layer in model.layers}
    assert computed["scale"] == computed["classes"] == "float32" and computed["conv1a"] == "bfloat16"
    pixel = np.full((1, 32, 32, 3), 201, np.uint8)  # 201 * 4 / 255 - 2 is no bfloat16
    assert np.array(model.get_layer("scale")(pixel)).max() == pytest.approx(201 * 4 / 255 - 2, abs=1e-6)


def test_cifar_resnet_begins_with_an_orthonormal_basis_and_identities():
    model = build_model("cifar_resnet", (32, 32, 3), 10)
    filters = model.get_layer("patches").kernel.numpy().reshape(12, 12)
    assert filters.T @ filters == pytest.approx(np.eye(12), abs=1e-6)
    flat = np.ones((2, 2, 3)).reshape(12)  # gray without an edge answers to brightness alone
    assert filters.T @ flat == pytest.approx([12**0.5] + [0] * 11, abs=1e-6)
    images = np.random.default_rng(0).normal(size=(2, 7, 7, 256)).astype("float32")
    assert np.array_equal(model.get_layer("conv3b")(images), images)
    widening = model.get_layer("conv1a").kernel.numpy()  # 24 to 64 channels
    assert np.array_equal(widening[1, 1, :, :24], np.eye(24)) and widening[..., 24:].std() > 0.01


def test_pytorchs_way_to_begin_is_uniform_within_its_limits():
    keras.utils.set_random_seed(0)
    model = build_model("mnist_cnn_bn", (28, 28, 1), 10, initializer="pytorch")
    for layer, fan_in in (("conv1", 9), ("conv2", 36), ("classes", 196)):
        kernel, bias = (np.array(weight) for weight in model.get_layer(layer).weights)
        limit = 1 / np.sqrt(fan_in)
        assert np.abs(kernel).max() <= limit and np.abs(bias).max() <= limit
        assert np.abs(kernel).max() > 0.8 * limit and np.abs(bias).min() > 0
        assert len(np.unique(bias)) == len(bias)


def test_what_does_not_fit_is_one_error(tmp_path):
    with pytest.raises(ModelError, match="cannot be built for images of"):
        build_model("mnist_cnn", (4, 4, 1), 10)
    with pytest.raises(ModelError, match="at least 2 classes"):
        build_model("mnist_cnn", (28, 28, 1), 1)
    with pytest.raises(ModelError, match="No model is named"):
        build_model("nothing", (28, 28, 1), 10)


def test_a_users_own_file_is_a_model(tmp_path):
    (tmp_path / "net.py").write_text(
        "import keras\ndef build(image_shape, num_classes, *, units=3):\n"
        "    inputs = keras.Input(image_shape)\n    x = keras.layers.Flatten()(inputs)\n"
        "    x = keras.layers.Dense(units)(x)\n"
        "    return keras.Model(inputs, keras.layers.Dense(num_classes, activation='softmax')(x))\n"
    )
    assert build_model("./net.py", (4, 4, 1), 2, units=5).count_params() == 16 * 5 + 5 + 5 * 2 + 2
    (tmp_path / "wrong.py").write_text("def build(image_shape, num_classes):\n    return 3\n")
    with pytest.raises(ModelError, match="must return a keras.Model"):
        build_model("./wrong.py", (4, 4, 1), 2)


def test_a_copy_for_training_is_mixed_but_for_its_last_layer(model, images):
    copy = copy_for_training(model, "bfloat16", synchronized=False)
    no_layers = (keras.Model, keras.layers.InputLayer)
    layers = [layer for layer in copy._flatten_layers() if not isinstance(layer, no_layers)]
    kept = {layer.name for layer in layers if layer.dtype_policy.name == "float32"}
    assert layers[-1].name in kept
    assert kept <= {"rgb", "blue", "green", "red", "bgr", "scale", "pool", "dropout", "maximum", "calm", "classes"}
    assert {layer.dtype_policy.name for layer in layers if layer.name not in kept} == {"mixed_bfloat16"}
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert [weight.path for weight in copy.weights] == [weight.path for weight in model.weights]
    assert all(np.array_equal(a, b) for a, b in zip(copy.get_weights(), model.get_weights(), strict=True))
    assert all(weight.dtype == "float32" for weight in copy.weights)
    answer, mixed = np.array(model(images)), np.array(copy(images))
    assert mixed.dtype == np.float32 and 0 < np.abs(answer - mixed).max() < 0.02


def test_a_copy_reaches_into_nested_models():
    layers = keras.layers
    backbone = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.BatchNormalization()], name="body")
    backbone.trainable = False
    head = keras.Sequential([keras.Input((6, 6, 2)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    model = keras.Sequential([keras.Input((8, 8, 3)), backbone, head])
    copy = copy_for_training(model, "bfloat16", synchronized=False)
    assert {layer.dtype_policy.name for layer in copy.layers[0].layers} >= {"mixed_bfloat16"}
    assert [layer.dtype_policy.name for layer in copy.layers[1].layers] == ["mixed_bfloat16", "float32"]
    assert len(copy.trainable_weights) == len(model.trainable_weights) == 2


def in_float32(model):
    no_layers = (keras.Model, keras.layers.InputLayer)
    layers = [layer for layer in model._flatten_layers() if not isinstance(layer, no_layers)]
    assert {layer.compute_dtype for layer in layers} == {"float32", "bfloat16"}
    return {layer.name for layer in layers if layer.compute_dtype == "float32"}


def test_layers_that_ask_for_float32_have_it_under_a_mixed_precision():
    resnet = build_model("cifar_resnet", (32, 32, 3), 10, widths=[4])
    copy = copy_for_training(resnet, "bfloat16", synchronized=False)
    assert in_float32(copy) == {"scale", "maximum", "calm", "classes"}
    # All 256 gray levels reach the first layer with weights apart; in bfloat16 two of them fall together.
    levels = np.arange(256, dtype="float32").reshape(256, 1, 1, 1) * np.ones((1, 32, 32, 3), "float32")
    assert len(np.unique(np.array(copy.get_layer("scale")(levels))[:, 0, 0, 0])) == 256
    # What was copied once is copied again alike.
    assert in_float32(copy_for_training(copy, "float32", synchronized=False)) == {"scale", "maximum", "calm", "classes"}


def test_a_users_own_layers_keep_the_precision_that_they_state(tmp_path):
    (tmp_path / "net.py").write_text(
        "import keras\nfrom keras import layers\ndef build(image_shape, num_classes):\n"
        "    x = inputs = keras.Input((4, 4, 3))\n    x = layers.Rescaling(1 / 255, name='range', dtype='float32')(x)\n"
        "    body = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 3, name='conv'),\n"
        "        layers.LayerNormalization(name='norm', dtype='float32')], name='body')\n"
        "    x = layers.Flatten(name='flat')(body(x))\n"
        "    x = layers.TimeDistributed(layers.Dense(4, name='inner', dtype='float32'), name='timed')(x[:, None])\n"
        "    x = layers.Dense(4, name='dense')(layers.Flatten(name='flat2')(x))\n"
        "    return keras.Model(inputs, layers.Dense(num_classes, activation='softmax', name='classes')(x))\n"
    )
    usual = keras.config.dtype_policy()
    model = build_model("./net.py", (4, 4, 3), 2)
    assert keras.config.dtype_policy() is usual
    copy = copy_for_training(model, "bfloat16", synchronized=False)
    assert in_float32(copy) == {"range", "norm", "inner", "classes"}
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(copy(images), model(images), atol=0.02)


@pytest.mark.parametrize("told, kept", [(False, {"range", "norm", "soft"}), (True, {"range", "norm", "conv2"})])
def test_a_backbones_file_tells_what_stays_in_float32_where_it_can(tmp_path, told, kept):
    """Where layers have a mixed policy, the others are in float32 by intent. Else the layers' kinds decide."""
    layers = keras.layers
    usual = {"dtype": "mixed_bfloat16"} if told else {}
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255, name="range", **usual)(x)
    x = layers.Conv2D(2, 3, name="conv1", **usual)(x)
    x = layers.LayerNormalization(name="norm", dtype="float32")(x)
    x = layers.Softmax(name="soft", **usual)(x)
    x = layers.Conv2D(2, 3, name="conv2", dtype="float32")(x)
    keras.Model(
        inputs, layers.Activation("relu", name="relu", dtype="float32" if not told else "mixed_bfloat16")(x)
    ).save("backbone.keras")
    model = build_model("transfer", (8, 8, 3), 2, backbone="backbone.keras", pixel_range=[0, 255])
    no_layers = (keras.Model, keras.layers.InputLayer)
    ours = [layer for layer in model._flatten_layers() if not isinstance(layer, no_layers)]
    assert {layer.compute_dtype for layer in ours} == {"float32"}
    assert in_float32(copy_for_training(model, "bfloat16", synchronized=False)) == kept | {"pool", "classes"}


def test_an_operation_at_the_end_cannot_be_kept_in_float32():
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.ops.softmax(keras.layers.Dense(3)(keras.layers.Flatten()(inputs))))
    with pytest.raises(ModelError, match="must end in a layer, as keras.layers.Softmax"):
        copy_for_training(model, "bfloat16", synchronized=False)


def test_a_subclassed_model_is_refused_since_its_file_needs_its_code():
    class Subclass(keras.Model):
        input_shape, output_shape = (None, 8, 8, 1), (None, 2)

        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2, activation="softmax")

        def call(self, images):
            return self.dense(keras.ops.reshape(images, (-1, 64)))

    with pytest.raises(ModelError, match="must be functional or Sequential with an Input, not a subclass"):
        check_model("./mine.py", Subclass(), (8, 8, 1), 2)


def test_the_guides_network_trains_as_it_stands(capsys):
    guide = (REPOSITORY / "docs/guides/your-own-model-or-data.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(# my_net.py: .*?)^```$", guide, re.MULTILINE | re.DOTALL)
    Path("my_net.py").write_text(program)
    words = re.match(r"# my_net.py: kerascls (.*)\n", program)[1].split()
    small_npz("small.npz", count=10)
    code, out, err = here(*words, "--data", "small.npz", "--epochs", "1", "--out", "run", "--quiet", capsys=capsys)
    assert (code, out, err) == (0, "run\n", "")
    assert kerascls.load("run").keras_model.layers[2].filters == 32


NET = """import keras
def build({}):
    x = keras.layers.Flatten()(i := keras.Input(image_shape))
    return keras.Model(i, keras.layers.Dense(num_classes, activation={})(x))
"""


@pytest.mark.parametrize(
    "arguments, activation, told",
    [
        (
            "image_shape, num_classes, *, options",
            "'softmax'",
            "model.options is missing: build() of ./net.py takes options and gives it no default. Give it one, or "
            "--set model.options=VALUE.",
        ),
        ("image_shape, num_classes, units, rate=1", "'softmax'", "model.units is missing: build() of ./net.py takes"),
        ("image_shape, num_classes", "softmax", "name 'softmax' is not defined (NameError in line 4)."),
        ("image_shape", "'softmax'", "build() takes 1 positional argument but 2 were given (TypeError)."),
    ],
)
def test_what_is_wrong_with_a_network_of_ones_own_is_named(arguments, activation, told, capsys):
    Path("net.py").write_text(NET.format(arguments, activation))
    line = one_line_error(
        "train", "mnist_cnn", "--data", "digits", "--set", "model.name=./net.py", "--epochs", "1", capsys=capsys
    )
    assert told in line and "Choose another" not in line


def test_options_may_stand_before_the_star_too():
    Path("net.py").write_text("def build(image_shape, num_classes, filters=8, *, rate=0.5, given):\n    pass\n")
    assert build_options(Path("net.py")) == {"filters": 8, "rate": 0.5, "given": None}
    assert model_problems("./net.py", {"filters": 4, "given": 1}) == []
    assert "model.filters must be a whole number" in model_problems("./net.py", {"filters": "4", "given": 1})[0]

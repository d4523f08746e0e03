"""Heat maps: worked by hand, of every model, and as pictures."""

import importlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import REPOSITORY, here, one_line_error, tiny_backbone
from PIL import Image

import kerascls
from kerascls import heat_maps, overlay
from kerascls.data.batches import scoring_batch_size
from kerascls.errors import DataError, ModelError
from kerascls.formats.card import Card
from kerascls.formats.h5 import save_h5
from kerascls.formats.keras import save_keras
from kerascls.formats.onnx import OnnxModel
from kerascls.formats.weights import save_weights
from kerascls.inference.classifier import Classifier
from kerascls.inference.heat_maps import method
from kerascls.inference.loading import load
from kerascls.models import build_model
from kerascls.recipes.catalog import model_files

heat_maps_module = importlib.import_module("kerascls.inference.heat_maps")
layers = keras.layers
SAVED_MODEL = REPOSITORY / "saved_models" / "released" / "mnist_cnn" / "exports" / "saved_model"


def classifier_of(model):
    return Classifier(Card.guess(model), model)


def chain(image_shape, *steps):
    x = inputs = keras.Input(image_shape)
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def noise(image_shape, count=3):
    return np.random.default_rng(0).integers(0, 256, (count, *image_shape), np.uint8)


def kernel_of(layer, *weights):
    layer.set_weights(
        [np.array(weight, np.float32).reshape(own.shape) for weight, own in zip(weights, layer.weights, strict=True)]
    )


# The formulas


def test_cam_is_the_sum_of_channels_by_the_weights_of_the_class():
    model = chain(
        (4, 4, 1),
        layers.Conv2D(2, 2, strides=2, use_bias=False),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2, "softmax"),
    )
    # Channel 0 is the upper left pixel of each 2x2 block, channel 1 the lower right one.
    kernel_of(model.layers[1], [1, 0, 0, 0, 0, 0, 0, 1])
    kernel_of(model.layers[3], [[1, -1], [0, 2]], [0, 9])
    image = np.zeros((4, 4, 1), np.uint8)
    image[::2, ::2, 0] = [[4, 0], [2, 0]]
    image[1::2, 1::2, 0] = [[0, 6], [1, 0]]
    classifier = classifier_of(model)
    assert method(classifier) == "CAM"
    zero, one = heat_maps(classifier, np.stack([image, image]), [0, 1])
    # Class 0: [[4, 0], [2, 0]], over 4. Twice the size: a, 3/4 a + 1/4 b, 1/4 a + 3/4 b, b.
    across = np.array([1, 0.75, 0.25, 0])
    assert np.allclose(zero, np.outer([1, 0.875, 0.625, 0.5], across))
    # Class 1: 2 [[0, 6], [1, 0]] - [[4, 0], [2, 0]] = [[-4, 12], [0, 0]], without what is negative, over 12.
    assert np.allclose(one, np.outer(across, across[::-1]))
    assert np.array_equal(heat_maps(classifier, image[None])[0], one)  # logits 1.5 and 11: class 1


def test_cam_of_a_flattened_map_has_weights_for_each_place():
    model = chain((2, 2, 1), layers.Conv2D(2, 1), layers.Flatten(), layers.Dropout(0.5), layers.Dense(2, "softmax"))
    kernel_of(model.layers[1], [1, -1], [0, 5])  # channels x and 5 - x
    kernel_of(model.layers[4], [[4, 0], [2, -1], [0, 0], [2, 0], [-5, 0], [2, 0], [0, 0], [1, -9]], [0, 0])
    classifier = classifier_of(model)
    assert method(classifier) == "CAM"
    image = np.array([[1, 2], [3, 4]], np.uint8)[None, ..., None]
    # 4 * 1 + 2 * 4 = 12, 0 * 2 + 2 * 3 = 6, -5 * 3 + 2 * 2 = -11, 0 * 4 + 1 * 1 = 1: what each place adds to the logit
    assert np.allclose(heat_maps(classifier, image, [0])[0], np.array([[12, 6], [0, 1]]) / 12)
    assert not heat_maps(classifier, image, [1]).any()


def test_grad_cam_weighs_channels_by_the_mean_gradient_of_the_logit():
    model = chain((2, 2, 1), layers.Conv2D(2, 1), layers.Flatten(), layers.Dense(1, "relu"), layers.Dense(2, "softmax"))
    kernel_of(model.layers[1], [1, -1], [0, 5])  # channels x and 5 - x
    kernel_of(model.layers[3], [4, 2, 0, 2, 0, 2, 0, 2], [0])
    kernel_of(model.layers[4], [[3, -1]], [0, 0])
    classifier = classifier_of(model)
    assert method(classifier) == "Grad-CAM"
    image = np.array([[1, 2], [3, 4]], np.uint8)[None, ..., None]
    # Mean weights: 1 of the first channel, 2 of the second, 3 times for class 0: 3 (x + 2 (5 - x)) = 3 (10 - x).
    assert np.allclose(heat_maps(classifier, image, [0])[0], np.array([[9, 8], [7, 6]]) / 9)
    assert not heat_maps(classifier, image, [1]).any()  # nothing speaks for it: zero, not NaN


@pytest.mark.parametrize("image_shape", [(32, 32, 3), (33, 47, 1)])
def test_grad_cam_behind_global_average_pooling_is_cam(image_shape, monkeypatch):
    keras.utils.set_random_seed(0)
    model = build_model("small_cnn", image_shape, 5, filters=8, blocks=3)
    images, classes = noise(image_shape, 5), np.arange(5)
    cam = classifier_of(model)
    by_weights = heat_maps(cam, images, classes)
    monkeypatch.setattr(heat_maps_module, "_only_kernel", lambda steps: None)
    grad_cam = classifier_of(model)
    by_gradient = heat_maps(grad_cam, images, classes)
    assert (method(cam), method(grad_cam)) == ("CAM", "Grad-CAM")
    assert by_weights.any((1, 2)).sum() >= 3 and by_weights.shape == (5, *image_shape[:2])
    assert np.allclose(by_weights, by_gradient, atol=1e-5)


@pytest.mark.parametrize("pooling", [layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D])
@pytest.mark.parametrize("corner", [(0, 0), (0, 20), (20, 0), (20, 20)])
def test_the_corner_that_decides_is_the_hottest(pooling, corner):
    model = chain(
        (25, 25, 1),
        layers.Conv2D(1, 5, strides=5, activation="relu"),
        pooling(),
        layers.Dense(2, "softmax"),
    )
    kernel_of(model.layers[1], np.full(25, 0.04), [-100])  # how far the mean of 5 x 5 pixels is above 100
    kernel_of(model.layers[3], [[-1, 1]], [1, 0])
    image = noise((25, 25, 1), 1) // 2
    image[0, corner[0] : corner[0] + 5, corner[1] : corner[1] + 5] = 250
    heat = heat_maps(classifier_of(model), image)[0]
    hottest = np.unravel_index(heat.argmax(), heat.shape)
    assert heat.max() == 1 and all(at <= place < at + 5 for at, place in zip(corner, hottest, strict=True))
    assert heat[10:15, 10:15].max() == 0


@pytest.mark.parametrize(
    "end",
    [
        [layers.Dense(2, "softmax")],
        [layers.Dense(2), layers.Softmax()],
        [layers.Dense(2), layers.Activation("softmax")],
        [layers.Dense(2, "softmax"), layers.Activation("linear", dtype="float64")],
    ],
)
def test_a_certain_answer_is_explained_too(end):
    """The probability is 1.0 to the last bit and has no gradient; its logit has."""
    model = chain((6, 6, 1), layers.Conv2D(1, 3), layers.GlobalMaxPooling2D(), *end)
    kernel_of(model.layers[1], np.eye(9)[4], [0])
    kernel_of(model.layers[3], [[-1, 1]], [0, 0])
    classifier = classifier_of(model)
    image = noise((6, 6, 1), 1)
    assert classifier.probabilities(image)[0].tolist() == [0, 1] and method(classifier) == "Grad-CAM"
    assert heat_maps(classifier, image).max() == 1 and not heat_maps(classifier, image, [0]).any()


def test_places_lie_over_the_middle_of_their_pixels():
    """Of kernels of ones and mean pooling, the middle is the gradient's centre of gravity."""
    model = chain(
        (60, 47, 1),
        layers.Conv2D(1, 3, use_bias=False),
        layers.AveragePooling2D(2),
        layers.ZeroPadding2D(((3, 0), (1, 2))),
        layers.Conv2D(1, (4, 3), padding="same", use_bias=False),
        layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False),
        layers.Conv2D(1, 3, dilation_rate=(1, 2), use_bias=False),
        layers.Cropping2D(((1, 0), (0, 1))),
        layers.UpSampling2D(2),
    )
    model.set_weights([np.ones(weight.shape) for weight in model.weights])
    steps, pixels = [], tf.Variable(tf.zeros((1, 60, 47, 1)))
    with tf.GradientTape() as tape:
        steps, out = heat_maps_module._trace(model, pixels.value(), tape)
        score = tf.reduce_sum(out[0, 6:8, 4:6])  # the middle between two places: an upsampled pair is one
    weight = tape.gradient(score, pixels).numpy()[0, ..., 0]
    centre = [np.average(np.arange(len(sums)), weights=sums) for sums in (weight.sum(1), weight.sum(0))]
    lies = heat_maps_module._places(steps, steps[0].input)
    assert [distance for distance, _ in lies] == [2, 2]
    assert np.allclose(centre, [first + distance * at for (distance, first), at in zip(lies, (6.5, 4.5), strict=True)])


def test_a_map_is_linear_between_its_places_and_fades_outside():
    first, second = heat_maps_module._interpolation(8, 2, (2, 3.5)).T  # places over pixels 3.5 and 5.5
    assert first.tolist() == [0, 0.25, 0.75, 1, 0.75, 0.25, 0, 0]
    assert second.tolist() == [0, 0, 0, 0, 0.25, 0.75, 1, 0.75]


# Networks


CAM = ("mnist_cnn", "mnist_cnn_bn", "small_cnn", "transfer")  # the others have hidden layers, or pool maxima


@pytest.mark.parametrize("image_shape", [(32, 32, 1), pytest.param((37, 51, 3), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(model_files()))
def test_every_model_is_explained_twice_to_the_same_bits(name, image_shape):
    tiny_backbone("tiny.keras")
    keras.utils.set_random_seed(0)
    options = {"backbone": "tiny.keras", "pixel_range": [-1, 1]} if name == "transfer" else {}
    model = build_model(name, image_shape, 4, **options)
    before = model.to_json()
    images = noise(image_shape)
    maps = heat_maps(classifier_of(model), images)
    assert maps.dtype == np.float32 and maps.shape == images.shape[:3]
    assert all(each.min() >= 0 and each.max() in (0, 1) for each in maps) and maps.any()
    assert np.array_equal(maps, heat_maps(again := classifier_of(model), images))
    assert method(again) == ("CAM" if name in CAM else "Grad-CAM")
    assert np.array_equal(maps, heat_maps(again, images, again.probabilities(images).argmax(1)))
    assert model.to_json() == before


@pytest.mark.parametrize("dense", [0, 6])
def test_a_nested_backbone_is_explained_as_if_it_were_flat(dense):
    """Also one that pools inside, in a model in a Sequential: its last map is where nobody outside sees it."""
    backbone = keras.saving.load_model(tiny_backbone("tiny.keras"))
    head = [layers.Dropout(0.5), *[layers.Dense(dense, "relu") for _ in range(dense > 0)], layers.Dense(3, "softmax")]
    pool = layers.GlobalAveragePooling2D()
    flat = chain((20, 14, 3), *backbone.layers[1:], pool, *head)
    pooling = keras.Model(backbone.input, pool(backbone.output), name="backbone")
    nested = keras.Sequential([keras.Input((20, 14, 3)), keras.Sequential([pooling]), *head])
    outside = chain((20, 14, 3), backbone, pool, *head)
    images = noise((20, 14, 3), 4)
    expected = heat_maps(classifier_of(flat), images, [0, 1, 2, 0])
    assert expected.any()
    for model in (nested, outside):
        classifier = classifier_of(model)
        assert method(classifier) == ("Grad-CAM" if dense else "CAM")
        assert np.array_equal(heat_maps(classifier, images, [0, 1, 2, 0]), expected)


def test_branches_behind_the_last_map_are_no_cam():
    x = keras.Input((8, 8, 1))
    early = layers.Conv2D(3, 3, name="early")(x)
    late = layers.Conv2D(2, 3, name="late")(early)
    pooled = [layers.GlobalAveragePooling2D()(each) for each in (early, late)]
    model = keras.Model(x, layers.Dense(3, "softmax")(keras.ops.concatenate(pooled, 1)))
    classifier = classifier_of(model)
    assert method(classifier) == "Grad-CAM" and heat_maps(classifier, noise((8, 8, 1))).shape == (3, 8, 8)


def test_layers_that_draw_in_training_are_still():
    augmenting = [layers.RandomFlip(), layers.RandomRotation(0.2), layers.GaussianNoise(1.0)]
    keras.utils.set_random_seed(0)
    model = chain((8, 8, 3), *augmenting, layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2, "softmax"))
    plain = chain((8, 8, 3), *model.layers[4:])
    images = noise((8, 8, 3))
    assert np.array_equal(
        heat_maps(classifier_of(model), images, [0, 1, 0]), heat_maps(classifier_of(plain), images, [0, 1, 0])
    )


def test_what_has_no_map_is_refused():
    flat = chain((6, 6, 1), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2, "softmax"))
    point = chain((6, 6, 1), layers.Conv2D(3, 6), layers.Flatten(), layers.Dense(2, "softmax"))
    for model in (flat, point):
        with pytest.raises(ModelError, match="cannot be explained: it has no layer"):
            heat_maps(classifier_of(model), noise((6, 6, 1)))


def test_images_and_classes_are_checked():
    model = chain((6, 6, 1), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2, "softmax"))
    classifier = classifier_of(model)
    for wrong in (noise((6, 6, 3)), noise((6, 6, 1)).astype(float)):
        with pytest.raises(DataError, match=r"must be uint8 \(n, 6, 6, 1\)"):
            heat_maps(classifier, wrong)
    for classes in ([0, 1], [0, 1, 2], [0, -1, 0], [0.0, 1.0, 0.0]):
        with pytest.raises(DataError, match="Classes must be 3 whole numbers from 0 to 1"):
            heat_maps(classifier, noise((6, 6, 1)), classes)
    assert heat_maps(classifier, noise((6, 6, 1), 0)).shape == heat_maps(classifier, noise((6, 6, 1), 0), []).shape


def test_the_last_partial_batch_is_explained():
    keras.utils.set_random_seed(0)
    model = chain((6, 6, 1), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(3, "softmax"))
    classifier = classifier_of(model)
    count = scoring_batch_size((6, 6, 1)) + 3
    images, classes = noise((6, 6, 1), count), np.arange(count) % 3
    maps = heat_maps(classifier, images, classes)
    assert np.allclose(maps[-4:], heat_maps(classifier, images[-4:], classes[-4:]), atol=1e-6) and maps[-4:].any()


def test_files_of_a_run_give_its_maps(digits_run, digit_pngs):
    run = load(digits_run)
    images = np.stack(run.read(sorted(digit_pngs[0].glob("*.png"))))
    maps = heat_maps(run, images)
    assert maps.any((1, 2)).all()
    for save, name in ((save_keras, "a.keras"), (save_h5, "a.h5"), (save_weights, "folder")):
        save(run.keras_model, run.card, digits_run.parent / name)
        assert np.array_equal(heat_maps(load(digits_run.parent / name), images), maps)


# Pictures


def test_an_overlay_is_gray_where_it_is_cold_and_coloured_where_it_is_hot():
    image = np.array([[[100], [0]], [[255], [100]]], np.uint8)
    out = overlay(image, np.array([[0, 0], [0, 1]], np.float32))
    assert out.dtype == np.uint8 and out[0, 0].tolist() == [100] * 3 and out[1, 0].tolist() == [255] * 3
    # inferno ends in (0.988, 0.998, 0.645): 0.3 * 100 + 0.7 * 255 * that
    assert out[1, 1].tolist() == [206, 208, 145]
    red = np.array([[[255, 0, 0]]], np.uint8)
    assert overlay(red, np.zeros((1, 1), np.float32)).tolist() == [[[76] * 3]]  # 0.299 * 255
    with pytest.raises(DataError, match="An overlay takes"):
        overlay(image, np.zeros((2, 3), np.float32))


def test_each_image_gets_a_picture_and_none_is_overwritten(digits_run, digit_pngs, tmp_path, capsys):
    digits = [(digit_pngs[0] / f"digit{i}.png").read_bytes() for i in range(4)]
    (tmp_path / "more").mkdir()
    inputs = {"a.png": digits[0], "a_explained.png": digits[1], "more/a.bmp": digits[2], "more/broken.png": b"\x89PNG"}
    inputs["more/A.png"] = digits[3]
    for name, content in inputs.items():
        (tmp_path / name).write_bytes(content)
    code, out, err = here("explain", digits_run, "a.png", "a_explained.png", "more", "--json", capsys=capsys)
    assert code == 1 and err == "Error: 1 of 5 images could not be read.\n"
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["file"], line.get("heat_map")) for line in lines] == [
        ("a.png", "a-2_explained.png"),
        ("a_explained.png", "a_explained_explained.png"),
        ("more/A.png", "A-3_explained.png"),
        ("more/a.bmp", "a-4_explained.png"),
        ("more/broken.png", None),
    ]
    answers = kerascls.load(digits_run).predict([line["file"] for line in lines[:4]], top_k=1)
    for line, answer in zip(lines, answers, strict=False):
        told = [line[key] for key in ("label", "probability", "class", "class_probability", "method")]
        assert told == [answer.label, answer.probability] * 2 + ["CAM"]
        with Image.open(line["heat_map"]) as picture:
            assert picture.width > 600 and picture.height > 300 and np.asarray(picture).std() > 10
    assert set(lines[4]) == {"file", "error"}
    assert all((tmp_path / name).read_bytes() == content for name, content in inputs.items())
    assert len(list(tmp_path.rglob("*.*"))) == 5 + 4


def test_another_class_is_explained_and_an_unknown_one_is_told(digits_run, digit_pngs, tmp_path, capsys):
    file = digit_pngs[0] / "digit0.png"
    code, out, _ = here("explain", digits_run, file, "--class", "8", "--json", "--out", "new/maps", capsys=capsys)
    line = json.loads(out)
    assert code == 0 and line["class"] == "8" and line["class_probability"] < line["probability"]
    assert line["label"] == str(digit_pngs[1][0]) and line["heat_map"] == "new/maps/digit0_explained.png"
    code, out, _ = here("explain", digits_run, file, "--class", "8", capsys=capsys)
    assert f"{line['label']} {line['probability']:.1%}, CAM for 8 (" in out
    error = one_line_error("explain", digits_run, file, "--class", "88", "--out", "no", capsys=capsys)
    assert "No class is named '88'. Did you mean 8? The 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in error
    assert not (tmp_path / "no").exists()


def test_what_speaks_for_nothing_is_said_and_names_in_chinese_are_drawn(tmp_path, capsys):
    model = chain((6, 6, 3), layers.Conv2D(1, 3, activation="relu"), layers.Flatten(), layers.Dense(2, "softmax"))
    kernel_of(model.layers[1], np.ones(27), [0])
    kernel_of(model.layers[3], np.tile([[-1, 1]], (16, 1)), [0, 0])
    save_keras(model, Card(("猫", "狗 $x"), (6, 6, 3), border="dark"), tmp_path / "model.keras")
    Image.new("RGB", (9, 5), "white").save("white.png")
    code, out, err = here("explain", "model.keras", "white.png", capsys=capsys)
    assert (code, out) == (0, "white.png: 狗 $x 100.0%, CAM in white_explained.png\n")
    assert err == "Warning: 1 image has a light border; the training images had dark ones. Try --invert.\n"
    code, out, err = here("explain", "model.keras", "white.png", "--class", "猫", capsys=capsys)
    assert code == 0 and err.startswith("white.png: no place speaks for 猫: its heat map is empty.\n")


def test_what_cannot_be_explained_is_told(digits_run, digit_pngs, tmp_path, capsys):
    file = digit_pngs[0] / "digit0.png"
    assert "keeps no Keras layers" in one_line_error("explain", SAVED_MODEL, file, capsys=capsys)
    with pytest.raises(ModelError, match="It is an ONNX file, which keeps no Keras layers"):
        method(Classifier(Card(("a", "b"), (28, 28, 1)), runtime=OnnxModel))
    assert "does not exist" in one_line_error("explain", digits_run, "nowhere.png", capsys=capsys)
    (tmp_path / "file").write_text("")
    assert "Cannot make folder file" in one_line_error("explain", digits_run, file, "--out", "file", capsys=capsys)
    assert here("explain", digits_run, capsys=capsys)[0] == 2

"""Models of others: what their outputs mean, which pixels they take, and how a card makes them kerascls' own."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import REPOSITORY, here, one_line_error
from keras import layers
from PIL import Image

import kerascls
from kerascls.errors import DataError, ModelError

BLACK, WHITE = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)


def model_of(*more, shape=(8, 8, 3)):
    """A network that knows the mean of the pixels alone, whose last layer, a Dense of `more`, is set by hand."""
    model = keras.Sequential([keras.Input(shape), layers.GlobalAveragePooling2D(), *more])
    return model


def day_and_night(units, activation=None, scale=1.0, **more):
    """Class 0 where it is dark, 1 where it is light; it takes pixels in [0, scale]."""
    model = model_of(layers.Dense(units, activation, name="last", **more))
    kernel = np.zeros((3, units), np.float32)
    kernel[:, -1] = 8 / 3 / scale
    bias = np.zeros(units, np.float32)
    bias[-1] = -4
    model.get_layer("last").set_weights([kernel, bias])
    return model


def saved(model, name="m.keras"):
    model.save(name)
    return name


def probabilities(name, **stated):
    return kerascls.load(name, **stated).probabilities(np.stack([BLACK, WHITE]))


SIGMOID = 1 / (1 + np.exp(4))  # of -4: 0.018


# Outputs


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_unit_is_two_classes(activation):
    name = saved(day_and_night(1, activation, 255.0))
    rows = probabilities(name)
    assert np.allclose(rows, [[1 - SIGMOID, SIGMOID], [SIGMOID, 1 - SIGMOID]], atol=1e-6)
    classifier = kerascls.load(name, class_names=["night", "day"])
    assert [p.label for p in classifier.predict([BLACK, WHITE])] == ["night", "day"]
    assert ("logits" in classifier.notice) == (activation is None)
    assert "its one output is the probability of 1, not 0" in kerascls.load(name).notice
    with pytest.raises(ModelError, match="takes 2 class names: one sigmoid is two classes, of 0 and of 1. Received: 1"):
        kerascls.load(name, class_names=["day"])


def test_logits_are_turned_into_probabilities_and_that_is_said(capsys):
    name = saved(day_and_night(2, None, 255.0))
    assert np.allclose(probabilities(name), [[1 - SIGMOID, SIGMOID], [SIGMOID, 1 - SIGMOID]], atol=1e-6)
    Image.fromarray(WHITE).save("white.png")
    code, out, err = here("predict", name, "white.png", "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["probability"] == pytest.approx(1 - SIGMOID, abs=1e-6)
    assert err == (
        "m.keras has no card: names are numbers of its outputs (--class-names names them); its outputs are logits and "
        "go through a softmax; pixels go in as 0 to 255, as it has no Rescaling layer (--pixel-range states another "
        "range).\n"
    )


@pytest.mark.parametrize(
    "ending",
    [
        lambda x: layers.Softmax()(layers.Dense(2)(x)),
        lambda x: layers.Activation("softmax")(layers.Dense(2)(x)),
        lambda x: layers.Activation("linear", dtype="float32")(layers.Dense(2, "softmax")(x)),
        lambda x: keras.ops.softmax(layers.Dense(2)(x)),
        lambda x: keras.Sequential([keras.Input((3,)), layers.Dense(2, "softmax")])(x),
    ],
)
def test_a_softmax_is_found_wherever_it_stands(ending):
    inputs = keras.Input((8, 8, 3))
    name = saved(keras.Model(inputs, ending(layers.GlobalAveragePooling2D()(inputs))))
    assert "logits" not in kerascls.load(name).notice
    assert np.allclose(probabilities(name).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "more, told",
    [
        ([layers.Dense(3, "sigmoid")], "ends in 3 sigmoids, which are 3 answers by themselves"),
        ([layers.Dense(1, "relu")], "has one output and does not end in a sigmoid"),
        ([layers.Dense(3, "tanh"), layers.Dense(3, "relu")], "does not return probabilities of classes: "),
        ([], "does not return probabilities of classes: it answers from "),  # pooled logits of a convolution
    ],
)
def test_outputs_that_are_no_probabilities_of_classes_are_refused(more, told):
    with pytest.raises(ModelError, match=told):
        kerascls.load(saved(model_of(*more)))


def test_rows_that_are_no_probabilities_are_refused_whoever_answers(digits_run):
    classifier = kerascls.load(digits_run)
    images = np.zeros((2, 28, 28, 1), np.uint8)
    for rows, told in (
        (np.full((2, 10), 0.2, np.float32), "add up to 2"),
        (np.tile(np.array([7, -6] + [0] * 8, np.float32), (2, 1)), "answers from -6 to 7"),
    ):
        classifier._forward = lambda _, rows=rows: rows
        with pytest.raises(ModelError, match=told):
            classifier.probabilities(images)
    classifier._forward = lambda _: np.full((2, 10), np.nan, np.float32)
    with pytest.raises(ModelError, match="it answers nan"):
        classifier.predict(images)


# Pixels and names


@pytest.mark.parametrize("given, scale", [((0, 1), 1.0), ("0,1", 1.0), ((0, 255), 255.0)])
def test_a_stated_range_of_pixels_is_what_the_model_gets(given, scale):
    name = saved(day_and_night(2, "softmax", scale))
    assert np.allclose(
        probabilities(name, pixel_range=given), [[1 - SIGMOID, SIGMOID], [SIGMOID, 1 - SIGMOID]], atol=1e-6
    )
    assert "0 to 255" not in kerascls.load(name, pixel_range=given).notice
    assert kerascls.load(name, pixel_range=given, class_names="night,day").notice is None


def test_minus_one_to_one_is_a_range_too():
    model = day_and_night(2, "softmax", 2.0)  # light minus dark is 2
    model.get_layer("last").set_weights([model.get_layer("last").kernel, np.zeros(2, np.float32)])
    rows = probabilities(saved(model), pixel_range=(-1, 1))
    assert np.allclose(rows, [[1 - SIGMOID, SIGMOID], [SIGMOID, 1 - SIGMOID]], atol=1e-6)


def test_a_range_is_not_assumed_aloud_where_the_model_scales_itself():
    inputs = keras.Input((8, 8, 3))
    for scaled in (layers.Rescaling(1 / 255)(inputs), inputs / 127.5 - 1.0):
        outputs = layers.Dense(2, "softmax")(layers.GlobalAveragePooling2D()(scaled))
        notice = kerascls.load(saved(keras.Model(inputs, outputs))).notice
        assert notice == "m.keras has no card: names are numbers of its outputs (`class_names` names them)."


@pytest.mark.parametrize(
    "given", [["night", "day"], "night,day", " night , day", Path("names.txt"), "names.txt", "names.json"]
)
def test_names_come_as_a_list_words_or_a_file(given):
    Path("names.txt").write_text("\ufeffnight\nday\n\n", encoding="utf-8")
    Path("names.json").write_text('["night", "day"]', encoding="utf-8")
    assert kerascls.load(saved(day_and_night(2, "softmax")), class_names=given).class_names == ("night", "day")


@pytest.mark.parametrize(
    "stated, told",
    [
        ({"class_names": "a,b,c"}, "takes 2 class names: it has 2 outputs. Received: 3"),
        ({"class_names": "a,a"}, "Class names must differ. Received twice: a"),
        ({"class_names": ["a", ""]}, "Class names must be texts"),
        ({"class_names": [1, 2]}, "Class names must be texts"),
        ({"class_names": "nowhere.txt"}, "Class names are a file, one name a line, or a,b,c. Received: nowhere.txt"),
        ({"pixel_range": (1, 0)}, "A pixel range is two numbers"),
        ({"pixel_range": "0"}, "A pixel range is two numbers"),
        ({"pixel_range": (0, float("nan"))}, "A pixel range is two numbers"),
    ],
)
def test_what_cannot_be_stated_is_told(stated, told):
    with pytest.raises(ModelError) as error:
        kerascls.load(saved(day_and_night(2, "softmax")), **stated)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_run_has_a_card_and_takes_no_other_names(digits_run):
    with pytest.raises(ModelError, match="has a card, which says its names and its pixels. Leave out class_names."):
        kerascls.load(digits_run, class_names=list("abcdefghij"))


# The command


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_an_adopted_file_is_kerascls_own(suffix, capsys):
    name = saved(day_and_night(1, "sigmoid"))
    out = f"ours{suffix}"
    options = ("--class-names", "night,day", "--pixel-range", "0,1", "--out", out)
    assert here("adopt", name, *options, capsys=capsys) == (0, f"{out}\n", "")
    assert np.allclose(probabilities(out), [[1 - SIGMOID, SIGMOID], [SIGMOID, 1 - SIGMOID]], atol=1e-6)
    assert kerascls.load(out).class_names == ("night", "day") and kerascls.load(out).notice is None
    for label, image in (("night", BLACK), ("day", WHITE)):
        (Path("data") / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(image).save(Path("data") / label / f"{i}.png")
    code, out_, err = here("evaluate", out, "--data", "data", "--json", capsys=capsys)
    assert code == 0 and json.loads(out_)["accuracy"] == 1 and json.loads(out_)["examples"] == 6
    assert list(json.loads(out_)["per_class"]) == ["night", "day"]
    code, out_, _ = here("predict", out, "data/day/0.png", "--json", capsys=capsys)
    assert json.loads(out_)["label"] == "day"
    pytest.importorskip("tf2onnx")
    made = kerascls.export(out, "onnx").path
    assert made == Path("ours-exports/model.onnx")
    assert np.allclose(probabilities(made), [[1 - SIGMOID, SIGMOID], [SIGMOID, 1 - SIGMOID]], atol=1e-5)
    assert "exists already" in one_line_error("adopt", name, *options, capsys=capsys)
    again = ("--class-names", "a,b", "--out", "again.keras")
    assert "has a card already" in one_line_error("adopt", out, *again, capsys=capsys)
    released = REPOSITORY / "saved_models" / "released" / "mnist_cnn"
    assert "is a run, whose model has a card already" in one_line_error("adopt", released, *again, capsys=capsys)


def test_a_model_of_any_size_is_given_one(capsys):
    model = model_of(layers.Dense(2, "softmax"), shape=(None, None, 3))
    with pytest.raises(
        ModelError, match="`kerascls adopt m.keras --image-shape HEIGHT,WIDTH,3 --class-names A,B --out NEW.keras`"
    ):
        kerascls.load(saved(model))
    kerascls.adopt("m.keras", "ours.keras", class_names="a,b", image_shape=(12, 10, 3), resize="center_crop")
    card = kerascls.load("ours.keras").card
    assert (card.image_shape, card.resize, card.class_names) == ((12, 10, 3), "center_crop", ("a", "b"))
    assert (
        here("adopt", "m.keras", "--class-names", "a,b", "--image-shape", "12", "--out", "x.h5", capsys=capsys)[0] == 2
    )
    with pytest.raises(DataError):
        kerascls.load("ours.keras").probabilities(np.zeros((1, 8, 8, 3), np.uint8))

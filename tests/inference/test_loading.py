"""The one door for model files."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
from conftest import REPOSITORY, one_line_error

import kerascls
from kerascls.errors import DataError, ModelError
from kerascls.formats.card import Card
from kerascls.formats.h5 import save_h5
from kerascls.formats.keras import save_keras
from kerascls.formats.saved_model import save_saved_model
from kerascls.formats.weights import save_weights
from kerascls.images.borders import border_sides, usual_border
from kerascls.inference.loading import load

CARD = Card(("猫", "b\nc", "10"), (6, 5, 1), (0, 10, 255), "dark", "d", None)
IMAGES = np.random.default_rng(0).integers(0, 256, (70, 6, 5, 1), np.uint8)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("save, name", [(save_keras, "m.keras"), (save_h5, "m.h5"), (save_weights, "m")])
def test_every_kind_carries_its_card_and_answers_alike(model, tmp_path, save, name):
    save(model, CARD, tmp_path / name)
    loaded = load(tmp_path / name)
    assert loaded.card == CARD
    expected = model.predict(IMAGES, batch_size=32, verbose=0)
    assert np.array_equal(loaded.probabilities(IMAGES, batch_size=32), expected)
    assert np.abs(loaded.probabilities(IMAGES, batch_size=7) - expected).max() <= 1e-6


def test_a_keras_file_of_other_makers_gets_numbers_for_names(model, tmp_path):
    model.save(tmp_path / "plain.keras")
    assert load(tmp_path / "plain.keras").card == Card(("0", "1", "2"), (6, 5, 1))


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("class_names", "abc", "class_names is 'abc'"),  # was once read as three names
        ("class_names", ["a", 3, "c"], "class_names.1 is '3'"),
        ("image_shape", [6, 5, 2], "image_shape is (6, 5, 2)"),
        ("image_shape", [6.0, 5, 1], "image_shape.0 is '6.0'"),
        ("background", [0, 0, 256], "background is (0, 0, 256)"),
        ("border", "grey", "border is 'grey'"),
        ("data", None, "data is 'None'"),
        ("fallback_for", {}, "fallback_for is '{}'"),
        ("resize", "cover", "asks for a resize that is not known: 'cover'"),
        ("random_backbone", 1, "random_backbone is '1'"),
    ],
)
def test_a_card_of_other_values_is_refused(key, value, told):
    fields = json.loads(CARD.as_json())
    with pytest.raises(ModelError) as error:
        Card.from_json(json.dumps({**fields, key: value}))
    assert told in str(error.value)
    del fields[key]
    if key == "random_backbone":  # older files have none
        assert not Card.from_json(json.dumps(fields)).random_backbone
    else:
        with pytest.raises(ModelError, match=f"it lacks {key}"):
            Card.from_json(json.dumps(fields))
    for text in ("", "[" * 100_000, "NaN"):
        with pytest.raises(ModelError, match="The model's card, kerascls.json, is damaged"):
            Card.from_json(text)


def test_a_saved_model_is_held_to_its_card(model, tmp_path):
    save_saved_model(model, CARD, tmp_path / "good")
    assert load(tmp_path / "good").card == CARD
    for change in ({"image_shape": [6, 5, 3]}, {"class_names": ["a", "b"]}):
        shutil.copytree(tmp_path / "good", tmp_path / "changed")
        (card,) = (tmp_path / "changed").rglob("kerascls.json")
        card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
        with pytest.raises(ModelError, match="does not fit its own card"):
            load(tmp_path / "changed")
        shutil.rmtree(tmp_path / "changed")


def test_no_images_have_no_answers_in_a_saved_model(model, tmp_path):
    import tensorflow as tf

    save_saved_model(model, CARD, tmp_path / "m")
    bare = tf.saved_model.load(str(tmp_path / "m"))
    for answer in (
        bare.signatures["serving_default"](image_bytes=tf.constant([], tf.string)),
        bare.signatures["pixels"](images=tf.zeros((0, 9, 9, 1), tf.uint8)),
        bare.signatures["pixels"](images=tf.zeros((0, 6, 5, 1), tf.uint8)),
    ):
        shapes = {name: tuple(value.shape) for name, value in answer.items()}
        assert shapes == {"probabilities": (0, 3), "label": (0,), "top_labels": (0, 3), "top_probabilities": (0, 3)}
    assert np.array_equal(bare.signatures["pixels"](images=IMAGES)["probabilities"], model(IMAGES, training=False))
    assert load(tmp_path / "m").probabilities(IMAGES[:0]).shape == (0, 3)


def test_no_images_have_no_answers_behind_a_convolution(tmp_path):
    """TensorFlow's fused convolution refuses an empty batch."""
    import tensorflow as tf

    classifier = load(REPOSITORY / "saved_models" / "released" / "mnist_cnn")
    save_saved_model(classifier.keras_model, classifier.card, tmp_path / "m")
    bare = tf.saved_model.load(str(tmp_path / "m"))
    for answer in (
        bare.signatures["serving_default"](image_bytes=tf.constant([], tf.string)),
        bare.signatures["pixels"](images=tf.zeros((0, 28, 28, 1), tf.uint8)),
    ):
        assert answer["probabilities"].shape == (0, 10) and answer["label"].shape == (0,)


def test_a_model_that_is_no_image_classifier_is_told(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "table.keras")
    with pytest.raises(ModelError, match="must take images"):
        load(tmp_path / "table.keras")


def test_truncated_damaged_and_other_files_are_one_line(digits_run, tmp_path, capsys):
    whole = (digits_run / "model.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.keras").write_bytes(b"hello, I am no model")
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("nothing", "")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in (
        "cut.keras",
        "text.keras",
        "empty.h5",
        "cut.h5",
        "zip.keras",
        "folder",
        "broken",
        "photo.png",
        "nowhere",
    ):
        assert name in one_line_error("predict", name, tmp_path / "photo.png", capsys=capsys)


def test_python_api_predicts_with_names_and_keeps_order(digits_run, digit_pngs):
    folder, labels = digit_pngs
    files = [folder / f"digit{i}.png" for i in (3, 1, 2)]
    predictions = kerascls.load(digits_run).predict(files, top_k=3)
    assert [prediction.file for prediction in predictions] == [str(file) for file in files]
    for prediction in predictions:
        assert len(prediction.top) == 3 and prediction.top[0] == (prediction.label, prediction.probability)
        assert prediction.top[0][1] >= prediction.top[1][1] and isinstance(prediction.probability, float)
    assert sum(p.label == str(labels[i]) for p, i in zip(predictions, (3, 1, 2), strict=True)) >= 2
    assert kerascls.load(digits_run).predict(files[0])[0].label == predictions[0].label


def test_wrong_arrays_are_told(digits_run):
    with pytest.raises(DataError, match="must be uint8"):
        kerascls.load(digits_run).probabilities(np.zeros((1, 28, 28, 1), np.float32))


def test_border_is_told_by_the_outermost_pixels():
    image = np.zeros((5, 5, 1), np.uint8)
    image[1:-1, 1:-1] = 255
    assert border_sides(np.stack([image, 255 - image])).tolist() == ["dark", "light"]
    assert usual_border([np.stack([image] * 19), 255 - image[None]]) == "dark"
    assert usual_border([np.stack([image] * 9 + [255 - image])]) is None


def test_a_run_moved_elsewhere_still_loads(digits_run, tmp_path):
    moved = shutil.copytree(digits_run, tmp_path / "elsewhere" / "其他")
    assert load(moved).class_names == tuple("0123456789")
    assert json.loads(zipfile.ZipFile(moved / "model.keras").read("kerascls.json"))["image_shape"] == [28, 28, 1]

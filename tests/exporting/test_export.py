"""Exports: equal to their run to the bit, able to stand alone, and caught when they are not."""

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import here, one_line_error

import kerascls
from kerascls.data.loading import load_dataset
from kerascls.errors import OutputError, ProofError
from kerascls.formats.litert import LiteModel, save_litert
from kerascls.images.files import encode_png

export_module = importlib.import_module("kerascls.exporting.export")


@pytest.fixture(scope="module")
def exported(digits_run, tmp_path_factory):
    """A copy of the digits run with every export in it."""
    run = shutil.copytree(digits_run, tmp_path_factory.mktemp("exported") / "run")
    return run, {name: kerascls.export(run, name) for name in export_module.FORMATS}


@pytest.mark.parametrize("name", list(export_module.FORMATS))
def test_probabilities_equal_the_runs_at_the_same_batch_size(exported, name):
    run, exports = exported
    digits = load_dataset("digits")
    images = np.concatenate([digits.splits[split].images for split in ("train", "test")])[:1000]
    expected = kerascls.load(run).probabilities(images, 32)
    loaded = kerascls.load(exports[name].path)
    assert loaded.card == kerascls.load(run).card
    tolerance = export_module.FORMATS[name].tolerance
    if tolerance is None:
        labels = np.concatenate([digits.splits[split].labels for split in ("train", "test")])[:1000]
        right = [(rows.argmax(1) == labels).mean() for rows in (loaded.probabilities(images, 32), expected)]
        assert abs(right[0] - right[1]) <= 0.005
    else:
        assert np.abs(loaded.probabilities(images, 32) - expected).max() <= tolerance
        assert np.abs(loaded.probabilities(images, 7) - expected).max() <= max(tolerance, 1e-6)
        assert exports[name].max_difference <= tolerance and exports[name].proof.agreement == 1
    # 64 samples, eight of them resized, and for a rounded format the 364 test images.
    assert exports[name].examples == (72 if tolerance is not None else 72 + 364)


def test_what_was_found_is_kept_beside_the_exports(exported):
    run, exports = exported
    kept = json.loads((run / "exports" / "export.json").read_text())["exports"]
    assert list(kept) == list(export_module.FORMATS)
    for name, row in kept.items():
        path = run / "exports" / row["file"]
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        assert row["bytes"] == sum(file.stat().st_size for file in files) == exports[name].size
        assert row["examples"] == exports[name].examples and 0 < row["ms_32"] and 0 < row["ms_1"]
        assert 0.5 < row["run_accuracy"] <= 1 and abs(row["accuracy"] - row["run_accuracy"]) <= 0.005
    sizes = {name: row["bytes"] for name, row in kept.items() if name.startswith("litert")}
    assert sizes["litert_int8"] != sizes["litert"] != sizes["litert_float16"]


@pytest.mark.parametrize("content", ["[]", '{"exports": 3}', "[" * 100_000, '{"exports": {"h5": {"bytes": 1e999}}}'])
def test_a_damaged_list_of_exports_begins_anew(exported, tmp_path, content):
    run, made = exported
    copy = shutil.copytree(run, tmp_path / "run")
    listed = copy / "exports" / "export.json"
    listed.write_text(content)
    export_module.Exporter(copy).note("keras", made["keras"])
    assert list(json.loads(listed.read_text())["exports"]) == ["keras"]


@pytest.mark.parametrize("name", export_module.FORMATS)
def test_predict_gives_every_formats_names_as_the_runs(exported, digit_pngs, name):
    run, exports = exported
    files = sorted(digit_pngs[0].glob("*.png"))
    wanted, found = (kerascls.load(path).predict(files, top_k=3) for path in (run, exports[name].path))
    near = 1e-5 if export_module.FORMATS[name].tolerance is not None else 0.1
    for one, other in zip(wanted, found, strict=True):
        assert (one.file, one.label) == (other.file, other.label)
        assert abs(one.probability - other.probability) <= near


@pytest.mark.slow
def test_the_saved_model_answers_bytes_where_tensorflow_alone_is_imported(exported, digit_pngs, tmp_path):
    run, exports = exported
    folder, _ = digit_pngs
    program = """
import sys, json, glob, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
files = [f"{sys.argv[2]}/digit{i}.png" for i in range(12)]
out = model.signatures["serving_default"](image_bytes=tf.constant([open(f, "rb").read() for f in files]))
assert not [m for m in sys.modules if m.split(".")[0] == "kerascls"]
print(json.dumps({"label": [x.decode() for x in out["label"].numpy()],
                  "shapes": {k: v.shape.as_list() for k, v in out.items()},
                  "names": [x.decode() for x in model.class_names().numpy()],
                  "signatures": sorted(model.signatures), "top": [x.decode() for x in out["top_labels"].numpy()[0]]}))
"""
    process = subprocess.run(
        [sys.executable, "-c", program, exports["saved_model"].path / "1", folder],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(process.stdout.splitlines()[-1])
    predictions = kerascls.load(run).predict([folder / f"digit{i}.png" for i in range(12)], top_k=5)
    assert answer["label"] == [prediction.label for prediction in predictions]
    assert answer["top"] == [name for name, _ in predictions[0].top]
    assert answer["names"] == list("0123456789")
    assert answer["signatures"] == ["pixels", "serve", "serving_default"]
    assert answer["shapes"] == {
        "probabilities": [12, 10],
        "label": [12],
        "top_labels": [12, 5],
        "top_probabilities": [12, 5],
    }
    assets = exports["saved_model"].path / "1" / "assets"
    assert (assets / "class_names.txt").read_text().split() == list("0123456789")


def test_tfsm_layer_calls_the_saved_model(exported):
    import keras

    run, exports = exported
    images = load_dataset("digits").splits["test"].images[:32]
    out = keras.layers.TFSMLayer(str(exports["saved_model"].path / "1"))(images)
    assert np.array_equal(out["probabilities"], kerascls.load(run).probabilities(images, 32))


def test_the_saved_model_takes_any_size_kind_and_batch(exported):
    import tensorflow as tf
    from PIL import Image

    run, exports = exported
    model = tf.saved_model.load(str(exports["saved_model"].path / "1"))
    big = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(big).save("big.jpg")
    Image.fromarray(big).save("big.bmp")
    encoded = [open_bytes("big.jpg"), open_bytes("big.bmp"), encode_png(big)]
    out = model.signatures["serving_default"](image_bytes=tf.constant(encoded))["probabilities"].numpy()
    (open("big.png", "wb")).close()
    with open("big.png", "wb") as file:
        file.write(encoded[2])
    expected = kerascls.load(run).predict(["big.jpg", "big.bmp", "big.png"], top_k=10)
    for row, prediction in zip(out, expected, strict=True):
        for name, probability in prediction.top:
            assert abs(row[int(name)] - probability) <= 1e-6
    gray = tf.zeros((5, 33, 17, 1), tf.uint8)
    assert model.signatures["pixels"](images=gray)["probabilities"].shape == (5, 10)


def open_bytes(path):
    with open(path, "rb") as file:
        return file.read()


# TensorFlow is imported for each damage, and those of LiteRT are alike to one another.
SLOW = ("keras", "h5", "weights", "saved_model", "litert_float16", "litert_int8")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in export_module.FORMATS]
)
def test_a_damaged_export_is_caught_and_nothing_is_left(digits_run, tmp_path, name, monkeypatch):
    """A changed weight, swapped names and another resize rule, in every format."""
    run = shutil.copytree(digits_run, tmp_path / "run")
    kind = export_module.FORMATS[name]
    change = 1e-3 if kind.tolerance is not None else 2.0

    def changed_weight(model, card, path, images):
        weight = model.get_layer("classes").weights[1]
        kept = np.array(weight)
        weight.assign(kept + np.eye(10)[0] * change)
        kind.write(model, card, path, images)
        weight.assign(kept)

    def with_card(**changes):
        def write(model, card, path, images):
            kind.write(model, dataclasses.replace(card, **changes), path, images)

        return write

    damages = (
        (
            changed_weight,
            "answers differently by pixels" if kind.tolerance is not None else "is off the run's accuracy by",
        ),
        (with_card(class_names=tuple("1023456789")), "class names are not the run's"),
        (with_card(resize="center_crop"), "resize .* not the run's"),
    )
    for damage, reason in damages:
        monkeypatch.setitem(export_module.FORMATS, name, dataclasses.replace(kind, write=damage))
        with pytest.raises(ProofError, match=reason):
            kerascls.export(run, name)
        assert not list((run / "exports").iterdir())


def test_a_saved_model_cuts_files_of_its_own_size_and_takes_such_pixels_as_they_are(digits_run, tmp_path):
    import tensorflow as tf

    from kerascls.images.files import encode_png
    from kerascls.images.resize import resize

    classifier = kerascls.load(digits_run)
    card = dataclasses.replace(classifier.card, resize="center_crop")
    export_module.FORMATS["saved_model"].write(classifier.keras_model, card, tmp_path / "m", None)
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    cut = resize(tf.constant(image), 32, 32).numpy()[2:30, 2:30]  # Resize(32), CenterCrop(28)
    (as_file,), (as_pixels,) = classifier.probabilities(cut[None]), classifier.probabilities(image[None])
    assert np.abs(as_file - as_pixels).max() > 1e-3
    model = tf.saved_model.load(str(tmp_path / "m" / "1"))
    by_bytes = model.signatures["serving_default"](image_bytes=tf.constant([encode_png(image)]))
    assert np.allclose(by_bytes["probabilities"][0], as_file, atol=1e-6)
    for garbage in (b"", b"hello", b"II*\0" + bytes(40), bytes(100)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="is not an image: expected PNG, JPEG, BMP, GIF or We"):
            model.signatures["serving_default"](image_bytes=tf.constant([garbage]))
    by_pixels = model.signatures["pixels"](images=tf.constant(image[None]))
    assert np.allclose(by_pixels["probabilities"][0], as_pixels, atol=1e-6)
    (tmp_path / "a.png").write_bytes(encode_png(image))
    for loaded in (kerascls.load(tmp_path / "m"), type(classifier)(card, classifier.keras_model)):
        (prediction,) = loaded.predict(tmp_path / "a.png")
        assert abs(prediction.probability - as_file.max()) < 1e-6


@pytest.mark.slow
def test_a_saved_model_that_resizes_otherwise_is_caught_whatever_its_card_says(digits_run, tmp_path, monkeypatch):
    run = shutil.copytree(digits_run, tmp_path / "run")
    kind = export_module.FORMATS["saved_model"]

    def write(model, card, path, images):
        kind.write(model, dataclasses.replace(card, resize="center_crop"), path, images)
        (path / "1" / "assets" / "kerascls.json").write_text(card.as_json())

    monkeypatch.setitem(export_module.FORMATS, "saved_model", dataclasses.replace(kind, write=write))
    with pytest.raises(ProofError, match="answers differently by bytes"):
        kerascls.export(run, "saved_model")


def test_a_failed_proof_is_exit_3_and_all_goes_on_to_the_next(digits_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(digits_run, tmp_path / "run")
    onnx = export_module.FORMATS["onnx"]
    broken = dataclasses.replace(onnx, write=export_module.FORMATS["litert"].write)  # ends in .tflite's bytes
    few = {"litert": export_module.FORMATS["litert"], "onnx": broken, "openvino": export_module.FORMATS["openvino"]}
    monkeypatch.setattr(export_module, "FORMATS", few)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else name)
    code, out, err = here("export", run, "--all", capsys=capsys)
    lines = out.splitlines()
    assert code in (1, 3) and len(err.strip().splitlines()) == 1
    assert lines[0].split()[0] == "format" and lines[1].split()[0] == "litert" and lines[1].endswith("model.tflite")
    assert lines[2].startswith("onnx") and "FAILED" in lines[2]
    assert lines[3].split(maxsplit=1)[1] == "not made: openvino needs openvino: pip install 'kerascls[openvino]'"
    assert sorted(path.name for path in (run / "exports").iterdir()) == ["export.json", "model.tflite"]


@pytest.mark.slow
def test_more_images_of_every_kind_are_compared_and_broken_ones_told(digits_run, tmp_path, capsys):
    from PIL import Image

    run = shutil.copytree(digits_run, tmp_path / "run")
    digits = load_dataset("digits").splits["test"]
    for i, (kind, size) in enumerate(
        (("png", 28), ("jpg", 40), ("gif", 33), ("bmp", 20), ("tiff", 28), ("webp", 50), ("png", 7))
    ):
        folder = tmp_path / "more" / str(digits.labels[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.images[i, :, :, 0]).convert("RGB").resize((size, size + i)).save(folder / f"{i}.{kind}")
    (tmp_path / "more" / "broken.png").write_bytes(b"\x89PNG cut")
    for name in ("saved_model", "onnx"):
        code, out, err = here("export", run, "--format", name, "--images", tmp_path / "more", capsys=capsys)
        assert code == 0 and out.startswith("79 images answered") and "broken.png" in err


def test_int8_needs_images_to_be_calibrated_by(digits_run, tmp_path, capsys, digit_pngs):
    run = shutil.copytree(digits_run, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["fingerprint"] = "another"
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert "--calibration DIR" in one_line_error("export", run, "--format", "litert_int8", capsys=capsys)
    code, out, _ = here(
        "export",
        run,
        "--format",
        "litert_int8",
        "--calibration",
        digit_pngs[0],
        "--images",
        digit_pngs[0],
        capsys=capsys,
    )
    assert code in (0, 3)  # twelve images are few to read ranges from
    if code == 0:
        assert out.startswith("84 images answered")


def test_int8_takes_back_what_rounding_shifts_and_gives_probabilities_that_add_up(digits_run, tmp_path):
    """One weight is the measure of a channel's steps; the others, 0.4 of a step each, all round to nothing."""
    import keras

    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 64), np.uint8)
    pixels = keras.Input((8, 8, 64))
    x = keras.layers.Conv2D(4, 1, use_bias=False, name="conv")(pixels)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    hidden = keras.layers.Dense(400, activation="relu")(x)
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax", name="classes")(hidden))
    kernel = np.full((1, 1, 64, 4), 0.4 / 127, np.float32) * np.float32([1, -1, 1, -1])
    kernel[0, 0, 0] = 1
    model.get_layer("conv").set_weights([kernel])
    norm = model.get_layer("norm")
    norm.set_weights([np.full(4, 20), np.zeros(4), np.full(4, 127.5), np.full(4, 2000)])
    path = tmp_path / "model.tflite"
    save_litert(model, kerascls.load(digits_run).card, path, "int8", images)
    found, true = LiteModel(path)(images), model(images.astype(np.float32)).numpy()
    assert np.abs(found - true).max() < 0.03
    assert np.abs(found.sum(1) - 1).max() < 1e-6


@pytest.mark.parametrize("option", ["--images", "--calibration", "--data"])
def test_a_folder_that_was_named_and_is_not_there_ends_all_before_anything_is_written(
    digits_run, tmp_path, option, capsys
):
    run = shutil.copytree(digits_run, tmp_path / "run")
    assert "nowhere" in one_line_error("export", run, "--all", option, "nowhere", capsys=capsys)
    assert not (run / "exports").exists() or not list((run / "exports").iterdir())


@pytest.mark.slow
def test_exports_replace_their_elders_but_nothing_else(exported, tmp_path, capsys):
    run, _ = exported
    again = kerascls.export(run, "saved_model")
    assert again.path == run / "exports" / "saved_model" and sorted(p.name for p in again.path.iterdir()) == ["1"]
    with pytest.raises(OutputError, match="exists already"):
        kerascls.export(run, "keras", out=run / "model.keras")
    assert "must end in .h5" in one_line_error("export", run, "--format", "h5", "--out", "model.keras", capsys=capsys)
    assert "does not exist" in one_line_error("export", "nowhere", capsys=capsys)
    assert here("export", run, "--format", "coreml", capsys=capsys)[0] == 2
    assert here("export", run, "--all", "--out", tmp_path / "x", capsys=capsys)[0] == 2
    code, out, _ = here("export", run, "--format", "h5", "--out", tmp_path / "mine.h5", capsys=capsys)
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "mine.h5")


@pytest.mark.slow
def test_a_run_without_samples_is_proven_on_noise(digits_run, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "run")
    shutil.rmtree(run / "samples")
    assert kerascls.export(run, "weights").examples == 72

"""Models of other runtimes: opened without TensorFlow, quick, and with one line where they cannot be."""

import csv
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import here, one_line_error, processor_seconds

import kerascls
from kerascls.errors import ModelError
from kerascls.formats import litert
from kerascls.formats.card import Card
from kerascls.inference.classifier import Classifier


@pytest.fixture(scope="module")
def tflite(digits_run, tmp_path_factory):
    return kerascls.export(digits_run, "litert", out=tmp_path_factory.mktemp("lite") / "digits.tflite").path


def test_one_image_is_answered_within_a_second_without_tensorflow(tflite, digits_run, digit_pngs):
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert: pip install 'kerascls[litert]'")
    image = str(digit_pngs[0] / "digit0.png")
    program = (
        "import sys; from kerascls.cli import run; code = run(sys.argv[1:]); "
        "print(code, [name for name in ('tensorflow', 'keras', 'h5py') if name in sys.modules])"
    )
    seconds = []
    for _ in range(5):
        begin = processor_seconds()
        process = subprocess.run(
            [sys.executable, "-c", program, "predict", tflite, image, "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds.append(processor_seconds() - begin)
    answer, last = process.stdout.splitlines()
    assert last == "0 []" and process.stderr == ""
    (expected,) = kerascls.load(digits_run).predict(image)
    assert json.loads(answer)["label"] == expected.label
    assert json.loads(answer)["probability"] == pytest.approx(expected.probability, abs=1e-5)
    assert min(seconds) < 1.0


def test_every_option_of_predict_answers_as_the_run_does(tflite, digits_run, digit_pngs, tmp_path, capsys):
    folder, _ = digit_pngs
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    for options in ([], ["--invert"], ["--top-k", "5"]):
        arguments = [folder, tmp_path / "broken.png", "--json", "--csv", "a.csv", *options]
        ours, theirs = (here("predict", model, *arguments, capsys=capsys) for model in (tflite, digits_run))
        assert ours[0] == theirs[0] == 1 and ours[2] == theirs[2]
        for one, other in zip(
            map(json.loads, ours[1].splitlines()), map(json.loads, theirs[1].splitlines()), strict=True
        ):
            assert one["file"] == other["file"] and one.get("label") == other.get("label")
            assert one.get("error") == other.get("error")
            for mine, its in zip(one.get("top", []), other.get("top", []), strict=True):
                assert mine["probability"] == pytest.approx(its["probability"], abs=1e-5)
    with open("a.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 13
    code, _, err = here("predict", tflite, folder, "--plot", "p.png", capsys=capsys)
    assert (code, err) == (0, "drawn: p.png\n")
    code, out, _ = here("predict", tflite, "--data", "digits", "--count", "4", capsys=capsys)
    assert code == 0 and out.count("(is ") == 4


def test_the_card_lies_in_a_zip_behind_the_model(tflite, digits_run):
    with zipfile.ZipFile(tflite) as archive:
        assert archive.namelist() == ["kerascls.json"]
        card = json.loads(archive.read("kerascls.json"))
    assert card["class_names"] == list("0123456789") and card["image_shape"] == [28, 28, 1]
    assert {"kerascls", "background", "border", "resize"} <= set(card)
    assert kerascls.load(tflite).card == kerascls.load(digits_run).card
    assert tflite.read_bytes()[4:8] == b"TFL3"


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_rounded_tflite_says_so_and_none_needs_flex_ops(digits_run, tflite, tmp_path, kind):
    rounded = kerascls.export(digits_run, f"litert_{kind}", out=tmp_path / "rounded.tflite").path
    with zipfile.ZipFile(rounded) as archive:
        card = json.loads(archive.read("kerascls.json"))
    assert (card["weights"], card.get("calibration_images")) == (kind, 200 if kind == "int8" else None)
    kinds = {detail["dtype"] for detail in litert.LiteModel(rounded)._interpreter.get_tensor_details()}
    assert {"float16": np.float16, "int8": np.int8}[kind] in kinds
    for path in (tflite, rounded):
        operations = [one["op_name"] for one in litert.LiteModel(path)._interpreter._get_ops_details()]
        assert "CONV_2D" in operations and not [name for name in operations if name.startswith("Flex")]


def test_any_batch_is_answered(tflite):
    classifier = kerascls.load(tflite)
    images = np.random.default_rng(0).integers(0, 256, (70, 28, 28, 1), np.uint8)
    expected = classifier.probabilities(images)
    assert expected.shape == (70, 10) and expected.dtype == np.float32
    assert np.allclose(expected.sum(1), 1, atol=1e-5)
    assert np.abs(classifier.probabilities(images, 1) - expected).max() <= 1e-6


def test_what_is_no_model_is_told_in_one_line(tflite, digit_pngs, tmp_path, capsys):
    image, whole = digit_pngs[0] / "digit0.png", tflite.read_bytes()
    end = whole.index(b"PK\x03\x04")
    for name, content, reason in (
        ("cut.tflite", whole[: len(whole) // 2], "cannot be loaded: it is cut short or damaged"),
        ("plain.tflite", whole[:end], "has no card (class names, image shape): it is cut short, or not one that"),
        ("text.tflite", b"hello, I am no model", "cannot be loaded: it is no .tflite"),
        ("empty.tflite", b"", "cannot be loaded: it is cut short or damaged"),
        ("head.tflite", b"x" * 1000 + whole[end:], "cannot be loaded"),
    ):
        (tmp_path / name).write_bytes(content)
        line = one_line_error("predict", tmp_path / name, image, capsys=capsys)
        assert reason in line and name in line
    assert "does not exist" in one_line_error("predict", "nowhere.tflite", image, capsys=capsys)
    assert "is a LiteRT file, which keeps no Keras layers" in one_line_error("summary", tflite, capsys=capsys)


def test_a_card_of_another_model_is_told(tflite, digit_pngs, tmp_path, capsys):
    whole = tflite.read_bytes()
    with zipfile.ZipFile(tflite) as archive:
        card = json.loads(archive.read("kerascls.json"))
    for change in ({"class_names": ["a", "b"]}, {"image_shape": [14, 14, 1]}, {"fallback_for": 3}, {"resize": "odd"}):
        path = tmp_path / "changed.tflite"
        path.write_bytes(whole[: whole.index(b"PK\x03\x04")])
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("kerascls.json", json.dumps({**card, **change}))
        assert "card" in one_line_error("predict", path, digit_pngs[0] / "digit0.png", capsys=capsys)


def test_tensorflows_own_copy_answers_where_litert_is_not_installed(tflite, monkeypatch, capfd):
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), np.uint8)
    expected = kerascls.load(tflite).probabilities(images)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert litert._interpreter().__module__.startswith("tensorflow")
    assert np.abs(kerascls.load(tflite).probabilities(images) - expected).max() <= 1e-6
    assert capfd.readouterr().err == ""


def test_nothing_to_run_it_with_names_the_package(tflite, monkeypatch):
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError, match=r"needs ai-edge-litert to run: pip install 'kerascls\[litert\]'"):
        kerascls.load(tflite)


@pytest.mark.parametrize("name, package", [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_onnx_and_openvino_answer_without_tensorflow_and_refuse_in_one_line(
    digits_run, digit_pngs, tmp_path, name, package, monkeypatch, capsys
):
    file = {"onnx": "digits.onnx", "openvino": "digits"}[name]
    made = kerascls.export(digits_run, name, out=tmp_path / file).path
    program = (
        "import sys; from kerascls.cli import run; code = run(sys.argv[1:]); "
        "print(code, [name for name in ('tensorflow', 'keras', 'h5py') if name in sys.modules])"
    )
    files = sorted(digit_pngs[0].glob("*.png"))
    process = subprocess.run(
        [sys.executable, "-c", program, "predict", made, *files, "--json"], capture_output=True, text=True, check=True
    )
    *answers, last = process.stdout.splitlines()
    assert last == "0 []" and process.stderr == ""
    expected = kerascls.load(digits_run).predict(files)
    assert [json.loads(answer)["label"] for answer in answers] == [one.label for one in expected]

    told = {"onnx": "an ONNX file", "openvino": "an OpenVINO model"}[name]
    assert f"is {told}, which keeps no Keras layers" in one_line_error("summary", made, capsys=capsys)

    cut = tmp_path / f"cut-{file}"
    if name == "onnx":
        cut.write_bytes(made.read_bytes()[:-100])
    else:
        assert kerascls.load(made / "model.xml").card == kerascls.load(digits_run).card
        cut.mkdir()
        (cut / "model.xml").write_bytes((made / "model.xml").read_bytes()[:500])
    assert f"Model {cut} cannot be loaded" in one_line_error("predict", cut, files[0], capsys=capsys)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf"pip install 'kerascls\[{name}\]'"):
        kerascls.load(made)


def test_a_model_that_fails_or_answers_another_shape_is_one_line():
    class Runtime:
        kind = "a LiteRT file"
        answer = staticmethod(lambda images: np.ones((1, 2), np.float32))  # of one image, whatever it is given

        def __call__(self, images):
            return self.answer(images)

    def fail(images):
        raise RuntimeError("Tensor data is null.\nMore of it")

    classifier = Classifier(Card(("a", "b"), (8, 8, 1)), runtime=Runtime())
    with pytest.raises(ModelError, match=r"a LiteRT file, must answer \(3, 2\). Received: \(1, 2\)"):
        classifier.probabilities(np.zeros((3, 8, 8, 1), np.uint8))
    Runtime.answer = staticmethod(fail)
    with pytest.raises(ModelError, match="The model, a LiteRT file, fails on images: Tensor data is null.$"):
        classifier.probabilities(np.zeros((3, 8, 8, 1), np.uint8))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name is text")
def test_a_name_that_is_not_utf8_is_blamed_and_not_the_file(tflite, digit_pngs, tmp_path, capsys):
    folder = tmp_path / "b\udcff"
    folder.mkdir()
    shutil.copy(tflite, folder / "m.tflite")
    line = one_line_error("predict", folder / "m.tflite", digit_pngs[0], capsys=capsys)
    assert line.endswith("cannot be opened under a name that is not UTF-8: rename or copy it.")

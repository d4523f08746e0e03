"""What a model file is, said without running any of it."""

import hashlib
import json
import subprocess
import sys

import keras
import pytest
from conftest import here, one_line_error

import kerascls
from kerascls.formats.inspect import inspect


def test_a_run_is_told_by_its_layers_names_and_hashes(digits_run, capsys):
    found = json.loads(here("inspect", digits_run, "--json", capsys=capsys)[1])
    content = (digits_run / "model.keras").read_bytes()
    assert found["files"] == [
        {"file": "model.keras", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    ]
    assert (found["kind"], found["parameters"], found["refused"]) == ("a run's Keras model", 1198, None)
    assert found["layers"] == {
        "InputLayer": 1,
        "Rescaling": 1,
        "Conv2D": 2,
        "MaxPooling2D": 2,
        "Flatten": 1,
        "Dense": 1,
    }
    assert found["class_names"] == list("0123456789") and found["image_shape"] == [28, 28, 1]
    assert found["written_with"] == {"keras": keras.__version__} and found["data"] == "digits"


def test_the_table_says_what_the_object_says(digits_run, capsys):
    code, out, err = here("inspect", digits_run / "model.keras", capsys=capsys)
    assert (code, err) == (0, "")
    assert out.splitlines()[:-1] == [
        "kind          a Keras model (.keras)",
        f"written with  keras {keras.__version__}",
        "parameters    1,198",
        "layers        1 InputLayer, 1 Rescaling, 2 Conv2D, 2 MaxPooling2D, 1 Flatten, 1 Dense",
        "images        28 x 28 x 1, stretch",
        "classes       10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "data          digits",
        "loads         yes",
    ]


@pytest.mark.parametrize(
    "name, kind, parameters",
    [
        pytest.param("h5", "a Keras model (.h5)", 1198, marks=pytest.mark.slow),
        pytest.param("weights", "a Keras model (architecture, weights)", 1198, marks=pytest.mark.slow),
        pytest.param("saved_model", "a SavedModel", 1198, marks=pytest.mark.slow),
        pytest.param("litert", "a LiteRT file", None, marks=pytest.mark.slow),
        ("onnx", "an ONNX file", None),
        ("openvino", "an OpenVINO model", None),
    ],
)
def test_every_export_is_told_and_would_load(digits_run, tmp_path, name, kind, parameters):
    if package := {"onnx": "tf2onnx", "openvino": "openvino"}.get(name):
        pytest.importorskip(package)
    suffix = {"h5": ".h5", "litert": ".tflite", "onnx": ".onnx"}.get(name, "")
    found = inspect(kerascls.export(digits_run, name, out=tmp_path / f"export{suffix}").path)
    assert (found["kind"], found["refused"], found["needs_trust"]) == (kind, None, [])
    assert found["class_names"] == list("0123456789") and found["image_shape"] == [28, 28, 1]
    assert parameters in (None, found["parameters"])
    if name == "saved_model":
        assert found["signatures"]["pixels"]["inputs"] == {"images": "uint8 (None, None, None, 1)"}
        assert found["signatures"]["serving_default"]["outputs"]["probabilities"] == "float32 (None, 10)"


def test_a_file_that_would_be_refused_is_told_with_the_reason(tmp_path, capsys):
    inputs = keras.Input((6, 5, 1))
    flat = keras.layers.Flatten()(keras.layers.Lambda(lambda x: x * 2, name="\x1b[31mcode")(inputs))
    keras.Model(inputs, keras.layers.Dense(2)(flat), name="net").save(tmp_path / "code.keras")
    code, out, _ = here("inspect", tmp_path / "code.keras", capsys=capsys)
    assert code == 0 and "loads         no: " in out and "1 Lambda" in out and "6 x 5 x 1" in out
    assert "keras.layers.Lambda, at net/\N{REPLACEMENT CHARACTER}[31mcode" in out and "\x1b" not in out
    (tmp_path / "cut.keras").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert "cut.keras cannot be loaded" in inspect(tmp_path / "cut.keras")["refused"]


def test_operations_that_need_trust_are_listed(tmp_path):
    import tensorflow as tf

    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
        def read(self, name):
            return {"content": tf.io.read_file(name)}

    reader = Reader()
    tf.saved_model.save(reader, str(tmp_path / "reader"), signatures={"read": reader.read})
    found = inspect(tmp_path / "reader")
    assert {one["op"] for one in found["needs_trust"]} == {"ReadFile"}
    assert found["signatures"] == {"read": {"inputs": {"name": "string ()"}, "outputs": {"content": "string ()"}}}
    assert "lacks the signature pixels" in found["refused"]


def test_what_is_nowhere_or_no_model_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    assert "does not exist" in one_line_error("inspect", "nowhere", capsys=capsys)
    assert "is not a model" in one_line_error("inspect", tmp_path / "empty", capsys=capsys)
    assert "is not a model file" in inspect(tmp_path / "text.txt")["refused"]


def test_tensorflow_stays_unimported(digits_run):
    program = (
        "import sys; from kerascls.cli import run; run(['inspect', sys.argv[1]]); "
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, digits_run], capture_output=True, text=True, check=True, timeout=60
    )
    assert process.stdout.splitlines()[-1] == "[]"

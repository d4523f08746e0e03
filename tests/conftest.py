"""What all tests share. No test sees the network, the user's data, or the folder that pytest was started in."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent
# A proxy that refuses at once: every request fails as on a machine without a network.
NO_NETWORK = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
REAL_DATA = os.environ.get("KERASCLS_TEST_TFDS") or os.environ.get("TFDS_DATA_DIR")


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory):
    """The session's environment: no network, an empty home, no prepared data; TensorFlow started as commands do."""
    os.environ.update(NO_NETWORK)
    for name in ("TFDS_DATA_DIR", "KERASCLS_CACHE", "KERASCLS_CACHE_MB", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
    from kerascls import devices

    devices.start()


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every test stands in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run of `mnist_cnn` on the embedded digits, five epochs: enough to answer, cheap to make. Do not change it."""
    import kerascls

    out = tmp_path_factory.mktemp("runs") / "digits_run"
    kerascls.train(
        "mnist_cnn",
        data="digits",
        out=out,
        epochs=5,
        overrides={"train": {"optimizer": "adam", "learning_rate": 0.01, "warmup_epochs": 0, "batch_size": 32}},
    )
    return out


@pytest.fixture(scope="session")
def digit_pngs(tmp_path_factory):
    """Folder of twelve test digits as PNG files, and their labels."""
    from kerascls.datasets import load_dataset
    from kerascls.images import encode_png

    folder = tmp_path_factory.mktemp("pngs")
    test = load_dataset("digits").splits["test"]
    for i in range(12):
        (folder / f"digit{i}.png").write_bytes(encode_png(test.images[i]))
    return folder, test.labels[:12]


@pytest.fixture(scope="session")
def real_data():
    """The folder where TFDS has real MNIST prepared."""
    if not REAL_DATA or not (Path(REAL_DATA) / "mnist").is_dir():
        pytest.skip("needs real MNIST prepared by TFDS: KERASCLS_TEST_TFDS=DIR names its folder")
    return str(Path(REAL_DATA).resolve())


def command(*arguments, cwd=None, check=None, **environment):
    """Runs `kerascls ARGUMENTS` in a fresh process; `check` is the exit code that it must have."""
    process = subprocess.run(
        [sys.executable, "-m", "kerascls", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )
    if check is not None:
        assert process.returncode == check, f"exit {process.returncode}\n{process.stdout}\n{process.stderr}"
    return process


def here(*arguments, capsys=None):
    """Runs `kerascls ARGUMENTS` in this process: (exit code, stdout, stderr)."""
    from kerascls.cli import run

    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def one_line_error(*arguments, capsys, code=1):
    """Runs a command that must fail with exactly one line on stderr, and returns the line."""
    got, out, err = here(*arguments, capsys=capsys)
    assert got == code, f"exit {got}: {err}"
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), err
    assert "bug" not in lines[0], err
    return lines[0]


def tiny_backbone(path):
    """A .keras file of two convolutions with batch normalisation, for images of any size: 456 parameters."""
    import keras

    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((None, None, 3))
    for i, filters in ((1, 4), (2, 8)):
        x = keras.layers.Conv2D(filters, 3, name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{i}")(x)
        x = keras.layers.ReLU(name=f"relu{i}")(x)
    model = keras.Model(inputs, x, name="tiny")
    for layer in (model.get_layer("bn1"), model.get_layer("bn2")):
        layer.moving_mean.assign(np.linspace(-0.1, 0.1, layer.moving_mean.shape[0]))
        layer.moving_variance.assign(np.linspace(0.5, 1.5, layer.moving_mean.shape[0]))
    model.save(path)
    return path


def small_npz(path, count=10, classes=3, shape=(28, 28, 1), seed=0, **more):
    """A .npz of `count` training and `count` test images that tell their class by brightness."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = np.clip(generator.integers(0, 40, (count, *shape)) + labels[:, None, None, None] * 80, 0, 255)
    np.savez(
        path,
        **{
            "x_train": images.astype("uint8"),
            "y_train": labels,
            "x_test": images.astype("uint8"),
            "y_test": labels,
            **more,
        },
    )
    return path

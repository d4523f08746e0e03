"""Bad input of every kind gives one line and leaves nothing behind. Each case once broke a command."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from conftest import one_line_error, small_npz

BIG = "9" * 30


@pytest.mark.parametrize(
    "text",
    [
        f"epochs = {BIG}",
        f"epochs = {'9' * 5000}",
        "learning_rate = 1e300",
        "epsilon = 1e-320",
        "seed = " + "[" * 2000 + "]" * 2000,
        "epochs = nan",
    ],
)
def test_numbers_and_nesting_out_of_range(tmp_path, text, capsys):
    (tmp_path / "r.toml").write_text(f'[data]\nname = "digits"\n[model]\nname = "mnist_cnn"\n[train]\n{text}\n')
    assert "r.toml" in " ".join(_lines("train", "r.toml", capsys=capsys)) and os.listdir() == ["r.toml"]


def _lines(*arguments, capsys):
    from conftest import here

    code, _, err = here(*arguments, capsys=capsys)
    assert code == 1 and "Traceback" not in err and "bug" not in err and err.startswith("Error: "), err
    return err.splitlines()


@pytest.mark.parametrize(
    "setting",
    [
        f"train.epochs={BIG}",
        "train.epochs=" + "[" * 3000,
        'augment.policy=[{name=["flip"]}]',
        'augment.policy=[{name="shift", pixels=-5}]',
        'augment.policy=[{name="shift", pixels=2147483647}]',
        "model.filters=0",
        "model.filters=-3",
        f"data.image_shape=[{BIG}, 28, 1]",
    ],
)
def test_settings_that_cannot_be(setting, capsys):
    one_line_error("train", "mnist_cnn", "--data", "digits", "--set", setting, capsys=capsys)
    assert not os.listdir()


def test_a_batch_larger_than_the_data_trains(capsys):
    import kerascls

    small_npz("data.npz", count=10)
    overrides = {"train": {"batch_size": 2**31 - 1, "steps_per_execution": 2**31 - 1}}
    assert kerascls.train("mnist_cnn", data="data.npz", epochs=1, out="run", overrides=overrides).status == "complete"


def test_weights_that_end_infinite_are_told(capsys):
    small_npz("data.npz", count=10)
    arguments = ["--data", "data.npz", "--epochs", "1", "--batch-size", "100", "--out", "run", "--quiet"]
    hot = ["--set", "train.learning_rate=1e30", "--set", "train.warmup_epochs=0", "--set", "train.schedule=constant"]
    for validation in (0, 0.2):
        line = one_line_error(
            "train", "mnist_cnn", *arguments, *hot, "--set", f"data.validation={validation}", capsys=capsys
        )
        assert "learning rate is too high" in line
        assert json.loads(open_text("run/manifest.json"))["status"] == "failed"
        shutil.rmtree("run")


def open_text(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("names", [["a", "", "c"], ["a", "b\nc", "d"], ["a", "\ud800", "c"]])
def test_class_names_that_cannot_be_written(names, capsys):
    small_npz("data.npz", class_names=np.array(names))
    assert "printable text" in one_line_error("train", "mnist_cnn", "--data", "data.npz", capsys=capsys)


def test_npz_files_of_every_strange_kind(tmp_path, capsys):
    small_npz("whole.npz")
    with zipfile.ZipFile("whole.npz") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    for case, change in {
        "bytes": {"x_train.npy": b"not an array"},
        "header": {"x_train.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8', ((\n"},
        "text": {"x_train.txt": b"hello"},
    }.items():
        with zipfile.ZipFile(f"{case}.npz", "w") as archive:
            for name, content in {**members, **change}.items():
                archive.writestr(name, content)
        one_line_error("train", "mnist_cnn", "--data", f"{case}.npz", capsys=capsys)
    np.save("array.npy", np.zeros(3))
    os.rename("array.npy", "array.npz")
    one_line_error("train", "mnist_cnn", "--data", "array.npz", capsys=capsys)
    small_npz("scalar.npz", class_names=np.array("abc"))
    assert "list of names" in one_line_error("train", "mnist_cnn", "--data", "scalar.npz", capsys=capsys)


MODEL = """
import keras
L = keras.layers
def build(image_shape, num_classes):
    x = i = keras.Input(image_shape)
    {}
"""


@pytest.mark.parametrize(
    "body, fault",
    [
        ("raise SystemExit(3)", "cannot be built"),
        ("return keras.Model(i, L.Dense(num_classes)(x))", "must take"),
        ("return keras.Sequential([L.Flatten(), L.Dense(num_classes)])", "must take"),
        ("return keras.Model([i, keras.Input((3,))], L.Dense(num_classes)(L.Flatten()(x)))", "must take"),
        ("return keras.Model(i, {'a': L.Dense(num_classes)(L.Flatten()(x))})", "must"),
        ("return keras.Model(i, L.Dense(num_classes)(L.Flatten()(x)))", "must return probabilities"),
        ("return keras.Model(i, L.Dense(num_classes)(L.Flatten()(L.Lambda(lambda x: x)(x))))", "without Lambda"),
        ("return keras.Model(i, L.Dense(num_classes, dtype='float16')(L.Flatten()(x)))", "must return float32"),
        ("class N(keras.Model):\n        pass\n    return N()", "must"),
    ],
)
def test_models_of_ones_own_that_cannot_be(tmp_path, body, fault, capsys):
    (tmp_path / "net.py").write_text(MODEL.format(body))
    line = one_line_error(
        "train", "mnist_cnn", "--data", "digits", "--set", "model.name=./net.py", "--epochs", "1", capsys=capsys
    )
    assert fault in line and os.listdir() == ["net.py"]


@pytest.mark.parametrize(
    "file, content, command",
    [
        ("manifest.json", "[" * 5000, "evaluate"),
        ("manifest.json", '{"format": 1}', "evaluate"),
        ("manifest.json", '{"format": 1, "recipe": "r", "data": []}', "export"),
        ("manifest.json", "[1]", "predict"),
        ("config.toml", "not toml", "evaluate"),
        ("config.toml", "[train]\nepochs = 0", "evaluate"),
        ("samples/samples.json", "", "export"),
        ("samples/samples.json", "[]", "export"),
        ("samples/samples.json", '{"files": ["000.png"], "labels": [["0"]]}', "export"),
        ("samples/samples.json", '{"files": ["000.png"], "labels": []}', "export"),
        ("model.keras", "PK", "summary"),
    ],
)
def test_damaged_runs(digits_run, tmp_path, file, content, command, capsys):
    run = shutil.copytree(digits_run, tmp_path / "run")
    (run / file).write_text(content)
    before = sorted(path.name for path in run.rglob("*"))
    more = [run / "samples" / "000.png"] if command == "predict" else []
    lines = _lines(command, run, *more, capsys=capsys)
    assert file.rsplit("/", 1)[-1] in lines[0] or "run format None" in lines[0]
    assert sorted(path.name for path in run.rglob("*")) == before


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "epoch,loss\n1,x\n", "epoch,seconds\n1,2,3,4,5,6,7,8,9\n"])
def test_a_damaged_history_costs_the_pictures_alone(digits_run, tmp_path, content, capsys):
    from conftest import here

    run = shutil.copytree(digits_run, tmp_path / "run")
    (run / "history.csv").write_text(content)
    code, out, err = here("evaluate", run, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["examples"] == 364 and "Traceback" not in err


def test_file_names_that_are_not_utf8(digits_run, digit_pngs, tmp_path, capsys):
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    shutil.copy(digit_pngs[0] / "digit0.png", odd)
    from conftest import here

    assert here("predict", digits_run, os.fsdecode(odd), "--csv", "a.csv", capsys=capsys)[0] == 0
    with open("a.csv", "rb") as file:
        assert b"\xff\xfe.png" in file.read()


def test_pictures_of_no_kind(digits_run, digit_pngs, capsys):
    from conftest import here

    code, _, err = here("predict", digits_run, digit_pngs[0], "--plot", "a.xyz", capsys=capsys)
    assert code == 1 and "must be one of" in err and not os.listdir()


def test_a_device_is_never_replaced_by_a_file(digits_run, digit_pngs, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")  # stands for /dev/null, which a test had better leave alone
    for option in ("--csv", "--plot"):
        from conftest import here

        code, _, err = here("predict", digits_run, digit_pngs[0], option, "pipe", capsys=capsys)
        assert code == 1 and "it is a device or a pipe" in err
    assert os.listdir() == ["pipe"] and not (tmp_path / "pipe").is_file()


@pytest.mark.parametrize(
    "change",
    [
        {"y_train": np.arange(10) % 3 + 2**32},
        {"class_names": np.array([b"a", b"b", b"c"])},
        {"class_names": np.array([["a", "b"], ["c", "d"]])},
        {"class_names": np.array(["a", "b", "b"])},
        {"x_train": np.zeros((10, 0, 0), np.uint8), "x_test": np.zeros((10, 0, 0), np.uint8)},
    ],
)
def test_labels_names_and_images_that_would_change_their_meaning(change, capsys):
    small_npz("data.npz", **change)
    one_line_error("train", "mnist_cnn", "--data", "data.npz", capsys=capsys)
    assert os.listdir() == ["data.npz"]


def test_a_model_under_another_models_card(digits_run, tmp_path, capsys):
    run = shutil.copytree(digits_run, tmp_path / "run")
    with zipfile.ZipFile(run / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for change in ({"class_names": ["a", "b"]}, {"image_shape": [14, 14, 1]}, {"fallback_for": 3}, {"background": "x"}):
        card = json.dumps({**json.loads(members["kerascls.json"]), **change})
        with zipfile.ZipFile(run / "model.keras", "w") as archive:
            for name, content in {**members, "kerascls.json": card}.items():
                archive.writestr(name, content)
        assert "card" in one_line_error("predict", run, run / "samples" / "000.png", capsys=capsys)


def test_a_cut_image_costs_no_other(digits_run, digit_pngs, tmp_path, capsys):
    from conftest import here

    whole = (digit_pngs[0] / "digit0.png").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / f"cut{length:04d}.png").write_bytes(whole[:length])
    (tmp_path / "whole.png").write_bytes(whole)
    code, out, err = here("predict", digits_run, tmp_path, "--json", capsys=capsys)
    assert code == 1 and "bug" not in err
    assert "label" in json.loads(out.splitlines()[-1])
    assert all("error" in json.loads(line) for line in out.splitlines()[:-2])


def test_files_without_end_are_refused(digits_run, digit_pngs, tmp_path, monkeypatch, capsys):
    from conftest import here

    from kerascls.images import files

    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    (tmp_path / "large.png").write_bytes((digit_pngs[0] / "digit0.png").read_bytes() + bytes(10_000))
    for file, told in (("/dev/zero", "is not a file"), (tmp_path / "large.png", "is larger than 10,000 bytes")):
        code, _, err = here("predict", digits_run, file, capsys=capsys)
        assert code == 1 and told in err


IMAGES = np.random.default_rng(0).integers(0, 255, (10, 28, 28, 1), np.uint8)
LABELS = np.arange(10) % 3
UINT8 = "x_train must be uint8 in [0, 255], (n, height, width) or (n, height, width, 1 or 3). Received: "
WHOLE = "y_train must be 10 whole numbers, one an image. Received: "


@pytest.mark.parametrize(
    "change, told",
    [
        ({"y_train": LABELS - 1}, "y_train must be 0 or more. Received: -1"),
        ({"y_train": np.append(LABELS[:9], 2**31 - 1)}, "labels must be below 100,000. Received: 2,147,483,647."),
        ({"y_train": LABELS.astype(float)}, f"{WHOLE}float64 (10,). Store y.astype('int64')."),
        ({"y_train": LABELS + 0.5}, f"{WHOLE}float64 (10,)"),
        ({"y_train": np.eye(3)[LABELS]}, f"{WHOLE}float64 (10, 3), one-hot. Store y.argmax(1)."),
        (
            {"y_train": LABELS.astype(str)},
            f"{WHOLE}<U21 (10,). Store class_names, y = np.unique(y, return_inverse=True).",
        ),
        ({"y_train": LABELS[:5]}, f"{WHOLE}int64 (5,)"),
        (
            {"x_train": IMAGES / 256},
            f"{UINT8}float64 (10, 28, 28, 1) from 0 to 0.992188. Store np.round(255 * x).astype('uint8').",
        ),
        (
            {"x_train": IMAGES.astype("float32")},
            f"{UINT8}float32 (10, 28, 28, 1) from 0 to 254. Store np.round(x).astype('uint8').",
        ),
        ({"x_train": IMAGES - 5.0}, f"{UINT8}float64 (10, 28, 28, 1) from -5 to 249. Bring them to [0, 255]."),
        (
            {"x_train": np.where(np.arange(28) == 0, np.nan, IMAGES[..., 0] / 255)},
            f"{UINT8}float64 (10, 28, 28, 1), of which 280 values are NaN or infinite. Find out why.",
        ),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "split train has no images."),
        ({"x_test": IMAGES[:0], "y_test": LABELS[:0]}, "split test has no images."),
        (
            {"y_train": np.array([{}] * 10, dtype=object)},
            "y_train holds pickled Python objects, which are never read. Expected an array of numbers or of text.",
        ),
    ],
)
@pytest.mark.parametrize("command", ["train", "sweep", "show"])
def test_arrays_that_are_no_images_or_labels_say_how_they_become_it(command, change, told, capsys):
    small_npz("data.npz", **change)
    words = {
        "train": ["train", "mnist_cnn", "--data", "data.npz"],
        "sweep": ["sweep", "mnist_cnn", "--data", "data.npz", "--set", "train.epochs=1,2", "--folds", "2"],
        "show": ["show", "data.npz"],
    }
    error = one_line_error(*words[command], capsys=capsys)
    assert error.removeprefix("Error: data.npz: ").startswith(told)
    assert os.listdir() == ["data.npz"]


def _npy(shape, descr="|u1"):
    """The header of an array file, without the array."""
    head = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head


@pytest.mark.parametrize(
    "header, told",
    [
        (_npy((10**5, 10**5, 10**4)), "its arrays need 93,132.3 GiB of memory; at most "),
        (_npy((2**62, 2**62, 4)), "GiB of memory; at most "),
        (_npy((10, 28, 28), "|O"), "x_train holds pickled Python objects, which are never read."),
        (_npy((-10, 28, 28)), "is not a whole .npz file of plain arrays, as np.savez writes: negative"),
        (_npy((10, 28, 28)), "is not a whole .npz file of plain arrays, as np.savez writes: "),
    ],
)
def test_what_an_npz_declares_is_held_against_the_memory_before_it_is_read(header, told, capsys):
    small_npz("whole.npz")
    with zipfile.ZipFile("whole.npz") as whole, zipfile.ZipFile("data.npz", "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, header if name == "x_train.npy" else whole.read(name))
    assert told in one_line_error("train", "mnist_cnn", "--data", "data.npz", capsys=capsys)
    assert sorted(os.listdir()) == ["data.npz", "whole.npz"]


def test_a_pickle_is_never_unpickled(tmp_path, capsys):
    (tmp_path / "data.npz").write_bytes(b"cos\nmkdir\n(S'made'\ntR.")
    assert "is not a whole .npz file" in one_line_error("train", "mnist_cnn", "--data", "data.npz", capsys=capsys)
    assert os.listdir() == ["data.npz"]


@pytest.mark.parametrize(
    "change, validation, told",
    [
        (
            {"y_train": LABELS * 0, "y_test": LABELS * 0},
            2,
            "images of one class alone, 0. A classifier needs at least two.",
        ),
        (
            {"x_train": IMAGES[:1], "y_train": LABELS[:1]},
            0.1,
            "data.npz: data.validation takes 1 of 1 training images, which leaves none to train on. Lower data.val",
        ),
        ({}, 10, "data.npz: data.validation takes 10 of 10 training images, which leaves none to train on."),
    ],
)
def test_too_little_to_train_on_is_one_line(change, validation, told, capsys):
    small_npz("data.npz", **change)
    words = ["train", "mnist_cnn", "--data", "data.npz", "--set", f"data.validation={validation}"]
    assert told in one_line_error(*words, capsys=capsys) and os.listdir() == ["data.npz"]


@pytest.mark.parametrize(
    "change, validation, told",
    [
        ({"x_train": IMAGES[:1], "y_train": LABELS[:1]}, 0, "no training image, so it cannot be learnt: 1, 2"),
        pytest.param(
            {"x_train": IMAGES[:3], "y_train": LABELS[:3]},
            0.02,
            "data.npz: 2 train, 1 validation (held out), 10 test",
            marks=pytest.mark.slow,
        ),
        (
            {"x_train": IMAGES[:2], "y_train": LABELS[:2], "class_names": np.array(list("abcdefgh"))},
            0,
            "c, d, e, f, g and",
        ),
        pytest.param({"x_train": IMAGES * 0}, 2, "data.npz: 8 train, 2 validation", marks=pytest.mark.slow),
        pytest.param({"y_test": LABELS * 0}, 2, "data.npz: 8 train, 2 validation", marks=pytest.mark.slow),
    ],
)
def test_little_or_odd_data_trains_and_what_cannot_be_learnt_is_said(change, validation, told, capsys):
    from conftest import here

    small_npz("data.npz", **change)
    words = ["train", "mnist_cnn", "--data", "data.npz", "--epochs", 1, "--set", f"data.validation={validation}"]
    code, _, err = here(*words, "--out", "run", capsys=capsys)
    assert code == 0 and told in err
    assert json.loads(open_text("run/metrics.json"))["splits"]["test"]["examples"] == 10

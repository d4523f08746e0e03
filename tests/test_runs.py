"""Run folders: whole or absent."""

import json
import os
from pathlib import Path

import pytest

from kerascls import runs
from kerascls.errors import OutputError, RunError


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "metrics.json"
    runs.write_text(path, "old")
    with pytest.raises(ValueError), runs.atomic(path) as temporary:
        temporary.write_text("ne")
        raise ValueError
    assert path.read_text() == "old"
    runs.write_text(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_folder_is_whole_or_absent_and_replaces_nothing(tmp_path):
    with pytest.raises(RuntimeError), runs.atomic(tmp_path / "export") as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert not os.listdir(tmp_path)
    (tmp_path / "export").mkdir()
    with pytest.raises(OutputError, match="exists already"), runs.atomic(tmp_path / "export") as temporary:
        temporary.mkdir()


def test_a_folder_replaces_another_only_when_it_is_whole(tmp_path):
    path = tmp_path / "export"
    for content in ("old", "new"):
        with runs.atomic(path, replace_folder=True) as temporary:
            temporary.mkdir()
            (temporary / content).write_text("")
        assert os.listdir(path) == [content]
    with pytest.raises(RuntimeError), runs.atomic(path, replace_folder=True) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["export"]


def test_a_folder_that_does_not_exist_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match="Cannot write"):
        runs.write_text(tmp_path / "nowhere" / "file", "text")


def test_runs_never_overwrite_each_other():
    fill = lambda folder: runs.write_text(folder / "file", "text")  # noqa: E731
    names = [runs.Run.create(None, "mnist_cnn", fill).path.name for _ in range(3)]
    assert names == ["mnist_cnn", "mnist_cnn-2", "mnist_cnn-3"]
    with pytest.raises(OutputError, match="exists already"):
        runs.Run.create(Path("saved_models/mnist_cnn"), "x", fill)
    assert sorted(path.name for path in Path("saved_models").iterdir()) == names  # and nothing else

    def failing(folder):
        runs.write_text(folder / "file", "text")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        runs.Run.create(None, "mnist_cnn", failing)
    assert sorted(path.name for path in Path("saved_models").iterdir()) == names


def test_what_is_not_a_run_is_told(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        runs.Run.open("nowhere")
    with pytest.raises(RunError, match="no manifest.json"):
        runs.Run.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        runs.Run.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="format 99"):
        runs.Run.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "status": "interrupted"}')
    with pytest.raises(RunError, match="lacks recipe"):
        runs.Run.open(tmp_path)
    manifest = {
        "format": 1,
        "status": "interrupted",
        "recipe": "r",
        "kept_epoch": None,
        "best_epoch": 3,
        "data": {"name": "d", "fingerprint": "f", "fallback_for": None},
    }
    for change, told in (
        ({"kept_epoch": {}}, "kept_epoch is '{}'"),
        ({"kept_epoch": True}, "kept_epoch is 'True'"),
        ({"device": []}, r"device is '\[\]'"),
        ({"data": {"name": "d", "fingerprint": 3}}, "data.fingerprint is '3'"),
        ({"data": {"name": "d", "fingerprint": "f"}}, "lacks data.fallback_for"),
        ({"data": 3}, "data is '3'"),
        ({"seconds": {"fit": float("inf")}}, "Infinity is no finite number"),
        ({}, "status interrupted.*--resume"),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(RunError, match=told):
            runs.Run.open(tmp_path)


def test_nan_is_never_written_as_json(tmp_path):
    with pytest.raises(ValueError):
        runs.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not os.listdir(tmp_path)

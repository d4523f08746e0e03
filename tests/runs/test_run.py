"""Run folders: made once, and opened only where they are what they say."""

import json
from pathlib import Path

import pytest

from kerascls.errors import OutputError, RunError
from kerascls.runs import run
from kerascls.system import atomic_files


def test_runs_never_overwrite_each_other():
    fill = lambda folder: atomic_files.write_text(folder / "file", "text")  # noqa: E731
    names = [run.Run.create(None, "mnist_cnn", fill).path.name for _ in range(3)]
    assert names == ["mnist_cnn", "mnist_cnn-2", "mnist_cnn-3"]
    with pytest.raises(OutputError, match="exists already"):
        run.Run.create(Path("saved_models/mnist_cnn"), "x", fill)
    assert sorted(path.name for path in Path("saved_models").iterdir()) == names  # and nothing else

    def failing(folder):
        atomic_files.write_text(folder / "file", "text")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        run.Run.create(None, "mnist_cnn", failing)
    assert sorted(path.name for path in Path("saved_models").iterdir()) == names


def test_what_is_not_a_run_is_told(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        run.Run.open("nowhere")
    with pytest.raises(RunError, match="no manifest.json"):
        run.Run.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        run.Run.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="format 99"):
        run.Run.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "status": "interrupted"}')
    with pytest.raises(RunError, match="lacks recipe"):
        run.Run.open(tmp_path)
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
            run.Run.open(tmp_path)

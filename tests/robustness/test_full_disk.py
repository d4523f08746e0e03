"""A disk that is full, at whatever write: one line, exit 1, and all that was there before as it was."""

import hashlib
import os
import shutil
import subprocess
import tempfile

import pytest

from kerascls.cli import run as kerascls_command
from kerascls.formats.registry import FORMATS
from kerascls.runs.run import Run

SIZE = 32 * 2**20


@pytest.fixture(scope="module")
def disk(tmp_path_factory, digits_run, digit_pngs):
    """A file system of SIZE bytes in memory, with a run and images."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system can be mounted by root alone")
    try:
        shutil.copytree(digits_run, folder / "run")
        (folder / "run" / "exports").mkdir(exist_ok=True)
        shutil.copytree(digit_pngs[0], folder / "images")
        yield folder
    finally:
        os.chdir("/")
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def filled(disk, monkeypatch, capsys):
    """Runs a command in the file system with so many bytes left. Exit code and stderr; what was there is compared."""
    monkeypatch.chdir(disk)

    def files():
        found = [path for path in sorted(disk.rglob("*")) if path.name not in ("ballast", "lock")]
        return {path: path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    def attempt(free, *words):
        before = files()
        room = os.statvfs(disk)
        (disk / "ballast").write_bytes(b"\0" * (room.f_bavail * room.f_frsize - free))
        try:
            code = kerascls_command([str(word) for word in words])
        finally:
            (disk / "ballast").unlink()
        after = files()
        assert {path: after.get(path) for path in before} == before
        return (
            code,
            capsys.readouterr().err.splitlines(),
            sorted(str(path.relative_to(disk)) for path in after.keys() - before),
        )

    return attempt


@pytest.mark.parametrize(
    "format",
    [pytest.param(f, marks=() if f in ("keras", "weights", "onnx") else pytest.mark.slow) for f in FORMATS],
)
def test_an_export_is_whole_or_absent(filled, format):
    words = ["export", "run", "--format", format, *(["--data", "digits"] if "int8" in format else [])]
    for free in (0, 4096):
        code, told, new = filled(free, *words)
        assert (code, new) == (1, [])
        assert len(told) == 1 and told[0].startswith("Error: Cannot write run/exports"), told
        assert told[0].endswith("No space left on device."), told


def test_a_table_keeps_the_answers_that_it_has(filled, disk):
    words = ["predict", "run", *["images"] * 60, "--csv", "answers.csv"]
    code, told, new = filled(16384, *words)
    assert code == 1 and told[-1] == "Error: Cannot write answers.csv: No space left on device."
    assert "answers are kept in answers.csv." in told[-2] and [name.endswith(".partial") for name in new] == [True]
    assert kerascls_command(words) == 0
    assert len((disk / "answers.csv").read_text().splitlines()) == 1 + 60 * 12
    (disk / "answers.csv").unlink()


def test_pictures_are_whole_or_absent(filled):
    for free in (0, 4096):
        code, told, new = filled(free, "explain", "run", "images", "--out", "maps")
        assert code == 1 and told[-1].endswith("No space left on device.") and new in ([], ["maps"]), (told, new)
        code, told, new = filled(free, "predict", "run", "images", "--plot", "nine.png")
        assert (code, told, new) == (1, ["Error: Cannot write nine.png: No space left on device."], [])


TRAIN = ["mnist_cnn", "--data", "digits", "--epochs", "2", "--quiet", "--set", "train.warmup_epochs=0"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Scores of a training that had room."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert kerascls_command(["train", *TRAIN, "--out", str(out)]) == 0
    return (out / "metrics.json").read_bytes()


# Of the folder, of the first epoch's model, of the samples, of a picture.
@pytest.mark.parametrize("free", [8192, *[pytest.param(n, marks=pytest.mark.slow) for n in (60_000, 200_000, 450_000)]])
def test_a_training_goes_on_when_there_is_room_again(filled, disk, free, whole):
    code, told, new = filled(free, "train", *TRAIN, "--out", "new")
    assert code == 1 and len(told) == 1 and "No space left on device" in told[0] and ".kerascls-" not in told[0], told
    assert not [name for name in new if "/." in name]
    assert (new == []) == (free == 8192)
    if new:
        assert kerascls_command(["train", "--resume", "new", "--quiet"]) == 0
        assert (disk / "new" / "metrics.json").read_bytes() == whole
        shutil.rmtree(disk / "new")


@pytest.mark.slow
def test_a_full_temporary_folder_is_no_fault_of_the_model(
    filled, disk, digits_run, digit_pngs, tmp_path, whole, monkeypatch
):
    """The disk of the run has room."""
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    line = f"in {disk}: No space left on device. Make room there, or set TMPDIR to another folder."
    code, told, new = filled(4096, "predict", digits_run, digit_pngs[0])
    assert (code, new) == (1, []) and len(told) == 1 and told[0].endswith(line), told
    code, told, new = filled(4096, "train", *TRAIN, "--out", tmp_path / "new")
    assert (code, new) == (1, []) and len(told) == 1 and told[0].endswith(line), told
    assert Run.unfinished(tmp_path / "new").manifest["status"] == "interrupted"
    assert kerascls_command(["train", "--resume", str(tmp_path / "new"), "--quiet"]) == 0
    assert (tmp_path / "new" / "metrics.json").read_bytes() == whole


def test_without_a_temporary_folder_that_can_be_written_the_line_says_so(digits_run, digit_pngs, monkeypatch, capsys):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert kerascls_command(["predict", str(digits_run), str(digit_pngs[0])]) == 1
    assert capsys.readouterr().err.endswith("no temporary folder can be written. Set TMPDIR to one.\n")

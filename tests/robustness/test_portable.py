"""Other systems: what Windows and macOS lack is taken away from a process, and it works all the same."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import small_npz

import kerascls
from kerascls.system import atomic_files

# Python runs it when it begins, in every process that these start: no fcntl, resource and renameat2, no /proc, no
# processor affinity; and, as on Windows, nothing that this process has open can be renamed or removed.
SITE = """
import ctypes, importlib.abc, os, shutil, sys

import psutil  # whose modules for this system need what those for others do not

LACKS = {"fcntl", "resource", "termios", "pwd", "grp"}

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in LACKS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in LACKS:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Finder())

def no_proc(event, arguments):
    path = arguments[0] if event in ("open", "os.listdir", "os.scandir") else ""
    if isinstance(path, str | bytes) and os.fsdecode(path).startswith(("/proc", "/sys/fs")):
        raise FileNotFoundError(2, "No such file or directory", path)

sys.addaudithook(no_proc)
for name in ("sched_getaffinity", "sysconf"):
    vars(os).pop(name, None)

def without_renameat2(library, name, usual=ctypes.CDLL.__getattr__):
    if name == "renameat2":
        raise AttributeError(name)
    return usual(library, name)

ctypes.CDLL.__getattr__ = without_renameat2

def opened():
    for number in range(3, 256):
        try:
            yield os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass

def guarded(name):
    usual = getattr(os, name)

    def call(path, *more, **options):
        place = os.path.realpath(path)
        if any(one == place or one.startswith(place + os.sep) for one in opened()):
            raise PermissionError(13, "Permission denied", path)
        return usual(path, *more, **options)

    setattr(os, name, call)

for name in ("unlink", "remove", "rename", "replace", "rmdir"):
    guarded(name)
shutil._use_fd_functions = False
"""

PROGRAM = """
import os, signal, sys
from kerascls.cli import run

lacking = [name for name in ("fcntl", "resource") if name in sys.modules]
assert not lacking and not hasattr(os, "sched_getaffinity"), lacking
small = ["train", "mnist_cnn", "--data", "small.npz", "--epochs", "2", "--quiet"]
from kerascls.training.callbacks.checkpoints import SaveState

usual = SaveState.on_epoch_end

def interrupt(self, epoch, logs=None):
    usual(self, epoch, logs)
    signal.raise_signal(signal.SIGINT)

SaveState.on_epoch_end = interrupt
codes = [run([*small, "--out", "run"])]
SaveState.on_epoch_end = usual
codes += [run(["train", "--resume", "run", "--quiet"])]
codes += [run(["predict", "run", "run/samples", "--csv", "answers.csv"])]
codes += [run(["export", "run", "--format", "saved_model"]) for _ in range(2)]  # the second replaces the first
codes += [run(["inspect", "run"])]
print(codes, file=sys.stderr)
"""


def test_train_resume_predict_export_and_inspect_need_nothing_that_windows_lacks():
    Path("site").mkdir()
    Path("site/sitecustomize.py").write_text(SITE)
    small_npz("small.npz", count=10)
    path = os.pathsep.join(["site", str(Path(kerascls.__file__).parent.parent)])
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr.splitlines()[-1] == str([130, 0, 0, 0, 0, 0]), process.stderr
    assert json.loads(Path("run/manifest.json").read_text())["status"] == "complete"
    with open("answers.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 10
    assert sorted(os.listdir()) == ["answers.csv", "run", "site", "small.npz"]
    left = [path for path in Path("run").rglob("*") if path.name in ("checkpoint", "lock") or path.name[0] == "."]
    assert left in ([], [Path("run/exports/.kerascls.lock")])


def test_without_locks_of_folders_what_was_left_goes_after_a_day(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    folder, lock = atomic_files._temporary_folder(tmp_path)
    assert lock is None
    atomic_files.clear_left(tmp_path)
    assert folder.exists()  # its writer may be at work
    os.utime(folder, (0, 0))
    atomic_files.clear_left(tmp_path)
    assert not folder.exists()


def test_without_fcntl_writers_take_turns_by_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    taken = []
    monkeypatch.setattr(
        atomic_files, "alone", lambda lock, waiting: taken.append(lock.name) or pytest.MonkeyPatch.context()
    )
    with atomic_files.one_at_a_time(tmp_path):
        assert taken == [".kerascls.lock"]

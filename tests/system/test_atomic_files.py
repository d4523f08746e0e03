"""Files and folders: whole or absent, and written by one process at a time."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kerascls.errors import OutputError
from kerascls.system import atomic_files


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "metrics.json"
    atomic_files.write_text(path, "old")
    with pytest.raises(ValueError), atomic_files.atomic(path) as temporary:
        temporary.write_text("ne")
        raise ValueError
    assert path.read_text() == "old"
    atomic_files.write_text(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_folder_is_whole_or_absent_and_replaces_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_files.atomic(tmp_path / "export") as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert not os.listdir(tmp_path)
    (tmp_path / "export").mkdir()
    with pytest.raises(OutputError, match="exists already"), atomic_files.atomic(tmp_path / "export") as temporary:
        temporary.mkdir()


def test_a_folder_replaces_another_only_when_it_is_whole(tmp_path):
    path = tmp_path / "export"
    for content in ("old", "new"):
        with atomic_files.atomic(path, replace_folder=True) as temporary:
            temporary.mkdir()
            (temporary / content).write_text("")
        assert os.listdir(path) == [content]
    with pytest.raises(RuntimeError), atomic_files.atomic(path, replace_folder=True) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["export"]


def test_a_folder_that_does_not_exist_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match="Cannot write"):
        atomic_files.write_text(tmp_path / "nowhere" / "file", "text")


def test_nan_is_never_written_as_json(tmp_path):
    with pytest.raises(ValueError):
        atomic_files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not os.listdir(tmp_path)


WRITER = """
import sys, time
from pathlib import Path
from kerascls.system.atomic_files import atomic
with atomic(Path(sys.argv[1])) as temporary:
    temporary.mkdir()
    (temporary / "part").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_writer_left_goes_with_the_next_and_a_living_one_is_spared(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / name)], stdout=subprocess.PIPE)
        for name in ("dead", "alive")
    ]
    try:
        assert [writer.stdout.readline() for writer in writers] == [b"writing\n"] * 2
        assert len(os.listdir(tmp_path)) == 2
        writers[0].kill()
        writers[0].wait()
        atomic_files.write_text(tmp_path / "file", "text")
        (left, name) = sorted(os.listdir(tmp_path))
        assert name == "file" and os.listdir(tmp_path / left) == ["alive"]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


RACER = """
import sys, time
from pathlib import Path
from kerascls.system.atomic_files import write_text
from kerascls.runs.run import Run
me, start = sys.argv[1], float(sys.argv[2])
while time.time() < start:
    pass
for i in range(150):
    write_text(Path(f"mine-{me}"), str(i))
for i in range(40):
    while time.time() < start + 1 + i / 40:
        pass
    run = Run.create(None, f"run{i}", lambda folder: (folder / "who").write_text(me))
    assert (run.path / "who").read_text() == me, run.path
"""


@pytest.mark.slow
def test_writers_at_once_are_not_in_each_others_way(tmp_path):
    start = time.time() + 1
    command = [sys.executable, "-c", RACER]
    racers = [subprocess.Popen([*command, str(i), str(start)], stderr=subprocess.PIPE) for i in range(4)]
    assert [(racer.communicate()[1], racer.returncode) for racer in racers] == [(b"", 0)] * 4
    assert [Path(f"mine-{i}").read_text() for i in range(4)] == ["149"] * 4
    assert len(os.listdir("saved_models")) == 4 * 40 and len(os.listdir()) == 5


def test_folders_of_a_users_own_are_spared(tmp_path):
    names = [".kerascls-cache", ".kerascls-", ".kerascls-0bbfd16a-backup", ".kerascls-0bbfd16a-w05woe7o.d"]
    for name in names:
        (tmp_path / name).mkdir()
    atomic_files.write_text(tmp_path / "file", "text")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "file"])


def test_what_another_machine_left_goes_after_a_day(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(atomic_files.platform, "node", lambda: "elsewhere")
        left, lock = atomic_files._temporary_folder(tmp_path)
    os.close(lock)  # as where a drive does not tell of locks
    atomic_files.write_text(tmp_path / "file", "text")
    assert left.exists()
    os.utime(left, (0, 0))
    atomic_files.write_text(tmp_path / "file", "text")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_replaced_in_one_step(tmp_path, monkeypatch):
    """Between two renames a kill would leave neither the earlier nor the new one in its place."""
    path, renamed = tmp_path / "export", []

    def write(content):
        with atomic_files.atomic(path, replace_folder=True) as temporary:
            temporary.mkdir()
            (temporary / content).write_text("")
        assert os.listdir(path) == [content] and os.listdir(tmp_path) == ["export"]

    write("old")
    rename = os.replace
    monkeypatch.setattr(atomic_files.os, "replace", lambda *names: renamed.append(names) or rename(*names))
    write("new")
    assert len(renamed) == (0 if sys.platform == "linux" else 2)
    monkeypatch.setattr(atomic_files, "_exchange", lambda *_: False)  # as on other systems
    write("newer")
    assert [Path(name).name for name in renamed[-1]] == ["export", "export"]


def test_who_asks_second_for_a_folder_waits(tmp_path):
    order = []

    def second():
        with atomic_files.one_at_a_time(tmp_path):
            order.append("second")

    with atomic_files.one_at_a_time(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_json_has_lists_and_tables_of_numbers_on_a_line(tmp_path):
    value = {"a": {"b": 1, "c": None}, "rows": [[1, 2], [3, 4.5]], "names": ["x", "é"], "none": [], "deep": [{"x": {}}]}
    atomic_files.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.splitlines() == [
        "{",
        '  "a": {"b": 1, "c": null},',
        '  "rows": [',
        "    [1, 2],",
        "    [3, 4.5]",
        "  ],",
        '  "names": [',
        '    "x",',
        '    "é"',
        "  ],",
        '  "none": [],',
        '  "deep": [',
        "    {",
        '      "x": {}',
        "    }",
        "  ]",
        "}",
    ]

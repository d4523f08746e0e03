"""The cache of features: within its limit, never half an entry, and one process at a time."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import here, one_line_error, tiny_transfer

import kerascls
from kerascls.errors import ConfigError, DataError, OutputError
from kerascls.system import cache, memory
from kerascls.system.cache import Entry, entries

RECIPE = """
[train]
epochs = 1
batch_size = 8
"""
FLIP = {"augment": {"policy": [{"name": "flip"}]}}


@pytest.fixture
def tiny(empty_folder, monkeypatch):
    monkeypatch.setenv("KERASCLS_CACHE", "cache")
    return tiny_transfer(RECIPE)


RACER = """
import random, sys, time
from kerascls.system import cache
until = time.time() + 3
while time.time() < until:
    if sys.argv[1] == "put":
        entry = cache.Entry.of({"k": random.randrange(6)})
        with entry.locked(), entry.appending((10, 4), {"what": "x", "view": 0}, 5) as (file, done):
            file.write(bytes((10 - done) * 16))
    else:
        {"clear": cache.clear, "table": cache.table}[sys.argv[1]]()
"""


@pytest.mark.slow
def test_who_lists_clears_and_computes_at_once_is_not_in_each_others_way(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASCLS_CACHE", str(tmp_path / "cache"))
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, what], stderr=subprocess.PIPE, text=True)
        for what in ("put", "put", "clear", "clear", "table")
    ]
    told = [(racer.communicate()[1], racer.returncode) for racer in racers]
    assert [code for _, code in told] == [0] * 5, told
    assert {line for text, _ in told for line in text.splitlines()} <= {
        "Another process computes these features: waiting for it."
    }


def test_a_full_disk_is_one_line_and_what_was_there_goes_on(tiny, monkeypatch, capsys):
    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if len(data) > 300:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    original = Path.open

    def opened(self, *how, **more):
        return (Full if self.name == "features.part" else lambda file: file)(original(self, *how, **more))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        line = one_line_error("train", tiny, "--set", "features.views=1", "--out", "run", "--quiet", capsys=capsys)
    assert "No space left on device. Set KERASCLS_CACHE to a folder with room" in line
    assert not list(Path("cache").rglob("features.npy"))
    assert kerascls.train(tiny, out="again", overrides={"features": {"views": 1}}).status == "complete"


def test_the_cache_keeps_to_its_limit_and_the_oldest_go_first(tiny, monkeypatch):
    monkeypatch.setenv("KERASCLS_CACHE_MB", "1")
    rows = 12_500  # of 8 numbers: 400 kB an entry
    for i in range(3):
        entry = Entry.of({"number": i})
        with entry.locked(), entry.appending((rows, 8), {"what": str(i)}, 32) as (file, _):
            cache.make_room(rows * 32, entry)
            file.write(bytes(rows * 32))
        for file in entry.path.iterdir():
            os.utime(file, (i, i))
    assert [entry.about()["what"] for entry in entries()] == ["2", "1"]
    cache.make_room(900_000, *entries())  # they are wanted, so they stay
    assert len(entries()) == 2
    with pytest.raises(OutputError, match="limited to 1"):
        cache.make_room(2_000_000, Entry.of({}))
    monkeypatch.setenv("KERASCLS_CACHE_MB", "many")
    with pytest.raises(ConfigError, match="KERASCLS_CACHE_MB must be"):
        cache.cache_limit()


@pytest.mark.slow
def test_room_is_made_for_a_whole_training_at_once(tiny, monkeypatch):
    views = {"features": {"views": 4}, **FLIP}
    monkeypatch.setattr(cache, "cache_limit", lambda: 7_000)  # 43 and 5 images of 8 numbers: 4 x 1,376 + 160 bytes
    with pytest.raises(OutputError, match="Features would take 0 MB, and the cache is limited to 0. Set KERASCLS"):
        kerascls.train(tiny, out="refused", overrides={**views, "features": {"views": 9}})
    assert entries() == []
    kerascls.train(tiny, out="first", overrides=views)
    again = kerascls.train(tiny, out="second", overrides=views)
    told = json.loads((again.path / "manifest.json").read_text())["features"]
    assert (told["computed"], told["from_cache"]) == (0, 4 * 43 + 5)


def test_features_are_held_against_memory_before_any_is_computed(tiny, monkeypatch):
    monkeypatch.setattr(memory, "container_limit", lambda: None)
    monkeypatch.setattr(memory, "machine", lambda: (memory.OTHERS + 1_000_000, 1 << 40))
    views = {"features": {"views": 1000}, **FLIP}  # 1.4 MB
    with pytest.raises(DataError, match="Features need 0.0 GiB of memory beside the 0.0 GiB of the images; at most"):
        kerascls.train(tiny, out="run", overrides=views)
    assert entries() == []


def test_the_command_lists_and_clears(tiny, capsys):
    kerascls.train(tiny, out="run", overrides={"features": {"views": 2}, **FLIP})
    code, out, _ = here("features", capsys=capsys)
    assert code == 0 and out.count("small.npz train, view 1, 43 images, float32") == 1
    assert out.count("train, view 2") == out.count("validation, view 1") == 1
    entry = next(entry for entry in entries() if entry.about()["view"] == 1)
    with entry.locked():
        code, out, err = here("features", "--clear", capsys=capsys)
    assert "removed: 2 entries" in err and out.count("view 2") == 1
    here("features", "--clear", capsys=capsys)
    assert entries() == []


@pytest.mark.slow
def test_damaged_rows_are_one_line(tiny, capsys):
    command = ("train", tiny, "--set", "features.views=1", "--quiet")
    assert here(*command, capsys=capsys)[0] == 0
    file = next(Path("cache").rglob("features.npy"))
    file.write_bytes(file.read_bytes()[:-40])
    assert "damaged" in one_line_error(*command, capsys=capsys)

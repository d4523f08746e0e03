"""Folders opened again: what has not changed is not read, what has is, and the index never changes an answer."""

import dataclasses
import errno
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import here
from PIL import Image

import kerascls
from kerascls.data import batches, folder_index, folder_opening, loading
from kerascls.data.dataset import in_batches
from kerascls.data.folder import FileImages
from kerascls.errors import DataError
from kerascls.images import read as reading
from kerascls.system import read_ahead
from kerascls.system.cache import FOLDERS, cache_folder, entries

SHAPE = (8, 8, 3)
_opened: list[str] = []
sys.addaudithook(lambda event, given: event == "open" and _opened.append(str(given[0])))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERASCLS_CACHE", str(tmp_path / "cache"))


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of thirty images, a broken one, and a file that is none."""
    for i in range(60):
        save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png", i)
    whole = (tmp_path / "data" / "a" / "0.png").read_bytes()
    (tmp_path / "data" / "a" / "broken.png").write_bytes(whole[:100])
    (tmp_path / "data" / "b" / "notes").write_text("hello")
    return tmp_path / "data"


def load(folder, cache_mb=100, **more):
    return loading.load_dataset(str(folder), **{"image_shape": SHAPE, "cache_mb": cache_mb, **more})


def read_by(folder, cache_mb=100, **more):
    """Names of the files that an opening reads, and what it gives."""
    _opened.clear()
    dataset = load(folder, cache_mb, **more)
    return read_below(folder), dataset


def read_below(folder):
    """Names of the files below a folder that were opened."""
    root = f"{os.path.abspath(folder)}{os.sep}"
    return sorted({os.path.basename(path) for path in _opened if os.path.abspath(path).startswith(root)})


def same(one, other):
    assert one.skipped == other.skipped and one.class_names == other.class_names
    assert one.fingerprint() == other.fingerprint()
    for name, split in one.splits.items():
        assert split.origin.names == other.splits[name].origin.names
        assert split.origin.checksums == other.splits[name].origin.checksums
        np.testing.assert_array_equal(split.labels, other.splits[name].labels)
        np.testing.assert_array_equal(split.images[:], other.splits[name].images[:])


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_a_folder_that_is_opened_again_is_not_read(folder, cache_mb, monkeypatch):
    names, first = read_by(folder, cache_mb)
    assert len(names) == 62
    decoded = []
    monkeypatch.setattr("kerascls.images.read._decoded_batch", lambda paths, *rest: decoded.append(paths))
    names, again = read_by(folder, cache_mb)
    assert names == [] and decoded == []
    monkeypatch.undo()
    same(first, again)
    assert dict(again.skipped) == {
        "a/broken.png": "does not decode as png: it is cut short or damaged.",
        "b/notes": "is not an image. Expected PNG, JPEG, BMP, GIF, WebP or TIFF.",
    }


@pytest.mark.slow
def test_a_run_is_evaluated_without_its_folder_being_read(folder, capsys):
    """Where its images are kept; where they are streamed, those of the split that is scored are read."""
    command = ("--epochs", "1", "--out", "run", "--quiet")
    smaller = ("--set", "data.image_shape=[16, 16, 3]", "--set", "model.name=small_cnn")
    assert here("train", "folder_scratch", "--data", folder, *smaller, *command, capsys=capsys)[0] == 0
    _opened.clear()
    assert here("evaluate", "run", capsys=capsys)[0] == 0
    assert read_below(folder) == []
    scored = kerascls.evaluate("run", pictures=False).scores
    config = Path("run/config.toml")
    config.write_text(config.read_text().replace("cache_mb = 2048", "cache_mb = 0"))
    _opened.clear()
    assert kerascls.evaluate("run", pictures=False).scores == scored
    assert len(read_below(folder)) == scored["examples"] == 6


def test_another_size_is_decoded_from_the_files_and_kept_beside(folder):
    first = load(folder)
    names, other = read_by(folder, image_shape=(4, 4, 3))
    assert len(names) == 60  # what cannot be read is known at every size
    assert other.skipped == first.skipped
    assert read_by(folder, image_shape=(4, 4, 3))[0] == read_by(folder)[0] == []
    assert read_by(folder, cache_mb=0, image_shape=(5, 5, 3))[0] == []  # nothing is to be kept


def rewrite_with_its_times(path):
    """Another image of the same size in bytes, with the same time of writing, in the same inode."""
    before, was = path.stat(), path.read_bytes()
    data = bytearray(was)
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(path)
    data[: path.stat().st_size] = path.read_bytes()
    path.write_bytes(data)  # a PNG ends where it says, whatever follows
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.read_bytes() != was


def replace_with_its_times(path):
    before = path.stat()
    other = path.with_name("other.png")
    other.write_bytes(path.read_bytes())
    rewrite_with_its_times(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def relink(path):
    other = path.parent.parent.parent / "elsewhere.png"
    save(other, 1234)
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("cache_mb", [0, 100])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: save(path, 999),
        rewrite_with_its_times,
        replace_with_its_times,
        relink,
        lambda path: path.write_bytes(path.read_bytes()[:90]),
        lambda path: os.utime(path),
    ],
    ids=["written", "same size and time", "renamed over", "a link in its place", "cut short", "touched"],
)
def test_what_has_changed_is_read_and_nothing_else(folder, change, cache_mb, monkeypatch, tmp_path):
    load(folder, cache_mb)
    change(folder / "a" / "4.png")
    names, found = read_by(folder, cache_mb)
    assert names == ["4.png"] or (names == [] and (folder / "a" / "4.png").is_symlink())  # it is read by its own name
    assert read_by(folder, cache_mb)[0] == []
    monkeypatch.setenv("KERASCLS_CACHE", str(tmp_path / "none"))
    same(load(folder, cache_mb), found)


def test_new_renamed_removed_and_mended_files_are_seen(folder, monkeypatch, tmp_path):
    load(folder)
    save(folder / "b" / "new.png", 77)
    (folder / "a" / "2.png").rename(folder / "b" / "moved.png")
    (folder / "a" / "6.png").unlink()
    save(folder / "a" / "broken.png", 78)
    names, found = read_by(folder)
    assert names == ["broken.png", "moved.png", "new.png"]
    assert [file for file, _ in found.skipped] == ["b/notes"] and len(found.splits["all"]) == 61
    assert read_by(folder)[0] == []
    monkeypatch.setenv("KERASCLS_CACHE", str(tmp_path / "none"))
    same(load(folder), found)


def test_what_may_pass_is_not_held_against_a_file(folder, monkeypatch):
    (folder / "a" / "link.png").symlink_to(folder.parent / "later.png")
    assert dict(load(folder).skipped)["a/link.png"] == "cannot be read: No such file or directory."
    save(folder.parent / "later.png", 5)
    assert "a/link.png" not in dict(load(folder).skipped)
    save(folder / "b" / "large.png", 6)
    road = reading._road

    def too_little_memory(*kind):
        def run(encoded):
            if (folder / "b" / "large.png").read_bytes() in encoded.numpy():
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return road(*kind)(encoded)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_road", too_little_memory)
        assert dict(load(folder).skipped)["b/large.png"] == "takes more memory to decode than is free."
    assert "b/large.png" not in dict(load(folder).skipped)


def test_a_change_within_a_tick_of_the_clock_is_not_missed(folder, monkeypatch):
    """Where a file's last change is not older than a tick, the next may have the same time: it is read again."""
    changed = (folder / "a" / "8.png").stat().st_ctime_ns
    path = folder / "a" / "8.png"
    monkeypatch.setattr(folder_index.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(folder_index.time, "time_ns", lambda: changed + folder_index.TICK - 1)
    assert folder_index.states_before_reading([path]) == [folder_index.UNSETTLED]
    monkeypatch.setattr(folder_index.time, "time_ns", lambda: changed + folder_index.TICK)
    assert folder_index.states_before_reading([path]) == [folder_index.state_of(path)]
    # A file system that tells whole seconds.
    monkeypatch.setattr(folder_index, "state_of", lambda path: (9, 5 * 10**9, 5 * 10**9, 1))
    monkeypatch.setattr(folder_index.time, "time_ns", lambda: 7 * 10**9 - 1)
    assert folder_index.states_before_reading([path]) == [folder_index.UNSETTLED]
    monkeypatch.setattr(folder_index.time, "time_ns", lambda: 7 * 10**9)
    assert folder_index.states_before_reading([path]) == [(9, 5 * 10**9, 5 * 10**9, 1)]
    monkeypatch.undo()
    monkeypatch.setattr(folder_index.time, "time_ns", lambda: 0)
    monkeypatch.setattr(folder_index.time, "sleep", lambda seconds: None)
    assert len(read_by(folder)[0]) == len(read_by(folder)[0]) == 62


def kept():
    return sorted((cache_folder() / FOLDERS).rglob("*.npz"))


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_a_damaged_index_is_made_again(folder, cache_mb, monkeypatch):
    first = load(folder, cache_mb)
    files = kept()
    assert [file.name for file in files] == ["index.npz", "pixels.npz"][: 1 + bool(cache_mb)] or len(files) == 2
    generator = np.random.default_rng(0)
    for file in files:
        whole = file.read_bytes()
        flipped = [bytearray(whole) for _ in range(6)]
        for damaged in flipped:
            damaged[generator.integers(len(whole))] ^= 1 << generator.integers(8)
        for damaged in [b"", b"hello", whole[: len(whole) // 2], bytes(len(whole)), *flipped]:
            file.write_bytes(damaged)
            same(load(folder, cache_mb), first)
            file.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr(folder_index, "made_by", lambda: "another version")
        names, other = read_by(folder, cache_mb)
        assert len(names) == 62
        same(other, first)
    assert len(read_by(folder, cache_mb)[0]) == 62  # the other version's is not ours


def test_a_cache_that_cannot_be_written_is_gone_without(folder, monkeypatch, tmp_path):
    first = load(folder)

    def nothing_is_kept():
        names, again = read_by(folder)
        assert len(names) == 62 and not kept()
        same(again, first)

    (tmp_path / "file").touch()
    monkeypatch.setenv("KERASCLS_CACHE", str(tmp_path / "file"))
    nothing_is_kept()
    monkeypatch.setenv("KERASCLS_CACHE", str(tmp_path / "full"))
    with monkeypatch.context() as patch:

        def full(*given, **more):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(folder_index.np, "savez", full)
        nothing_is_kept()
    with monkeypatch.context() as patch:  # what would fill the disk is not written
        patch.setattr(folder_index.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        nothing_is_kept()
    monkeypatch.setenv("KERASCLS_CACHE_MB", "0")
    nothing_is_kept()


def test_what_was_read_before_an_interruption_is_not_read_again(folder, monkeypatch):
    monkeypatch.setattr(folder_opening, "BATCH", 16)
    learn, count = folder_index.Index.learn, []

    def interrupted(self, *given):
        count.append(given)
        if len(count) > 40:
            raise KeyboardInterrupt
        learn(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(folder_index.Index, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(folder, cache_mb=0)
    assert len(read_by(folder, cache_mb=0)[0]) < 62 - 39


def test_too_many_bad_images_are_told_again_without_reading(folder):
    for i in range(0, 20, 2):
        (folder / "a" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    told = []
    for _ in range(2):
        _opened.clear()
        with pytest.raises(DataError, match="11 of 61 images cannot be read") as error:
            load(folder)
        told.append(str(error.value))
    assert told[0] == told[1] and read_below(folder) == []
    for _ in range(2):
        with pytest.raises(DataError, match=r"broken.png|/0.png"):
            load(folder, on_bad_image="error")


def test_names_that_are_no_text_and_reasons_stay_as_they_are(tmp_path):
    names = [os.fsdecode(b"\xff\xfe.png"), "猫\n.png", "plain.png", os.fsdecode(b"\xc3.txt")]
    index = folder_index.Index.of(tmp_path, names)
    for name in names:
        (tmp_path / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    states = [folder_index.state_of(tmp_path / name) for name in names]
    index.learn(0, states[0], bytes(range(32)), 2**63 - 1)
    index.learn(1, states[1], bytes(32), 0)
    index.refuse(2, states[2], "why\0not \udcff", True)
    index.refuse(3, folder_index.UNSETTLED, "for now", False)
    index.keep()
    again = folder_index.Index.of(tmp_path, names[::-1])
    assert again.known.tolist() == [False, True, True, True]
    assert again.rows["checksum"].tolist() == [0, 0, 0, 2**63 - 1]
    assert again.rows["content"][3].tobytes() == bytes(range(32))
    assert again.reason(1) == "why not \udcff" and again.reason(2) is None and again.reason(3) is None


def test_threads_that_open_one_folder_at_once_agree(folder):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for other in found[1:]:
        same(found[0], other)
    assert read_by(folder)[0] == []


def test_the_cache_lists_what_it_keeps_of_folders_and_clears_it(folder, capsys):
    load(folder)
    assert sorted(entry.about()["what"] for entry in entries()) == ["files of data", "pixels of data at 8x8x3"]
    code, out, _ = here("features", capsys=capsys)
    assert code == 0 and "files of data, 62 images" in out and "pixels of data at 8x8x3, 60 images" in out
    here("features", "--clear", capsys=capsys)
    assert entries() == [] and len(read_by(folder)[0]) == 62


def test_a_folder_that_is_read_only_or_reached_by_a_link_has_one_index(folder):
    load(folder)
    link = folder.parent / "link"
    link.symlink_to(folder)
    for path in (folder, folder / "a", folder / "b"):
        path.chmod(0o555)
    assert read_by(link)[0] == read_by(Path(os.path.relpath(folder)))[0] == []
    for path in (folder, folder / "a", folder / "b"):
        path.chmod(0o755)


@pytest.mark.slow
def test_an_index_of_a_million_files_is_read_in_seconds(tmp_path, monkeypatch):
    names = [f"n{i // 1000:08d}/image_{i:08d}.JPEG" for i in range(1_000_000)]
    index = folder_index.Index.of(tmp_path, names)
    index.rows["state"] = [5, 6, 7, 8]
    index.known[:] = True
    index.keep()
    monkeypatch.setattr(folder_index, "state_of", lambda path: (5, 6, 7, 8))
    begin = time.process_time()
    again = folder_index.Index.of(tmp_path, names)
    assert again.known.all() and time.process_time() - begin < 10


def test_images_in_files_are_decoded_ahead_by_a_bounded_number_of_batches(folder, monkeypatch):
    files = load(folder, cache_mb=0).splits["all"].images
    whole = load(folder).splits["all"].images
    read = []
    encoded = FileImages.encoded
    monkeypatch.setattr(FileImages, "encoded", lambda self, i: read.append(i) or encoded(self, i))
    monkeypatch.setattr(read_ahead.machine, "cores", lambda: 1)
    batches = in_batches(files, 8, start=5)
    found = [next(batches)]
    assert len(read) <= 4 * 8  # one given, two that wait, and one more under way
    found += batches
    assert [len(images) for images in found] == [8] * 6 + [7] and sorted(read) == list(range(5, 60))
    np.testing.assert_array_equal(np.concatenate(found), whole[5:])
    np.testing.assert_array_equal(files[np.array([7, 7, 3])], whole[[7, 7, 3]])
    assert files[np.array([], int)].shape == (0, *SHAPE)
    np.testing.assert_array_equal(files[-1], whole[-1])
    (folder / "a" / "2.png").write_bytes((folder / "a" / "4.png").read_bytes())
    with pytest.raises(DataError, match=r"2.png: was changed since the folder was read\."):
        list(files.batches(8))


def test_validation_images_that_fit_are_decoded_once_where_training_images_are_streamed(folder, monkeypatch):
    """100 images of 12,288 bytes are more than a megabyte, 10 are less."""
    for i in range(60, 100):
        save(folder / "ab"[i % 2] / f"{i}.png", i)
    given = []
    monkeypatch.setattr(batches, "scoring_batches", lambda split, *rest, **more: given.append(split) or rest[-1:])
    held_out = []
    monkeypatch.setattr(
        "kerascls.training.fit.TrainingData", lambda batches, validation: held_out.append(given[-1]) or 1 / 0
    )
    options = {"image_shape": [64, 64, 3], "cache_mb": 1}
    with pytest.raises(ZeroDivisionError):
        kerascls.train("folder_scratch", data=folder, overrides={"data": options, "model": {"name": "small_cnn"}})
    (split,) = held_out
    assert isinstance(split.images, np.ndarray) and split.images.shape == (10, 64, 64, 3)
    np.testing.assert_array_equal(split.images, split.origin[:])
    streamed = dataclasses.replace(split, images=split.origin)
    assert batches.decoded(streamed, 10 * 64 * 64 * 3 - 1) is streamed
    np.testing.assert_array_equal(batches.decoded(streamed, 10 * 64 * 64 * 3).images, split.images)

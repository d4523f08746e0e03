"""Splits: stratified, the same every time, and never overlapping."""

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import here, one_line_error

from kerascls.data.dataset import Dataset, Split
from kerascls.data.split_folder import split_folder
from kerascls.data.splits import hold_out, with_all_splits
from kerascls.errors import ConfigError, DataError


def dataset(count=20, **splits):
    def split(size):
        return Split.of(
            np.arange(size, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8), np.arange(size) % 2
        )

    return Dataset("d", "test", ("a", "b"), {"train": split(count), **{name: split(n) for name, n in splits.items()}})


def test_hold_out_takes_each_class_in_its_share():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    held = hold_out(labels, 20)
    assert np.bincount(labels[held]).tolist() == [12, 6, 2]
    assert np.array_equal(held, hold_out(labels, 20)) and not np.array_equal(held, hold_out(labels, 20, seed=1))
    assert len(hold_out(labels, 7)) == 7 and len(hold_out(labels, 0)) == 0


def test_what_is_missing_is_held_out_of_train():
    whole = with_all_splits(dataset(), 0.2)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 14, "test": 2, "validation": 4}
    positions = np.concatenate([split.positions for split in whole.splits.values()])
    assert sorted(positions) == list(range(20))


def test_published_splits_are_left_alone():
    whole = with_all_splits(dataset(validation=6, test=4), 0.5)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 20, "validation": 6, "test": 4}
    assert "validation" not in with_all_splits(dataset(test=4), 0).splits


def test_validation_may_be_the_test_split():
    whole = with_all_splits(dataset(test=4, validation=3), "test")
    assert whole.splits["validation"] is whole.splits["test"] and len(whole.splits["train"]) == 20


def test_too_much_validation_is_told():
    with pytest.raises(DataError, match="leaves none to train on"):
        with_all_splits(dataset(test=4), 20)


# Folders: `kerascls split`

# Images of ten classes of Caltech-256, as the article takes them.
CALTECH = {"bear": 102, "chimp": 110, "giraffe": 84, "gorilla": 212, "llama": 119, "ostrich": 109} | {
    "porcupine": 101,
    "skunk": 81,
    "triceratops": 95,
    "zebra": 96,
}


def photos(root, **counts):
    """Class folders of files `1.jpg`, `2.jpg`, ..., each telling its own name after a JPEG's first bytes."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(1, count + 1):
            (root / name / f"{i}.jpg").write_bytes(b"\xff\xd8\xff" + f"{name}/{i}".encode())
    return root


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder):
    with open(folder / "splits.csv", encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


def test_the_first_files_by_name_train_the_next_validate_the_rest_test(tmp_path, capsys):
    photos(tmp_path / "photos", a=12, b=9)
    code, out, err = here("split", "photos", "data", "--train", 6, "--validation", "2", capsys=capsys)
    assert code == 0 and err == "" and out.splitlines()[-1] == "data"
    assert [line.split() for line in out.splitlines()[1:-1]] == [
        ["6", "2", "4", "a"],
        ["6", "2", "1", "b"],
        ["12", "4", "5", "all"],
    ]
    names = {"train": range(1, 7), "validation": range(7, 9), "test": range(9, 13)}  # 10 after 9
    want = {f"{split}/a/{i}.jpg" for split, numbers in names.items() for i in numbers}
    want |= {f"train/b/{i}.jpg" for i in range(1, 7)} | {"validation/b/7.jpg", "validation/b/8.jpg", "test/b/9.jpg"}
    assert files_of(tmp_path / "data") == want | {"splits.csv"}
    assert (tmp_path / "data/test/a/10.jpg").read_bytes().endswith(b"a/10")
    rows = rows_of(tmp_path / "data")
    assert rows[0] == ("split", "class", "file") and len(rows) == 22
    assert rows[1] == ("train", "a", "a/1.jpg") and rows[7] == ("train", "b", "b/1.jpg")
    assert rows[-2:] == [("test", "a", "a/12.jpg"), ("test", "b", "b/9.jpg")]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_caltech_article(tmp_path, capsys):
    folders = {f"{i:03}.{name}": count for i, (name, count) in enumerate(CALTECH.items(), 9)}
    photos(tmp_path / "caltech", **folders, **{"257.clutter": 3})
    arguments = ["--train", 60, "--validation", 10, "--classes", ",".join(CALTECH), "--link"]
    code, out, _ = here("split", "caltech", "animals", *arguments, capsys=capsys)
    assert code == 0 and out.splitlines()[-2].split() == ["600", "100", "409", "all"]
    assert sorted(os.listdir(tmp_path / "animals/test")) == sorted(CALTECH)
    link = tmp_path / "animals/test/bear/71.jpg"
    assert link.is_symlink() and link.read_bytes().endswith(b"009.bear/71")
    assert len(os.listdir(tmp_path / "animals/test/gorilla")) == 212 - 70


def test_fractions_are_of_each_class(tmp_path):
    photos(tmp_path / "photos", a=10, b=7, c=1)
    result = split_folder("photos", "data", 0.7, 0.3)
    assert list(result.counts["b"].values()) == [5, 2, 0] and list(result.counts["c"].values()) == [1, 0, 0]
    assert list(split_folder("photos", "more").counts["a"].values()) == [8, 1, 1]


def test_random_order_is_the_seeds_and_each_class_by_itself(tmp_path):
    photos(tmp_path / "photos", a=30, b=20)

    def test_files(out, **options):
        split_folder("photos", out, 0.5, 0.0, **options)
        return [file for split, _, file in rows_of(tmp_path / out) if split == "test"]

    by_name, first, second = (test_files(str(i), order="random", seed=i) if i else test_files("0") for i in range(3))
    assert sorted(map(len, (by_name, first, second))) == [25] * 3 and len({*map(tuple, (by_name, first, second))}) == 3
    assert test_files("again", order="random", seed=1) == first
    assert test_files("alone", order="random", seed=1, classes=["b"]) == [f for f in first if f.startswith("b/")]
    numbers = [int(file[2:-4]) for file in first if file.startswith("a/")]
    assert numbers == sorted(numbers)  # natural order in splits.csv


def test_what_is_no_image_is_left_out_and_named(tmp_path, capsys):
    photos(tmp_path / "photos", a=4, b=4)
    (tmp_path / "photos/a/.hidden.jpg").write_bytes(b"x")
    (tmp_path / "photos/a/note.txt").write_text("hello")
    (tmp_path / "photos/a/empty.jpg").touch()
    (tmp_path / "photos/a/lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "photos/read.me").write_text("hello")
    (tmp_path / "photos/b/album").mkdir()
    shutil.move(tmp_path / "photos/b/4.jpg", tmp_path / "photos/b/album/four.JPEG")
    code, out, err = here("split", "photos", "data", "--train", "2", "--validation", "1", capsys=capsys)
    assert code == 0 and sorted(err.splitlines()) == [
        "left out: a/empty.jpg: is empty",
        "left out: a/lost.jpg: cannot be read: No such file or directory",
        "left out: a/note.txt: is not an image",
        "left out: read.me: lies in no class folder",
    ]
    assert "test/b/album/four.JPEG" in files_of(tmp_path / "data") and len(files_of(tmp_path / "data")) == 9


def test_classes_go_by_their_folders_name_or_by_it_without_the_number(tmp_path, capsys):
    photos(tmp_path / "photos", **{"009.bear": 3, "010.bear": 3, "011.chimp": 3, "chimp": 3, "x": 3})
    result = split_folder("photos", "data", 1, 1, classes=["x", "chimp", "009.bear"])
    assert list(result.counts) == ["009.bear", "chimp", "x"]  # in the folder's order
    assert {file for _, name, file in rows_of(tmp_path / "data") if name == "chimp"} == {
        f"chimp/{i}.jpg" for i in (1, 2, 3)
    }
    for asked, fault in {
        "bear": "009.bear and 010.bear",
        "chip": "no class 'chip'. Did you mean chimp?",
        "x,x": "asked for twice",
        "x,": "no class ''",
    }.items():
        assert fault in one_line_error("split", "photos", "out", "--classes", asked, capsys=capsys)
        assert not (tmp_path / "out").exists()


def test_what_cannot_be_split_is_one_line_and_leaves_nothing(tmp_path, capsys):
    photos(tmp_path / "photos", bear=5, chimp=2)
    before = files_of(tmp_path)
    for arguments, fault in {
        ("photos", "out", "--train", "2", "--validation", "1"): "too few images of chimp (2)",
        ("photos", "out", "--train", "0.2"): "too few images of chimp (2)",
        ("photos", "out", "--train", "2"): "two counts, as 60 and 10, or two fractions",
        ("photos", "out", "--train", "0.8", "--validation", "0.3"): "make at most 1",
        ("photos", "out", "--train", "nan"): "two fractions",
        ("photos", "photos/out", "--train", "1", "--validation", "0"): "lies inside",
        ("photos", "photos"): "exists already",
        ("nowhere", "out"): "cannot be read",
        ("photos/bear", "out"): "no class folders",
        ("photos", "no/out"): "Cannot write no/out: No such file or directory",
    }.items():
        line = one_line_error("split", *arguments, capsys=capsys)
        assert fault in line, line
    code, _, err = here("split", "photos", "out", "--train", "most", capsys=capsys)
    assert code == 2 and "neither a count" in err
    split_folder("photos", "data", 1, 1)
    assert "Folder data is split already: it has " in one_line_error("split", "data", "out", capsys=capsys)
    shutil.rmtree("data")
    assert files_of(tmp_path) == before and sorted(os.listdir()) == ["photos"]
    with pytest.raises(ConfigError, match="order must be name or random"):
        split_folder("photos", "out", 1, 1, order="size")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    photos(tmp_path / "photos", bear=5)
    copied, copyfile = [], shutil.copyfile

    def copy(source, target):
        if len(copied) == 3:
            raise OSError(28, "No space left on device", str(target))
        copied.append(copyfile(source, target))

    monkeypatch.setattr(shutil, "copyfile", copy)
    line = one_line_error("split", "photos", "data", capsys=capsys)
    assert line == "Error: Cannot write data: No space left on device." and os.listdir() == ["photos"]


def test_splitting_a_folder_leaves_tensorflow_alone(tmp_path):
    photos(tmp_path / "photos", a=10, b=10)
    program = (
        "import sys, kerascls.cli as c; c.run(['split', 'photos', 'data']); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_what_was_split_is_read_as_split(tmp_path):
    from kerascls.data.folder_listing import list_folder

    photos(tmp_path / "photos", a=10, b=10)
    split_folder("photos", "data")
    listing = list_folder(tmp_path / "data")
    assert {name: len(entries) for name, entries in listing.splits.items()} == {"train": 16, "validation": 2, "test": 2}
    assert listing.skipped == [] and listing.class_names == ("a", "b")


def test_equal_files_lie_in_the_split_of_the_first_of_them(tmp_path, capsys):
    photos(tmp_path / "photos", a=10, b=10)
    shutil.copy("photos/a/2.jpg", "photos/a/9.jpg")  # of train, and of test by its place
    shutil.copy("photos/a/10.jpg", "photos/b/1.jpg")  # of test, and of another class's train
    (tmp_path / "photos/b/3.jpg").write_bytes((tmp_path / "photos/b/4.jpg").read_bytes()[:-1] + b"!")  # as long
    code, out, err = here("split", "photos", "data", "--train", 6, "--validation", 2, capsys=capsys)
    assert code == 0 and [line.split() for line in out.splitlines()[1:3]] == [
        ["6", "2", "2", "a"],
        ["6", "2", "2", "b"],
    ]
    assert err == "2 files lie in the split of an equal file, in place of that which is theirs by order\n"
    contents = [
        {(tmp_path / "data" / file).read_bytes() for file in files_of(tmp_path / "data") if file.startswith(split)}
        for split in ("train", "validation", "test")
    ]
    assert not contents[0] & contents[1] and not contents[0] & contents[2] and not contents[1] & contents[2]
    assert ("train", "a", "a/9.jpg") in rows_of(tmp_path / "data")


def test_copies_of_another_class_leave_no_split_without_images(tmp_path):
    photos(tmp_path / "photos", a=10, b=10)
    for i in range(1, 5):  # behind b's own, where its validation and test images are by order
        shutil.copy(f"photos/a/{i}.jpg", f"photos/b/c{i}.jpg")
    counts = split_folder("photos", "data", 0.5, 0.25).counts
    assert counts["b"] == {"train": 7, "validation": 3, "test": 4}
    rows = [row for row in rows_of(tmp_path / "data") if row[1] == "b"]
    assert [file for split, _, file in rows if split == "test"] == ["b/7.jpg", "b/8.jpg", "b/9.jpg", "b/10.jpg"]

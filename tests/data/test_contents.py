"""Images that are equal: known wherever they come from, kept in one split, and never scored as if they were new."""

import hashlib
import json
import re
import shutil
import time

import numpy as np
import pytest
from conftest import here, one_line_error
from PIL import Image

import kerascls
from kerascls.data import contents
from kerascls.data.dataset import Dataset, Split
from kerascls.data.loading import load_dataset
from kerascls.data.splits import equal_images, folds_of, with_all_splits
from kerascls.errors import DataError, RunError
from kerascls.inference.report import table
from kerascls.runs.run import Run

TINY = ["folder_scratch", "--set", "data.image_shape=[16, 16, 1]", "--epochs", "1", "--set", "train.warmup_epochs=0"]


def noise(count, shape=(16, 16, 1), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def split_of(images, labels=None):
    return Split.of(images, np.arange(len(images)) % 2 if labels is None else labels)


def files(folder, images, start=0):
    """Class folders a and b of PNG files, in turns."""
    for i, image in enumerate(images, start):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


def test_pixels_are_known_by_their_sha256_whatever_the_strips(monkeypatch):
    images = noise(50)
    want = [hashlib.sha256(image.tobytes()).digest() for image in images]
    for strip in (1, 1000, 1 << 24):
        monkeypatch.setattr(contents, "_STRIP", strip)
        assert contents.of_pixels(images).tolist() == np.array(want, "S32").tolist()
    assert np.array_equal(
        contents.of_pixels(images.transpose(0, 2, 1, 3)[::2]),
        contents.of_pixels(np.ascontiguousarray(images.transpose(0, 2, 1, 3)[::2])),
    )


@pytest.mark.parametrize("validation, test", [(0.1, 0.1), (0.25, 0.25), (30, 20)])
def test_equal_images_in_memory_are_held_out_together(validation, test):
    images = noise(100)
    dataset = Dataset("twice", "test", ("a", "b"), {"train": split_of(np.concatenate([images, images]))})
    parts = with_all_splits(dataset, validation, test).splits
    seen = {name: set(split.contents.tolist()) for name, split in parts.items()}
    assert not seen["train"] & (seen["validation"] | seen["test"]) and not seen["validation"] & seen["test"]
    assert sum(map(len, parts.values())) == 200 and all(len(split) % 2 == 0 for split in parts.values())


def test_folds_keep_equal_images_in_memory_together():
    images = noise(60)
    fold = folds_of(split_of(np.concatenate([images, images])), 5)
    assert np.array_equal(fold[:60], fold[60:]) and np.bincount(fold).tolist() == [24] * 5


def test_splits_of_different_images_are_those_of_their_positions():
    """The published numbers' splits: images in memory that are all different are divided as ever."""
    held = with_all_splits(Dataset("d", "test", ("a", "b"), {"train": split_of(noise(20))}), 4, 2).splits
    assert held["test"].positions.tolist() == [5, 8] and held["validation"].positions.tolist() == [7, 10, 12, 19]
    assert folds_of(split_of(noise(20)), 5).tolist() == [2, 4, 4, 4, 2, 0, 4, 2, 0, 0, 0, 3, 1, 3, 3, 2, 3, 1, 1, 1]


def test_images_that_are_all_equal_are_torn_apart_and_that_is_told():
    same = np.repeat(noise(1), 10, axis=0)
    whole = with_all_splits(Dataset("d", "test", ("a", "b"), {"train": split_of(same)}), 0.2, 0)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 8, "validation": 2}
    assert equal_images(whole)[0].startswith("2 of 2 validation images are in train too")
    with pytest.raises(DataError, match="takes 10 of 10 training images, which leaves none to train on"):
        with_all_splits(Dataset("d", "test", ("a", "b"), {"train": split_of(same)}), 10, 0)


def test_lines_say_what_the_users_splits_share():
    images = noise(10)
    splits = {
        "train": split_of(images[:6], [0, 1, 0, 1, 0, 1]),
        "test": split_of(np.concatenate([images[6:], images[2:4], images[2:3]]), [0, 1, 0, 1, 0, 0, 0]),
    }
    dataset = Dataset("d", "test", ("ant", "bee"), splits)
    assert equal_images(dataset) == [
        "3 of 7 test images are in train too, which flatters the scores: no. 4 of test is no. 2 of train, for one",
        "1 image is under another label too: no. 3 of train is bee, and no. 5 of test, which is equal to it, ant",
    ]
    alone = {"train": split_of(images[:6]), "validation": split_of(images[6:]), "test": split_of(images[8:])}
    assert equal_images(Dataset("d", "test", ("ant", "bee"), alone)) == []


# Scores of a run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of 60 files, the same images in an .npz, and a run of each; do not change them."""
    root = tmp_path_factory.mktemp("seen")
    images = noise(60)
    files(root / "photos", images)
    np.savez(root / "photos.npz", x_train=images, y_train=np.arange(60) % 2, class_names=np.array(["a", "b"]))
    shape = {"data": {"image_shape": [16, 16, 1]}, "train": {"warmup_epochs": 0}}
    for kind, data in (("files", "photos"), ("pixels", "photos.npz")):
        kerascls.train("folder_scratch", data=root / data, epochs=1, out=root / kind, overrides=shape)
    return root


def held_out(run):
    return {name: count for name, count in Run.open(run).manifest["data"]["examples"].items()}


def test_a_run_keeps_what_it_was_trained_and_validated_on(runs):
    assert held_out(runs / "files") == {"train": 48, "test": 6, "validation": 6}
    raw = (runs / "files" / "seen.bin").read_bytes()
    kept = {raw[i : i + 16] for i in range(0, len(raw), 16)}
    rows = (runs / "files" / "splits.csv").read_text().splitlines()[1:]
    digests = {row: hashlib.sha256((runs / "photos" / row.split(",")[2]).read_bytes()).digest()[:16] for row in rows}
    assert len(raw) == 16 * 54 and kept == {d for row, d in digests.items() if not row.startswith("test")}


def test_a_folder_that_changed_is_scored_without_what_was_trained_on(runs, tmp_path, capsys):
    shutil.copytree(runs / "photos", tmp_path / "photos")
    shutil.copytree(runs / "files", tmp_path / "run")
    files(tmp_path / "photos", noise(1, seed=1), start=60)
    (tmp_path / "photos/a/0.png").rename(tmp_path / "photos/a/renamed.png")
    config = tmp_path / "run/config.toml"
    assert "has changed since run was trained" in one_line_error("evaluate", "run", capsys=capsys)
    code, out, err = here("evaluate", "run", "--data", "photos", capsys=capsys)
    assert code == 0
    assert out.splitlines()[0] == "photos: 7 of 61 images, without 54 that the run was trained or validated on"
    told = err.splitlines()
    assert told[0].startswith("left out: a/") and told[0].endswith(": the run was trained or validated on it")
    assert told[3] == "left out: 51 more of the same reason, listed in run/evaluate-photos-all/seen.csv"
    assert len((tmp_path / "run/evaluate-photos-all/seen.csv").read_text().splitlines()) == 55
    code, out, _ = here("evaluate", "run", "--data", "photos", "--json", capsys=capsys)
    assert (json.loads(out)["examples"], json.loads(out)["seen"]) == (7, 54)
    result = kerascls.evaluate("run", data="photos", pictures=False)
    assert (result.split, result.scores["examples"], len(result.seen), result.own) == ("all", 7, 54, False)
    assert config.is_file()


def test_nothing_but_seen_images_is_one_line(runs, tmp_path, capsys):
    rows = [row.split(",") for row in (runs / "files/splits.csv").read_text().splitlines()[1:]]
    for _, name, file in [row for row in rows if row[0] == "train"][::2][:20]:
        (tmp_path / "old" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(runs / "photos" / file, tmp_path / "old" / file)
    line = one_line_error("evaluate", runs / "files", "--data", "old", capsys=capsys)
    assert "files was trained or validated on all 20 images of old: nothing is left to score" in line


def test_the_runs_own_data_are_scored_by_split_wherever_they_lie(runs, tmp_path):
    shutil.copytree(runs / "photos", tmp_path / "moved")
    for split, count in held_out(runs / "files").items():
        result = kerascls.evaluate(runs / "files", data="moved", split=split, pictures=False)
        assert table(result).splitlines()[0] == f"moved {split}: {count} images"
        assert (result.own, result.seen, result.note) == (True, (), None)


def test_arrays_are_compared_by_their_pixels(runs, tmp_path):
    images = np.concatenate([noise(60), noise(10, seed=1)])
    np.savez("more.npz", x_train=images, y_train=np.arange(70) % 2, class_names=np.array(["a", "b"]))
    result = kerascls.evaluate(runs / "pixels", data="more.npz", pictures=False)
    assert (result.split, result.scores["examples"], len(result.seen)) == ("all", 16, 54)
    assert result.seen[0].startswith("no. ")
    np.savez(
        "splits.npz",
        x_train=images,
        y_train=np.arange(70) % 2,
        x_test=images[50:],
        y_test=np.arange(20) % 2,
        class_names=np.array(["a", "b"]),
    )
    test = with_all_splits(load_dataset(str(runs / "photos.npz")), 0.1, 0.1).splits["test"].positions
    result = kerascls.evaluate(runs / "pixels", data="splits.npz", pictures=False)
    assert result.split == "test" and result.scores["examples"] == 10 + np.count_nonzero(test >= 50)


def test_files_are_compared_with_a_runs_arrays_by_their_pixels(runs):
    result = kerascls.evaluate(runs / "pixels", data=runs / "photos", pictures=False)
    assert (result.scores["examples"], len(result.seen), result.note) == (6, 54, None)


def test_what_is_not_known_is_said(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "files", tmp_path / "run")
    result = kerascls.evaluate(run, data=runs / "photos.npz", pictures=False)
    assert result.seen is None and result.scores["examples"] == 60
    assert "is not known: it was trained on files, and these are arrays" in result.note
    (run / "seen.bin").unlink()  # as a run of an earlier version
    files(tmp_path / "new", noise(4, seed=2))
    code, out, err = here("evaluate", "run", "--data", "new", "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["seen"] is None
    assert "Whether run was trained on any of these images is not known: it is of an earlier version" in err
    shutil.copytree(runs / "photos", "photos")
    files(tmp_path / "photos", noise(1, seed=3), start=60)
    line = one_line_error("evaluate", "run", capsys=capsys)
    assert "has changed since" in line and "--data" not in line
    (run / "seen.bin").write_bytes(b"123")
    with pytest.raises(RunError, match=r"seen\.bin is damaged: it has 3 bytes, .* Put it back, or remove it"):
        kerascls.evaluate(run, data="new")


def test_uneven_classes_are_said_with_what_the_largest_scores(tmp_path, capsys):
    labels = np.repeat([0, 1], [40, 10])
    np.savez("uneven.npz", x_train=noise(50), y_train=labels, x_test=noise(5, seed=1), y_test=labels[8:50:10])
    code, out, err = here("train", *TINY, "--data", "uneven.npz", "--set", "data.validation=0", capsys=capsys)
    line = "1: 10 of 50 training images; always answering '0' scores 0.800; try --set train.class_weight=balanced"
    assert code == 0 and line in err.splitlines()
    assert "always answering '0', the largest class, scores 0.8000" in out.splitlines()


def test_a_test_split_that_shares_images_with_train_is_told(tmp_path, capsys):
    images = noise(12)
    np.savez("shared.npz", x_train=images, y_train=np.arange(12) % 2, x_test=images[:4], y_test=np.arange(4) % 2)
    code, _, err = here("train", *TINY, "--data", "shared.npz", "--out", "run", capsys=capsys)
    assert code == 0 and "of 4 test images are in train too, which flatters the scores: no. " in err
    result = kerascls.evaluate("run", pictures=False)
    assert result.scores["examples"] == 4
    assert result.note == "4 of these 4 images are in train or validation too, which flatters the scores."


@pytest.mark.slow
def test_ten_thousand_classes_train_and_are_scored(tmp_path, capsys):
    """10,000 classes of three images: many have none in a split, and nothing grows with the square of the classes."""
    labels = np.tile(np.arange(10_000), 3)
    images = noise(30_000, (32, 32, 3))
    np.savez("many.npz", x_train=images, y_train=labels)
    options = ["--set", "data.image_shape=[32, 32, 3]", "--set", "model.filters=2", "--epochs", 1, "--out", "run"]
    code, _, err = here("train", "folder_scratch", "--data", "many.npz", *options, capsys=capsys)
    assert code == 0 and re.search(r"test has no image of [\d,]+ of 10,000 classes", err)
    assert (tmp_path / "run/metrics.json").stat().st_size < 10_000_000
    begin = time.process_time()
    code, out, _ = here("evaluate", "run", capsys=capsys)
    assert code == 0 and len(out.splitlines()) < 40 and "of 10,000" in out
    code, out, _ = here("evaluate", "run", "--json", capsys=capsys)
    assert code == 0 and len(out) < 5_000_000 and json.loads(out)["confusion"] is None
    assert time.process_time() - begin < 60

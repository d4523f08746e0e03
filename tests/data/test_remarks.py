"""Lines on what is odd about a data set: equal images, classes of few images, images without contrast."""

import dataclasses
import shutil

import numpy as np
import pytest
from conftest import here
from PIL import Image

from kerascls.data import loading
from kerascls.data.dataset import Dataset, Split
from kerascls.data.remarks import few_images, remarks, without_contrast

SHAPE = (8, 8, 3)
random = np.random.default_rng(0)


def save(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, SHAPE, np.uint8) if pixels is None else pixels).save(path)


def load(folder, **more):
    return loading.load_dataset(str(folder), image_shape=SHAPE, **more)


def test_copies_in_other_splits_and_under_two_labels_are_told(tmp_path, capsys):
    for cls in "ab":
        for i in range(4):
            save(tmp_path / "d" / "Training" / cls / f"{i}.png")
    shutil.copytree(tmp_path / "d" / "Training", tmp_path / "d" / "Testing")
    save(tmp_path / "d" / "Testing" / "b" / "5.png")
    for i in range(3):
        shutil.copy(tmp_path / "d" / "Training" / "a" / f"{i}.png", tmp_path / "d" / "Training" / "b" / f"a{i}.png")
    code, _, err = here("show", "d", capsys=capsys)
    assert code == 0
    shared, twice, _ = err.splitlines()
    assert shared == (
        "8 of 9 test images are in train too, which flatters the scores: Testing/a/0.png is Training/a/0.png, for one"
    )
    assert twice.endswith("Training/a/0.png is a, and Training/b/a0.png, which is equal to it, b")


def test_an_image_in_two_classes_is_told_without_splits_too(tmp_path, capsys):
    for cls in "ab":
        for i in range(4):
            save(tmp_path / "d" / cls / f"{i}.png")
    assert remarks(load(tmp_path / "d")) == []
    shutil.copy(tmp_path / "d" / "a" / "3.png", tmp_path / "d" / "b" / "copy.png")
    assert remarks(load(tmp_path / "d")) == [
        "1 image is under another label too: a/3.png is a, and b/copy.png, which is equal to it, b"
    ]


def of_labels(**splits):
    made = {
        name: Split.of(random.integers(0, 256, (len(labels), *SHAPE), np.uint8), np.array(labels))
        for name, labels in splits.items()
    }
    return Dataset("d", "test", ("a", "b", "c", "d", "e"), made)


def test_splits_of_one_or_two_images_of_a_class_are_told():
    train = [0, 1, 2, 3, 4] * 5
    enough = [0, 1, 2, 3, 4] * 3
    assert few_images(of_labels(train=train, validation=enough, test=enough)) == []
    assert few_images(of_labels(train=train, validation=[0, 0, 0, 1, 1, 2], test=enough[1:])) == [
        "validation has no image of 2 of 5 classes (d, e), and one or two images of 2 of 5 classes (b, c): its scores "
        "say little of them",
        "test has one or two images of 1 of 5 classes (a): its scores say little of them",
    ]
    # Of what no split has there is nothing to tell; all of a folder is no split.
    assert few_images(of_labels(train=[0] * 9, test=[0] * 3)) == []
    assert few_images(of_labels(all=[0, 1])) == []


def test_classes_that_train_has_not_are_told():
    assert few_images(of_labels(train=[0, 1] * 9, test=[0, 0, 0, 1, 1, 1, 3, 3, 4])) == [
        "test has 3 images of 2 classes of which train has none (d, e): they cannot be learnt, and are all answered "
        "wrongly"
    ]


def test_the_test_split_is_told_once_where_it_validates():
    dataset = of_labels(train=[0, 1] * 5, test=[0, 1])
    both = dataclasses.replace(dataset, splits={**dataset.splits, "validation": dataset.splits["test"]})
    assert len(few_images(both)) == 1


@pytest.mark.parametrize("cache_mb", [100, 0])
def test_classes_of_one_plain_colour_are_told_with_their_transparency(tmp_path, cache_mb, capsys):
    logo = np.full((*SHAPE[:2], 4), 255, np.uint8)  # white, on nothing
    logo[2:6, 2:6, 3] = 0
    for i in range(3):
        save(tmp_path / "d" / "a" / f"{i}.png")
        logo[i, 7, 3] = 0  # no two files alike
        save(tmp_path / "d" / "b" / f"{i}.png", logo)
    every = "every image" if cache_mb else "every image looked at"
    assert without_contrast(load(tmp_path / "d", cache_mb=cache_mb)) == [
        f"{every} of 1 of 2 classes (b) is of one plain colour, b/0.png of (255, 255, 255) for one: nothing can be "
        "learnt from that. It has transparent pixels; another colour under them may help: --set "
        "'data.background=[0, 0, 0]'"
    ]
    assert without_contrast(load(tmp_path / "d", cache_mb=cache_mb, background=(0, 0, 0))) == []


def test_plain_images_among_others_are_counted():
    dataset = of_labels(train=[0, 1] * 5)
    images = dataset.splits["train"].images
    images[3], images[6] = (9, 8, 7), 255
    images[7] = 255
    images[7, 5, 6, 1] = 254  # one pixel is another, which few of an image's pixels do not show
    assert without_contrast(dataset) == [
        "2 of 10 images are of one plain colour, no. 3 of (9, 8, 7) for one: nothing can be learnt from that"
    ]


def test_data_of_12_bits_in_files_of_16_are_told(tmp_path, capsys):
    for cls in "ab":
        for i in range(3):
            save(tmp_path / "d" / cls / f"{i}.png", random.integers(0, 4096, SHAPE[:2]).astype(np.uint16))
    code, _, err = here("show", "d", capsys=capsys)
    assert code == 0 and err.splitlines()[0] == (
        "no pixel of any image is above 15 of 255: files of 16 bits a pixel keep their upper 8, so data of 12 bits or "
        "fewer lose most. Scale it to 16 bits"
    )
    save(tmp_path / "d" / "b" / "bright.png", np.full(SHAPE[:2], 4096 + 256 * np.eye(8), np.uint16))
    assert without_contrast(load(tmp_path / "d")) == []


def test_arrays_that_use_hardly_any_of_the_range_are_told():
    dataset = of_labels(train=[0, 1] * 5)
    dataset.splits["train"].images[:] %= 2
    assert without_contrast(dataset) == ["no pixel of any image is above 1 of 255. Expected images in [0, 255]"]

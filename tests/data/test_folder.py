"""Folders of images: what is read, in which order, what is left out, and that all roads give the same pixels."""

import csv
import re

import numpy as np
import pytest
from conftest import here, one_line_error
from PIL import Image

from kerascls.data import loading
from kerascls.data.batches import TrainingBatches, on_canvas, scoring_batches
from kerascls.data.folder import FileImages
from kerascls.data.folder_listing import list_folder
from kerascls.data.splits import with_all_splits
from kerascls.errors import DataError
from kerascls.images.read import read_pixels
from kerascls.recipes.schema import Data
from kerascls.runs.run import Run

SHAPE = (16, 16, 3)
COLOURS = {"猫": (220, 40, 40), "狗": (40, 220, 40), "Ünïcode bird": (40, 40, 220)}


def picture(colour, seed, size=(20, 24)):
    """An image of one colour with noise, so that no two are alike."""
    noise = np.random.default_rng(seed).integers(-30, 30, (*size, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def save(path, colour=(90, 90, 90), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(colour, seed).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path):
    """Three classes of twenty images without splits, upper-case suffixes, and one broken file."""
    seed = 0
    for name, colour in COLOURS.items():
        for i in range(20):
            seed += 1
            save(tmp_path / "pets" / name / f"IMG_{i}.{'JPG' if i % 2 else 'PNG'}", colour, seed)
    broken = tmp_path / "pets" / "猫" / "broken.JPG"
    broken.write_bytes((tmp_path / "pets" / "猫" / "IMG_1.JPG").read_bytes()[:300])
    return tmp_path / "pets"


def load(folder, cache_mb=100, resize="stretch", shape=SHAPE, **more):
    return loading.load_dataset(str(folder), image_shape=shape, resize=resize, cache_mb=cache_mb, **more)


def test_a_folder_without_splits_is_divided_by_content(pets):
    dataset = load(pets)
    assert dataset.name == "pets" and dataset.source == "folder"
    assert dataset.class_names == ("Ünïcode bird", "狗", "猫")
    assert list(dataset.splits) == ["all"] and len(dataset.splits["all"]) == 60
    assert dataset.skipped == (("猫/broken.JPG", "does not decode as jpeg: it is cut short or damaged."),)
    whole = with_all_splits(dataset, 0.1, 0.1)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 48, "test": 6, "validation": 6}
    for split in ("test", "validation"):
        assert np.bincount(whole.splits[split].labels).tolist() == [2, 2, 2]
    names = [name for split in whole.splits.values() for name in split.origin.names]
    assert len(set(names)) == 60
    # Other names, the same contents: the same split.
    before = {content for content in whole.splits["test"].origin.contents}
    for file in sorted(pets.rglob("*.PNG")):
        file.rename(file.with_name(f"z{file.name}"))
    again = load(pets)
    assert {content for content in with_all_splits(again, 0.1, 0.1).splits["test"].origin.contents} == before
    assert again.fingerprint() == dataset.fingerprint()


def test_equal_files_go_to_the_same_split(tmp_path):
    for cls in ("a", "b"):
        for i in range(20):
            save(tmp_path / "d" / cls / f"{i}.png", seed=1000 * (cls == "b") + i // 2)
    for seed in range(3):
        whole = with_all_splits(load(tmp_path / "d"), 0.2, 0.1 + seed / 10)
        contents = [set(split.origin.contents) for split in whole.splits.values()]
        assert sum(map(len, contents)) == 20 == len(set.union(*contents))


def test_classes_come_in_natural_order_and_are_bound_by_name(tmp_path):
    for split, classes in {"train": ("9", "10", "1"), "val": ("10", "1"), "TEST": ("1", "9", "10")}.items():
        for cls in classes:
            for i in range(3):
                save(tmp_path / "d" / split / cls / f"{i}.png", (10 * int(cls), 0, 0), seed=hash((split, cls, i)) % 999)
    dataset = load(tmp_path / "d")
    assert dataset.class_names == ("1", "9", "10") and set(dataset.splits) == {"train", "validation", "test"}
    # Class 9 is missing from validation, which shifts no label.
    assert dataset.splits["validation"].labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert dataset.splits["train"].labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_files_at_any_depth_links_and_content_over_suffix(tmp_path):
    root = tmp_path / "d"
    save(root / "a" / "deep" / "er" / "2.png", seed=1)
    picture((9, 9, 9), 2).save(root / "a" / "really_a_png.jpg", "PNG")
    picture((9, 9, 9), 3).save(root / "a" / "no_suffix", "WEBP", lossless=True)
    save(root / "a" / ".hidden" / "x.png")
    save(root / "a" / ".hidden.png")
    save(tmp_path / "elsewhere" / "b" / "1.TIFF", seed=4, format="TIFF")
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "a" / "deep" / "loop").symlink_to(root / "a")
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    (root / "a" / "empty.png").touch()
    (root / "a" / "notes.txt").write_text("hello")
    (root / "readme.txt").write_text("hello")
    for litter in ("__MACOSX/a", "__MACOSX/a/._1.png", "a/Thumbs.db", "b/desktop.ini"):
        (root / litter).parent.mkdir(parents=True, exist_ok=True)
        (root / litter).mkdir() if litter.endswith("a") else (root / litter).write_text("litter")
    with pytest.raises(DataError, match="2 of 6 images cannot be read, and data.max_bad_share = 0.05 allows 1"):
        load(root)
    dataset = load(root, max_bad_share=0.4)
    assert sorted(dataset.splits["all"].origin.names) == [
        "a/deep/er/2.png",
        "a/no_suffix",
        "a/really_a_png.jpg",
        "b/1.TIFF",
    ]
    assert dict(dataset.skipped) == {
        "readme.txt": "lies in no class folder",
        "a/gone.png": "cannot be read: No such file or directory.",
        "a/empty.png": "is empty. Expected PNG, JPEG, BMP, GIF, WebP or TIFF.",
        "a/notes.txt": "is not an image. Expected PNG, JPEG, BMP, GIF, WebP or TIFF.",
    }


def test_folders_that_cannot_be_are_one_line(tmp_path, capsys):
    def refused(expected, shape=SHAPE):
        with pytest.raises(DataError, match=expected):
            load(tmp_path / "d", shape=shape)

    (tmp_path / "d").mkdir()
    refused("no class folders")
    save(tmp_path / "d" / "1.png")
    refused("no class folders")
    save(tmp_path / "d" / "a" / "1.png")
    refused("one class alone, a")
    refused(re.escape('overrides={"data": {"image_shape": [64, 64, 3]}}'), shape=None)
    save(tmp_path / "d" / "train" / "a" / "1.png")
    refused("train beside a")
    for name in ("val", "valid"):
        for cls in "ab":
            save(tmp_path / "e" / name / cls / "1.png", seed=ord(cls))
            save(tmp_path / "e" / "train" / cls / "1.png", seed=ord(cls))
    with pytest.raises(DataError, match="val and valid, which mean the same"):
        load(tmp_path / "e")
    save(tmp_path / "f" / "train" / "a" / "1.png")
    save(tmp_path / "f" / "train" / "b" / "1.png")
    save(tmp_path / "f" / "test" / "c" / "1.png")
    with pytest.raises(DataError, match="train/ has no image of c"):
        load(tmp_path / "f")
    assert "no data set or folder is named './nowhere'" in one_line_error(
        "train", "mnist_cnn", "--data", "./nowhere", capsys=capsys
    )


def test_a_class_may_be_called_train(tmp_path):
    for cls in ("bus", "train"):
        for i in range(2):
            save(tmp_path / "d" / cls / f"{i}.png", seed=i)
    assert list_folder(tmp_path / "d").class_names == ("bus", "train")


def odd_files(folder):
    """One file of every kind and mode that DESIGN's one road names; their names."""
    folder.mkdir(parents=True)
    image = picture((150, 80, 200), 5, (21, 17))
    exif = Image.Exif()
    exif[0x0112] = 6
    gray16 = Image.fromarray((np.arange(21 * 17).reshape(21, 17) * 180).astype(np.uint16))
    frames = [picture((i * 60, 90, 20), i, (21, 17)) for i in range(3)]
    rgba = image.copy()
    rgba.putalpha(Image.fromarray((np.arange(21 * 17).reshape(21, 17) % 256).astype(np.uint8)))
    for name, what, options in [
        ("plain.png", image, {}),
        ("palette.PNG", image.convert("P"), {}),
        ("gray.png", image.convert("L"), {}),
        ("one_bit.png", image.convert("1"), {}),
        ("wide.png", gray16, {}),
        ("alpha.png", rgba, {}),
        ("gray_alpha.png", rgba.convert("LA"), {}),
        ("plain.JPEG", image, {}),
        ("cmyk.jpg", image.convert("CMYK"), {}),
        ("gray.jpg", image.convert("L"), {}),
        ("turned.jpg", image, {"exif": exif}),
        ("progressive.jpg", image, {"progressive": True}),
        ("still.gif", image, {}),
        ("moving.gif", frames[0], {"save_all": True, "append_images": frames[1:]}),
        ("plain.webp", image, {}),
        ("alpha.webp", rgba, {"lossless": True}),
        ("moving.webp", frames[0], {"save_all": True, "append_images": frames[1:]}),
        ("plain.bmp", image, {}),
        ("palette.bmp", image.convert("P"), {}),
        ("plain.tiff", image, {}),
        ("wide.tif", gray16, {}),
    ]:
        what.save(folder / name, **options)
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_every_kind_gives_the_same_pixels_in_training_scoring_and_prediction(tmp_path):
    resize = "center_crop"
    names = odd_files(tmp_path / "d" / "a")
    odd_files(tmp_path / "d" / "b")
    one_by_one = {name: read_pixels(tmp_path / "d" / "a" / name, SHAPE, rule=resize) for name in names}
    for cache_mb in (100, 0):
        dataset = load(tmp_path / "d", cache_mb, resize)
        assert dataset.skipped == ()
        split = dataset.splits["all"]
        assert isinstance(split.images, FileImages) == (cache_mb == 0)
        of_training = {}
        batches = TrainingBatches(split, 2, 8, seed=0)
        for images, _ in batches.dataset(3).take(batches.steps):
            of_training |= {image.numpy().tobytes(): 1 for image in images}
        assert of_training.keys() == {pixels.tobytes() for pixels in one_by_one.values()}
        of_scoring = np.concatenate([images.numpy() for images, _ in scoring_batches(split, 2, 8)])
        for i, name in enumerate(split.origin.names):
            expected = one_by_one[name.partition("/")[2]]
            assert np.array_equal(of_scoring[i], expected), name
            assert np.array_equal(split.images[i], expected), name


def test_streamed_batches_are_those_of_memory(pets):
    in_memory, streamed = load(pets).splits["all"], load(pets, cache_mb=0).splits["all"]
    both = []
    for split in (in_memory, streamed):
        batches = TrainingBatches(split, 3, 16, seed=4)
        epoch = batches.dataset(2).take(batches.steps)
        both.append([(images.numpy(), labels.numpy()) for images, labels in epoch])
    assert [len(images) for images, _ in both[0]] == [16, 16, 16, 12]
    for (images, labels), (other_images, other_labels) in zip(*both, strict=True):
        assert np.array_equal(images, other_images) and np.array_equal(labels, other_labels)


def test_the_canvas_is_cut_from_the_files_not_from_the_small_images(tmp_path):
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = 200  # the middle half is all that a square sees of it
    for cls in "ab":
        (tmp_path / "d" / cls).mkdir(parents=True)
        Image.fromarray(wide).save(tmp_path / "d" / cls / "1.png")
    for cache_mb in (100, 0):
        split = load(tmp_path / "d", cache_mb).splits["all"]
        canvas = on_canvas(split, (20, 20), cache_mb)
        assert canvas.images.shape == (2, 20, 20, 3) and isinstance(canvas.images, FileImages) == (cache_mb == 0)
        assert canvas.images[0][:, 1:-1].min() == 200  # resized to 20x40, its middle 20 columns cut out
        assert split.images[0].min() == 0  # stretched to 16x16, all of it
    assert on_canvas(split, (), 0) is split


@pytest.mark.slow
def test_train_a_folder_reports_the_split_and_names_the_broken_file(pets, capsys):
    options = [
        "--epochs",
        2,
        "--set",
        "data.validation=0.1",
        "--set",
        "data.image_shape=[28, 28, 3]",
        "--batch-size",
        8,
        "--out",
        "run",
    ]
    code, out, err = here("train", "mnist_cnn", "--data", pets, *options, capsys=capsys)
    assert code == 0, err
    assert "pets: 48 train, 6 validation (held out), 6 test (held out) images of 28x28x3, 3 classes" in err
    assert "equal images together: data.validation = 0.1 and data.test = 0.1" in err
    assert "left out: 猫/broken.JPG: does not decode as jpeg" in err
    with open("run/splits.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and set(rows[0]) == {"split", "class", "file"}
    assert all(row["file"].startswith(row["class"] + "/") for row in rows)
    with open("run/skipped.csv", encoding="utf-8", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["猫/broken.JPG"]
    # Wherever the folder lies by now, it is the run's own data; of another, what the run has not seen is scored.
    moved = pets.rename(pets.with_name("moved"))
    code, out, _ = here("evaluate", "run", "--data", moved, "--json", capsys=capsys)
    assert code == 0 and '"examples": 6' in out
    (moved / "狗" / "IMG_2.PNG").unlink()
    code, out, _ = here("evaluate", "run", "--data", moved, "--json", capsys=capsys)
    assert code == 0 and '"examples": 6' in out and '"seen": 53' in out
    assert "is not here. Say where it is: --data PATH" in one_line_error("evaluate", "run", capsys=capsys)


def test_a_file_that_goes_away_in_training_is_named(pets, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.toml").write_text(SMALL)
    create = Run.create.__func__
    monkeypatch.setattr(
        Run, "create", classmethod(lambda cls, *a: ((pets / "狗" / "IMG_3.JPG").unlink(), create(cls, *a))[1])
    )
    options = ["--data", pets, "--set", "data.cache_mb=0", "--set", "data.test=0", "--set", "data.validation=0"]
    error = one_line_error("train", "mine.toml", *options, "--out", "run", "--quiet", capsys=capsys)
    assert "An image is not what it was before training: " in error and "IMG_3.JPG; No such file" in error


def test_a_recipe_may_say_which_classes_there_are(pets):
    config = Data(str(pets), classes=["猫", "狗", "Ünïcode bird"], image_shape=list(SHAPE))
    dataset = loading.load_config_data(config)
    assert dataset.class_names == ("猫", "狗", "Ünïcode bird")
    first = dataset.splits["all"].origin.names[0]
    assert dataset.class_names[dataset.splits["all"].labels[0]] == first.partition("/")[0]
    with pytest.raises(DataError, match="must have the classes 猫, 狗"):
        loading.load_config_data(Data(str(pets), classes=["猫", "狗"], image_shape=list(SHAPE)))
    with pytest.raises(DataError, match="Give data=FOLDER"):
        loading.load_config_data(Data())


SMALL = """
[data]
image_shape = [16, 16, 3]

[model]
name = "mnist_cnn"

[train]
epochs = 1
"""

CROPPED = """
[data]
image_shape = [16, 16, 3]
canvas = [20, 24]
resize = "center_crop"

[model]
name = "mnist_cnn"

[train]
epochs = 2
batch_size = 8

[augment]
policy = [{ name = "random_resized_crop", min_area = 0.8 }, { name = "center_crop", height = 16, width = 16 }]
"""


@pytest.mark.slow
def test_training_on_a_canvas_ends_at_the_models_size(pets, tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(CROPPED)
    options = ["--data", pets, "--set", "data.cache_mb=0", "--out", "run", "--quiet"]
    assert here("train", "mine.toml", *options, capsys=capsys)[0] == 0
    code, _, err = here("show", "mine.toml", "--data", pets, "--augmented", "--plot", "a.png", capsys=capsys)
    assert code == 0 and "left out: 猫/broken.JPG" in err
    code, out, _ = here("export", "run", capsys=capsys)  # its bytes are decoded, scaled to 8/7 and cut
    assert code == 0 and "largest difference 0" in out


def test_a_policy_that_ends_at_another_size_is_a_fault(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(CROPPED.replace("width = 16", "width = 15"))
    expected = "augment.policy must end at the size of data.image_shape, 16 x 16. Received: 16 x 15, from 20 x 24"
    assert expected in one_line_error("train", "mine.toml", capsys=capsys)
    (tmp_path / "mine.toml").write_text(CROPPED + "until = 0.5\n")
    assert "augment.until must be 1" in one_line_error("train", "mine.toml", capsys=capsys)

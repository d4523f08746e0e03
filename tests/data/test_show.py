"""What a data set looks like."""

import re

import numpy as np
from conftest import here, one_line_error, small_npz
from PIL import Image

import kerascls
from kerascls.data.dataset import Split
from kerascls.data.show import augment_like_training, mixed_title, samples


def test_a_data_set_is_told_and_drawn(tmp_path, capsys):
    code, out, err = here("show", "digits", capsys=capsys)
    assert code == 0 and "images 28x28x1, 10 classes" in out
    assert err.splitlines() == [
        "the digits' 13 writers are in train, validation and test alike, so scores are optimistic: those of a new hand "
        "are lower",
        "drawn: digits.png",
    ]
    _, listed, _ = here("list", capsys=capsys)
    assert any(line.split()[:1] == ["digits"] and "share writers" in line for line in listed.splitlines())
    assert out.splitlines()[2].split() == ["0", "124", "18", "36", "0"]
    assert out.splitlines()[-1].split() == ["all", "1,250", "183", "364"]
    with Image.open("digits.png") as picture:
        assert picture.width > 300


def test_python_shows_and_splits_and_writes_no_picture_unasked(tmp_path):
    shown = kerascls.show("digits")
    assert shown.picture is None and shown.counts["test"][0] == 36 and list(tmp_path.iterdir()) == []
    assert shown._repr_png_().startswith(b"\x89PNG")
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (4, 4), (20 * i, 0, 0)).save(tmp_path / "data" / name / f"{i}.png")
    assert kerascls.split("data", "out", 6, 2).path.name == "out"
    assert len(list((tmp_path / "out" / "train").rglob("*.png"))) == 12


def test_a_recipe_is_shown_with_its_own_splits_and_policy(tmp_path, capsys):
    small_npz("data.npz", count=30, class_names=np.array(["красный", "ß", "$x_1$"]))
    (tmp_path / "mine.toml").write_text(
        '[data]\nname = "data.npz"\nvalidation = 5\n[model]\nname = "mnist_cnn"\n[train]\n'
        'epochs = 1\n[augment]\npolicy = [{name = "affine", degrees = 30}]\n'
    )
    code, out, err = here("show", "mine.toml", "--augmented", "--plot", "mine.png", capsys=capsys)
    assert code == 0 and err.splitlines()[-1] == "drawn: mine.png"
    assert err.splitlines()[0].startswith("25 of 30 test images are in train too")
    assert out.splitlines()[-1].split() == ["all", "25", "30", "5"]
    assert "no augmentation to show" in one_line_error("show", "data.npz", "--augmented", capsys=capsys)
    assert "Known:" in one_line_error("show", "nothing", capsys=capsys)


def test_nine_samples_begin_with_one_of_each_class():
    labels = np.array([2] * 20 + [0] * 5 + [1])
    images = np.arange(26, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    chosen = samples(Split.of(images, labels))
    assert chosen.labels.tolist()[:3] == [0, 1, 2] and len(np.unique(chosen.images[:, 0, 0, 0])) == len(chosen) == 9
    assert len(samples(Split.of(images[:4], labels[:4]))) == 4


def test_augmented_samples_are_uint8_and_changed():
    images, labels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8), np.arange(9) % 3
    out, shares = augment_like_training(images, labels, 3, [{"name": "affine", "degrees": 45.0}], seed=0)
    assert out.dtype == np.uint8 and out.shape == images.shape and not np.array_equal(out, images)
    assert np.array_equal(shares, np.eye(3)[labels])


def test_a_mixed_image_is_titled_with_both_names():
    images = np.zeros((9, 8, 8, 3), np.uint8)
    _, shares = augment_like_training(images, np.arange(9), 9, [{"name": "mixup", "alpha": 100}], seed=0)
    titles = [mixed_title(row, "abcdefghi") for row in shares]
    assert all(re.fullmatch(r"[a-i] [5-7]\d %, [a-i] [3-5]\d %", title) for title in titles), titles
    assert mixed_title(np.array([0, 1, 0.0]), ["a", "50%", "c"]) == "50%"


def test_a_policy_that_cuts_out_more_than_there_is_draws_nothing(tmp_path, capsys):
    small_npz("data.npz")
    (tmp_path / "mine.toml").write_text(
        '[data]\nname = "data.npz"\nvalidation = 0\n[model]\nname = "mnist_cnn"\n[train]\n'
        'epochs = 1\n[augment]\npolicy = [{name = "flip"}, {name = "center_crop", width = 30}]\n'
    )
    line = one_line_error("show", "mine.toml", "--augmented", capsys=capsys)
    assert "augment.policy[1].width must be at most 28" in line and not list(tmp_path.glob("*.png"))

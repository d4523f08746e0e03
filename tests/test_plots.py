"""Pictures are written whole, with names as they are."""

import numpy as np
import pytest

from kerascls import plots


@pytest.mark.parametrize("classes", [2, 30, 120])
def test_confusion_takes_few_and_many_classes(tmp_path, classes):
    counts = np.eye(classes, dtype=int) * 3
    plots.save(plots.confusion(counts, [f"class $_{i}^" for i in range(classes)]), tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 2000


def test_curves_take_one_epoch_without_validation(tmp_path):
    row = {"epoch": 1.0, "loss": 1.0, "accuracy": 0.5, "val_loss": None, "val_accuracy": None}
    plots.save(plots.learning_curves([row], 1), tmp_path / "c.png")
    assert (tmp_path / "c.png").is_file()


def test_one_picture_twice_is_the_same_bytes(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for name in ("a.png", "b.png"):
        plots.save(plots.image_grid([image] * 5, ["$x", "y_{", "z\nz", "", "w"]), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_long_names_are_shortened():
    assert plots.shorten("a " * 50) == "a " * 10 + "a..." and len(plots.shorten("x" * 99)) <= 24


def test_names_in_any_script_are_drawn_or_said_to_be_boxes(tmp_path, capsys, monkeypatch):
    blank = np.full((8, 8, 3), 255, np.uint8)

    def drawn(title):
        plots.save(plots.image_grid([blank], [title]), tmp_path / "a.png")
        return (tmp_path / "a.png").read_bytes()

    # Boxes would all look alike.
    assert len({drawn(title) for title in ("猫", "狗", "鸟", "ねこ")}) == 4 and capsys.readouterr().err == ""
    monkeypatch.setattr(plots, "_characters", lambda file: frozenset(map(chr, range(128))))
    drawn("a 猫")
    assert "No font on this machine has 猫: a.png shows boxes" in capsys.readouterr().err

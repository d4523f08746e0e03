"""Predicting files: names, errors, tables, pictures, and a newcomer's own digit."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import REPOSITORY, here, one_line_error
from PIL import Image, ImageDraw

from kerascls.predict import image_files

RELEASED = REPOSITORY / "saved_models" / "released" / "mnist_cnn"


def draw_three(path, ink, paper, mode="RGBA", size=400):
    """A 3 as one draws it: two arcs, 400x400, ink on paper."""
    image = Image.new("RGB", (400, 400), paper)
    pen = ImageDraw.Draw(image)
    pen.arc((120, 60, 280, 215), 190, 450, fill=ink, width=36)
    pen.arc((110, 180, 290, 345), 270, 530, fill=ink, width=36)
    image.resize((size, size)).convert(mode).save(path)
    return path


@pytest.mark.parametrize("model", [RELEASED, RELEASED / "exports" / "saved_model"])
def test_a_drawn_three_is_a_three_in_both_polarities(tmp_path, capsys, model):
    on_white = draw_three(tmp_path / "three.png", "black", "white")
    code, out, err = here("predict", model, on_white, "--invert", "--json", capsys=capsys)
    assert code == 0 and err == "" and json.loads(out)["label"] == "3"
    on_black = draw_three(tmp_path / "dark.png", "white", "black")
    code, out, err = here("predict", model, on_black, "--json", capsys=capsys)
    assert code == 0 and err == "" and json.loads(out)["label"] == "3"
    _, _, err = here("predict", model, on_white, capsys=capsys)
    assert "Warning: 1 image has a light border; the training images had dark ones. Try --invert." in err
    _, _, err = here("predict", model, on_black, "--invert", capsys=capsys)
    assert "Leave out --invert." in err


def test_ink_on_transparent_paper_is_ink_on_white(tmp_path, capsys):
    image = Image.open(draw_three(tmp_path / "three.png", "black", "white")).convert("L")
    clear = Image.merge("RGBA", [Image.new("L", image.size)] * 3 + [image.point(lambda level: 255 - level)])
    clear.save(tmp_path / "clear.png")
    answers = [
        here("predict", RELEASED, tmp_path / name, "--invert", "--json", capsys=capsys)[1].split(", ", 1)[1]
        for name in ("three.png", "clear.png")
    ]
    assert answers[0] == answers[1] and '"3"' in answers[0]


def test_json_and_csv_say_the_same_and_bad_files_cost_no_other(digits_run, digit_pngs, tmp_path, capsys):
    folder = shutil.copytree(digit_pngs[0], tmp_path / "图片")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    code, out, err = here(
        "predict", digits_run, folder, "--json", "--csv", "answers.csv", "--top-k", "2", capsys=capsys
    )
    assert code == 1 and err.strip() == "Error: 1 of 13 images could not be read."
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"].rsplit("/", 1)[1] for line in lines] == ["broken.png"] + [f"digit{i}.png" for i in range(12)]
    assert set(lines[0]) == {"file", "error"} and set(lines[1]) == {"file", "label", "probability", "top"}
    with open("answers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "file",
        "label",
        "probability",
        "label_1",
        "label_2",
        "probability_1",
        "probability_2",
        "error",
    ]
    for row, line in zip(rows, lines, strict=True):
        assert row["file"] == line["file"] and row["error"] == line.get("error", "")
        if "top" in line:
            assert (row["label_2"], float(row["probability_2"])) == (
                line["top"][1]["label"],
                line["top"][1]["probability"],
            )


def test_answers_do_not_depend_on_what_else_is_asked(digits_run, digit_pngs, capsys):
    folder, _ = digit_pngs
    _, together, _ = here("predict", digits_run, folder, "--json", capsys=capsys)
    _, alone, _ = here("predict", digits_run, folder / "digit5.png", "--json", capsys=capsys)
    one, other = json.loads(alone), json.loads(together.splitlines()[5])
    assert one["label"] == other["label"] and one["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_examples_of_a_data_set_show_truth_beside_prediction(digits_run, capsys):
    code, out, err = here(
        "predict",
        digits_run,
        "--data",
        "digits",
        "--split",
        "test",
        "--count",
        "4",
        "--plot",
        "four.png",
        capsys=capsys,
    )
    assert code == 0 and out.count("(is ") == 4 and "drawn: four.png" in err
    with Image.open("four.png") as picture:
        assert np.asarray(picture).std() > 10


@pytest.mark.parametrize("name", ["plot.png", "plot.svg", "plot.pdf", "plot"])
def test_plots_take_the_kind_of_their_suffix(digits_run, digit_pngs, tmp_path, capsys, name):
    assert here("predict", digits_run, digit_pngs[0], "--plot", name, capsys=capsys)[0] == 0
    assert (tmp_path / name).stat().st_size > 1000


def test_what_cannot_be_predicted_is_told(digits_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "has no images" in one_line_error("predict", digits_run, "empty", capsys=capsys)
    assert "does not exist" in one_line_error("predict", digits_run, "nowhere.png", capsys=capsys)
    assert here("predict", digits_run, capsys=capsys)[0] == 2
    (tmp_path / "text.png").write_text("hello")
    code, out, err = here("predict", digits_run, "text.png", "--plot", "p.png", capsys=capsys)
    assert code == 1 and "text.png: is not an image" in err and "nothing to plot" in err
    assert "Cannot write" in one_line_error("predict", digits_run, "text.png", "--csv", "no/where.csv", capsys=capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text.png"]


def test_folders_are_read_in_natural_order_below_and_without_hidden_files(tmp_path):
    for name in ("b/10.png", "b/9.PNG", "a/x.jpeg", ".git/y.png", "b/z.txt"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(b"")
    found = [file.relative_to(tmp_path / "f").as_posix() for file in image_files([tmp_path / "f"])]
    assert found == ["a/x.jpeg", "b/9.PNG", "b/10.png"]

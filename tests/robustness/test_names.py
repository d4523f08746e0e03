"""File names that are not UTF-8, of old Windows archives, end nothing: pictures, JSON, recipes, tables and screens."""

import csv
import json
import os
import sys

import numpy as np
import pytest
from conftest import command, here
from PIL import Image

from kerascls import plots
from kerascls.recipes.load import config_from_toml, load_config
from kerascls.system.atomic_files import write_json, write_text
from kerascls.system.json_files import json_text, read_json

BAD = os.fsdecode(b"i\x82")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such names")


def test_json_keeps_every_name_and_is_utf8(tmp_path):
    for names in ([BAD], ["猫 é", BAD], {BAD: "\ud800"}):
        assert json.loads(json_text(names).encode("utf-8")) == names
    write_json(tmp_path / "a.json", {"file": BAD})
    assert read_json((tmp_path / "a.json").read_text(encoding="utf-8")) == {"file": BAD}


def test_a_picture_shows_the_escape_in_titles_headings_and_class_names(tmp_path):
    images = [np.zeros((4, 4, 1), np.uint8)] * 2
    figure = plots.image_grid(images, [f"{BAD}.jpg\nis {BAD}", "猫"], heading=BAD)
    plots.save(figure, tmp_path / "a.png")
    assert figure.axes[0].get_title() == "i\\udc82.jpg\nis i\\udc82"
    plots.save(plots.confusion(np.eye(2, dtype=int), [BAD, "b"]), tmp_path / "b.pdf")
    assert (tmp_path / "a.png").stat().st_size > 1000 and (tmp_path / "b.pdf").stat().st_size > 1000
    assert plots.shorten(BAD) == "i\\udc82"


def test_a_runs_recipe_keeps_the_name_of_its_data(tmp_path):
    (tmp_path / BAD / "a").mkdir(parents=True)
    config = load_config("folder_scratch", {"data": {"name": f"./{BAD}"}})
    write_text(tmp_path / "config.toml", config.as_toml())
    text = (tmp_path / "config.toml").read_text(encoding="utf-8", errors="surrogateescape")
    assert config_from_toml(text, "folder_scratch", None).data.name == f"./{BAD}"


@pytest.mark.slow
def test_predict_and_explain_name_such_files_in_json_csv_and_pictures(digits_run, digit_pngs, tmp_path, capsys):
    folder = tmp_path / BAD
    folder.mkdir()
    name = os.path.join(BAD, f"7{BAD}.png")
    Image.open(digit_pngs[0] / "digit0.png").save(name)
    code, out, err = here(
        "predict", digits_run, BAD, "--json", "--csv", f"{BAD}.csv", "--plot", f"{BAD}.png", capsys=capsys
    )
    assert code == 0 and json.loads(out)["file"] == name, err
    with open(f"{BAD}.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [name]
    code, out, err = here("explain", digits_run, name, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["file"] == name and os.path.exists(f"7{BAD}_explained.png"), err
    os.rename(name, f"{name}.png")
    process = command("predict", digits_run, f"{name}.png", "--json", check=0, PYTHONUTF8="1")
    assert json.loads(process.stdout)["file"] == f"{name}.png"


def test_a_server_names_itself_in_utf8(digits_run, tmp_path):
    from kerascls.serving.server import default_name

    (tmp_path / BAD).mkdir()
    assert default_name(tmp_path / BAD) == "i_"


def test_an_explained_image_is_shown_by_the_escape_as_its_picture_is():
    from kerascls.inference.explain import Explanation, as_text

    explanation = Explanation(f"{BAD}.png", "a", 0.9, "a", 0.9, "CAM", f"{BAD}_explained.png")
    assert as_text(explanation) == "i\\udc82.png: a 90.0%, CAM in i\\udc82_explained.png"

"""A recipe of one's own."""

import tomllib
from pathlib import Path

from conftest import here, one_line_error

from kerascls.recipes import load, schema


def test_new_recipe_is_the_old_one_with_every_key_explained(capsys):
    code, out, _ = here("new", "mine", "--from", "mnist_cnn", capsys=capsys)
    assert (code, out.strip()) == (0, "mine.toml")
    text = Path("mine.toml").read_text(encoding="utf-8")
    assert load.load_config("mine.toml").train == load.load_config("mnist_cnn").train
    for key in schema.Train.__dataclass_fields__:
        assert f"\n{key} = " in text or f"\n# {key} = " in text
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line.split("#")[-1][:24] else line for line in text.splitlines()
    )
    tomllib.loads("\n".join(line for line in uncommented.splitlines() if "=" in line or line.startswith("[")))
    assert "exists already" in one_line_error("new", "mine", capsys=capsys)
    assert "plain name" in one_line_error("new", "a/b", capsys=capsys)

"""What there is, told without importing it."""

import pytest
from conftest import here

from kerascls import catalog
from kerascls.errors import ConfigError


def test_list_names_everything_a_line_each(capsys):
    code, out, _ = here("list", capsys=capsys)
    assert code == 0
    for name in [*catalog.recipe_names(), *catalog.model_files(), *catalog.dataset_files()]:
        line = next(line for line in out.splitlines() if line.startswith(f"  {name} "))
        assert len(line) > 30, line


def test_options_are_read_from_the_source(tmp_path):
    (tmp_path / "net.py").write_text(
        "raise SystemExit('never run')\ndef build(a, b, *, units=3, rates=(1, 2), x=None.y):\n    pass\n"
    )
    assert catalog.build_options(tmp_path / "net.py") == {"units": 3, "rates": [1, 2], "x": None}
    assert set(catalog.policy_options()) == {"flip", "shift", "affine"}
    assert catalog.policy_options()["affine"] == {"degrees": 0.0, "shift": 0.0, "zoom": 0.0}


@pytest.mark.parametrize("source, fault", [("def other(): pass", "no `def build"), ("def build(:", "not valid Python")])
def test_a_model_file_that_cannot_be_one_is_told(tmp_path, source, fault):
    (tmp_path / "net.py").write_text(source)
    with pytest.raises(ConfigError, match=fault):
        catalog.build_options(tmp_path / "net.py")

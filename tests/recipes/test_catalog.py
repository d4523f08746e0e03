"""What there is, told without importing it."""

import pytest
from conftest import here

from kerascls.errors import ConfigError
from kerascls.recipes import catalog


def test_list_names_everything_a_line_each(capsys):
    code, out, _ = here("list", capsys=capsys)
    assert code == 0
    for name in [*catalog.recipe_names(), *catalog.model_files(), *catalog.dataset_files(), *catalog.policy_options()]:
        line = next(line for line in out.splitlines() if line.startswith(f"  {name} "))
        assert len(line) > 30, line


def test_options_are_read_from_the_source(tmp_path):
    (tmp_path / "net.py").write_text(
        "raise SystemExit('never run')\ndef build(a, b, *, units=3, rates=(1, 2), x=None.y):\n    pass\n"
    )
    assert catalog.build_options(tmp_path / "net.py") == {"units": 3, "rates": [1, 2], "x": None}
    assert {"flip", "shift", "affine", "mixup"} <= set(catalog.policy_options())
    assert catalog.policy_options()["affine"] == {"degrees": 0.0, "shift": 0.0, "zoom": 0.0}


def test_ranges_are_read_from_the_annotations():
    limits = catalog.policy_limits()
    assert limits["affine"] == {"degrees": (0, 180), "shift": (0, 1), "zoom": (0, 0.9)} and limits["shift"] == {}
    assert limits["center_crop"] == {"height": (0, "height"), "width": (0, "width")}
    assert limits["random_resized_crop"]["interpolation"] == ["bilinear", "nearest"]
    for name, options in catalog.policy_options().items():  # every default lies in its range
        for key, (low, high) in ((k, v) for k, v in limits[name].items() if isinstance(v, tuple)):
            assert low <= options[key] and (isinstance(high, str) or options[key] <= high), (name, key)


def test_the_size_that_a_policy_ends_at():
    crop = {"name": "random_resized_crop", "height": 40, "width": 30}
    assert catalog.policy_output_shape([], (9, 8, 3)) == (9, 8, 3)
    assert catalog.policy_output_shape([{"name": "flip"}, {"name": "random_resized_crop"}], (9, 8, 3)) == (9, 8, 3)
    assert catalog.policy_output_shape([crop, {"name": "center_crop", "height": 32}], (9, 8, 1)) == (32, 30, 1)
    with pytest.raises(ConfigError, match=r"policy\[1\].width must be at most 30, .* Received: 31"):
        catalog.policy_output_shape([crop, {"name": "center_crop", "width": 31}], (9, 8, 3))


@pytest.mark.parametrize("source, fault", [("def other(): pass", "no `def build"), ("def build(:", "not valid Python")])
def test_a_model_file_that_cannot_be_one_is_told(tmp_path, source, fault):
    (tmp_path / "net.py").write_text(source)
    with pytest.raises(ConfigError, match=fault):
        catalog.build_options(tmp_path / "net.py")

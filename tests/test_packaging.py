"""What is installed: from a wheel as from a checkout."""

import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from conftest import REPOSITORY

import kerascls

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_cpu_requirements_are_the_projects_with_tensorflow_cpu():
    lines = [
        line for line in (REPOSITORY / "requirements-cpu.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert sorted(re.sub("^tensorflow-cpu", "tensorflow", line) for line in lines) == sorted(PROJECT["dependencies"])


def test_versions_agree():
    assert PROJECT["version"] == kerascls.__version__
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {kerascls.__version__}" in changelog


def test_a_wheel_brings_recipes_types_and_every_module(tmp_path):
    pytest.importorskip("hatchling", reason="building a wheel without network needs hatchling installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, REPOSITORY],
        check=True,
        capture_output=True,
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for path in [*(REPOSITORY / "configs").rglob("*.toml")]:
        assert f"kerascls/configs/{path.relative_to(REPOSITORY / 'configs').as_posix()}" in names
    for path in [
        *(REPOSITORY / "kerascls").rglob("*.py"),
        *(REPOSITORY / "kerascls" / name for name in ("py.typed", "serving/page.html")),
    ]:
        assert path.relative_to(REPOSITORY).as_posix() in names
    assert not [name for name in names if "saved_models" in name or "tests" in name]

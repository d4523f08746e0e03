"""The house: who may import whom, and how large a file may be."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
MODULES = sorted((REPOSITORY / "kerascls").rglob("*.py"))


def test_packages_import_only_packages_below_them():
    """The contract is in pyproject.toml, [tool.importlinter]."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    checked = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_module_says_what_it_is_for():
    silent = [path for path in MODULES if path.stat().st_size and not path.read_text("utf-8").startswith('"""')]
    assert silent == []


def test_no_module_is_called_utils():
    assert not [path for path in MODULES if "util" in path.name or "helper" in path.name]

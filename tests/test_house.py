"""The house: who may import whom, and where a command lives."""

import ast
from pathlib import Path

from kerascls.cli import cli

PACKAGE = Path(__file__).parent.parent / "kerascls"

ORDER = """
errors status json_files files memory kinds catalog recipe_faults config card scan runs cache metrics plots process
devices ahead tiff formats pixels images contents datasets inputs split remarks augment steps pipeline models
runtimes foreign load inspect save adopt features new check summary show evaluate checkpoint callbacks timing
optimizers fit resume train sweep table predict explain proof export compare reproduce report batching limits
cross_origin tf_serving serve cli
""".split()

# Commands of under 20 lines, in the module that owns their subject.
LODGERS = {"list": "catalog", "env": "devices", "devices": "devices", "features": "cache"}


def room_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms that a file imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kerascls":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("kerascls.")}
    return found & set(ORDER)


def rooms():
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name not in ("__main__.py",) and path != PACKAGE / "__init__.py"
    ]


def test_every_module_has_its_place_in_the_order():
    assert {room_of(path) for path in rooms()} <= set(ORDER)


def test_modules_import_only_modules_to_their_left():
    wrong = [
        (str(path.relative_to(PACKAGE)), name)
        for path in rooms()
        for name in imports(path)
        if ORDER.index(name) > ORDER.index(room_of(path))
    ]
    assert wrong == []


def test_a_command_its_module_its_test_and_its_page_share_a_name():
    for name in cli.commands:
        module = LODGERS.get(name, name)
        assert (PACKAGE / f"{module}.py").is_file(), name
        assert (PACKAGE.parent / "tests" / f"test_{module}.py").is_file(), name
        assert (PACKAGE.parent / "docs" / "commands" / f"{name}.md").is_file(), name


def test_no_module_is_called_utils():
    assert not [path for path in rooms() if "util" in path.name or "helper" in path.name]

"""The house: who may import whom, how large a file may be, and that a new thing is one file."""

import os
import re
import shutil
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


# A file for each new thing, dropped into a copy of the package; {path below kerascls/: text}.
TOYS = {
    "commands/toy.py": '''
import click

@click.command("toy")
def command():
    """Say what it is."""
    click.echo("the toy command")
''',
    "models/toy.py": """
import keras
from kerascls.models._layers import scaled_input

def build(image_shape, num_classes):
    inputs, x = scaled_input(image_shape, 0, 1)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, activation="softmax")(x), name="toy")
""",
    "datasets/toy.py": """
import numpy as np
from kerascls.data.dataset import Dataset, Split

class_names = ("dark", "light")
image_shape = (8, 8, 1)

def load():
    splits = {}
    for seed, name in enumerate(("train", "validation", "test")):
        images = np.random.default_rng(seed).integers(0, 128, (16, *image_shape), np.uint8)
        images[::2] += 128
        splits[name] = Split.of(images, np.arange(1, 17, dtype=np.int32) % 2)
    return Dataset("toy", "drawn at random", class_names, splits)
""",
    "augmentation/toy.py": '''
from kerascls.augmentation.options import Share

def toy_dim(images, labels, seed, *, amount: Share = 0.1):
    """Dims every image by the same share."""
    return images * (1 - amount), labels
''',
    "formats/toy.py": """
from kerascls.formats._format import Format, uncalibrated
from kerascls.formats.keras import save_keras

FORMATS = {"toy": Format("toy.keras", ".keras", uncalibrated(save_keras), "keras")}
""",
}
RECIPE = """[data]
name = "toy"

[model]
name = "toy"

[augment]
policy = [{ name = "toy_dim", amount = 0.2 }]

[train]
epochs = 1
batch_size = 8
"""


def test_a_command_model_data_set_augmentation_and_format_are_each_one_file(tmp_path):
    """A format is one name in the registry besides. A run of all of them is trained and exported."""
    for folder in ("kerascls", "configs"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in TOYS.items():
        (tmp_path / "kerascls" / name).write_text(f'"""A toy."""\n{text}')
    registry = tmp_path / "kerascls" / "formats" / "registry.py"
    files = re.search(r"^FILES = \(.*\)$", registry.read_text(), re.MULTILINE)[0]
    registry.write_text(registry.read_text().replace(files, f'{files[:-1]}, "toy")'))
    (tmp_path / "toy.toml").write_text(RECIPE)
    program = """
from kerascls.cli import run
for line in ("toy", "train toy.toml --out run --quiet", "export run --format toy"):
    assert run(line.split()) == 0, line
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("the toy command\n") and (tmp_path / "run" / "exports" / "toy.keras").is_file()

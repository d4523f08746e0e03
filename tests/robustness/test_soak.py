"""Memory of a process that trains and predicts for long; `python -m tests.robustness.soak` has arguments."""

import subprocess
import sys

import pytest
from conftest import REPOSITORY

from tests.robustness import soak


def test_growth_is_that_from_the_second_quarter_to_the_last():
    assert soak.growth([900, 700, 500, 510, 490, 500, 600, 600, 505, 530, 520, 510]) == 20


@pytest.mark.slow
@pytest.mark.parametrize("what", ["predictions", "trainings"])
def test_memory_is_flat_once_it_is_warm(what):
    counts = {"trainings": "0", "predictions": "0", what: {"trainings": "100", "predictions": "2000"}[what]}
    arguments = [word for name, count in counts.items() for word in (f"--{name}", count)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.robustness.soak", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"

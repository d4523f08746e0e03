"""A short form of `python -m tests.robustness.fuzz`, and every input that once failed in it."""

import pytest

from tests.robustness import fuzz
from tests.robustness.strategies import KINDS, Case

# Faults that are known and not yet mended: a regression's name, and the reason. They are not run: some would hang.
COUNTS = {
    "recipe": 30,
    "image": 12,
    "folder": 8,
    "model": 15,
    "run": 6,
    "npz": 8,
    "table": 3,
    "request": 40,
    "train": 1,
}


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    with fuzz.working(tmp_path_factory.mktemp("fuzz")) as workers:
        yield workers


# These train, or start a process for each case.
SLOW = ("run", "table", "train")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS])
def test_bad_input_of_every_kind_is_told_in_a_line_and_harms_nothing(workers, kind):
    found = []

    def each(case):
        found.extend((case.call, fault) for fault in workers.faults(case))

    fuzz.generate(kind, workers.templates, COUNTS[kind], 0, each)
    assert found == []


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem) for path in sorted(fuzz.REGRESSIONS.glob("*.json"))],
)
def test_what_once_failed_does_so_no_more(workers, path):
    assert workers.faults(Case.from_json(path.read_text(encoding="utf-8"))) == []

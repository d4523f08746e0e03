"""A short form of `python -m tests.fuzz`, and every input that once failed in it."""

import pytest

from tests import fuzz
from tests.strategies import KINDS, Case

# Faults that are known and not yet mended: a regression's name, and the reason. They are not run: some would hang.
KNOWN = {
    "folder-nested-deeply": "datasets/_folder.py: `_files` recurses, and resolves every folder's whole path",
    "folder-whose-links-go-in-loops": "datasets/_folder.py: `_files` takes every way through the links",
    "folder-with-a-pipe": "datasets/_folder.py: reads what is no file",
    "folder-with-an-endless-device": "datasets/_folder.py: reads what is no file",
    "model-writes-a-file": "load.py: runs whatever operations a SavedModel has",
}
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


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_of_every_kind_is_told_in_a_line_and_harms_nothing(workers, kind):
    found = []

    def each(case):
        found.extend((case.call, fault) for fault in workers.faults(case))

    fuzz.generate(kind, workers.templates, COUNTS[kind], 0, each)
    assert found == []


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.xfail(reason=KNOWN[path.stem], run=False, strict=False)])
        if path.stem in KNOWN
        else pytest.param(path, id=path.stem)
        for path in sorted(fuzz.REGRESSIONS.glob("*.json"))
    ],
)
def test_what_once_failed_does_so_no_more(workers, path):
    assert workers.faults(Case.from_json(path.read_text(encoding="utf-8"))) == []

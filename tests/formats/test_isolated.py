"""A process of its own for what may end its reader. It runs functions of this module, which is light to import."""

import math
import os
import signal
from pathlib import Path

import pytest

from kerascls.errors import ModelError
from kerascls.formats.scan.isolated import MOST_MEMORY, apart


def loops(path):
    while True:
        pass


def crashes(path):
    os.abort()


def grows(path):
    bytearray(MOST_MEMORY)


def prints(path):
    os.write(1, b"a library's chatter\n")
    return {"name": path.name, "odd": [float("nan"), "\udc80"]}


def is_away(path):
    path.read_bytes()


def test_a_process_of_its_own_tells_the_answer_and_nothing_else_gets_out():
    told = apart(prints, Path("m"))
    assert told["name"] == "m" and math.isnan(told["odd"][0]) and told["odd"][1] == "\udc80"
    with pytest.raises(FileNotFoundError, match="'m'"):
        apart(is_away, Path("m"))
    with pytest.raises(ModelError, match="m is refused: it ended its reader with SIGABRT"):
        apart(crashes, Path("m"))
    with pytest.raises(ModelError, match="m is refused: it came to no end in 1 s of a core"):
        apart(loops, Path("m"), seconds=1)
    with pytest.raises(ModelError, match="m cannot be read in a process of its own: MemoryError"):
        apart(grows, Path("m"))


def test_a_reader_that_crashed_is_told_where_the_system_does_not_tell_of_it():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(ModelError, match="m cannot be read in a process of its own: no reason given"):
            apart(crashes, Path("m"))
    finally:
        signal.signal(signal.SIGCHLD, before)

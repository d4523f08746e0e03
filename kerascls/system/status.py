"""What a command is doing, said on one line of the terminal that is rewritten in place.

    with doing("reading flowers", total=4317, unit="files") as progress:
        for file in files:
            progress.step()

Nothing is shown unless `shown` is entered, which every command does, and unless stderr is a terminal. The line goes
away before anything else is written to stdout or stderr, and when the command ends, however it ends.
"""

import contextlib
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from typing import Any

EVERY = 0.5  # seconds between two looks at what the line should say


class Doing:
    """One thing that is being done; `step` counts how much of it is.

    Attributes:
        total: how many there are; 0 where that is not known.
        note: what is said behind all else.
        ahead: how many will follow this `total`: they count for the time that is left.
        stays: whether what is done inside it is said too, behind it.
    """

    def __init__(
        self, what: str, total: int = 0, unit: str = "images", done: int = 0, ahead: int = 0, stays: bool = False
    ):
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self.ahead, self.stays, self.note = ahead, stays, ""
        self.begin = time.monotonic()
        self.first: tuple[float, int] | None = None  # when the first step ended, and how many were done by then

    def step(self, count: int = 1) -> None:
        self.done += count
        self.first = self.first or (time.monotonic(), self.done)

    @property
    def rate(self) -> float | None:
        """How many a second, but for the first step, which may compile what the others run; None before a second."""
        if self.first is None or self.done == self.first[1]:
            return None
        return (self.done - self.first[1]) / max(time.monotonic() - self.first[0], 1e-3)

    @property
    def left(self) -> float | None:
        """Seconds until all are done; None before that is known."""
        return self.rate and (self.total - self.done + self.ahead) / self.rate

    def __str__(self) -> str:
        if not self.what:
            return ""
        seconds, rate, left = time.monotonic() - self.begin, self.rate, self.left
        told = self.what
        if self.total:
            told += f": {100 * self.done // self.total} % of {self.total:,} {self.unit}"
        if rate and left is not None:
            told += f", {rate:,.0f} {self.unit}/s, {clock(left)} left"
        else:
            told += " ..." + (f" {int(seconds)} s" if seconds >= 1 else "")
        return told + (f", {self.note}" if self.note else "")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(12), clock(3661)
    ('0:12', '1:01:01')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _Line:
    """The terminal's last line. One thread rewrites it; whoever writes something else clears it first."""

    def __init__(self, what: str):
        self.doing = [Doing(what)]  # the innermost is the last
        self.owner = threading.get_ident()  # who says what is done; other threads' doings would not nest
        self.lock = threading.RLock()  # a signal's handler may write while its thread does
        self.drawn = ""  # what stands there now
        self.free = True  # whether the cursor is at a line's beginning, so that the line may be drawn
        self.terminal = os.dup(sys.stderr.fileno())  # stderr itself may be turned away while a library loads
        self.encoding = sys.stderr.encoding or "ascii"
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, name="kerascls-status", daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.ended.wait(EVERY):
            with self.lock:
                if self.free:
                    self.draw()

    def text(self) -> str:
        """The innermost of what is being done, unless something around it counts: that says more. What stays, stands
        in front."""
        told: list[Doing] = []
        for one in self.doing:
            if one.total:
                told.append(one)
                if not one.stays:
                    break
        else:
            told += self.doing[-1:] if self.doing[-1] not in told else []
        return " | ".join(map(str, told))

    def draw(self) -> None:
        text = fitting(self.text(), self.columns() - 1)
        if text != self.drawn:
            longer = width(self.drawn) - width(text)
            self.write("\r" + text + " " * longer + "\b" * longer)
            self.drawn = text

    def clear(self) -> None:
        if self.drawn:
            self.write("\r" + " " * width(self.drawn) + "\r")
            self.drawn = ""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal has gone
            os.write(self.terminal, text.encode(self.encoding, "replace"))

    def columns(self) -> int:
        with contextlib.suppress(OSError):
            return os.get_terminal_size(self.terminal).columns or 80
        return 80

    def close(self) -> None:
        self.ended.set()
        self.thread.join()
        self.clear()
        os.close(self.terminal)


class _Stream:
    """stdout or stderr, before whose writes the line is cleared."""

    def __init__(self, stream: Any, line: _Line):
        self._stream, self._line = stream, line

    def write(self, text: str) -> int:
        with self._line.lock:
            self._line.clear()
            count = self._stream.write(text)
            if text:  # a prompt, or another's bar, has the line until it ends
                self._line.free = text.endswith(("\n", "\r"))
            return count

    def writelines(self, lines: Any) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def fitting(text: str, columns: int) -> str:
    """`text` cut to so many columns, without what could move the cursor."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    while width(text) > max(columns, 0):
        text = text[:-1]
    return text


_line: _Line | None = None


@contextlib.contextmanager
def shown(what: str, wanted: bool = True) -> Iterator[None]:
    """Inside, what is being done is said on a terminal, beginning with `what`; nothing where it is not `wanted`, where
    stderr is no terminal, or where it is shown already."""
    global _line
    if not wanted or _line is not None or sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    _line = line = _Line(what)
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    ours = {name: _Stream(stream, line) for name, stream in before.items() if stream is not None and stream.isatty()}
    vars(sys).update(ours)
    try:
        yield
    finally:
        for name, stream in ours.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, before[name])
        _line = None
        line.close()


@contextlib.contextmanager
def doing(what: str, total: int = 0, unit: str = "images", **more: Any) -> Iterator[Doing]:
    """Inside, the line says `what`, and how many of `total` are done; after it what it said before. There is no line
    while `what` is empty, and other threads than the one that entered `shown` say nothing.

    Args: those of `Doing`.
    """
    told, line = Doing(what, total, unit, **more), _line
    if line is None or line.owner != threading.get_ident():
        yield told
        return
    with line.lock:
        line.doing.append(told)
        line.free = True
        line.draw()  # at once: what follows may keep Python to itself
    try:
        yield told
    finally:
        with line.lock:
            line.doing.remove(told)

"""Reading in a process of its own: what a damaged file does to a library in C, it does to that process alone.

HDF5 and LiteRT take what a file says of itself on trust here and there: one changed byte makes them read outside of
their memory, or go round for ever, and no exception tells of either.
"""

import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerascls.errors import ModelError

SECONDS = 3.0  # of a core; a thousand groups and data sets take a tenth of one
LONG = 60.0  # for what ends by itself, as a network without loops does, however large
BYTES = 50e6  # for which there is a second more
PATIENCE = 15  # times the seconds of a core, by the clock: a slow disk, or many other processes
MOST_MEMORY = 3 << 30  # bytes, and twice those of the file
_WRITTEN: set[tuple[int, ...]] = set()
_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import answer; answer(*sys.argv[1:])"


def apart(function: Callable[[Path], Any], path: Path, seconds: float = SECONDS) -> Any:
    """`function(path)`, by another process, which ends when it has taken too long or too much.

    Where Python runs inside another program, which could not be started again, it is called here; and for a file that
    this process has `written`.

    Args:
        function: of a module of kerascls, by its name there. Its answer is what JSON can hold.
        path: of a model; a large one has longer, by its bytes.
        seconds: of a core that an empty one would have.

    Raises:
        ModelError: as `function` does, or it crashed, or came to no end.
        OSError: as `function` does, or no process can be started.
    """
    if not sys.executable or _state(path) in _WRITTEN:
        return function(path)
    size = _size(path)
    seconds = math.ceil(seconds + size / BYTES)
    name = f"{function.__module__}:{function.__qualname__}"
    try:
        process = subprocess.run(
            [
                sys.executable,
                "-c",
                _PROGRAM.format(path=sys.path, module=__name__),
                name,
                os.fspath(path),
                str(seconds),
                str(size),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE * seconds,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # one thread makes NumPy begin sooner
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refused(path, f"it came to no end in {PATIENCE * seconds} s") from None
    if process.returncode or not process.stdout:  # without SIGCHLD every process seems to have ended well
        if process.returncode == -getattr(signal, "SIGXCPU", 0):
            raise _refused(path, f"it came to no end in {seconds} s of a core")
        if process.returncode < 0:
            raise _refused(path, f"it ended its reader with {signal.Signals(-process.returncode).name}")
        reason = (process.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"{path} cannot be read in a process of its own: {reason[:200]}.")
    kind, told = json.loads(process.stdout)
    if kind == "ModelError":
        raise ModelError(told)
    if kind == "OSError":
        raise OSError(*told)
    return told


def written(path: Path) -> None:
    """Takes note of a file that this process has just made: it may be read here while it is unchanged."""
    _WRITTEN.add(_state(path))


def _state(path: Path) -> tuple[int, ...]:
    try:
        about = os.stat(path)
    except (OSError, ValueError):  # it is not there, which its reader will tell
        return ()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def answer(function: str, path: str, seconds: str, size: str) -> None:
    """What the other process does: tells on its stdout what `function` has to say."""
    _limit(int(seconds), MOST_MEMORY + 2 * int(size))
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    module, _, name = function.partition(":")
    try:
        said = ["answer", getattr(importlib.import_module(module), name)(Path(path))]
        text = json.dumps(said)
    except ModelError as error:
        text = json.dumps(["ModelError", str(error)])
    except RecursionError:
        text = json.dumps(["ModelError", f"{path} is refused before anything in it runs: it is nested too deeply."])
    except OSError as error:
        text = json.dumps(["OSError", [error.errno, error.strerror or str(error), error.filename]])
    told.write(text)
    told.flush()
    os._exit(0)  # some libraries crash as they leave


def _limit(seconds: int, memory: int) -> None:
    with contextlib.suppress(ImportError):  # Windows has the clock alone
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_DATA, memory)):
            soft, hard = resource.getrlimit(kind)
            most = min(limit for limit in (most, soft, hard) if limit != resource.RLIM_INFINITY)
            resource.setrlimit(kind, (most, hard))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is refused: {why}. It is damaged, or made to do that.")

"""A child process with its seconds and its peak memory; the arithmetic of medians, extrapolation and ratios."""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
Measurement = dict[str, Any]


class NotRun(Exception):
    """Why something could not be measured, as a sentence for the table."""


def run_child(arguments: Sequence[Any], cwd: Path, seconds_left: float, **more: str) -> tuple[str, Measurement]:
    """Runs `python ARGUMENTS`, importing kerascls and benchmarks from this checkout; `more` goes into its environment.

    Returns:
        its stdout, and `{"process_seconds", "peak_mb"}`: wall time from start to end, and the largest resident size
        of the child or of a process that it waited for, in MB of 10**6 bytes. Linux and macOS only.

    Raises:
        NotRun: it failed (with its last line on stderr), or took longer than `seconds_left`.
    """
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **more}
    command = [sys.executable, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd, env=environment)
        stopper = threading.Timer(min(max(seconds_left, 0), threading.TIMEOUT_MAX), process.kill)
        stopper.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)  # the only call that tells the memory of this child alone
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            stopper.cancel()
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            if seconds >= seconds_left:
                raise NotRun(f"stopped after {seconds:.0f} s: the time for all benchmarks was up.")
            last = (err.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise NotRun(re.sub(r"(?<!\S)/\S*/", "", last.removeprefix("Error: ")))  # paths by their last part
        unit = 1 if sys.platform == "darwin" else 1024
        return out.read(), {"process_seconds": seconds, "peak_mb": usage.ru_maxrss * unit / 1e6}


def run_loop(module: str, *arguments: Any, seconds_left: float) -> Measurement:
    """Runs `python -m benchmarks.MODULE`, which ends in a line of JSON: that object, with what `run_child` adds."""
    stdout, cost = run_child(["-m", f"benchmarks.{module}", *arguments], REPOSITORY, seconds_left)
    return {**json.loads(stdout.splitlines()[-1]), **cost}


def extrapolated(block: Measurement, steps: int, images: int) -> Measurement:
    """What a whole training of `steps` steps and `images` images would take, from a block of it.

    `block` has `seconds` of its `steps`, and `fit_seconds`, those of all steps that the process made, warm-up among
    them; what the process did besides is kept.

    >>> block = {"seconds": 2.0, "steps": 400, "fit_seconds": 3.0, "process_seconds": 10.0}
    >>> whole = extrapolated(block, 4000, 40_000)
    >>> whole["seconds"], whole["process_seconds"], whole["block_steps"]
    (20.0, 27.0, 400)
    """
    seconds = block["seconds"] / block["steps"] * steps
    return {
        **block,
        "seconds": seconds,
        "process_seconds": block["process_seconds"] - block["fit_seconds"] + seconds,
        "steps": steps,
        "images": images,
        "block_steps": block["steps"],
        "extrapolated": True,
    }


def summary(turns: Sequence[dict[str, Measurement]], ratio_of: str) -> dict[str, Measurement]:
    """Each side's medians over the turns, and how many times as long as ours it takes.

    Args:
        turns: a turn is each side's measurement, or `{"not_run": reason}`; one side is "ours".
        ratio_of: the key that ratios are of, "seconds" or "process_seconds".

    Returns:
        side to medians of `seconds`, `process_seconds`, `peak_mb` and `accuracy` (None where nobody measured it),
        `images_per_second` (of `ratio_of`), how many `turns`, `extrapolated`, and, for all but ours, `ratio`:
        `of_medians`, with the lowest and the highest of single turns, in which both sides ran one after the other.

    >>> first = {"ours": {"seconds": 2.0}, "plain": {"seconds": 5.0}}
    >>> second = {"ours": {"seconds": 4.0}, "plain": {"seconds": 7.0}}
    >>> summary([first, second], "seconds")["plain"]["ratio"]
    {'of_medians': 2.0, 'low': 1.75, 'high': 2.5}
    """
    sides = {}
    for side in turns[0]:
        measured = [turn[side] for turn in turns if "not_run" not in turn[side]]
        if not measured:
            sides[side] = {"not_run": turns[0][side]["not_run"]}
            continue
        keys = ("seconds", "process_seconds", "peak_mb", "accuracy", "images")
        found = {key: _median([m[key] for m in measured if m.get(key) is not None]) for key in keys}
        images = found.pop("images")
        sides[side] = {
            **found,
            "images_per_second": images / found[ratio_of] if images else None,
            "turns": len(measured),
            "extrapolated": any(m.get("extrapolated") for m in measured),
        }
    for side, found in sides.items():
        both = [turn for turn in turns if all("not_run" not in turn[name] for name in (side, "ours"))]
        if side != "ours" and both:
            ratios = [turn[side][ratio_of] / turn["ours"][ratio_of] for turn in both]
            medians = [_median([turn[name][ratio_of] for turn in both]) for name in (side, "ours")]
            found["ratio"] = {"of_medians": medians[0] / medians[1], "low": min(ratios), "high": max(ratios)}
    return sides


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def machine() -> dict[str, Any]:
    """The processor's name, its cores, memory, and those of its instructions that decide a network's speed."""
    from kerascls.devices import cpu_name

    telling = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "bf16", "asimd")
    flags: set[str] = set()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = {word for line in file if line.startswith(("flags", "Features")) for word in line.split()}
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "instructions": [flag for flag in telling if flag in flags],
        "system": f"{os.uname().sysname} {os.uname().machine}",
    }


def package_versions() -> dict[str, str]:
    import importlib.metadata

    from kerascls.devices import versions

    found = versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["torch"] = importlib.metadata.version("torch")
    return found

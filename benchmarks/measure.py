"""A child process with its seconds and its peak memory; the arithmetic of medians, extrapolation and ratios."""

import contextlib
import json
import math
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

from kerascls.system.machine import cores

REPOSITORY = Path(__file__).parent.parent
Measurement = dict[str, Any]
_REACHED = ("epochs", "seconds")


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


def scheduled(run: Measurement, epochs: int) -> Measurement:
    """The seconds of a schedule of `epochs`, from a run that timed some of its epochs one by one, or more.

    Epochs that were not run take what those after the first took in the mean. `accuracy` is that of the schedule's last
    epoch, None where that was not run.

    >>> run = {"epoch_seconds": [5.0, 2.0, 4.0], "epoch_accuracies": [0.1, 0.3, 0.2], "images": 30}
    >>> run["process_seconds"] = 20.0
    >>> whole = scheduled(run, 5)
    >>> whole["seconds"], whole["process_seconds"], whole["images"], whole["accuracy"], whole["extrapolated"]
    (17.0, 26.0, 50.0, None, True)
    >>> whole = scheduled(run, 2)
    >>> whole["seconds"], whole["process_seconds"], whole["images"], whole["accuracy"], whole["extrapolated"]
    (7.0, 16.0, 20.0, 0.3, False)
    """
    timed, accuracies = run["epoch_seconds"], run["epoch_accuracies"]
    missing = max(epochs - len(timed), 0)
    seconds = sum(timed[:epochs]) + (missing and missing * statistics.mean(timed[1:] or timed))
    return {
        **run,
        "seconds": seconds,
        "process_seconds": run["process_seconds"] - sum(timed) + seconds,
        "images": run["images"] / len(timed) * epochs,
        "accuracy": None if missing else accuracies[epochs - 1],
        "epochs": epochs,
        "extrapolated": bool(missing),
    }


def reached(run: Measurement, accuracy: float) -> Measurement:
    """`run` with `reached`: the epochs and seconds at whose end it first had `accuracy`, or None and those it had.

    >>> run = {"epoch_seconds": [5.0, 2.0, 4.0], "epoch_accuracies": [0.1, 0.3, 0.2]}
    >>> reached(run, 0.25)["reached"]
    {'epochs': 2, 'seconds': 7.0, 'accuracy': 0.3}
    >>> reached(run, 0.4)["reached"]
    {'epochs': None, 'seconds': None, 'tried_epochs': 3, 'tried_seconds': 11.0, 'best_accuracy': 0.3}
    """
    seconds = 0.0
    for number, (took, score) in enumerate(zip(run["epoch_seconds"], run["epoch_accuracies"], strict=True), 1):
        seconds += took
        if score >= accuracy:
            return {**run, "reached": {"epochs": number, "seconds": seconds, "accuracy": score}}
    tried = {"tried_epochs": number, "tried_seconds": seconds, "best_accuracy": max(run["epoch_accuracies"])}
    return {**run, "reached": {"epochs": None, "seconds": None, **tried}}


def summary(turns: Sequence[dict[str, Measurement]], ratio_of: str) -> dict[str, Measurement]:
    """Each side's medians over the turns, and how many times as long as ours it takes.

    Args:
        turns: a turn is each side's measurement, or `{"not_run": reason}`; one side is "ours".
        ratio_of: the key that ratios are of, "seconds" or "process_seconds".

    Returns:
        side to medians of `seconds`, `process_seconds`, `peak_mb` and `accuracy` (None where nobody measured it),
        `epochs`, `images_per_second` (of `ratio_of`), how many `turns`, `extrapolated`, and, for all but ours,
        `ratio`: `of_medians`, with the lowest and the highest of single turns, in which both sides ran one after the
        other. Where the turns have `reached`, its medians, with the `ratio` of a side's seconds to ours; of a side
        that did not reach the accuracy, the ratio is that of the seconds it ran, and so too low.

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
        keys = ("seconds", "process_seconds", "peak_mb", "accuracy", "images", "epochs")
        found = {key: _median([m[key] for m in measured if m.get(key) is not None]) for key in keys}
        images = found.pop("images")
        sides[side] = {
            **found,
            "images_per_second": images / found[ratio_of] if images else None,
            "turns": len(measured),
            "extrapolated": any(m.get("extrapolated") for m in measured),
            **({"reached": _median_reached([m["reached"] for m in measured])} if "reached" in measured[0] else {}),
        }
    for side, found in sides.items():
        both = [turn for turn in turns if all("not_run" not in turn[name] for name in (side, "ours"))]
        if side != "ours" and both:
            ratios = [turn[side][ratio_of] / turn["ours"][ratio_of] for turn in both]
            medians = [_median([turn[name][ratio_of] for turn in both]) for name in (side, "ours")]
            found["ratio"] = {"of_medians": medians[0] / medians[1], "low": min(ratios), "high": max(ratios)}
        mine, theirs = sides["ours"].get("reached"), found.get("reached")
        if side != "ours" and mine and theirs and mine["seconds"]:
            theirs["ratio"] = (theirs["seconds"] or theirs["tried_seconds"]) / mine["seconds"]
    return sides


def _median_reached(turns: Sequence[Measurement]) -> Measurement:
    """Medians of what `reached` found in each turn; a turn that did not reach it counts as later than every other.

    Where that makes the median unknown, `epochs` and `seconds` are None, and `tried_epochs` and `tried_seconds` are
    medians of what was run for nothing.

    >>> never = {"epochs": None, "seconds": None, "tried_epochs": 8, "tried_seconds": 32.0}
    >>> found = [{"epochs": 2, "seconds": 9.0}, {"epochs": 3, "seconds": 12.0}, never]
    >>> _median_reached(found)
    {'epochs': 3, 'seconds': 12.0, 'reached_turns': 2, 'turns': 3}
    >>> _median_reached([*found, never])["tried_seconds"]
    32.0
    """
    counts = {"reached_turns": sum(turn["seconds"] is not None for turn in turns), "turns": len(turns)}
    found = {key: _median([math.inf if turn[key] is None else turn[key] for turn in turns]) for key in _REACHED}
    if math.isfinite(found["seconds"]):
        return {**found, **counts}
    missed = [turn for turn in turns if turn["seconds"] is None]
    tried = {f"tried_{key}": _median([turn[f"tried_{key}"] for turn in missed]) for key in _REACHED}
    return {**dict.fromkeys(_REACHED), **tried, **counts}


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def machine() -> dict[str, Any]:
    """The processor's name, its cores, memory, and those of its instructions that decide a network's speed."""
    from kerascls.system.machine import cpu_name

    telling = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "bf16", "asimd")
    flags: set[str] = set()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = {word for line in file if line.startswith(("flags", "Features")) for word in line.split()}
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "instructions": [flag for flag in telling if flag in flags],
        "system": f"{os.uname().sysname} {os.uname().machine}",
    }


def package_versions() -> dict[str, str]:
    import importlib.metadata

    from kerascls.system.machine import versions

    found = versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["torch"] = importlib.metadata.version("torch")
    return found

"""The machine: cores, processor, and versions of packages."""

import contextlib
import importlib.metadata
import math
import os
import platform
from pathlib import Path

PACKAGES = ("kerascls", "tensorflow", "keras", "tensorflow-datasets", "numpy", "pillow", "ai-edge-litert")


def cpu_has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16: AMX or AVX-512 of x86, or ARM's own."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return bool({"amx_bf16", "avx512_bf16", "bf16"} & set(line.split()))
    return False


def cores() -> int:
    """Processor cores that this process may use: those of its affinity, and no more than its container's share."""
    return max(1, math.ceil(min(schedulable(), _share())))


def schedulable() -> int:
    """Cores of this process's affinity, which is how many threads TensorFlow starts by itself."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share(root: Path = Path("/")) -> float:
    """Cores' worth of time that this process's control groups, and those around them, let it have."""
    from kerascls.system.memory import group_numbers  # with NumPy, which `kerascls export --help` does without

    found = group_numbers("cpu", "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us", root=root)
    return min((quota / period for quota, period in found if quota > 0 < period), default=math.inf)


def cpu_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers. Imports none of them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    if "tensorflow" not in found:  # requirements-cpu.txt
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found["tensorflow"] = importlib.metadata.version("tensorflow-cpu") + " (cpu)"
    return found

"""Starting TensorFlow quietly, and choosing what it computes on."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kerascls.errors import ConfigError
from kerascls.recipes.checks import parse_devices
from kerascls.recipes.schema import Devices
from kerascls.system.memory import group_numbers
from kerascls.system.process import quiet_logs
from kerascls.system.status import doing

PACKAGES = ("kerascls", "tensorflow", "keras", "tensorflow-datasets", "numpy", "pillow", "ai-edge-litert")


_STDERR = threading.RLock()
_STARTING = threading.RLock()
# GPUs by the machine's numbers: those that TensorFlow sees, which it numbers from 0 again, and those hidden from it.
_gpus: dict[str, tuple[int, ...]] = {"seen": (), "hidden": ()}


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what C++ writes to stderr while a library loads; shows it if the block raises.

    TF_CPP_MIN_LOG_LEVEL does not stop the lines written before its logging starts, so the file descriptor itself
    is turned away. All threads have the same one, so another thread waits.
    """
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        try:
            held = tempfile.TemporaryFile()
        except OSError:  # there is no room for one
            os.close(kept)
            yield
            return
        with held:
            yield from _turned_away(kept, held)


def _turned_away(kept: int, held: Any) -> Iterator[None]:
    sys.stderr.flush()
    os.dup2(held.fileno(), 2)
    try:
        yield
    except KeyboardInterrupt:  # nothing went wrong that the lines could explain
        raise
    except BaseException:
        os.dup2(kept, 2)
        held.seek(0)
        os.write(2, held.read())
        raise
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def start(logical_cpus: int = 1, threads: int = 0, gpus: tuple[int, ...] | None = (0,)) -> None:
    """Imports TensorFlow and Keras without their noise, and settles what cannot be changed later.

    A user's own code sees nothing of it, but that TensorFlow is imported. GPU memory grows as needed (not run on a
    GPU). Calling it again is free. Where TensorFlow runs already, what that leaves as it is is told.

    Args:
        logical_cpus: how many devices TensorFlow is to see the CPU as, if it has not started yet.
        threads: that share one operation, likewise; 0 for one a core. Left alone where there is a GPU.
        gpus: numbers of the GPUs that TensorFlow is to see, likewise; None for all. It opens all that it sees, and
            takes memory of each; without any, a CPU trains as on a machine that has none.
    """
    with _STARTING:
        if not getattr(start, "done", False):
            with doing("loading TensorFlow"), quiet_stderr(), quiet_logs():
                stays = _start(logical_cpus, threads, gpus)
            start.done = True  # type: ignore[attr-defined]
            if stays:
                print(
                    f"TensorFlow ran in this process before kerascls, so that {'; '.join(stays)}. Call kerascls first "
                    "to have it otherwise.",
                    file=sys.stderr,
                    flush=True,
                )


def _settled(change: Callable[..., None], *arguments: Any) -> bool:
    """Whether TensorFlow still takes this setting. It does not once it runs, or where the caller's own contradict."""
    try:
        change(*arguments)
    except (RuntimeError, ValueError):
        return False
    return True


def _open_gpus(wanted: tuple[int, ...] | None) -> tuple[int, list[str]]:
    """Lets TensorFlow see these GPUs alone, the first where one of them is not here. Returns how many it sees, and what
    stays as it is."""
    import tensorflow as tf

    there = dict(enumerate(tf.config.get_visible_devices("GPU")))
    numbers = tuple(there) if wanted is None else wanted if {*wanted} <= {*there} else tuple(there)[:1]
    stays = []
    if {*numbers} != {*there} and not _settled(tf.config.set_visible_devices, [there[n] for n in numbers], "GPU"):
        stays.append(f"all {len(there)} GPUs that it sees stay open" if len(there) > 1 else "its GPU stays open")
        numbers = tuple(there)
    if not all([_settled(tf.config.experimental.set_memory_growth, there[n], True) for n in numbers]):
        stays.append("GPU memory does not grow as needed")
    _gpus.update(seen=numbers, hidden=tuple(n for n in there if n not in numbers))
    return len(numbers), stays


def _start(logical_cpus: int, threads: int, wanted_gpus: tuple[int, ...] | None) -> list[str]:
    """What `start` does; returns what stays as it is because TensorFlow runs already."""
    wanted = {"KERAS_BACKEND": "tensorflow"}
    if "tensorflow" not in sys.modules:  # what is an error to C++ comes as an exception too, and is told by us
        wanted["TF_CPP_MIN_LOG_LEVEL"] = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        import tensorflow as tf

        gpus, stays = _open_gpus(wanted_gpus)
        if logical_cpus > 1:  # where they cannot be made any more, `choose` says so
            cpu = tf.config.list_physical_devices("CPU")[0]
            logical = [tf.config.LogicalDeviceConfiguration()] * logical_cpus
            _settled(tf.config.set_logical_device_configuration, cpu, logical)
        if cores() < _schedulable() and not gpus:  # more threads than its share are stopped, all at once
            threads = threads or cores()
            if not _settled(tf.config.threading.set_inter_op_parallelism_threads, cores()):
                stays.append(f"it has more threads than this container's {cores()} cores")
        if threads and not gpus:  # where it is too late, `train` says so of shards
            _settled(tf.config.threading.set_intra_op_parallelism_threads, threads)
        import keras

        tf.zeros(1)  # the runtime starts here, with its last lines of noise
    finally:  # both have been read by now
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError("Keras was imported with another backend before kerascls. Set KERAS_BACKEND=tensorflow.")
    return stays


@dataclasses.dataclass(frozen=True)
class Placement:
    """What a training computes on, and in what precision. Made by `choose`.

    Attributes:
        kind: "cpu" or "gpu".
        devices: TensorFlow's logical devices, as ("GPU:0", "GPU:1"), which it numbers among those that it sees; each is
            a replica that takes a share of a batch.
        strategy: the tf.distribute strategy in whose scope model and optimiser are to be made.
        strategy_name: "default" (TensorFlow's own device, no strategy), "one_device" or "mirrored".
        precision: "float32", "bfloat16" or "float16".
        deterministic: whether a training's ops give the same bits every time, see `process.deterministic_ops`.
        shards: parts of a batch that the CPU computes side by side; 1 on anything but one CPU.
        threads: that share one operation.
    """

    kind: str
    devices: tuple[str, ...]
    strategy: Any
    strategy_name: str
    precision: str
    deterministic: bool
    shards: int
    threads: int

    @property
    def replicas(self) -> int:
        return len(self.devices)

    def device(self) -> contextlib.AbstractContextManager:
        """Where a single chosen device is not TensorFlow's own, the context in which ops run on it all the same."""
        import tensorflow as tf

        one = self.strategy_name == "one_device"
        return tf.device(f"/{self.devices[0]}") if one else contextlib.nullcontext()

    def native_bfloat16(self) -> bool:
        """Whether the first device has instructions for bfloat16 (on a GPU: not run)."""
        return _native_bfloat16(self.kind, self.devices[0])

    def sharing(self, batch_size: int) -> str | None:
        """One line on how a strategy shares a batch; None where there is no strategy."""
        if self.strategy_name == "default":
            return None
        each = -(-batch_size // self.replicas)
        most = "up to " if batch_size % self.replicas else ""
        asked = {name: f"{self.kind.upper()}:{number}" for number, name in _seen(self.kind).items()}
        names = ", ".join(asked[device] for device in self.devices)
        return f"{self.strategy_name} on {names}: {batch_size} images a step, {most}{each} a device"

    def describe(self) -> dict[str, Any]:
        """What `manifest.json` says under `device`."""
        return {
            "kind": self.kind,
            "name": cpu_name() if self.kind == "cpu" else _gpu_details(self.devices[0]).get("device_name", "GPU"),
            "count": len(self.devices),
            "cores": cores(),
            "threads": self.threads,
            "strategy": self.strategy_name,
            "precision": self.precision,
            "deterministic": self.deterministic,
        }


def choose(
    devices: str = "auto", precision: str = "float32", deterministic: bool = False, shards: int = 1
) -> Placement:
    """Settles on devices, strategy and precision, and starts TensorFlow.

    Args:
        devices: auto, cpu, gpu, gpu:0,1, mirrored or cpu:0,1, as in a recipe's `devices.devices`.
        precision: float32, bfloat16, float16, or auto: bfloat16 where the processor computes in it.
        deterministic: whether a GPU's ops too must give the same bits every time; a CPU's always do.
        shards: parts of a batch to compute side by side. Above 1 an operation has one thread, if TensorFlow has not
            started yet: two shards on two cores take 0.83 ms a step of the 1,198-parameter network where shared
            operations take 1.38 (batch 32).

    Raises:
        ConfigError: a device is not here, or the precision is none for it.
    """
    kind, numbers = parse_devices(devices)
    opened = {"cpu": (), "auto": (0,), "gpu": numbers or (0,), "mirrored": None}[kind]
    start(max(numbers, default=0) + 1 if kind == "cpu" else 1, 1 if shards > 1 else 0, opened)
    import tensorflow as tf
    from tensorflow.python.framework.config import is_op_determinism_enabled  # which the public API only sets

    seen = {one: _seen(one) for one in ("gpu", "cpu")}
    default = next(iter([*seen["gpu"].values(), *seen["cpu"].values()]))
    if kind == "mirrored":
        kind = "gpu" if seen["gpu"] or _gpus["hidden"] else "cpu"
        numbers = (*seen[kind], *(_gpus["hidden"] if kind == "gpu" else ()))
    elif kind == "auto":
        kind = default[:3].lower()
    numbers = numbers or (next(iter(seen[kind]), 0),)
    if missing := [number for number in numbers if number not in seen[kind]]:
        raise ConfigError(f"devices.devices = {devices}: {_why_missing(kind, missing[0], seen[kind])}")
    chosen = tuple(seen[kind][number] for number in numbers)
    precision = _settle_precision(precision, kind, chosen[0])
    if len(chosen) > 1:
        strategy, name = _mirrored(chosen), "mirrored"
    elif chosen[0] == default:
        strategy, name = tf.distribute.get_strategy(), "default"
    else:
        strategy, name = tf.distribute.OneDeviceStrategy(f"/{chosen[0]}"), "one_device"
    shards = shards if (kind, name) == ("cpu", "default") else 1
    threads = tf.config.threading.get_intra_op_parallelism_threads() or cores()
    repeats = kind == "cpu" or deterministic or is_op_determinism_enabled()
    return Placement(kind, chosen, strategy, name, precision, repeats, shards, threads)


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> Any:
    """The strategy of these devices, one a process: each numbers its all-reduces from 1 again, while TensorFlow's
    runtime remembers the shapes that it saw under each number, and fails on another network's."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([f"/{device}" for device in devices])


def placement_for(wish: Devices) -> Placement:
    """What `choose` settles for a recipe's [devices]."""
    return choose(wish.devices, wish.precision, wish.deterministic, wish.shards)


def prepare(wish: Devices) -> None:
    """Starts TensorFlow, before reading data does, where a recipe asks for what cannot be changed later."""
    if wish.devices != "auto" or wish.shards > 1:
        placement_for(wish)


def _seen(kind: str) -> dict[int, str]:
    """TensorFlow's logical devices by the numbers that a choice has, as 1 of gpu:1."""
    import tensorflow as tf

    names = [device.name.rpartition("device:")[2] for device in tf.config.list_logical_devices(kind.upper())]
    own = kind == "gpu" and len(names) == len(_gpus["seen"])  # not where the caller made several of a GPU
    return dict(zip(_gpus["seen"] if own else range(len(names)), names, strict=True))


def _why_missing(kind: str, number: int, seen: dict[int, str]) -> str:
    if kind == "cpu":
        return (
            f"TensorFlow has started with {len(seen)} CPU device{'s' * (len(seen) > 1)} and cannot make CPU:{number} "
            "any more. Choose it in the first training of a process."
        )
    names = ", ".join(f"GPU:{one}" for one in sorted({*seen, *_gpus["hidden"]}))
    if number in _gpus["hidden"]:
        began = ", ".join(f"GPU:{one}" for one in seen) or "the CPU"
        return (
            f"this process began with {began}, and TensorFlow cannot open GPU:{number} any more. Choose it in the "
            "first call of a process."
        )
    if not names:
        return (
            "TensorFlow sees no GPU here. Choose auto or cpu; `kerascls devices` shows what there is, and "
            "`pip install 'kerascls[cuda]'` brings NVIDIA's libraries."
        )
    return f"there is no GPU:{number}. This machine has {names}."


def _settle_precision(precision: str, kind: str, device: str) -> str:
    """`precision`, with auto settled. Raises ConfigError for float16 on a CPU."""
    if precision == "float16" and kind == "cpu":
        raise ConfigError("devices.precision = float16 is for GPUs only. Choose float32, bfloat16 or auto.")
    if precision != "auto":
        return precision
    return "bfloat16" if _native_bfloat16(kind, device) else "float32"


def _native_bfloat16(kind: str, device: str) -> bool:
    if kind == "cpu":
        return _cpu_has_bfloat16()
    return _gpu_details(device).get("compute_capability", (0,))[0] >= 8


def _cpu_has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16: AMX or AVX-512 of x86, or ARM's own."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return bool({"amx_bf16", "avx512_bf16", "bf16"} & set(line.split()))
    return False


def _gpu_details(device: str) -> dict[str, Any]:
    """`device_name` and `compute_capability` of a GPU, where TensorFlow knows them (not run on a GPU)."""
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    number = int(device.removeprefix("GPU:"))
    return tf.config.experimental.get_device_details(gpus[number]) if number < len(gpus) else {}


def cores() -> int:
    """Processor cores that this process may use: those of its affinity, and no more than its container's share."""
    return max(1, math.ceil(min(_schedulable(), _share())))


def _schedulable() -> int:
    """Cores of this process's affinity, which is how many threads TensorFlow starts by itself."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share(root: Path = Path("/")) -> float:
    """Cores' worth of time that this process's control groups, and those around them, let it have."""
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


def survey() -> dict[str, Any]:
    """What `kerascls devices` prints: TensorFlow's devices, and what each choice would be here, or why it cannot be.

    Returns:
        `{"devices": [names], "choices": {choice: {"device": as manifest.json's} or {"error": text}}}`.
    """
    start(gpus=None)
    import tensorflow as tf

    found = [device.name.rpartition("device:")[2] for device in tf.config.list_logical_devices()]
    choices: dict[str, Any] = {}
    for choice in ("auto", "cpu", "gpu", "mirrored"):
        try:
            choices[choice] = {"device": choose(choice, "auto").describe()}
        except ConfigError as error:
            choices[choice] = {"error": str(error)}
    return {"devices": found, "choices": choices}


def environment() -> dict[str, Any]:
    """What `kerascls env` prints: versions, system and devices, nothing private."""
    start()
    return {
        **versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": cores(),
        "cpu": cpu_name(),
        "device": choose().describe(),
    }

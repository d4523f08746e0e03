"""Starting TensorFlow quietly, and choosing what it computes on."""

import contextlib
import dataclasses
import functools
import platform
from typing import Any

from kerascls.errors import ConfigError
from kerascls.recipes.fields import parse_devices
from kerascls.recipes.schema import Devices
from kerascls.system import machine
from kerascls.system.machine import cores, cpu_name, versions
from kerascls.system.tensorflow import opened_gpus, start


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
        kind = "gpu" if seen["gpu"] or opened_gpus["hidden"] else "cpu"
        numbers = (*seen[kind], *(opened_gpus["hidden"] if kind == "gpu" else ()))
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
    own = kind == "gpu" and len(names) == len(opened_gpus["seen"])  # not where the caller made several of a GPU
    return dict(zip(opened_gpus["seen"] if own else range(len(names)), names, strict=True))


def _why_missing(kind: str, number: int, seen: dict[int, str]) -> str:
    if kind == "cpu":
        return (
            f"TensorFlow has started with {len(seen)} CPU device{'s' * (len(seen) > 1)} and cannot make CPU:{number} "
            "any more. Choose it in the first training of a process."
        )
    names = ", ".join(f"GPU:{one}" for one in sorted({*seen, *opened_gpus["hidden"]}))
    if number in opened_gpus["hidden"]:
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
        return machine.cpu_has_bfloat16()
    return _gpu_details(device).get("compute_capability", (0,))[0] >= 8


def _gpu_details(device: str) -> dict[str, Any]:
    """`device_name` and `compute_capability` of a GPU, where TensorFlow knows them (not run on a GPU)."""
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    number = int(device.removeprefix("GPU:"))
    return tf.config.experimental.get_device_details(gpus[number]) if number < len(gpus) else {}


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

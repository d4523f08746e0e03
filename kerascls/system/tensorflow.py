"""Starts TensorFlow quietly, once, with the devices that are wanted."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kerascls.system import machine
from kerascls.system.process import quiet_logs
from kerascls.system.status import doing

_STDERR = threading.RLock()
_STARTING = threading.RLock()
# GPUs by the machine's numbers: those that TensorFlow sees, which it numbers from 0 again, and those hidden from it.
opened_gpus: dict[str, tuple[int, ...]] = {"seen": (), "hidden": ()}


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
    opened_gpus.update(seen=numbers, hidden=tuple(n for n in there if n not in numbers))
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
        if machine.cores() < machine.schedulable() and not gpus:  # more threads than its share are stopped, all at once
            threads = threads or machine.cores()
            if not _settled(tf.config.threading.set_inter_op_parallelism_threads, machine.cores()):
                stays.append(f"it has more threads than this container's {machine.cores()} cores")
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

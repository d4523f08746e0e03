"""Starting TensorFlow quietly, and saying what it runs on."""

import contextlib
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

PACKAGES = ("kerascls", "tensorflow", "keras", "tensorflow-datasets", "numpy", "pillow")


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Holds back what C++ writes to stderr while TensorFlow loads; shows it if the block raises.

    TF_CPP_MIN_LOG_LEVEL does not stop the lines written before its logging starts, so the file descriptor itself
    is turned away.
    """
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with tempfile.TemporaryFile() as held:
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


def start() -> None:
    """Imports TensorFlow and Keras without their noise, and settles what cannot be changed later.

    Op determinism is on, so one seed on one kind of machine gives the same numbers; GPU memory grows as needed
    (not run on a GPU). Calling it again is free.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if getattr(start, "done", False):
        return
    with _quiet_stderr():
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            with contextlib.suppress(RuntimeError):  # the GPU is in use already: its memory is settled
                tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.experimental.enable_op_determinism()
        import absl.logging
        import keras

        # These repeat what our own messages say, or tell of retracing, which several trainings in one process do.
        absl.logging.set_verbosity(absl.logging.ERROR)
        tf.get_logger().setLevel("ERROR")
        tf.zeros(1)  # the runtime starts here, with its last lines of noise
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError("Keras was imported with another backend before kerascls. Set KERAS_BACKEND=tensorflow.")
    start.done = True  # type: ignore[attr-defined]


def describe() -> dict[str, Any]:
    """What `manifest.json` says under `device`. TensorFlow must have started."""
    import keras
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    name = (
        tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0]).get("device_name", "GPU")
        if gpus
        else cpu_name()
    )
    return {
        "kind": "gpu" if gpus else "cpu",
        "name": name,
        "count": max(1, len(gpus)),
        "strategy": "default",
        "precision": keras.config.dtype_policy().name,
        "deterministic": True,
    }


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


def environment() -> dict[str, Any]:
    """What `kerascls env` prints: versions, system and devices, nothing private."""
    start()
    return {
        **versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "cpu": cpu_name(),
        "device": describe(),
    }

"""What training changes of the process that it runs in, and puts back: seeds, Keras' state, op determinism, logs.

Loading, predicting and the rest change none of it.
"""

import contextlib
import functools
import logging
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_LOCK = threading.Lock()
_deterministic = {"users": 0, "before": False}


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """When the block ends, however it does, seeds and Keras' state of this thread are what they were before it.

    Keras' state is its global dtype policy, custom objects, names and seed.
    """
    keras = [dict(part) for part in _keras_state()] if "keras" in sys.modules else [{}, {}]
    try:
        with quiet_logs(), same_draws():
            yield
    finally:
        if "keras" in sys.modules:
            for part, before in zip(_keras_state(), keras, strict=True):
                part.clear()
                part.update(before)


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """What the caller draws at random behind the block, by Python, NumPy or TensorFlow, is what he would without it.

    Keras' initialisers draw their seeds by Python's `random`, those of a model that is loaded too.
    """
    import numpy as np  # not for `kerascls --help`

    python, numpy = random.getstate(), np.random.get_state()
    tensorflow = _tensorflow_context() if "tensorflow" in sys.modules else None
    seed = (tensorflow._seed, getattr(tensorflow, "_rng", None)) if tensorflow else (None, None)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if "tensorflow" in sys.modules:
            tensorflow = _tensorflow_context()
            tensorflow._seed, tensorflow._rng = seed


def begin_anew(seed: int) -> None:
    """Keras as in a fresh process, for this thread, and all seeds set: names and weights are then those of another
    training with this seed. `keras.backend.clear_session` would do so to all threads."""
    import gc

    import keras

    for part in _keras_state():
        part.clear()
    _tensorflow_context().clear_kernel_cache()
    gc.collect()
    keras.utils.set_random_seed(seed)


@contextlib.contextmanager
def deterministic_ops(on: bool = True) -> Iterator[None]:
    """Within it, if `on`, TensorFlow's operations give the same bits every time, and random ones demand a seed.

    TensorFlow has one switch for all threads. It is turned back when the last of several trainings at once ends.
    """
    if not on:
        yield
        return
    from tensorflow.python.framework import config  # the public API has no way back

    with _LOCK:
        if not _deterministic["users"]:
            _deterministic["before"] = config.is_op_determinism_enabled()
        _deterministic["users"] += 1
        config.enable_op_determinism()
    try:
        yield
    finally:
        with _LOCK:
            _deterministic["users"] -= 1
            if not _deterministic["users"] and not _deterministic["before"]:
                config.disable_op_determinism()


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Holds back warnings of TensorFlow, Keras and TFDS: they repeat what our own messages say, some with a traceback,
    or tell of retracing, which several trainings in one process do."""
    import absl.logging  # noqa: F401  which wants to make its own logger of that name

    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR if logger.name == "tensorflow" else logging.FATAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def replaced(where: Any, name: str, make: Callable[[Callable], Callable]) -> Iterator[None]:
    """Within it, and for this thread alone, the function `where.name` is what `make` makes of it.

    Other threads get the original meanwhile; one that wants to replace something too waits.
    """
    with _patching(where, name):
        original, thread = getattr(where, name), threading.get_ident()
        mine = make(original)

        @functools.wraps(original)
        def chosen(*arguments: Any, **more: Any) -> Any:
            return (mine if threading.get_ident() == thread else original)(*arguments, **more)

        setattr(where, name, chosen)
        try:
            yield
        finally:
            setattr(where, name, original)


@functools.cache
def _patching(where: Any, name: str) -> Any:
    return threading.RLock()


def _tensorflow_context() -> Any:
    from tensorflow.python.eager import context

    return context.context()


def _keras_state() -> list[dict[str, Any]]:
    """What Keras keeps of this thread."""
    from keras.src.backend.common import global_state

    return [global_state.GLOBAL_STATE_TRACKER.__dict__, global_state.GLOBAL_SETTINGS_TRACKER.__dict__]

"""A call leaves the process of its caller as it was, whatever it does and however it ends."""

import logging
import os
import random
import signal
import sys
import threading
import warnings

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_npz
from tensorflow.python.eager import context
from tensorflow.python.framework.config import disable_op_determinism, is_op_determinism_enabled

import kerascls
from kerascls.errors import ModelError, TrainingFailed
from kerascls.system.process import deterministic_ops, quiet_logs


def state():
    """All that a call could leave behind of itself."""
    return {
        "determinism": is_op_determinism_enabled(),
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "tensorflow seed": (context.global_seed(), str(getattr(context.context(), "_rng", None))),
        "policy": keras.config.dtype_policy().name,
        "floatx": (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()),
        "custom objects": sorted(keras.saving.get_custom_objects()),
        "add_weight": keras.layers.Layer.add_weight,
        "get_file": keras.utils.get_file,
        "threads": (
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
        ),
        "jit": tf.config.optimizer.get_jit(),
        "loggers": [(name, logging.getLogger(name).level) for name in ("", "tensorflow", "absl")],
        "disabled": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "matplotlib": (matplotlib.get_backend(), dict(matplotlib.rcParams)),
        "paths": list(sys.path),
        "streams": (sys.stdout, sys.stderr, os.fstat(2).st_ino),
        "recursion": sys.getrecursionlimit(),
    }


def own_code_works():
    """Dropout, shuffling and random operations without a seed, which op determinism forbids."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((8, 4)), np.zeros((8, 2)), verbose=0)
    list(tf.data.Dataset.range(4).shuffle(4))
    tf.random.uniform(())
    tf.image.random_flip_left_right(tf.zeros((2, 2, 3)))


@pytest.fixture
def own_state():
    """A caller who has set much himself."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    tf.random.set_seed(77)
    logging.getLogger("tensorflow").setLevel(logging.INFO)
    with keras.saving.custom_object_scope({"Mine": keras.layers.Dense}), warnings.catch_warnings():
        warnings.simplefilter("always", ImportWarning)
        yield
    logging.getLogger("tensorflow").setLevel(logging.NOTSET)
    keras.config.set_dtype_policy("float32")


def explained(run, files):
    return kerascls.explain(run, files, out="maps")


@pytest.mark.parametrize(
    "call",
    [
        lambda run, files: kerascls.load(run).predict(files),
        explained,
        lambda run, files: kerascls.evaluate(run, "digits"),
        pytest.param(lambda run, files: kerascls.export(run, "h5", out="m.h5"), marks=pytest.mark.slow),
        lambda run, files: kerascls.inspect(run),
        lambda run, files: kerascls.train("mnist_cnn", data=small_npz("small.npz"), epochs=1),
        pytest.param(
            lambda run, files: kerascls.sweep(
                "mnist_cnn", {"train.batch_size": [4, 5]}, data=small_npz("small.npz", count=40), epochs=1
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["predict", "explain", "evaluate", "export", "inspect", "train", "sweep"],
)
def test_a_call_leaves_everything_as_it_was(digits_run, digit_pngs, own_state, call):
    files = sorted(digit_pngs[0].iterdir())[:3]
    before = state()
    call(digits_run, files)
    after = state()
    assert {key for key in before if before[key] != after[key]} == set()
    own_code_works()


def test_a_training_that_fails_puts_back_too(own_state, monkeypatch):
    before = state()
    options = {"train": {"optimizer": "sgd", "learning_rate": 1e30, "warmup_epochs": 0}}
    with pytest.raises(TrainingFailed):
        kerascls.train("mnist_cnn", data=small_npz("small.npz"), epochs=2, overrides=options)
    assert {key for key, value in state().items() if before[key] != value} == set()
    own_code_works()


def test_a_training_in_a_thread_leaves_the_others_state(own_state):
    before = state()
    result = []
    thread = threading.Thread(
        target=lambda: result.append(kerascls.train("mnist_cnn", data=small_npz("small.npz"), epochs=1))
    )
    thread.start()
    while thread.is_alive():  # what Keras keeps of this thread is never another's
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        thread.join(0.01)
    assert result[0].status == "complete"
    assert {key for key, value in state().items() if before[key] != value} == set()


@pytest.mark.slow
def test_trainings_repeat_whatever_the_caller_had_set(own_state):
    small_npz("small.npz")
    first = kerascls.train("mnist_cnn", data="small.npz", epochs=1, out="a")
    keras.config.set_dtype_policy("float32")
    keras.layers.Dense(2)
    random.random()
    second = kerascls.train("mnist_cnn", data="small.npz", epochs=1, out="b")
    a, b = (kerascls.load(result.path).keras_model for result in (first, second))
    assert [w.path for w in a.weights] == [w.path for w in b.weights]
    assert all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


def test_op_determinism_is_turned_back_when_the_last_one_ends():
    assert not is_op_determinism_enabled()
    with deterministic_ops():
        with deterministic_ops(), deterministic_ops(False):
            pass
        assert is_op_determinism_enabled()
    assert not is_op_determinism_enabled()
    tf.config.experimental.enable_op_determinism()  # the caller's own
    with deterministic_ops():
        pass
    assert is_op_determinism_enabled()
    disable_op_determinism()


def test_logs_are_quiet_within_and_as_they_were_behind():
    logger = logging.getLogger("tensorflow")
    level = logger.level
    with pytest.raises(ZeroDivisionError), quiet_logs():
        assert logger.level == logging.ERROR
        raise ZeroDivisionError
    assert logger.level == level


# Threads


def test_loading_in_threads_leaves_keras_as_it_was(digits_run):
    original = keras.layers.Layer.add_weight
    barrier, failed = threading.Barrier(4), []

    def load():
        barrier.wait()
        try:
            kerascls.load(digits_run)
        except Exception as error:
            failed.append(error)

    for _ in range(3):
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == [] and keras.layers.Layer.add_weight is original
        keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(512)])


def test_layers_that_another_thread_builds_meanwhile_are_not_counted(digits_run):
    from kerascls.formats.keras import _no_more_than

    with _no_more_than(digits_run, 100):
        built = []

        def build():
            built.append(keras.Sequential([keras.Input((784,)), keras.layers.Dense(300)]))

        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
        assert built[0].count_params() == 784 * 300 + 300
        with pytest.raises(ModelError, match="its layers would make"):
            build()


def test_stderr_turned_away_by_threads_at_once_comes_back(tmp_path):
    from kerascls.system.tensorflow import quiet_stderr

    before = os.fstat(2)
    barrier = threading.Barrier(4)

    def turn_away():
        barrier.wait()
        for _ in range(50):
            with quiet_stderr():
                pass

    threads = [threading.Thread(target=turn_away) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.path.samestat(before, os.fstat(2))

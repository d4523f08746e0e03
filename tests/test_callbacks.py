"""Callbacks on written lists of losses."""

import math
import signal

import keras
import numpy as np
import pytest

from kerascls.callbacks import EpochState, Interruptible, KeepEpoch, StopOnNaN
from kerascls.errors import TrainingFailed


@pytest.mark.parametrize(
    "keep, val_losses, saved",
    [
        ("best", [3.0, 2.0, 2.5, 1.0], [1, 2, 4]),
        ("last", [3.0, 2.0, 2.5, 1.0], [1, 2, 3, 4]),
        ("best", [math.nan, 2.0, 3.0], [1, 2]),
        ("best", [2.0, 2.0], [1]),
        ("best", [None, None], [1, 2]),
    ],
)
def test_the_saved_epoch_is_always_the_one_to_keep(keep, val_losses, saved):
    manifest = {"best_epoch": None, "kept_epoch": None}
    seen = []
    callback = KeepEpoch(manifest, keep, lambda: seen.append(None))
    epochs = []
    for epoch, loss in enumerate(val_losses):
        before = len(seen)
        callback.on_epoch_end(epoch, {} if loss is None else {"val_loss": loss})
        epochs += [epoch + 1] * (len(seen) - before)
    assert epochs == saved and manifest["kept_epoch"] == saved[-1]


def test_a_loss_that_is_not_finite_names_epoch_and_step(tmp_path):
    callback = StopOnNaN({"kept_epoch": 2}, tmp_path / "run", steps=50)
    callback.on_epoch_begin(2)
    callback.on_train_batch_end(31, {"loss": 1.0})
    with pytest.raises(TrainingFailed, match=r"became inf in epoch 3, by step 50 of 50.*Epoch 2 is kept"):
        callback.on_train_batch_end(63, {"loss": math.inf})


def test_dropout_is_a_function_of_seed_and_epoch():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dropout(0.5, seed=1)(inputs))

    def mask(seed, epoch):
        callback = EpochState(seed)
        callback.set_model(model)
        callback.on_epoch_begin(epoch)
        return np.array(model(np.ones((4, 8)), training=True)).tolist()

    assert mask(0, 3) == mask(0, 3)
    assert mask(0, 3) != mask(0, 4) and mask(0, 3) != mask(1, 3)


def test_ctrl_c_waits_for_the_end_of_a_step_and_a_second_one_does_not():
    with Interruptible() as interruptible:
        interruptible.on_train_batch_end(0)
        signal.raise_signal(signal.SIGINT)  # in the middle of a step
        for edge in (interruptible.on_train_batch_end, interruptible.on_test_batch_end, interruptible.on_epoch_begin):
            with pytest.raises(KeyboardInterrupt):
                edge(1, logs={})
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job in the background
    try:
        with Interruptible() as interruptible:
            signal.raise_signal(signal.SIGINT)
            interruptible.on_train_batch_end(0)
    finally:
        signal.signal(signal.SIGINT, before)

"""Callbacks on written lists of losses."""

import math
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import tiny_transfer
from PIL import Image

from kerascls.data.loading import load_config_data
from kerascls.data.splits import with_all_splits
from kerascls.devices import choose
from kerascls.errors import TrainingFailed
from kerascls.recipes.load import load_config
from kerascls.training.callbacks.epoch_state import EpochState
from kerascls.training.callbacks.interrupt import Interruptible
from kerascls.training.callbacks.reporting import Progress
from kerascls.training.callbacks.saving import KeepEpoch
from kerascls.training.callbacks.stopping import StopOnNaN
from kerascls.training.fit import Fit
from kerascls.training.step import TrainingModel


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


def stopping(tmp_path, rate=0.5, policy="float32", frozen=1.0, **more):
    """A StopOnNaN in epoch 3 of a model with a frozen layer, whose weights are `frozen`, and one that trains."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="fixed"), keras.layers.Dense(2, dtype=policy)]
    )
    model.layers[0].trainable = False
    model.layers[0].kernel.assign(np.full((3, 2), frozen))
    training = TrainingModel(model)
    training.compile(keras.optimizers.SGD(rate))
    callback = StopOnNaN({"kept_epoch": 2}, tmp_path / "run", 50, **more)
    callback.set_model(training)
    callback.on_epoch_begin(2)
    callback.on_train_batch_end(31, {"loss": 1.0})
    return callback


def told(check, *arguments):
    with pytest.raises(TrainingFailed) as error:
        check(*arguments)
    return str(error.value)


def test_a_loss_that_is_not_finite_names_epoch_and_steps(tmp_path):
    kept = f"Epoch 2 is kept in {tmp_path / 'run'}."
    rate = "Usually the learning rate is too high, here 0.5: lower train.learning_rate tenfold."
    callback = stopping(tmp_path)
    assert told(callback.on_train_batch_end, 63, {"loss": math.inf}) == (
        f"The loss became inf in epoch 3, in steps 33 to 50 of 50. {rate} {kept}"
    )
    assert "nan in epoch 3, at step 33 of 50." in told(callback.on_train_batch_end, 32, {"loss": math.nan})
    assert told(callback.on_epoch_end, 2, {"val_loss": math.nan}) == (
        f"The validation loss became nan after epoch 3. {rate} {kept}"
    )


def test_the_loss_is_read_now_and_then_and_no_nan_is_missed(tmp_path):
    class Loss:
        def __float__(self):
            read.append(self)
            return math.nan

    read = []
    callback = stopping(tmp_path, every=1000.0)  # which has read step 32
    for step in range(33, 50):
        callback.on_train_batch_end(step - 1, {"loss": Loss()})
    assert not read
    line = told(callback.on_train_batch_end, 49, {"loss": Loss()})
    assert len(read) == 1 and line.startswith("The loss became nan in epoch 3, in steps 33 to 50 of 50.")


def test_a_loss_that_is_not_finite_comes_with_its_likely_cause(tmp_path):
    def cause(**more):
        return told(stopping(tmp_path, **more).on_train_batch_end, 63, {"loss": math.nan}).split("of 50. ")[1]

    assert cause(finetune_from=3).startswith("Usually the learning rate is too high, here 0.5: lower finetune.learning")
    wanted = 'tenfold, or try overrides={"devices": {"precision": "float32"}} in place of float16. Epoch 2'
    assert wanted in cause(policy="mixed_float16")
    assert cause(frozen=math.nan).startswith(
        "Layer fixed does not train and has weights that are not finite: its file is damaged. Epoch 2 is kept in "
    )


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


def test_much_time_left_is_told_once_with_what_takes_less(monkeypatch, capsys):
    now = [0.0]
    for clock in ("monotonic", "perf_counter"):
        monkeypatch.setattr(f"kerascls.training.callbacks.reporting.time.{clock}", lambda: now[0])
    for batches, told in ((600, "1:59:48 left at this rate. Buy a GPU.\n"), (60, "")):
        progress = Progress(2, batches, 10, batches * 10, 0, faster="Buy a GPU.")
        progress.set_model(keras.Sequential([keras.Input((1,))]))
        progress.on_epoch_begin(0)
        for batch, seconds in enumerate((10, 6, 6)):  # the first one compiles; the second is looked at
            now[0] += seconds
            progress.on_train_batch_end(batch, {"loss": 1.0, "accuracy": 0.5})
        progress.close()
        assert capsys.readouterr().err == told


@pytest.mark.slow
def test_a_network_with_a_frozen_backbone_can_be_trained_in_less_time(tmp_path):
    """By features once an image, where they can be, and by smaller images."""
    Path("pets/dark").mkdir(parents=True)
    Path("pets/light").mkdir()
    for i in range(10):
        for name, colour in (("dark", 10), ("light", 250)):
            Image.fromarray(np.full((20, 30), colour - i, np.uint8)).save(f"pets/{name}/{i}.png")
    recipe = tiny_transfer("[train]\nepochs = 1\n")
    views = "--set features.views=2 (the frozen backbone runs twice an image, not in every epoch)"
    side = "--set data.image_shape=48 (now 96x100; the first file has 20x30)"
    for more, told in (
        ({}, f"Faster on this CPU: {views}, {side}."),
        ({"features": {"views": 1}}, f"Faster on this CPU: {side}."),
        ({"augment": {"policy": [{"name": "mixup"}]}}, f"Faster on this CPU: {side}."),
        ({"data": {"image_shape": [64, 64, 3]}}, f"Faster on this CPU: {views}."),
        ({"model": {"name": "small_cnn"}, "data": {"image_shape": [64, 64, 3]}}, ""),
    ):
        tables = {"data": {"name": "pets", "image_shape": [96, 100, 3], **more.pop("data", {})}, **more}
        config = load_config(recipe, tables) if "model" not in tables else load_config("folder_scratch", tables)
        dataset = with_all_splits(load_config_data(config.data), 0.1)
        assert Fit(config, dataset, choose("cpu"), quiet=True).faster() == told

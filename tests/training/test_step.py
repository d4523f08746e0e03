"""The training step: batches that it gathers itself train as those that tf.data hands it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascls.data.batches import TrainingBatches, balanced_class_weight
from kerascls.data.dataset import Split
from kerascls.inference.metrics import cross_entropy
from kerascls.models import build_model
from kerascls.training.callbacks.epoch_state import EpochState
from kerascls.training.step import TrainingModel

SPLIT = Split.of(np.random.default_rng(0).integers(0, 256, (50, 28, 28, 1), np.uint8), np.arange(50) ** 2 % 10)
POLICY = [{"name": "affine", "shift": 0.1}, {"name": "mixup"}]


def trained(gathers, steps_per_execution=3, policy=(), weighted=False, views=1, shards=1, smoothing=0.0):
    """History and weights of three epochs of 7 steps of 8 images, the last one of 2."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    batches = TrainingBatches(SPLIT, 10, 8 if views == 1 else 4, seed=5, views=views)
    model = TrainingModel(
        build_model("mnist_cnn", (28, 28, 1), 10),
        policy,
        seed=5,
        policy_steps=10,
        class_weight=balanced_class_weight(SPLIT.labels, 10) if weighted else None,
        gather=batches.gather if gathers else None,
        batch_size=batches.batch_size,
        steps=batches.steps,
        shards=shards,
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.CategoricalCrossentropy(label_smoothing=smoothing),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    fed = batches.executions(steps_per_execution) if gathers else batches.dataset()
    seen = []
    history = model.fit(
        fed,
        steps_per_epoch=batches.steps,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[
            EpochState(5),
            keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch)),
        ],
    ).history
    assert int(model.optimizer.iterations) == 3 * batches.steps
    return history, model.get_weights(), seen


@pytest.mark.parametrize(
    "options", [{}, {"policy": POLICY, "weighted": True}, {"views": 2}], ids=["plain", "policy and weights", "views"]
)
def test_gathered_batches_train_to_the_same_bits_as_those_of_tf_data(options):
    (ours, weights, seen), (theirs, expected, told) = trained(True, **options), trained(False, **options)
    assert ours == theirs and len(ours["loss"]) == 3
    assert all(np.array_equal(*pair) for pair in zip(weights, expected, strict=True))
    assert seen == told == [2, 5, 8] * 3  # callbacks count steps, not executions


def test_how_many_steps_an_execution_has_changes_nothing():
    (few, weights, _), (many, expected, seen) = trained(True, 1), trained(True, 7)
    assert few == many and seen == [6] * 3
    assert all(np.array_equal(*pair) for pair in zip(weights, expected, strict=True))


def test_executions_are_the_epochs_batches_in_their_order():
    batches = TrainingBatches(SPLIT, 10, 8, seed=5)
    executions = iter(batches.executions(3))
    for number in range(3):
        blocks = [next(executions).numpy() for _ in range(3)]
        assert [len(block) for block in blocks] == [24, 24, 2]
        order = np.concatenate(blocks)
        assert sorted(order) == list(range(50))
        images = np.concatenate([images.numpy() for images, _ in batches.dataset(number).take(7)])
        assert np.array_equal(images, SPLIT.images[order])
    assert np.array_equal(batches.gather(tf.constant([3, 1]))[1], np.eye(10, dtype="float32")[SPLIT.labels[[3, 1]]])


@pytest.mark.parametrize("shards", [2, 3])  # the last batch has 2 images: one of three shards has none
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"policy": POLICY, "weighted": True, "smoothing": 0.1},
    ],
    ids=["plain", "policy, weights and smoothing"],
)
def test_shards_train_as_the_whole_batch(shards, options):
    (whole, expected, _), (parts, weights, _) = trained(True, **options), trained(True, shards=shards, **options)
    for name in ("loss", "accuracy"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)  # Adam's first steps make rounding larger


def test_one_example_is_a_batch_for_any_number_of_shards():
    model = TrainingModel(build_model("mnist_cnn", (28, 28, 1), 10), shards=4)
    images, labels = tf.zeros((1, 28, 28, 1)), tf.one_hot([3], 10)
    shares = model.shares(images, labels, None, tf.constant(1))
    found = [(int(count), float(share), x.shape[0]) for count, share, x, _, _ in shares]
    assert found == [(0, 0.0, 1)] * 3 + [(1, 1.0, 1)]


def test_the_validation_loss_is_that_of_metrics_whatever_the_training_loss_is():
    images = np.array([[0.0, 60.0], [0.0, 1.0], [3.0, 0.0]], "float32")  # the first is sure, and wrong
    classifier = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
    model = TrainingModel(classifier, class_weight=np.array([5.0, 1.0], "float32"))
    model.compile("sgd", keras.losses.CategoricalCrossentropy(label_smoothing=0.3), metrics=["accuracy"])
    labels = np.array([0, 1, 1])
    loss, accuracy = model.evaluate(images, np.eye(2, dtype="float32")[labels], batch_size=2, verbose=0)
    by_hand = (-np.log(1e-7) + np.log1p(np.exp(-1.0)) + np.log1p(np.exp(3.0))) / 3
    assert loss == pytest.approx(by_hand, rel=1e-6) and accuracy == pytest.approx(1 / 3)
    assert loss == pytest.approx(cross_entropy(labels, classifier.predict(images, verbose=0)), rel=1e-6)


@pytest.mark.parametrize("gathers", [True, False])
def test_a_step_is_traced_once(gathers, monkeypatch):
    traced = []
    step = TrainingModel.train_step
    monkeypatch.setattr(TrainingModel, "train_step", lambda self, data: traced.append(1) or step(self, data))
    trained(gathers)
    assert len(traced) == 1

"""Augmentation: geometry on hand-worked matrices, and randomness that (seed, step) alone decides."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascls import augment
from kerascls.models import build_model

SEED = tf.constant([0, 0], tf.int32)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3)).astype("float32")
LABELS = np.eye(6, dtype="float32")


def moved(image, angle=0.0, down=0.0, right=0.0, scale=1.0):
    height, width = image.shape
    one = [tf.constant([float(x)]) for x in (angle, down, right, scale)]
    matrix = augment.affine_matrices(*one, tf.constant(float(height)), tf.constant(float(width)))
    out = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.constant(image[None, ..., None], tf.float32),
        transforms=matrix,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return out.numpy()[0, ..., 0]


def test_affine_matrices_are_as_worked_by_hand():
    image = np.arange(1, 26, dtype=float).reshape(5, 5)
    assert np.allclose(moved(image), image)
    assert np.allclose(moved(image, down=1)[1:], image[:-1]) and np.allclose(
        moved(image, right=2)[:, 2:], image[:, :-2]
    )
    assert np.allclose(moved(image, angle=np.pi / 2), np.rot90(image), atol=1e-3)  # anticlockwise
    doubled = moved(image, scale=2)
    assert (
        doubled[2, 2] == image[2, 2]
        and np.isclose(doubled[2, 4], image[2, 3])
        and np.isclose(doubled[0, 2], image[1, 2])
    )
    matrix = augment.affine_matrices(
        *[tf.constant([x]) for x in (0.0, 1.0, 2.0, 2.0)], tf.constant(5.0), tf.constant(5.0)
    )
    assert np.allclose(matrix, [[0.5, 0, 0, 0, 0.5, 0.5, 0, 0]])  # x' = x / 2 + 2 - (2 + 2) / 2, y' = y / 2 + 2 - 3 / 2


def test_flip_mirrors_some_images_and_no_other():
    out, labels = augment.flip(tf.constant(IMAGES), tf.constant(LABELS), SEED, horizontal=True, vertical=True)
    kinds = {
        tuple(np.array_equal(got, want) for want in (image, image[:, ::-1], image[::-1], image[::-1, ::-1]))
        for got, image in zip(out.numpy(), IMAGES, strict=True)
    }
    assert all(sum(kind) == 1 for kind in kinds) and len(kinds) > 1
    assert np.array_equal(labels, LABELS)


def test_shift_moves_by_whole_pixels_and_repeats_the_edge():
    out, _ = augment.shift(tf.constant(IMAGES), tf.constant(LABELS), SEED, pixels=1)
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    found = set()
    for got, image in zip(out.numpy(), padded, strict=True):
        places = [(y, x) for y in range(3) for x in range(3) if np.array_equal(got, image[y : y + 5, x : x + 7])]
        assert len(places) == 1
        found |= set(places)
    assert len(found) > 1
    many = np.tile(IMAGES[:1], (400, 1, 1, 1))
    out, _ = augment.shift(tf.constant(many), tf.zeros((400, 2)), SEED, pixels=2)
    counts = np.unique(out.numpy().reshape(400, -1), axis=0, return_counts=True)[1]
    assert len(counts) == 25 and counts.min() >= 4  # 16 expected of each


def test_a_policy_of_nothing_changes_nothing():
    for policy in ([], [{"name": "affine"}], [{"name": "flip", "horizontal": False}]):
        out, _ = augment.apply_policy(policy, tf.constant(IMAGES), tf.constant(LABELS), SEED)
        assert np.allclose(out, IMAGES, atol=1e-3)


def test_what_is_drawn_is_a_function_of_the_seed():
    policy = [{"name": "affine", "degrees": 20.0, "shift": 0.2, "zoom": 0.2}, {"name": "flip"}]

    def drawn(seed, step):
        return augment.apply_policy(policy, tf.constant(IMAGES), tf.constant(LABELS), tf.constant([seed, step]))[
            0
        ].numpy()

    assert np.array_equal(drawn(0, 1), drawn(0, 1))
    assert not np.array_equal(drawn(0, 1), drawn(0, 2)) and not np.array_equal(drawn(0, 1), drawn(1, 1))


@pytest.mark.parametrize("policy", [[], [{"name": "affine", "degrees": 90.0}]])
def test_evaluation_and_what_is_saved_know_nothing_of_the_policy(policy):
    keras.utils.set_random_seed(0)
    classifier = build_model("mnist_cnn", (28, 28, 1), 10)
    model = augment.AugmentedModel(classifier, policy)
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28, 1), np.uint8)
    assert np.array_equal(model.predict(images, verbose=0), classifier.predict(images, verbose=0))
    loss = model.evaluate(images, np.eye(10), verbose=0)[0]
    assert loss == pytest.approx(
        float(keras.losses.categorical_crossentropy(np.eye(10), classifier.predict(images, verbose=0)).numpy().mean()),
        rel=1e-5,
    )
    assert [layer.name for layer in classifier.layers][0] == "pixels"


def test_training_sees_augmented_images():
    inputs = keras.Input((4, 4, 1))
    total = keras.layers.Dense(2, kernel_initializer="ones", use_bias=False)(keras.layers.Flatten()(inputs))
    image = np.zeros((1, 4, 4, 1), "float32")
    image[0, 0, 0, 0] = 8
    losses = {}
    moved = [{"name": "affine", "shift": 0.9}]
    for name, policy, steps in (("plain", [], None), ("augmented", moved, None), ("first three steps", moved, 3)):
        model = augment.AugmentedModel(keras.Model(inputs, total), policy, seed=3, policy_steps=steps)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        losses[name] = model.fit(image, np.zeros((1, 2)), epochs=5, shuffle=False, verbose=0).history["loss"]
    assert losses["plain"] == [64] * 5 and 64 not in losses["augmented"]
    assert losses["first three steps"] == losses["augmented"][:3] + [64] * 2

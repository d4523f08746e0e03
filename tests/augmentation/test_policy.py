"""Augmentation: geometry on hand-worked matrices, and randomness that (seed, step) alone decides."""

import re
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_npz
from scipy import ndimage  # which scikit-learn brings

import kerascls
from kerascls.augmentation import color, crops, geometry
from kerascls.augmentation.policy import apply_policy, augmentation
from kerascls.inference.loading import load
from kerascls.models import build_model
from kerascls.recipes import catalog
from kerascls.training.step import TrainingModel

SEED = tf.constant([0, 0], tf.int32)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3)).astype("float32")
LABELS = np.eye(6, dtype="float32")
# Every policy, with options that make it do something to every image.
POLICIES = {
    **{name: {"name": name} for name in catalog.policy_options()},
    "affine": {"name": "affine", "degrees": 20.0, "shift": 0.2, "zoom": 0.2},
    "image_data_generator": {"name": "image_data_generator", "shear_range": 10, "zoom_range": 0.2},
    "random_resized_crop": {"name": "random_resized_crop", "height": 6, "width": 4},
    "center_crop": {"name": "center_crop", "height": 3, "width": 4},
    "color_jitter": {"name": "color_jitter", "hue": 0.1},
}


def applied(name, images=IMAGES, labels=LABELS, seed=SEED, **options):
    out, shares = augmentation(name)(tf.constant(images), tf.constant(labels), seed, **options)
    return out.numpy(), shares.numpy()


def ramp_of(rows, columns):
    """An image whose first channel tells the row, and whose second the column."""
    return np.stack([*np.meshgrid(rows, columns, indexing="ij"), np.zeros((len(rows), len(columns)))], -1)


def one(value):
    return tf.constant([value], tf.float32)


def read_from(image, linear, right=0.0, down=0.0, **options):
    """One gray image through `warp`."""
    return geometry.warp(tf.constant(image[None, ..., None], tf.float32), linear, right, down, **options).numpy()[
        0, ..., 0
    ]


def moved(image, angle=0.0, down=0.0, right=0.0, scale=1.0):
    height, width = image.shape
    one = [tf.constant([float(x)]) for x in (angle, down, right, scale)]
    matrix = geometry.affine_matrices(*one, tf.constant(float(height)), tf.constant(float(width)))
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
    matrix = geometry.affine_matrices(
        *[tf.constant([x]) for x in (0.0, 1.0, 2.0, 2.0)], tf.constant(5.0), tf.constant(5.0)
    )
    assert np.allclose(matrix, [[0.5, 0, 0, 0, 0.5, 0.5, 0, 0]])  # x' = x / 2 + 2 - (2 + 2) / 2, y' = y / 2 + 2 - 3 / 2


def test_flip_mirrors_some_images_and_no_other():
    out, labels = geometry.flip(tf.constant(IMAGES), tf.constant(LABELS), SEED, horizontal=True, vertical=True)
    kinds = {
        tuple(np.array_equal(got, want) for want in (image, image[:, ::-1], image[::-1], image[::-1, ::-1]))
        for got, image in zip(out.numpy(), IMAGES, strict=True)
    }
    assert all(sum(kind) == 1 for kind in kinds) and len(kinds) > 1
    assert np.array_equal(labels, LABELS)


def test_shift_moves_by_whole_pixels_and_repeats_the_edge():
    out, _ = geometry.shift(tf.constant(IMAGES), tf.constant(LABELS), SEED, pixels=1)
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    found = set()
    for got, image in zip(out.numpy(), padded, strict=True):
        places = [(y, x) for y in range(3) for x in range(3) if np.array_equal(got, image[y : y + 5, x : x + 7])]
        assert len(places) == 1
        found |= set(places)
    assert len(found) > 1
    many = np.tile(IMAGES[:1], (400, 1, 1, 1))
    out, _ = geometry.shift(tf.constant(many), tf.zeros((400, 2)), SEED, pixels=2)
    counts = np.unique(out.numpy().reshape(400, -1), axis=0, return_counts=True)[1]
    assert len(counts) == 25 and counts.min() >= 4  # 16 expected of each


def test_a_policy_of_nothing_changes_nothing():
    for policy in ([], [{"name": "affine"}], [{"name": "flip", "horizontal": False}]):
        out, _ = apply_policy(policy, tf.constant(IMAGES), tf.constant(LABELS), SEED)
        assert np.allclose(out, IMAGES, atol=1e-3)


# All policies alike


@pytest.mark.parametrize("entry", POLICIES.values(), ids=POLICIES)
def test_every_policy_keeps_the_contract(entry):
    """Types, sizes, range and labels, for whole batches, a lone image, none (a replica's share of a last batch)."""

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 5, 7, 3), tf.float32),
            tf.TensorSpec((None, 6), tf.float32),
            tf.TensorSpec((2,), tf.int32),
        ]
    )
    def policy(images, labels, seed):
        return apply_policy([entry], images, labels, seed)

    size = catalog.policy_output_shape([entry], (5, 7, 3))
    assert tuple(policy.get_concrete_function().structured_outputs[0].shape) == (None, *size)
    for count in (6, 1, 0):
        out, labels = policy(IMAGES[:count], LABELS[:count], SEED)
        assert out.shape == (count, *size) and out.dtype == tf.float32 and labels.shape == (count, 6)
        assert np.isfinite(out).all() and (not count or 0 <= np.min(out) <= np.max(out) <= 255.001)
        assert np.allclose(np.sum(labels, 1), 1) and np.all(labels >= 0)
        if entry["name"] not in ("mixup", "cutmix"):
            assert np.array_equal(labels, LABELS[:count])


@pytest.mark.parametrize("entry", POLICIES.values(), ids=POLICIES)
def test_what_is_drawn_is_a_function_of_the_seed_and_differs_by_image(entry):
    images = np.tile(IMAGES[:1], (30, 1, 1, 1)) if entry["name"] not in ("mixup", "cutmix") else IMAGES
    labels = tf.zeros((len(images), 6))

    def drawn(seed, step):
        return apply_policy([entry], tf.constant(images), labels, tf.constant([seed, step]))[0].numpy()

    assert np.array_equal(drawn(0, 1), drawn(0, 1))
    if entry["name"] != "center_crop":  # which draws nothing
        assert not np.array_equal(drawn(0, 1), drawn(0, 2)) and not np.array_equal(drawn(0, 1), drawn(1, 1))
        assert len(np.unique(drawn(0, 1).reshape(len(images), -1), axis=0)) > 1


@pytest.mark.parametrize("entry", POLICIES.values(), ids=POLICIES)
def test_gray_images_are_augmented_too_and_gray_colours_stay_gray(entry):
    gray = np.tile(np.random.default_rng(1).integers(0, 256, (6, 5, 7, 1)).astype("float32"), (1, 1, 1, 3))
    coloured, _ = apply_policy([entry], tf.constant(gray), tf.constant(LABELS), SEED)
    single, _ = apply_policy([entry], tf.constant(gray[..., :1]), tf.constant(LABELS), SEED)
    assert np.ptp(coloured, axis=-1).max() < 1e-3
    assert np.allclose(single, coloured[..., :1], atol=1e-3)


def test_entries_of_a_policy_draw_apart():
    noise = {"name": "cutout", "size": 0.2}
    once, _ = apply_policy([noise], tf.constant(IMAGES), tf.constant(LABELS), SEED)
    twice, _ = apply_policy([noise, noise], tf.constant(IMAGES), tf.constant(LABELS), SEED)
    assert np.count_nonzero(np.any(once != twice, axis=(1, 2, 3))) > 3


# Geometry, by hand


def test_the_matrices_are_as_worked_by_hand():
    image = np.arange(1, 26, dtype=float).reshape(5, 5)
    turned = read_from(image, geometry.turning(one(np.pi / 2)))
    assert np.allclose(turned, np.rot90(image), atol=1e-4)
    assert np.allclose(read_from(image, geometry.turning(one(np.pi))), image[::-1, ::-1], atol=1e-4)
    still = geometry._scale(one(1.0), one(1.0))
    assert np.array_equal(read_from(image, still), image)
    moved = read_from(image, still, right=one(2.0), down=one(1.0))
    assert np.array_equal(moved, np.pad(image, ((0, 1), (0, 2)), mode="edge")[1:, 2:])
    black = read_from(image, still, right=one(2.0), down=one(1.0), fill_mode="constant")
    assert np.array_equal(black, np.pad(image, ((0, 1), (0, 2)))[1:, 2:])
    # Read at half the step: 1, 1.5, 2, 2.5, 3 beside the middle of 0, 1, 2, 3, 4; rows hold, columns rise by 1.
    doubled = read_from(np.tile(np.arange(5.0), (5, 1)), geometry._scale(one(0.5), one(0.5)))
    assert np.array_equal(doubled, np.tile([1, 1.5, 2, 2.5, 3], (5, 1)))
    # Slanted by arcsin(1/2): row y is read from x - y / 2, and from y cos: rows -2..2 beside the middle.
    slanted = read_from(np.tile(np.arange(5.0), (5, 1)), geometry._slant(one(np.pi / 6)))
    rows = np.arange(-2, 3)[:, None]
    assert np.allclose(slanted, np.clip(np.arange(5.0) - rows / 2, 0, 4), atol=1e-5)
    upright = read_from(np.tile(np.arange(5.0)[:, None], (1, 5)), geometry._slant(one(np.pi / 6)))
    assert np.allclose(upright, 2 + rows * np.cos(np.pi / 6) + np.zeros(5), atol=1e-5)


def test_turned_and_slanted_the_way_that_the_angle_says():
    image = np.tile(np.arange(7.0), (7, 1))[None, ..., None].astype("float32")
    for name, make in (("rotation", geometry.turning), ("shear", geometry._slant)):
        angle = float(geometry.random_draws(tf.constant(image), SEED)[0, 0]) * np.radians(90)
        out, _ = applied(name, image, np.ones((1, 1), "float32"), degrees=90.0)
        assert np.allclose(out[0, ..., 0], read_from(image[0, ..., 0], make(one(angle))), atol=1e-4)
        # Fills and the nearest pixel reach the op.
        black, _ = applied(name, image + 1, np.ones((1, 1), "float32"), degrees=90.0, fill_mode="constant")
        assert np.count_nonzero(black == 0) and np.count_nonzero(out + 1 == 0) == 0
        whole, _ = applied(name, image, np.ones((1, 1), "float32"), degrees=90.0, interpolation="nearest")
        assert np.array_equal(whole, np.round(whole)) and not np.array_equal(out, np.round(out))


def test_zoom_scales_both_axes_alike_or_each_on_its_own():
    ramp = ramp_of(np.arange(-20.0, 21), np.arange(-20.0, 21)) + 50
    images = np.tile(ramp[None].astype("float32"), (50, 1, 1, 1))

    def scales(**options):  # at the middle, a step of one pixel reads 1 / scale pixels
        out, _ = applied("zoom", images, np.ones((50, 1), "float32"), factor=0.5, **options)
        assert np.allclose(out[:, 20, 20], [50, 50, 50], atol=1e-3)
        return 1 / (out[:, 21, 20, 0] - 50), 1 / (out[:, 20, 21, 1] - 50)

    down, across = scales()
    assert np.allclose(down, across, atol=1e-3) and 0.5 <= down.min() < 0.6 and 1.4 < down.max() <= 1.5
    down, across = scales(independent=True)
    assert abs(np.corrcoef(down, across)[0, 1]) < 0.5
    assert all(0.499 <= s.min() < 0.6 and 1.4 < s.max() <= 1.501 for s in (down, across))


def by_image_data_generator(image, theta=0.0, shear=0.0, zx=1.0, zy=1.0, right=0.0, down=0.0):
    """Keras' apply_affine_transform, with its 3x3 matrices of (x, y), its centre, order 1 and fill nearest."""
    theta, shear = np.radians([theta, shear])
    matrix = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    matrix = matrix @ [[1, 0, right], [0, 1, down], [0, 0, 1]]
    matrix = matrix @ [[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]] @ np.diag([zx, zy, 1])
    height, width = image.shape[0] / 2 - 0.5, image.shape[1] / 2 - 0.5
    matrix = (
        np.array([[1, 0, width], [0, 1, height], [0, 0, 1]]) @ matrix @ [[1, 0, -width], [0, 1, -height], [0, 0, 1]]
    )
    matrix = matrix[[1, 0, 2]][:, [1, 0, 2]]  # scipy counts (y, x)
    channels = [
        ndimage.affine_transform(image[..., c], matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest")
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, -1)


def test_image_data_generator_is_keras():
    """Its matrices, its centre and its order of operations, in one interpolation and to its rounding."""
    images = np.random.default_rng(0).integers(0, 256, (24, 12, 9, 3)).astype("float32")
    draws = geometry.random_draws(tf.constant(images), SEED, 8).numpy()
    out, _ = applied(
        "image_data_generator",
        images,
        np.eye(24, dtype="float32"),
        rotation_range=20.0,
        width_shift_range=0.2,
        height_shift_range=0.1,
        shear_range=10.0,
        zoom_range=0.2,
        horizontal_flip=True,
        vertical_flip=True,
    )
    mirrored = set()
    for i, image in enumerate(images):
        want = by_image_data_generator(
            image,
            theta=20 * draws[2, i],
            shear=10 * draws[3, i],
            zx=1 + 0.2 * draws[4, i],
            zy=1 + 0.2 * draws[5, i],
            right=0.2 * 9 * draws[0, i],
            down=0.1 * 12 * draws[1, i],
        )
        flips = [np.abs(out[i] - w).max() < 0.01 for w in (want, want[:, ::-1], want[::-1], want[::-1, ::-1])]
        assert sum(flips) == 1
        mirrored.add(flips.index(True))
    assert mirrored == {0, 1, 2, 3}


def test_image_data_generator_draws_both_zooms_from_the_whole_range_apart():
    ramp = ramp_of(np.arange(-20.0, 21), np.arange(-20.0, 21)) + 50
    images = np.tile(ramp[None].astype("float32"), (100, 1, 1, 1))
    out, _ = applied("image_data_generator", images, np.ones((100, 1), "float32"), zoom_range=0.2)
    zy, zx = out[:, 21, 20, 0] - 50, out[:, 20, 21, 1] - 50  # one pixel further reads so much further
    assert all(0.8 <= z.min() + 1e-4 and z.min() < 0.82 and 1.18 < z.max() <= 1.2 + 1e-4 for z in (zy, zx))
    assert abs(np.corrcoef(zy, zx)[0, 1]) < 0.3


def test_boxes_of_random_resized_crop_have_area_and_ratio_as_asked():
    left, top, across, down = (part.numpy() for part in crops._boxes(tf.constant(2000), SEED, 300, 400, 0.25, 4 / 3))
    for at, length, most in ((left, across, 400), (top, down, 300)):
        assert np.array_equal(at, np.round(at)) and at.min() == 0 and (at + length).max() == most
        assert (at + length).max() <= most and length.min() > 0
    area, ratio = across * down / (300 * 400), across / down
    assert 0.24 < area.min() < 0.27 and area.max() <= 1
    assert (
        0.74 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.35 and abs(np.mean(np.log(ratio))) < 0.06
    )  # wide boxes fit more often
    whole = [part.numpy().tolist() for part in crops._boxes(tf.constant(2), SEED, 30, 40, 1.0, 4 / 3)]
    assert whole == [[0, 0], [0, 0], [40, 40], [30, 30]]
    # No box of ratio 1 has the area of a strip, so the largest in its middle is taken.
    strip = [part.numpy().tolist() for part in crops._boxes(tf.constant(2), SEED, 10, 100, 0.9, 1.0)]
    assert strip == [[45, 45], [0, 0], [10, 10], [10, 10]]


def test_random_resized_crop_resizes_the_box_it_drew():
    ramp = ramp_of(np.arange(12.0), np.arange(16.0))
    images = np.tile(ramp[None].astype("float32"), (20, 1, 1, 1))
    labels = np.ones((20, 1), "float32")
    left, top, across, down = (
        part.numpy() for part in crops._boxes(tf.constant(20), SEED, 12, 16, 0.08, 1.3333333333333333)
    )
    out, _ = applied("random_resized_crop", images, labels, height=8, width=4)
    for i in range(20):  # pixel centres of the output at their places in the box
        y = np.clip(top[i] - 0.5 + (np.arange(8) + 0.5) * down[i] / 8, 0, 11)
        x = np.clip(left[i] - 0.5 + (np.arange(4) + 0.5) * across[i] / 4, 0, 15)
        assert np.allclose(out[i, :, 0, 0], y, atol=1e-4) and np.allclose(out[i, 0, :, 1], x, atol=1e-4)
    out, _ = applied("random_resized_crop", images[:, :, :12], labels, min_area=1.0, max_ratio=1.0)
    assert np.allclose(out, images[:, :, :12], atol=1e-4)


def test_center_crop_takes_the_middle():
    out, _ = applied("center_crop", height=3, width=4)
    assert np.array_equal(out, IMAGES[:, 1:4, 1:5])
    assert np.array_equal(applied("center_crop")[0], IMAGES)


def test_cutout_paints_a_box_of_exact_area():
    images = np.full((200, 10, 20, 3), 7, "float32")
    labels = np.ones((200, 1), "float32")
    out, _ = applied("cutout", images, labels, size=0.3, value=255.0)
    cut = (out == 255).all(-1)
    assert np.array_equal(cut.sum((1, 2)), [3 * 6] * 200) and np.all(out[~cut] == 7)
    assert np.array_equal(cut.any(2).sum(1), [3] * 200)
    places = {(int(box.any(1).argmax()), int(box.any(0).argmax())) for box in cut}
    assert {y for y, _ in places} == set(range(8)) and {x for _, x in places} == set(range(15))
    some, _ = applied("cutout", images, labels, size=0.3, value=255.0, probability=0.5)
    assert 70 < (some == 255).any((1, 2, 3)).sum() < 130
    assert np.array_equal(applied("cutout", images, labels, size=0.0)[0], images)


# Colour, by hand


def recoloured(pixels, brightness=1.0, contrast=1.0, saturation=None, hue=None):
    """A row of RGB pixels through `_recolour`."""
    parts = [None if part is None else one(part) for part in (saturation, hue)]
    image = tf.constant(np.array(pixels, "float32")[None, None])
    return color._recolour(image, one(brightness), one(contrast), *parts).numpy()[0, 0]


def test_colours_are_as_worked_by_hand():
    red, gray = [200.0, 0.0, 0.0], [100.0, 100.0, 100.0]
    assert np.allclose(recoloured([red, gray], brightness=0.5), [[100, 0, 0], [50, 50, 50]])
    assert np.allclose(recoloured([red, gray], brightness=3.0), [[255, 0, 0], [255, 255, 255]])  # clipped
    # Luma 0.299 * 200 = 59.8 and 100, so their mean is 79.9; contrast 0.5 is half way there.
    assert np.allclose(recoloured([red, gray], contrast=0.5), [[139.95, 39.95, 39.95], [89.95, 89.95, 89.95]])
    assert np.allclose(recoloured([red, gray], saturation=0.0), [[59.8] * 3, [100] * 3], atol=1e-3)
    assert np.allclose(recoloured([red], saturation=0.5), [[129.9, 29.9, 29.9]], atol=1e-3)
    # A hue turned by half the circle mirrors a colour on its luma: 2 * 59.8 - red.
    assert np.allclose(recoloured([red, gray], saturation=1.0, hue=np.pi), [[0, 119.6, 119.6], gray], atol=1e-3)
    # A third of it turns luma 59.8 of red about the gray axis: the luma stays, and three turns lead back.
    mild = [120.0, 100.0, 90.0]
    third = recoloured([mild], saturation=1.0, hue=2 * np.pi / 3)
    assert np.isclose(third[0] @ [0.299, 0.587, 0.114], np.dot(mild, [0.299, 0.587, 0.114]), atol=1e-3)
    assert third[0].argmax() == 1  # from red to green
    back = recoloured(recoloured(third, saturation=1.0, hue=2 * np.pi / 3), saturation=1.0, hue=2 * np.pi / 3)
    assert np.allclose(back, [mild], atol=1e-2)


def test_color_jitter_draws_each_factor_from_its_range():
    flat = np.full((300, 2, 2, 3), 100, "float32")
    labels = np.ones((300, 1), "float32")
    out, _ = applied("color_jitter", flat, labels, brightness=0.3, contrast=1.0)  # contrast does nothing to flat ones
    assert 69.9 < out.min() < 72 and 128 < out.max() < 130.1
    reddish = np.full((300, 1, 1, 3), [150, 100, 90], "float32")
    out, _ = applied("color_jitter", reddish, labels, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.25)
    before, after = (colours[:, 0, 0] @ color._YIQ[1:].T for colours in (reddish, out))
    turns = np.angle((after[:, 0] + 1j * after[:, 1]) / (before[:, 0] + 1j * before[:, 1])) / (2 * np.pi)
    assert -0.2501 < turns.min() < -0.23 and 0.23 < turns.max() < 0.2501
    same, _ = applied("color_jitter", brightness=0.0, contrast=0.0, saturation=0.0)
    assert np.allclose(same, IMAGES, atol=1e-3)


def test_autocontrast_stretches_each_channel_of_the_chosen():
    images = np.zeros((2, 1, 3, 3), "float32")
    images[:, 0] = [[10, 50, 7], [20, 60, 7], [60, 100, 7]]
    out = color._stretch_contrast(tf.constant(images), tf.constant([True, False])).numpy()
    assert np.allclose(out[0, 0], [[0, 0, 7], [51, 51, 7], [255, 255, 7]], atol=1e-3)
    assert np.array_equal(out[1], images[1])


def test_rand_augment_draws_each_of_its_operations():
    ramp = ramp_of(np.arange(32.0) * 4, np.arange(32.0) * 6) + [0, 0, 200]
    images = np.tile(ramp[None].astype("float32"), (400, 1, 1, 1))
    labels = np.ones((400, 1), "float32")
    out, _ = applied("rand_augment", images, labels, num_ops=1, magnitude=15)
    kinds = np.unique(np.round(out.reshape(400, -1), 1), axis=0, return_counts=True)[1]
    # One image of identity, autocontrast, solarize and posterize each; two, by sign, of the other eight.
    assert len(kinds) == 4 + 2 * 8 and kinds.sum() == 400 and kinds.min() >= 5  # 16.7 or 33.3 expected
    unchanged = np.abs(out - images).max((1, 2, 3)) < 1e-2
    assert 15 <= unchanged.sum() <= 55
    # Solarize at half strength inverts from 128 up; posterize keeps 6 of 8 bits.
    solarized, posterized = np.where(ramp >= 128, 255 - ramp, ramp), np.floor(ramp / 4) * 4
    for want in (solarized, posterized):
        assert (np.abs(out - want).max((1, 2, 3)) < 1e-2).any()
    none, _ = applied("rand_augment", images[:40], labels[:40], num_ops=3, magnitude=0)
    changed = np.abs(none - images[:40]).max((1, 2, 3)) > 1e-2  # autocontrast alone knows no strength
    stretched = (ramp[..., :2] - ramp[..., :2].min((0, 1))) * 255 / np.ptp(ramp[..., :2], axis=(0, 1))
    assert 0 < changed.sum() < 20 and np.allclose(none[changed][..., :2], stretched, atol=1e-2)


# Mixtures


def mixed(name, count=40, **options):
    """Flat images whose value is their position, so that a pixel tells where it comes from."""
    images = np.tile(np.arange(count, dtype="float32")[:, None, None, None], (1, 8, 12, 1))
    return applied(name, images, np.eye(count, dtype="float32"), **options)


def test_mixup_blends_images_and_labels_by_one_share():
    out, labels = mixed("mixup", alpha=1.0)
    for i, row in enumerate(labels):
        own, (other, *more) = row[i], [j for j in np.flatnonzero(row) if j != i]
        assert not more and own + row[other] == pytest.approx(1)
        assert np.allclose(out[i], own * i + row[other] * other, atol=1e-4)
    shares = np.diag(labels)
    assert shares.min() < 0.1 and shares.max() > 0.9 and 0.35 < shares.mean() < 0.65
    assert len({(int(np.argmax(row * (np.arange(40) != i))) - i) % 40 for i, row in enumerate(labels)}) == 1


def test_no_image_is_mixed_with_itself():
    for step in range(20):
        labels = applied("mixup", IMAGES[:2], LABELS[:2], tf.constant([0, step]), alpha=100)[1]
        assert labels[:, :2].min() > 0.2


def test_cutmix_weighs_labels_by_the_pixels_pasted():
    out, labels = mixed("cutmix")
    pasted = 0
    for i, row in enumerate(labels):
        values, counts = np.unique(out[i], return_counts=True)
        assert len(values) <= 2 and set(values) >= set(np.flatnonzero(row))
        for value, count in zip(values, counts, strict=True):
            assert row[int(value)] == pytest.approx(count / (8 * 12), abs=1e-6)
        foreign = (out[i] != i)[..., 0]
        rows, columns = foreign.any(1), foreign.any(0)
        assert np.array_equal(foreign, rows[:, None] & columns[None])  # a box
        assert all(np.count_nonzero(np.diff(edge)) <= 2 for edge in (rows, columns))
        pasted += foreign.any()
    assert pasted > 25


def test_an_image_is_mixed_as_often_as_asked():
    for name in ("mixup", "cutmix"):
        out, labels = mixed(name, probability=0.0)
        assert np.array_equal(labels, np.eye(40)) and np.array_equal(out[:, 0, 0, 0], np.arange(40))
        half = mixed(name, probability=0.5, alpha=100)[1]
        assert 10 < np.count_nonzero(np.diag(half) < 1) < 30
        lone, label = applied(name, IMAGES[:1], LABELS[:1])
        assert np.allclose(lone, IMAGES[:1], atol=1e-4) and np.array_equal(label, LABELS[:1])


# In training


def trained(policy):
    """Weights after two epochs of a tiny network, with a last partial batch and op determinism on as in training."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    height, width, _ = catalog.policy_output_shape(policy, (5, 7, 3))
    inputs = keras.Input((height, width, 3))
    outputs = keras.layers.Dense(6, activation="softmax")(keras.layers.Flatten()(inputs / 255))
    model = TrainingModel(keras.Model(inputs, outputs), policy, seed=1)
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((IMAGES.astype("uint8"), LABELS)).batch(5)
    history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    return model.classifier.get_weights()


@pytest.mark.parametrize("entry", POLICIES.values(), ids=POLICIES)
def test_a_network_trains_under_every_policy(entry):
    assert all(np.isfinite(weights).all() for weights in trained([entry]))


@pytest.mark.slow
def test_a_long_policy_trains_to_the_same_weights_twice():
    names = ("image_data_generator", "random_resized_crop", "color_jitter", "rand_augment", "cutout", "mixup", "cutmix")
    policy = [POLICIES[name] for name in names]
    assert all(np.array_equal(*pair) for pair in zip(trained(policy), trained(policy), strict=True))


def test_xla_is_asked_for_only_without_a_policy():
    classifier = build_model("mnist_cnn", (28, 28, 1), 10)
    assert TrainingModel(classifier).supports_jit
    assert not TrainingModel(classifier, [{"name": "flip"}]).supports_jit


@pytest.mark.slow
def test_a_saved_model_is_the_same_graph_with_and_without_a_policy(tmp_path):
    small_npz("data.npz")
    policies = {"plain": [], "augmented": [{"name": "rotation"}, {"name": "mixup"}]}
    files, models = {}, {}
    for name, policy in policies.items():
        overrides = {"augment": {"policy": policy}, "train": {"samples": 0}}
        kerascls.train("mnist_cnn", data="data.npz", epochs=1, out=name, overrides=overrides)
        with zipfile.ZipFile(f"{name}/model.keras") as archive:
            graph = re.sub(rb'"shared_object_id": \d+', b"", archive.read("config.json"))  # a place in memory
            files[name] = sorted(archive.namelist()), graph
        models[name] = load(name).keras_model
    assert files["plain"] == files["augmented"]
    weights = [model.get_weights() for model in models.values()]
    assert not all(np.array_equal(*pair) for pair in zip(*weights, strict=True))  # the policy did something
    models["augmented"].set_weights(weights[0])
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28, 1), np.uint8)
    answers = [model.predict(images, verbose=0) for model in models.values()]
    assert np.array_equal(*answers)


@pytest.mark.parametrize("policy", [[], [{"name": "affine", "degrees": 90.0}]])
def test_evaluation_and_what_is_saved_know_nothing_of_the_policy(policy):
    keras.utils.set_random_seed(0)
    classifier = build_model("mnist_cnn", (28, 28, 1), 10)
    model = TrainingModel(classifier, policy)
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
        model = TrainingModel(keras.Model(inputs, total), policy, seed=3, policy_steps=steps)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        losses[name] = model.fit(image, np.zeros((1, 2)), epochs=5, shuffle=False, verbose=0).history["loss"]
    assert losses["plain"] == [64] * 5 and 64 not in losses["augmented"]
    assert losses["first three steps"] == losses["augmented"][:3] + [64] * 2

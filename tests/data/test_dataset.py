"""Data sets: what they hold, and what is said of those that cannot be had."""

import hashlib
import importlib
import time

import numpy as np
import pytest
from conftest import small_npz

from kerascls.data import loading
from kerascls.data.dataset import check_memory, skipped_lines
from kerascls.errors import DataError, DataMissing
from kerascls.recipes.catalog import dataset_files
from kerascls.system import memory

_tfds = importlib.import_module("kerascls.data.tfds")


def test_every_data_set_file_keeps_the_contract():
    for name in dataset_files():
        module = loading.dataset_module(name)
        assert callable(module.load)
        assert loading.describe_dataset(name) == (tuple(module.class_names), tuple(module.image_shape))


def test_digits_are_1797_in_a_fixed_stratified_split():
    digits = loading.load_dataset("digits")
    counts = {name: len(split) for name, split in digits.splits.items()}
    assert counts == {"train": 1250, "validation": 183, "test": 364}
    for split in digits.splits.values():
        share = np.bincount(split.labels, minlength=10) / len(split)
        assert np.abs(share - 0.1).max() < 0.01
    everything = np.concatenate([split.positions for split in digits.splits.values()])
    assert sorted(everything) == list(range(1797))
    assert digits.image_shape == (28, 28, 1)
    assert digits.splits["train"].images.max() == 255 and digits.splits["train"].images.min() == 0
    assert digits.fingerprint() == loading.load_dataset("digits").fingerprint()


def test_shapes_are_the_same_to_the_bit_everywhere():
    shapes = loading.load_dataset("shapes")
    assert {name: len(split) for name, split in shapes.splits.items()} == {
        "train": 2000,
        "validation": 400,
        "test": 1000,
    }
    for split in shapes.splits.values():
        assert len(set(np.bincount(split.labels, minlength=10))) == 1
    assert shapes.image_shape == (32, 32, 3) and len(shapes.class_names) == 10
    digest = hashlib.sha256(shapes.splits["train"].images[:20].tobytes()).hexdigest()
    assert digest == "5de3419cdf41d9e4b7efe00edf6cfac5920f94ca00a2c57aefd878ef6365cb80"
    everything = np.concatenate([split.images for split in shapes.splits.values()])
    assert len(np.unique(everything.reshape(3400, -1), axis=0)) == 3400


def test_shapes_are_drawn_at_the_size_asked_for(monkeypatch):
    monkeypatch.setattr(loading.dataset_module("shapes"), "SIZES", {"train": 20, "test": 10})
    small, large = (loading.load_dataset("shapes", image_shape=shape) for shape in ((32, 32, 3), (64, 96, 3)))
    assert large.image_shape == (64, 96, 3)
    digest = hashlib.sha256(large.splits["train"].images.tobytes()).hexdigest()
    assert digest == "feb03865b1e952175f62c98fdb29d6f881d39ec980d0cc005e1eba2fe06a070d"
    square = loading.load_dataset("shapes", image_shape=(96, 96, 3)).splits["train"].images.astype(int)
    blown_up = small.splits["train"].images.repeat(3, 1).repeat(3, 2).astype(int)
    assert abs(square - blown_up).mean() < 10  # the same scenes,
    assert (np.diff(blown_up, axis=2) == 0).mean() > 0.66 and (np.diff(square, axis=2) == 0).mean() < 0.2  # drawn anew
    gray = loading.load_dataset("shapes", image_shape=(32, 32, 1)).splits["train"].images
    weights = small.splits["train"].images @ np.array([299, 587, 114])
    assert np.array_equal(gray[..., 0], (weights + 500) // 1000)


def test_shapes_below_32x32_are_refused():
    for shape in ((28, 28, 1), (32, 31, 3)):
        with pytest.raises(DataError, match="drawn from 32x32 pixels up") as error:
            loading.load_dataset("shapes", image_shape=shape)
        assert str(list(shape)) in str(error.value)


def test_a_linear_model_cannot_tell_shapes():
    """Nor can the mean colour: they are drawn independently of the class. A network can: see test_train.py."""
    from sklearn.linear_model import LogisticRegression

    splits = loading.load_dataset("shapes").splits
    train, test = splits["train"], splits["test"]
    for view in (
        lambda images: images[:, ::2, ::2].reshape(len(images), -1) / 255 - 0.5,
        lambda images: images.mean((1, 2)) / 255,
    ):
        linear = LogisticRegression(C=0.01, max_iter=50).fit(view(train.images), train.labels)
        assert linear.score(view(test.images), test.labels) < 0.25


def test_npz_is_read_as_keras_writes_it(tmp_path):
    path = small_npz(tmp_path / "data.npz", class_names=np.array(["猫", "b", "c"]), shape=(8, 8, 1))
    dataset = loading.load_dataset(str(path))
    assert dataset.class_names == ("猫", "b", "c") and dataset.image_shape == (8, 8, 1)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 10, "test": 10}
    assert dataset.splits["train"].labels.dtype == np.int32
    column = small_npz(tmp_path / "column.npz", y_train=np.arange(10)[:, None] % 3)
    assert loading.load_dataset(str(column)).splits["train"].labels.tolist() == [i % 3 for i in range(10)]
    assert loading.load_dataset(str(path), image_shape=(16, 12, 3)).image_shape == (16, 12, 3)


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"x_train": np.zeros((10, 8, 8), np.float32)}, "must be uint8"),
        ({"y_train": np.zeros(9, int)}, "10 whole numbers"),
        ({"y_train": np.zeros(10)}, "whole numbers"),
        ({"y_train": np.full(10, -1)}, "0 or more"),
        ({"class_names": np.array(["a", "b"])}, "class_names has 2 names; labels up to 2 need 3"),
        ({"class_names": np.array(["a", "a", "b"])}, "a name twice"),
        ({"x_train": np.zeros((10, 8, 8, 2), np.uint8)}, "1 or 3"),
        ({"x_test": np.zeros((10, 9, 8, 1), np.uint8)}, "different shapes"),
        ({"x_train": np.zeros((0, 28, 28, 1), np.uint8), "y_train": np.zeros(0, int)}, "has no images"),
    ],
)
def test_faulty_npz_files_are_told(tmp_path, change, fault):
    with pytest.raises(DataError, match=fault):
        loading.load_dataset(str(small_npz(tmp_path / "data.npz", **change)))


def test_npz_that_is_damaged_pickled_or_something_else_is_told(tmp_path):
    whole = small_npz(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_bytes(b"hello")
    np.savez(tmp_path / "pickled.npz", x_train=np.array([{}], dtype=object), y_train=np.zeros(1, int))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("cut", "text", "pickled", "other", "nowhere"):
        with pytest.raises(DataError):
            loading.load_dataset(str(tmp_path / f"{name}.npz"))


def test_a_users_own_file_is_a_data_set(tmp_path):
    (tmp_path / "mine.py").write_text(
        '"""Mine."""\nimport numpy as np\nfrom kerascls.datasets import Dataset, Split\n'
        'class_names = ("a", "b")\nimage_shape = (4, 4, 1)\n'
        "def load(root=None, download=True, image_shape=None, background=None):\n"
        '    return Dataset("mine", "here", class_names, {"train": Split.of(np.zeros((4, 4, 4, 1), np.uint8), '
        "np.array([0, 1, 0, 1]))})\n"
    )
    assert len(loading.load_dataset("./mine.py").splits["train"]) == 4
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    with pytest.raises(DataError, match="cannot be imported"):
        loading.load_dataset("./broken.py")
    (tmp_path / "bare.py").write_text("")
    with pytest.raises(DataError, match="no `load`"):
        loading.load_dataset("./bare.py")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a tiny TFDS data set of colour images in many sizes, prepared."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    generator = np.random.default_rng(0)
    sizes = [(5 + i % 4, 9 - i % 3, 3) for i in range(12)]

    def examples():
        for i, size in enumerate(sizes):
            yield {"image": generator.integers(0, 256, size, np.uint8), "label": i % 2}

    def hidden():
        for example in examples():
            yield example | {"label": -1}

    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
    )
    signature = {"image": tf.TensorSpec((None, None, 3), tf.uint8), "label": tf.TensorSpec((), tf.int64)}
    for name, splits in {
        "tiny": {"train": examples},
        "challenge": {"train": examples, "validation": examples, "test": hidden},
        "closed": {"train": hidden},
    }.items():
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=features,
            data_dir=str(root),
            disable_shuffling=True,
            split_datasets={
                split: tf.data.Dataset.from_generator(make, output_signature=signature)
                for split, make in splits.items()
            },
        )
    return str(root)


def test_any_prepared_tfds_data_set_is_read(prepared):
    dataset = loading.load_dataset("tfds:tiny", prepared, image_shape=(6, 6, 1))
    assert dataset.class_names == ("cat", "dog") and dataset.image_shape == (6, 6, 1)
    assert dataset.splits["train"].labels.tolist() == [0, 1] * 6
    assert prepared not in dataset.source


def test_a_split_whose_labels_are_hidden_is_left_out_and_said(prepared, capsys):
    dataset = loading.load_dataset("tfds:challenge", prepared, image_shape=(6, 6, 1))
    assert sorted(dataset.splits) == ["train", "validation"]
    assert skipped_lines(dataset.skipped) == ["left out: split test: its labels are hidden: all are -1"]
    with pytest.raises(DataError, match="tfds:closed has no split named train or test with labels. It has: train"):
        loading.load_dataset("tfds:closed", prepared, image_shape=(6, 6, 1))


def test_all_splits_of_a_tfds_data_set_count_together_before_any_is_read(prepared, monkeypatch):
    each = 12 * 64 * 64 * 3
    monkeypatch.setattr(memory, "container_limit", lambda: None)
    monkeypatch.setattr(memory, "machine", lambda: (memory.OTHERS + each * 3 // 2, 1 << 40))
    monkeypatch.setattr(_tfds, "_load_split", lambda *_: pytest.fail("read"))
    with pytest.raises(DataError, match=r"tfds:challenge: 24 images of \(64, 64, 3\) need 0.0 GiB of memory"):
        loading.load_dataset("tfds:challenge", prepared, image_shape=(64, 64, 3))


def test_images_of_many_sizes_ask_for_one(prepared):
    with pytest.raises(DataError, match='"data": {"image_shape": '):
        loading.load_dataset("tfds:tiny", prepared)


def test_missing_data_is_told_within_seconds():
    begin = time.perf_counter()
    with pytest.raises(DataMissing, match="TFDS_DATA_DIR"):
        loading.load_dataset("mnist")
    with pytest.raises(DataMissing, match="downloading is off"):
        loading.load_dataset("mnist", download=False)
    assert time.perf_counter() - begin < 30


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(DataError, match="Did you mean cifar10"):
        loading.load_dataset("tfds:cifar1")
    with pytest.raises(DataError, match="Known: cifar10, digits, mnist, shapes"):
        loading.load_dataset("digts")
    with pytest.raises(DataError, match="not for image classification"):
        loading.load_dataset("tfds:imdb_reviews")
    with pytest.raises(DataError, match="Data folder"):
        loading.load_dataset("mnist", "nowhere")


def test_a_host_that_never_answers_is_given_up_in_time():
    import socket

    with socket.socket() as silent:  # accepts, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begin = time.perf_counter()
        assert not _tfds.network_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.5)
        assert time.perf_counter() - begin < 10


def test_images_that_would_fill_memory_are_refused():
    with pytest.raises(DataError, match="Lower data.image_shape"):
        check_memory("huge", 10**9, (224, 224, 3))

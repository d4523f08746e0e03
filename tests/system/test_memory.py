"""Memory: images lie in it once, and what does not fit is told before it is read."""

import json
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line_error, small_npz

from kerascls.data import loading
from kerascls.data.batches import TrainingBatches, on_canvas, scoring_batches, shared
from kerascls.data.dataset import Dataset, Split
from kerascls.data.splits import with_all_splits
from kerascls.errors import DataError
from kerascls.system import memory

NET = """
import keras

def build(image_shape, num_classes):
    x = inputs = keras.Input(image_shape)
    x = keras.layers.AveragePooling2D(32)(keras.layers.Rescaling(1 / 255)(x))
    return keras.Model(inputs, keras.layers.Dense(num_classes, "softmax")(keras.layers.Flatten()(x)))
"""

PROGRAM = """
import json, re, sys, kerascls

def peak():  # not ru_maxrss, which begins with that of the process that starts this one
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) * 1024

def train(name, **data):
    tables = {"model": {"name": "./net.py"}, "data": {"validation": 0.1, "test": 0.1, **data}}
    kerascls.train("folder_scratch", data=name, epochs=1, batch_size=8, out=name + "-run", overrides={
        **tables, "train": {"warmup_epochs": 0}, "augment": {"policy": []}})

train("small.npz", image_shape=[224, 224, 3])
before = peak()
train(sys.argv[1], **json.loads(sys.argv[2]))
print(peak() - before)
"""


def growth(data, **tables):
    """Bytes by which the peak of a process that has trained already grows when it trains on `data`."""
    Path("net.py").write_text(NET)
    small_npz("small.npz", count=100, shape=(224, 224, 3))
    words = [sys.executable, "-c", PROGRAM, data, json.dumps({"image_shape": [224, 224, 3], **tables})]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return int(process.stdout.split()[-1])


LARGE = np.arange(1300 * 224 * 224 * 3, dtype=np.uint32).astype(np.uint8).reshape(1300, 224, 224, 3)  # 196 MB
LABELS = np.arange(1300) % 3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read a process's memory")
def test_an_npz_whose_splits_are_held_out_of_it_lies_in_memory_once():
    np.savez("large.npz", x_train=LARGE, y_train=LABELS)
    assert growth("large.npz") < 1.3 * LARGE.nbytes


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("turned", [False, True])
def test_an_npz_is_read_into_its_place(save, turned):
    images = np.ascontiguousarray(LARGE[:200])
    save("data.npz", x_train=np.asfortranarray(images) if turned else images, y_train=LABELS[:200])
    tracemalloc.start()
    try:
        read = loading.load_dataset("data.npz").splits["train"].images
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(read, images) and memory.can_be_shared(read)
    assert peak < (2.2 if turned else 1.2) * images.nbytes + 2e6  # of what lies the other way round, a copy is made


def test_an_npz_that_ends_early_is_damaged(capsys):
    small_npz("whole.npz", shape=(28, 28, 3))
    with zipfile.ZipFile("whole.npz") as whole, zipfile.ZipFile("data.npz", "w") as cut:
        for name in whole.namelist():
            cut.writestr(name, whole.read(name)[: -10 if name == "x_train.npy" else None])
    told = one_line_error("train", "mnist_cnn", "--data", "data.npz", capsys=capsys)
    assert "data.npz is not a whole .npz file of plain arrays, as np.savez writes: x_train ends 10 bytes too ea" in told


def numbered(count=60):
    """Images that carry their position, and an array that TensorFlow can share."""
    images = memory.empty((count, 4, 4, 3))
    images[:] = np.arange(count)[:, None, None, None]
    return Split.of(images, np.arange(count) % 3)


def test_held_out_splits_share_the_images_and_give_the_batches_of_copies():
    whole = numbered()
    dataset = Dataset("numbered", "here", ("a", "b", "c"), {"train": whole})
    splits = with_all_splits(dataset, 0.2, 0.2).splits
    assert sorted(splits) == ["test", "train", "validation"]
    for split in splits.values():
        assert split.images.array is whole.images and split.images.shape == (len(split), 4, 4, 3)
        copy = Split(whole.images[split.positions], split.labels, split.positions)
        assert np.array_equal(split.images, copy.images) and np.array_equal(split.images[3:5], copy.images[3:5])
        assert np.array_equal(split.images[7], copy.images[7])
        for make in (
            lambda examples: TrainingBatches(examples, 3, 8, seed=1).dataset(2).take(4),
            lambda examples: scoring_batches(examples, 3, 8),
        ):
            for (images, labels), (others, names) in zip(make(split), make(copy), strict=True):
                assert np.array_equal(images, others) and np.array_equal(labels, names)
    again = splits["train"].take(np.array([5, 2]))
    assert again.images.array is whole.images
    assert np.array_equal(again.images[:], whole.images[splits["train"].positions[[5, 2]]])


def test_tensorflow_shares_what_it_can_and_copies_the_rest():
    array = memory.empty((3, 5), np.float32)
    array[:] = 1
    variable = shared(array)
    array[2] = 7
    assert variable.numpy()[2].tolist() == [7] * 5 and variable.device.endswith("CPU:0")
    raw = np.zeros(1000, np.uint8)
    odd = raw[1 - raw.ctypes.data % memory.ALIGNMENT + memory.ALIGNMENT :][:300].reshape(100, 3)
    assert not memory.can_be_shared(odd) and shared(odd).shape == (100, 3)
    array.flags.writeable = False  # NumPy does not hand it out
    assert not memory.can_be_shared(array) and shared(array).shape == (3, 5)
    for images in (odd, array, array.T, memory.Rows(odd, np.array([7, 3]))):
        assert memory.can_be_shared(memory.shareable(images)) and np.array_equal(memory.shareable(images), images)


@pytest.mark.slow
def test_batches_are_gathered_on_the_host_whatever_the_device():
    """On a GPU: not run. A second CPU device stands in for it, in a process of its own."""
    program = """
from kerascls.system import memory
from kerascls.system.tensorflow import start
start(logical_cpus=2)
import numpy as np, tensorflow as tf
from kerascls.data.dataset import Split
from kerascls.data.batches import gathering
split = Split.of(memory.empty((4, 2, 2, 1)), np.arange(4) % 2)
with tf.device("CPU:1"):
    gather = gathering(split.take(np.array([0, 2])), 2)
print({cell.cell_contents.device[-5:] for cell in gather.__closure__ if hasattr(cell.cell_contents, "device")})
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.stdout == "{'CPU:0'}\n", process.stderr


OWN = """
import numpy as np
from kerascls.datasets import Dataset, Split

class_names, image_shape = ("a", "b"), (8, 8, 3)

def load():
    images = np.arange(7680, dtype=np.uint32).astype(np.uint8).reshape(40, 8, 8, 3)[:, ::-1]
    whole = Split.of(images, np.arange(40) % 2)
    splits = {"train": whole.take(np.arange(30)), "test": whole.take(np.arange(30, 40))}
    return Dataset("own", "here", class_names, splits)
"""


def test_own_data_is_brought_to_where_tensorflow_can_share_it():
    Path("my_data.py").write_text(OWN)
    expected = np.arange(7680, dtype=np.uint32).astype(np.uint8).reshape(40, 8, 8, 3)[:, ::-1]
    splits = loading.load_dataset("./my_data.py").splits
    assert np.array_equal(splits["train"].images, expected[:30]) and np.array_equal(
        splits["test"].images, expected[30:]
    )
    assert all(memory.can_be_shared(split.images) for split in splits.values())


# What there is


GIB = 1 << 30


@pytest.fixture
def machine(monkeypatch):
    """Sets how much memory there is, how much of it is free, and a container's limit."""

    def say(total, free=None, container=None):
        monkeypatch.setattr(memory, "machine", lambda: (total, total if free is None else free))
        monkeypatch.setattr(memory, "container_limit", lambda: container)

    return say


@pytest.mark.parametrize("total", [4, 8, 24, 256])
def test_data_of_sixty_percent_of_memory_fits_and_of_eighty_does_not(machine, total):
    machine(total * GIB)
    assert memory.fits(total * GIB * 6 // 10) and not memory.fits(total * GIB * 8 // 10)


def test_what_does_not_fit_is_one_line_with_what_is_needed_what_there_is_and_what_to_do(machine):
    machine(16 * GIB)
    with pytest.raises(DataError) as told:
        memory.check("Images", 13 * GIB, "Do this.")
    assert (
        str(told.value) == "Images need 13.0 GiB of memory; at most 12.0 GiB of this machine's 16.0 is used. Do this."
    )
    machine(16 * GIB, container=2 * GIB)
    with pytest.raises(DataError, match="at most 1.0 GiB of this container's 2.0 is used"):
        memory.check("Images", 2 * GIB, "")
    machine(16 * GIB, free=3 * GIB)
    with pytest.raises(DataError, match="need 4.0 GiB of memory; 3.0 GiB is free at present. Close other programs"):
        memory.check("Images", 4 * GIB, "")
    machine(16 * GIB)
    memory.check("Copies", 4 * GIB, "", held=8 * GIB)
    with pytest.raises(DataError, match="Copies need 5.0 GiB of memory beside the 8.0 GiB of the images; at most 12.0"):
        memory.check("Copies", 5 * GIB, "", held=8 * GIB)


def test_all_splits_of_an_npz_count_together_and_what_they_are_brought_to(machine):
    images = np.zeros((100, 64, 64, 3), np.uint8)
    np.savez("data.npz", x_train=images, y_train=LABELS[:100], x_test=images, y_test=LABELS[:100])
    machine(GIB + images.nbytes * 5 // 2)
    loading.load_dataset("data.npz")
    machine(GIB + images.nbytes * 3 // 2)
    with pytest.raises(DataError, match="data.npz: its arrays need 0.0 GiB of memory"):
        loading.load_dataset("data.npz")
    machine(GIB + images.nbytes * 5)
    with pytest.raises(DataError, match="Make a folder of images of it"):
        loading.load_dataset("data.npz", image_shape=(128, 128, 3))
    loading.load_dataset("data.npz", image_shape=(32, 32, 3))


def test_a_canvas_counts_beside_the_images(machine):
    whole = numbered()
    machine(GIB + 3 * whole.images.nbytes)
    with pytest.raises(DataError, match=r"The 60 training images at data.canvas = \[8, 8\] need"):
        on_canvas(whole, (8, 8), 0)
    machine(GIB + 6 * whole.images.nbytes)
    assert on_canvas(whole.take(np.arange(50)), (8, 8), 0).images.shape == (50, 8, 8, 3)


# Control groups: (files, limit). Of version 2 and 1, nested, inside a container that knows its host's names, without
# a limit, of both versions.
GROUPS = {
    "2": ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, None),
    "2, limited": ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "5000\n"}, 5000),
    "2, nested": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/memory.max": "5000\n",
            "sys/fs/cgroup/a/memory.max": "3000\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
        3000,
    ),
    "2, of its own": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4000\n"}, 4000),
    "2, outside": ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/memory.max": "4000\n"}, 4000),
    "1": (
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n1:name=systemd:/docker/x\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "6000\n",
        },
        6000,
    ),
    "1, nested": (
        {
            "proc/self/cgroup": "4:memory:/a/b\n0::/\n",
            "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "7000\n",
        },
        7000,
    ),
    "none": ({}, None),
}


@pytest.mark.parametrize("groups", GROUPS)
def test_the_limit_of_a_container_is_read(groups, tmp_path):
    files, expected = GROUPS[groups]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.container_limit(tmp_path) == expected


def test_a_machine_that_does_not_say_is_taken_for_one_of_eight_gib(monkeypatch):
    import psutil

    def fail():
        raise FileNotFoundError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    assert memory.machine() == (8 * GIB, 8 * GIB)


def test_rows_are_indexed_by_several_axes_as_an_array_is():
    array = np.arange(24).reshape(4, 3, 2)
    rows = memory.Rows.of(array, np.array([2, 0, 3]))
    for at in ((slice(None), 0, 1), (..., 1), (1, 2), ([0, 2], slice(1, 3))):
        assert np.array_equal(rows[at], array[[2, 0, 3]][at])

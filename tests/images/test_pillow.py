"""The road without TensorFlow, held against `images` over every kind of file."""

import importlib.util
import struct

import numpy as np
import pytest
import tensorflow as tf
from conftest import odd_files
from PIL import Image

from kerascls.errors import DataError
from kerascls.images import pillow, read, resize
from kerascls.images.files import encode_png

ODD = odd_files()
NOT_ALIKE = {"raw colour 16 clear.png": "a PNG of 16-bit colours, one of them transparent"}


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "gif", "webp", "tiff"])
def test_every_kind_gives_the_bits_that_tensorflow_gives(tmp_path, kind):
    """JPEGs too, with the libjpeg of this Pillow and of this TensorFlow; a step is allowed where those differ."""
    names = sorted(name for name in ODD if name.endswith(f".{kind}") and name not in NOT_ALIKE)
    assert len(names) >= 6
    for name in names:
        (tmp_path / name).write_bytes(ODD[name])
    for background in ((255, 255, 255), (10, 200, 30)):
        for channels in (1, 3):
            shape = (37, 50, channels)
            paths = [tmp_path / name for name in names]
            expected = read.read_batch(paths, shape, background)
            for name, ours, theirs in zip(names, pillow.read_batch(paths, shape, background), expected, strict=True):
                assert ours.dtype == np.uint8 and ours.shape == shape, name
                steps = np.abs(ours.astype(int) - theirs).max()
                assert steps <= (1 if kind == "jpeg" else 0), name


def test_what_cannot_be_done_alike_is_refused_in_one_line(tmp_path):
    for name, what in NOT_ALIKE.items():
        (tmp_path / name).write_bytes(ODD[name])
        read.read_pixels(tmp_path / name, (37, 50, 3))
        with pytest.raises(DataError) as caught:
            pillow.read_pixels(tmp_path / name, (37, 50, 3))
        assert str(caught.value) == f"{tmp_path / name}: is {what}, which only a model that TensorFlow opens reads."


@pytest.mark.parametrize(
    "place, size, clear, alike",
    [
        ((0, 0), (6, 5), None, True),
        ((0, 0), (6, 5), 2, True),
        ((0, 0), (8, 9), None, True),
        ((1, 1), (4, 3), None, False),
        ((0, 0), (6, 4), None, False),
    ],
)
def test_the_first_picture_of_a_gif(tmp_path, place, size, clear, alike):
    """On a canvas of 6x5. TensorFlow makes transparent pixels black, and lays smaller pictures out in its own way."""
    table = bytes([10, 20, 30, 200, 100, 50, 0, 255, 0, 90, 90, 90])
    codes = [code for i in range(size[0] * size[1]) for code in (4, i % 4)] + [5]  # LZW that is cleared every pixel
    bits = "".join(f"{code:03b}"[::-1] for code in codes)
    data = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    control = b"\x21\xf9\x04" + struct.pack("<BHBB", 1, 0, clear, 0) if clear is not None else b""
    picture = b"\x2c" + struct.pack("<HHHHB", *place, *size, 0) + b"\x02" + bytes([len(data)]) + data + b"\0"
    path = tmp_path / "first.gif"
    path.write_bytes(b"GIF89a" + struct.pack("<HHBBB", 6, 5, 0xF1, 0, 0) + table + control + picture + b";")
    expected = read.read_pixels(path, (5, 6, 3))
    if alike:
        assert np.array_equal(pillow.read_pixels(path, (5, 6, 3)), expected)
    else:
        with pytest.raises(DataError, match="leaves a part of its canvas bare, which only a model that TensorFlow"):
            pillow.read_pixels(path, (5, 6, 3))


@pytest.mark.parametrize("rule", ["stretch", "nearest", pytest.param("cover", marks=pytest.mark.slow), "center_crop"])
def test_resizing_gives_tensorflows_bits(rule):
    generator = np.random.default_rng(0)
    sizes = [
        (1, 1, 7, 9),
        (300, 200, 1, 1),
        (64, 100, 28, 28),
        (28, 28, 64, 64),
        (375, 500, 224, 224),
        (480, 4, 4, 480),
    ]
    sizes += [tuple(generator.integers(1, 200, 4).tolist()) for _ in range(60)]
    for h, w, height, width in sizes:
        image = generator.integers(0, 256, (h, w, 3), np.uint8)
        try:
            expected = resize.resize(tf.constant(image), height, width, rule).numpy()
        except tf.errors.InvalidArgumentError:  # a cut that the rule cannot make
            continue
        assert np.array_equal(pillow.resize(image, height, width, rule), expected), (h, w, height, width)
    flat = np.full((90, 70, 1), 77, np.uint8)
    assert np.array_equal(pillow.resize(flat, 28, 28), np.full((28, 28, 1), 77, np.uint8))


def test_gray_is_the_stated_formula():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [77, 77, 77]]], np.uint8)
    # (299 * 255 + 500) // 1000 = 76, (587 * 255 + 500) // 1000 = 150, (114 * 255 + 500) // 1000 = 29
    assert pillow.to_channels(colours, 1).ravel().tolist() == [76, 150, 29, 77]


def test_cut_and_damaged_files_are_refused_or_give_the_same_pixels(tmp_path, capfd):
    """A file that one road reads, the other reads alike or refuses; a cut one is refused by both."""
    generator = np.random.default_rng(1)
    path = tmp_path / "file"
    for name in sorted(ODD)[::3]:
        whole = ODD[name]
        damaged = bytearray(whole)
        damaged[int(generator.integers(8, len(whole)))] ^= 1 << int(generator.integers(8))
        for content in (whole[: int(generator.integers(1, len(whole)))], whole[:-1], bytes(damaged), whole + b"more"):
            path.write_bytes(content)
            answers = []
            for road in (read, pillow):
                try:
                    answers.append(road.read_pixels(path, (20, 20, 3)))
                except DataError as error:
                    assert str(path) in str(error)
            assert len(answers) < 2 or np.array_equal(*answers), name
    capfd.readouterr()  # the decoders' own remarks


def test_damaged_orientations_are_none(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpeg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)).save(path, exif=exif.tobytes())
    data = path.read_bytes()
    at = data.index(b"Exif\0\0") + 6
    for damage in (
        data,
        data[: at + 4] + b"\xff\xff\xff\xff" + data[at + 8 :],  # directory outside the file
        data[: at + 8] + b"\xff\xff" + data[at + 10 :],  # 65,535 entries
        data[: at + 18] + b"\x00\x63" + data[at + 20 :],  # orientation 99 or 25,344
        data.replace(b"Exif\0\0", b"Exit\0\0"),
    ):
        path.write_bytes(damage)
        assert np.array_equal(pillow.read_pixels(path, (24, 16, 3)), read.read_pixels(path, (24, 16, 3)))


def test_a_broken_file_costs_no_other(tmp_path):
    (tmp_path / "good.png").write_bytes(encode_png(np.full((4, 4, 3), 9, np.uint8)))
    (tmp_path / "text.png").write_text("hello")
    good, text, nowhere = pillow.read_batch([tmp_path / n for n in ("good.png", "text.png", "nowhere")], (4, 4, 3))
    assert np.array_equal(good, np.full((4, 4, 3), 9, np.uint8))
    assert "is not an image" in str(text) and "cannot be read" in str(nowhere)


def test_this_road_imports_no_tensorflow():
    source = importlib.util.find_spec("kerascls.images.pillow").loader.get_source("kerascls.images.pillow")
    assert "import tensorflow" not in source and "kerascls.images import" not in source

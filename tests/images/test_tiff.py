"""TIFF files of every kind, written by hand: the right pixels by the stated rule, or a refusal that names the mode."""

import numpy as np
import pytest
from PIL import Image
from tiffs import tiff

from kerascls.errors import DataError
from kerascls.images import pillow
from kerascls.images.files import Upload
from kerascls.images.read import read_pixels

ORDERS = ("<", ">")
RANDOM = np.random.default_rng(0)
COMPRESSIONS = {"raw": 1, "deflate": 8}


def noise(most, *shape, dtype="u2"):
    return RANDOM.integers(0, most + 1, shape).astype(dtype)


def read(content):
    """uint8 `(h, w, 3)` by the road of TensorFlow, which must be that of Pillow and NumPy."""
    upload = Upload(content, "a.tif")
    size = pillow.decode(pillow.read_encoded(upload)).shape
    found = read_pixels(upload, size)
    assert np.array_equal(found, pillow.read_pixels(upload, size))
    return found


def gray(expected):
    return np.repeat(expected[..., None], 3, -1)


def refused(content):
    with pytest.raises(DataError) as error:
        read(content)
    assert "\n" not in str(error.value) and str(error.value).startswith("a.tif: is a TIFF of ")
    return str(error.value).removeprefix("a.tif: is a TIFF of ")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_integers_of_16_bits_keep_their_high_byte_in_either_byte_order(order, compression):
    ramp = np.tile(np.linspace(0, 65535, 64).astype("u2"), (64, 1))
    found = read(tiff(ramp, order, compression=compression))
    assert np.array_equal(found[0, :, 0], np.linspace(0, 65535, 64).astype(int) // 256) and found.mean() == 127.5
    image = noise(65535, 40, 50)
    for layout in ({}, {"tile": 16}, {"rows": 7}):
        assert np.array_equal(read(tiff(image, order, compression=compression, **layout)), gray(image >> 8)), layout
    for count in (3, 4):
        colours = noise(65535, 6, 10, count)
        colours[..., 3:] = 65535
        content = tiff(colours, order, compression=compression, more=[(338, [2])] if count == 4 else [])
        assert np.array_equal(read(content), colours[..., :3] >> 8)


@pytest.mark.parametrize("order, compression", [("<", 1), ("<", 8), (">", 1)])
def test_floats_from_0_to_1_become_0_to_255(order, compression):
    image = np.array([[0, 1, 0.5, 0.25], [1 / 255, 254 / 255, 0.501, 0.4999]], np.float32)
    expected = np.array([[0, 255, 128, 64], [1, 254, 128, 127]])
    assert np.array_equal(read(tiff(image, order, compression=compression)), gray(expected))
    assert np.array_equal(read(tiff(image, order, compression=compression, tile=16)), gray(expected))
    assert read(tiff(image, order, photometric=0))[0, 0, 0] == 255  # 0 is white
    upright = read(tiff(image, order, compression=compression, more=[(274, [6])]))
    assert np.array_equal(upright, gray(np.rot90(expected, -1)))
    for wrong in (2.0, -0.5, np.nan):
        outside = image.copy()
        outside[1, 1] = wrong
        assert refused(tiff(outside, order, compression=compression)).startswith(
            "floats that are not all finite, which are read from 0 to 1: " if np.isnan(wrong) else "floats from "
        )
    assert refused(tiff(image * 255, order, compression=compression)) == (
        "floats from 0 to 255, which are read from 0 to 1: scale them to that, or convert it to 8 or 16 bits."
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_modes_of_8_bits_and_less(order, compression):
    def found(samples, **more):
        return read(tiff(samples, order, compression=compression, **more))

    for bits in (1, 2, 4, 8):
        image = noise(2**bits - 1, 9, 13)
        image = image if bits < 8 else image.astype("u1")
        expected = gray(image * (255 // (2**bits - 1)))
        assert np.array_equal(found(image, bits=bits), expected), bits
        assert np.array_equal(found(image, bits=bits, photometric=0), 255 - expected), bits
        colour_map = noise(65535, 3, 2**bits)
        palette = found(image, bits=bits, photometric=3, more=[(320, colour_map.ravel().tolist())])
        assert np.array_equal(palette, (colour_map.T >> 8)[image]), bits
    for planar in (1, 2):
        colours = noise(255, 6, 10, 4, dtype="u1")
        assert np.array_equal(found(colours[..., :3].copy(), planar=planar), colours[..., :3])
        cyan, black = colours[..., :3].astype(int), colours[..., 3:].astype(int)
        ink = found(colours, planar=planar, photometric=5)
        assert np.abs(ink - (255 - cyan) * (255 - black) / 255).max() <= 1
        alpha = colours[..., 3:] / 255
        over = found(colours, planar=planar, more=[(338, [2])])
        assert np.abs(over - (alpha * colours[..., :3] + (1 - alpha) * 255)).max() <= 0.51
    turned = noise(255, 4, 5, 3, dtype="u1")
    for orientation, upright in {3: turned[::-1, ::-1], 6: np.rot90(turned, -1), 8: np.rot90(turned)}.items():
        assert np.array_equal(found(turned, more=[(274, [orientation])]), upright)


def test_12_bits_and_bigtiff():
    image = noise(4095, 6, 10)
    assert np.array_equal(read(tiff(image, bits=12)), gray(image >> 4))
    image = noise(65535, 6, 10)
    assert np.array_equal(read(tiff(image, big=True)), gray(image >> 8))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
@pytest.mark.parametrize(
    "samples, more, mode",
    [
        (noise(99, 6, 10, dtype="i1"), {}, "8-bit signed integers (gray"),
        (noise(999, 6, 10, dtype="i2"), {}, "16-bit signed integers (gray"),
        (noise(999, 6, 10, dtype="i4"), {}, "32-bit signed integers (gray"),
        (noise(999, 6, 10, dtype="u4"), {}, "32-bit unsigned integers (gray"),
        (noise(999, 6, 10, dtype="u8"), {}, "64-bit unsigned integers (gray"),
        (noise(1, 6, 10, dtype="f2"), {}, "16-bit floats (gray"),
        (noise(1, 6, 10, dtype="f8"), {}, "64-bit floats (gray"),
        (noise(1, 6, 10, 3, dtype="f4"), {}, "32-bit floats (RGB, 3 samples"),
        (noise(1, 6, 10, dtype="c8"), {}, "64-bit complex floats (gray"),
        (noise(255, 6, 10, 3, dtype="u1"), {"photometric": 8}, "8-bit unsigned integers (CIELAB, 3 samples"),
        (noise(255, 6, 10, 3, dtype="u1"), {"photometric": 6}, "8-bit unsigned integers (YCbCr, 3 samples, subsampled"),
        (noise(255, 6, 10, 5, dtype="u1"), {"photometric": 1}, "8-bit unsigned integers (gray, 5 samples"),
        (noise(999, 6, 10, 3), {"planar": 2}, "16-bit unsigned integers (RGB, 3 samples, in planes"),
        (noise(999, 6, 10, 2), {}, "16-bit unsigned integers (gray, 2 samples"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mode_that_is_not_read_is_refused_by_name(samples, more, mode, order, compression):
    message = refused(tiff(samples, order, compression=compression, **more))
    assert message.startswith(mode)
    assert message.endswith("), which kerascls does not read: convert it to PNG, or to 8 bits a sample.")


def test_modes_that_only_some_byte_orders_have():
    assert refused(tiff(noise(9, 6, 10), ">", big=True)).startswith("16-bit unsigned integers (gray, big-endian, BigTI")
    assert refused(tiff(noise(9, 6, 10), ">", photometric=0)).startswith("16-bit unsigned integers (gray, 0 is white")
    floats = noise(1, 6, 10, dtype="f4")
    assert refused(tiff(floats, ">", compression=8)).startswith("32-bit floats (gray, big-endian, compressed)")


@pytest.mark.parametrize("order", ORDERS)
def test_a_cameras_own_pixels_are_called_raw(order):
    sensor = tiff(noise(9, 6, 10), order, photometric=32803)
    negative = tiff(noise(255, 6, 10, 3, dtype="u1"), order, more=[(50706, [1, 4])])  # DNGVersion beside a preview
    for content in (sensor, negative):
        with pytest.raises(DataError, match="is camera RAW, which kerascls does not read: convert it to JPEG or PNG"):
            read(content)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "group4", "jpeg", "tiff_adobe_deflate"])
def test_other_compressions(compression, tmp_path):
    mode = "1" if compression == "group4" else "RGB" if compression == "jpeg" else "I;16"
    image = noise(65535, 33, 50) if mode == "I;16" else noise(255, 33, 50, 3, dtype="u1") // 8 + 100
    source = Image.fromarray(image) if mode == "I;16" else Image.fromarray(image).convert(mode)
    info = {317: 2} if compression in ("tiff_lzw", "tiff_adobe_deflate") else {}
    source.save(tmp_path / "a.tif", compression=compression, tiffinfo=info)
    expected = gray(image >> 8) if mode == "I;16" else np.asarray(source.convert("RGB")).astype(int)
    assert np.abs(read((tmp_path / "a.tif").read_bytes()) - expected).max() <= (40 if compression == "jpeg" else 0)


def test_a_tiff_in_a_folder_is_streamed_as_it_is_read(tmp_path):
    from kerascls.data import loading

    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "b").mkdir()
    every = {name: noise(65535, 8, 8) for name in ("a/0.tif", "a/1.tif", "b/0.tif", "b/1.tif")}
    for i, (name, image) in enumerate(every.items()):
        (tmp_path / "d" / name).write_bytes(tiff(image, "<>"[i % 2], big=i == 2))
    for cache_mb in (0, 10):
        split = loading.load_dataset(str(tmp_path / "d"), image_shape=(8, 8, 1), cache_mb=cache_mb).splits["all"]
        for name, image in zip(split.origin.names, split.images[:], strict=True):
            assert np.array_equal(image[..., 0], every[name] >> 8)

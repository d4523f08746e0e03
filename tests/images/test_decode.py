"""The one road from bytes to a tensor, held against Pillow where Pillow and we mean the same."""

import io

import numpy as np
import pytest
import tensorflow as tf
from conftest import odd_files
from PIL import Image

from kerascls.errors import DataError, TooLarge
from kerascls.images import decode, files, read, resize
from kerascls.images.pillow import resize as resize_by_pillow

GENERATOR = np.random.default_rng(0)
RGB = GENERATOR.integers(0, 256, (9, 7, 3), np.uint8)
WHITE = (255, 255, 255)


def encoded(image, kind, **options):
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def decoded(data, background=WHITE):
    return decode.decode(tf.constant(data), background).numpy()


@pytest.mark.parametrize("kind, options", [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
def test_lossless_kinds_give_pillows_pixels(kind, mode, options):
    image = Image.fromarray(RGB).convert(mode)
    if kind == "WEBP" and mode in ("P", "1"):
        image = image.convert("RGB")
    data = encoded(image, kind, **options)
    again = Image.open(io.BytesIO(data))
    assert np.array_equal(decoded(data), np.asarray(again.convert("RGB")))


def test_first_frame_of_an_animation_is_taken():
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 200)]
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(decoded(data), np.full((8, 8, 3), 10, np.uint8)), kind


def test_alpha_lies_over_the_background():
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]], np.uint8)
    data = encoded(Image.fromarray(rgba), "PNG")
    # (128 * 200 + 127 * 255 + 127) // 255 = 227, (128 * 100 + 127 * 255 + 127) // 255 = 177, ... 0: 127
    assert decoded(data).tolist() == [[[200, 100, 0], [255, 255, 255], [227, 177, 127]]]
    assert decoded(data, (0, 0, 0)).tolist() == [[[200, 100, 0], [0, 0, 0], [100, 50, 0]]]
    assert decoded(encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)).tolist() == decoded(data).tolist()


def test_gray_with_alpha_and_palette_with_transparency():
    gray = np.array([[[40, 255], [40, 0]]], np.uint8)
    image = Image.merge("LA", [Image.fromarray(gray[..., 0]), Image.fromarray(gray[..., 1])])
    assert decoded(encoded(image, "PNG")).tolist() == [[[40] * 3, [255] * 3]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    data = encoded(palette, "PNG", transparency=1)
    assert decoded(data).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_below_eight_bits_are_opaque_unless_they_say_otherwise(bits):
    palette = Image.fromarray(np.array([[0, 1, 1, 0]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    for kind in ("PNG", "BMP") if bits != 2 else ("PNG",):
        data = encoded(palette, kind, bits=bits)
        assert decoded(data)[0, :, 0].tolist() == [10, 40, 40, 10], kind
    data = encoded(palette, "PNG", bits=bits, transparency=1)
    assert decoded(data)[0, :, 0].tolist() == [10, 255, 255, 10]


def test_sixteen_bits_keep_their_high_byte():
    wide = np.array([[0x0000, 0x01FF, 0xFF00, 0xFFFF]], np.uint16)
    assert decoded(encoded(Image.fromarray(wide), "PNG"))[0, :, 0].tolist() == [0, 1, 255, 255]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_near_pillows(mode):
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(x) for x in (smooth, smooth.T.copy(), 255 - smooth)]).convert(mode)
    data = encoded(image, "JPEG", quality=95)
    pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decoded(data).astype(int) - pillow).max() <= 3


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_as_pillow_does(orientation, byte_order):
    from PIL import ImageOps

    image = Image.fromarray(np.kron(RGB[:2, :3], np.ones((8, 8, 1), np.uint8)))
    exif = Image.Exif()
    exif.endian = "<" if byte_order == "little" else ">"
    exif[0x0110] = "a camera"  # entries before and behind the one that counts
    exif[0x0112] = orientation
    exif[0x0131] = "a program"
    data = encoded(image, "JPEG", quality=95, exif=exif.tobytes(), comment=b"a segment of another kind")
    plain = decode.decode(tf.constant(encoded(image, "JPEG", quality=95))).numpy()
    upright = np.asarray(ImageOps.exif_transpose(_with_exif(plain, orientation)))
    assert np.array_equal(decoded(data), upright)


def _with_exif(pixels, orientation):
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return image


def test_damaged_exif_is_no_orientation():
    image = Image.fromarray(np.kron(RGB[:2, :3], np.ones((8, 8, 1), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", exif=exif.tobytes())
    at = data.index(b"Exif\0\0") + 6
    for damage in (
        data[: at + 4] + b"\xff\xff\xff\xff" + data[at + 8 :],  # directory outside the file
        data[: at + 8] + b"\xff\xff" + data[at + 10 :],  # 65,535 entries
        data[: at + 18] + b"\x00\x63" + data[at + 20 :],
    ):  # orientation 99 or 25,344
        assert decoded(damage).shape in ((16, 24, 3), (24, 16, 3))


def test_rgb_to_gray_is_the_stated_formula_and_gray_stays_gray():
    colours = tf.constant([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [77, 77, 77]]], tf.uint8)
    # (299 * 255 + 500) // 1000 = 76, (587 * 255 + 500) // 1000 = 150, (114 * 255 + 500) // 1000 = 29
    assert resize.to_channels(colours, 1).numpy().ravel().tolist() == [76, 150, 29, 77]


def test_gray_is_the_formula_of_whole_numbers_for_every_colour():
    levels = np.arange(256)
    for red in range(0, 256, 15):
        r, g, b = (x.ravel() for x in np.meshgrid([red], levels, levels))
        colours = np.stack([r, g, b], -1).astype(np.uint8)[None]
        expected = (299 * r + 587 * g + 114 * b + 500) // 1000
        assert np.array_equal(resize.to_channels(tf.constant(colours), 1).numpy().ravel(), expected)
    sums = np.arange(500, 255_501)  # all that there can be
    assert np.array_equal((sums.astype(np.float32) * np.float32(0.001)).astype(np.uint8), sums // 1000)


def test_resize_to_the_same_size_is_the_identity_and_antialiases():
    assert np.array_equal(resize.resize(tf.constant(RGB), 9, 7).numpy(), RGB)
    stripes = np.tile(np.array([0, 255], np.uint8), 32)[None, :, None].repeat(64, 0)
    assert np.abs(resize.resize(tf.constant(stripes), 8, 8).numpy().astype(int) - 127.5).max() <= 20


def test_the_kind_is_told_by_content_not_by_suffix(tmp_path):
    (tmp_path / "really_png.JPG").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    assert np.array_equal(read.read_pixels(tmp_path / "really_png.JPG", (9, 7, 3)), RGB)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "CMYK", "I;16"])
def test_tiff_comes_through_pillow(tmp_path, mode):
    image = (
        Image.fromarray(RGB[..., 0].astype(np.uint16) * 256 + 7)
        if mode == "I;16"
        else Image.fromarray(RGB).convert(mode)
    )
    image.save(tmp_path / "image.tif")
    pixels = read.read_pixels(tmp_path / "image.tif", (9, 7, 3))
    expected = RGB[..., :1].repeat(3, 2) if mode == "I;16" else np.asarray(image.convert("RGB"))
    assert np.array_equal(pixels, expected)


def test_what_is_not_an_image_is_told(tmp_path):
    png, jpeg = encoded(Image.fromarray(RGB), "PNG"), encoded(Image.fromarray(RGB), "JPEG")
    for name, content, reason in [
        ("empty.png", b"", "is empty"),
        ("text.png", b"hello there", "is not an image"),
        ("cut.png", png[: len(png) // 2], "does not decode"),
        ("cut.jpg", jpeg[: len(jpeg) // 2], "does not decode"),
        ("cut.gif", b"GIF89a\x01", "does not decode"),
        ("cut.bmp", b"BM\x01", "does not decode"),
        ("cut.webp", b"RIFF\x01\x00\x00\x00WEBPVP8 ", "does not decode"),
        ("cut.tif", b"II*\0\x08", "does not decode"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=reason):
            read.read_pixels(tmp_path / name, (9, 7, 3))
    with pytest.raises(DataError, match="cannot be read"):
        read.read_pixels(tmp_path / "nowhere.png", (9, 7, 3))


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_PIXELS", 62)
    (tmp_path / "big.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    with pytest.raises(DataError, match="9 pixels"):
        read.read_pixels(tmp_path / "big.png", (9, 7, 3))


def test_encode_png_round_trips():
    for image in (RGB, RGB[..., :1]):
        assert np.array_equal(
            resize.to_channels(decode.decode(tf.constant(files.encode_png(image))), image.shape[2]), image
        )


@pytest.mark.parametrize("size", [(9, 7), (40, 31), (16, 33), (5, 50), (32, 24)])
def test_nearest_is_pillows(size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    ours = resize.resize(tf.constant(image), 16, 12, "nearest").numpy()
    assert np.array_equal(ours, np.asarray(Image.fromarray(image).resize((12, 16), Image.Resampling.NEAREST)))


def test_center_crop_scales_the_shorter_side_to_eight_sevenths_and_cuts():
    wide = np.random.default_rng(1).integers(0, 256, (64, 100, 3), np.uint8)
    out = resize.resize(tf.constant(wide), 28, 28, "center_crop").numpy()
    whole = resize.resize(tf.constant(wide), 32, 50).numpy()  # 28 * 8 / 7 = 32, 100 * 32 / 64 = 50
    assert np.array_equal(out, whole[2:30, 11:39])
    tall = resize.resize(tf.constant(wide.transpose(1, 0, 2)), 28, 28, "center_crop").numpy()
    assert np.array_equal(tall, out.transpose(1, 0, 2))
    assert np.array_equal(
        resize.resize(tf.constant(whole), 28, 25, "cover").numpy(),
        resize.resize(tf.constant(whole), 28, 43).numpy()[:, 9:34],
    )
    for rule in ("stretch", "nearest", "cover", "center_crop"):
        if rule != "center_crop":
            assert np.array_equal(resize.resize(tf.constant(wide), 64, 100, rule).numpy(), wide), rule
        both = resize.resize(tf.constant(np.stack([wide, wide])), 28, 28, rule).numpy()
        assert np.array_equal(both[1], resize.resize(tf.constant(wide), 28, 28, rule).numpy()), rule


SIZES = [(224, 224), (225, 225), (256, 256), (299, 256), (256, 299), (300, 257), (257, 511), (1, 1), (7, 90), (90, 7)]
SIZES += [(223, 333), (500, 375), (375, 501), (33, 32), (28, 28), (31, 29), (100, 1), (1, 100), (37, 1234)]


def torchvision(image, target):
    """Resize(round(target * 8 / 7)) and CenterCrop(target), by the formulas of torchvision.transforms.functional."""
    h, w = image.shape[:2]
    short = round(target * 8 / 7)
    new_h, new_w = (short, int(short * w / h)) if h <= w else (int(short * h / w), short)
    whole = resize.resize(tf.constant(image), new_h, new_w).numpy()
    top, left = int(round((new_h - target) / 2.0)), int(round((new_w - target) / 2.0))
    return whole[top : top + target, left : left + target]


@pytest.mark.parametrize("target", [224, 28, 31, 96, 299, 1])
def test_center_crop_is_torchvisions_to_the_pixel(target):
    generator = np.random.default_rng(0)
    for h, w in SIZES if target in (28, 31) else SIZES[::3]:
        image = generator.integers(0, 256, (h, w, 3), np.uint8)
        expected = torchvision(image, target)
        assert expected.shape == (target, target, 3)
        ours = resize.resize(tf.constant(image), target, target, "center_crop").numpy()
        assert np.array_equal(ours, expected), (h, w)
        assert np.array_equal(resize_by_pillow(image, target, target, "center_crop"), expected), (h, w)


def test_center_crop_takes_the_margin_by_half_to_even():
    # 64 x 101 for 28: 32 x 50 (50.5 rounded down), margins 4 and 22; 64 x 106: 32 x 53, margin 25, of which 12 go
    # before; 64 x 110: 32 x 55, margin 27, of which 14 go before.
    ramp = np.arange(110, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    for width, size, left in ((101, 50, 11), (106, 53, 12), (110, 55, 14)):
        whole = resize.resize(tf.constant(ramp[:, :width]), 32, size).numpy()
        cut = resize.resize(tf.constant(ramp[:, :width]), 28, 28, "center_crop").numpy()
        assert np.array_equal(cut, whole[2:30, left : left + 28])


def test_a_canvas_holds_what_center_crop_takes():
    """Training on a canvas of 8/7 and cutting its middle is what evaluation sees, to the pixel."""
    generator = np.random.default_rng(0)
    for h, w in SIZES[:12]:
        image = generator.integers(0, 256, (h, w, 3), np.uint8)
        canvas = resize.resize(tf.constant(image), 256, 256, "cover").numpy()
        evaluated = resize.resize(tf.constant(image), 224, 224, "center_crop").numpy()
        assert np.array_equal(canvas[16:240, 16:240], evaluated), (h, w)


def test_center_crop_cuts_images_of_the_models_own_size_wherever_they_come_from(tmp_path):
    from kerascls.data.loading import load_dataset

    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    expected = torchvision(image, 28)
    Image.fromarray(image[..., 0]).save(tmp_path / "a.png")
    assert np.array_equal(read.read_pixels(tmp_path / "a.png", (28, 28, 1), rule="center_crop"), expected)
    np.savez(tmp_path / "a.npz", x_train=image[None, ..., 0], y_train=[0], x_test=image[None, ..., 0], y_test=[0])
    for shape in ((28, 28, 1), None):  # None: the data's own
        data = load_dataset(str(tmp_path / "a.npz"), image_shape=shape, resize="center_crop")
        assert np.array_equal(data.splits["train"].images[0], expected), shape
    digits = load_dataset("digits")
    cut = load_dataset("digits", image_shape=digits.image_shape, resize="center_crop")
    assert np.array_equal(cut.splits["test"].images[0], torchvision(digits.splits["test"].images[0], 28))


ODD = odd_files()


@pytest.mark.parametrize(
    "shape, rule",
    [
        ((28, 28, 1), "stretch"),
        pytest.param((24, 32, 3), "center_crop", marks=pytest.mark.slow),
        pytest.param((24, 32, 3), "nearest", marks=pytest.mark.slow),
    ],
)
def test_a_batch_of_all_kinds_is_what_the_graph_of_all_kinds_gives(tmp_path, shape, rule):
    """`read_batch` has a graph a kind, an export one for all: the same bits. A broken file costs no other."""
    names = sorted(ODD)
    for name in names:
        (tmp_path / name).write_bytes(ODD[name])
    broken = tmp_path / "broken.jpeg"
    broken.write_bytes(ODD["RGB 50x37.jpeg"][:300])
    paths = [tmp_path / name for name in names]
    out = read.read_batch([*paths[:40], broken, *paths[40:]], shape, WHITE, rule)
    assert str(out.pop(40)) == f"{broken}: does not decode as jpeg: it is cut short or damaged."
    whole = tf.function(lambda data: read.to_pixels(data, shape, WHITE, rule), autograph=False)
    for name, path, pixels in zip(names, paths, out, strict=True):
        assert np.array_equal(pixels, whole(tf.constant(files.read_encoded(path))).numpy()), name
        assert np.array_equal(pixels, read.read_pixels(path, shape, WHITE, rule)), name


def test_many_bytes_are_decoded_in_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "_HELD_BYTES", 2000)
    names = sorted(ODD)[:20]
    for name in names:
        (tmp_path / name).write_bytes(ODD[name])
    out = read.read_batch([tmp_path / name for name in names], (8, 8, 3))
    for name, pixels in zip(names, out, strict=True):
        assert np.array_equal(pixels, read.read_pixels(tmp_path / name, (8, 8, 3))), name


def test_an_upload_is_read_as_its_file_is(tmp_path):
    paths = [tmp_path / str(i) for i in range(len(ODD))]
    for path, encoded in zip(paths, ODD.values(), strict=True):
        path.write_bytes(encoded)
    uploads = [files.Upload(encoded, name) for name, encoded in ODD.items()]
    both = zip(ODD, read.read_batch(paths, (24, 20, 3)), read.read_batch(uploads, (24, 20, 3)), strict=True)
    for name, of_file, of_upload in both:
        assert type(of_file) is type(of_upload), (name, of_upload)
        if isinstance(of_file, np.ndarray):
            np.testing.assert_array_equal(of_file, of_upload, name)


def test_an_upload_is_refused_by_its_header():
    image = io.BytesIO()
    Image.new("RGB", (40, 30)).save(image, "PNG")
    small = files.Upload(image.getvalue(), "mine.png", max_pixels=1199)
    with pytest.raises(TooLarge, match="mine.png: has 40 x 30 pixels. At most 1,199"):
        files.read_encoded(small)
    with pytest.raises(DataError, match="the image: does not decode as jpeg: its header cannot be read"):
        files.read_encoded(files.Upload(b"\xff\xd8\xff" + bytes(50)))

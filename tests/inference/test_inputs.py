"""What may be given to be named, and that it all comes by one road; all else is refused untouched."""

import http.server
import io
import json
import os
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, here, one_line_error
from PIL import Image

import kerascls
from kerascls.errors import DataError
from kerascls.images import find
from kerascls.inference import urls

RELEASED = REPOSITORY / "saved_models" / "released" / "mnist_cnn"
SAMPLES = RELEASED / "samples"


@pytest.fixture(scope="module")
def classifier():
    return kerascls.load(RELEASED)


@pytest.fixture(scope="module")
def colour():
    """A classifier of RGB images of 6 x 5, whose answer depends on every channel."""
    import keras

    from kerascls.formats.card import Card
    from kerascls.inference.classifier import Classifier

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    return Classifier(Card(("a", "b", "c"), (6, 5, 3), (10, 200, 30)), model)


def encoded(image, kind="png", **options):
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


class Pieces(io.BytesIO):
    """A file that gives what it has in pieces, as a pipe does."""

    def read(self, most):
        return super().read(min(most, 100))


def seen(classifier, given):
    """The pixels that the model saw."""
    return [pixels for _, pixels in classifier.stream(given)]


# Kinds


def test_every_form_of_one_image_is_the_same_pixels_to_the_model(colour, tmp_path):
    import tensorflow as tf

    array = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    image = Image.fromarray(array)
    content = encoded(image)
    path = tmp_path / "a.png"
    path.write_bytes(content)
    (expected,) = colour.read([path])
    with path.open("rb") as file:
        forms = [
            str(path),
            path,
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            file,
            image,
            Image.open(path),
            array,
            tf.constant(array),
            tf.constant(content),
            np.str_(path),
            np.flip(np.flip(array, 0).copy(), 0),  # of negative strides
            Pieces(content),
        ]
        for form, pixels in zip(forms, seen(colour, forms), strict=True):
            assert np.array_equal(pixels, expected), type(form)
        file.seek(0)
        for form in (content, image, array, path, file):  # one as well as a list
            (pixels,) = seen(colour, form)
            assert np.array_equal(pixels, expected), type(form)
    (batch,) = {
        len(seen(colour, many))
        for many in (np.stack([array] * 3), tf.constant(np.stack([array] * 3)), np.array([path] * 3))
    }
    assert batch == 3
    assert [p.file for p in colour.predict([str(path), content, Image.open(path), array])] == [
        str(path),
        "image 1",
        str(path),
        "image 3",
    ]


def test_channels_and_transparency_are_as_in_files(colour, classifier):
    generator = np.random.default_rng(1)
    gray, rgba = generator.integers(0, 256, (6, 5), np.uint8), generator.integers(0, 256, (6, 5, 4), np.uint8)
    a, b = seen(colour, [gray, gray[..., None]])
    assert np.array_equal(a, np.stack([gray] * 3, -1)) and np.array_equal(a, b)
    alpha, rgb = rgba[..., 3:].astype(int), rgba[..., :3].astype(int)
    over = (alpha * rgb + (255 - alpha) * np.array([10, 200, 30]) + 127) // 255  # the card's background
    assert np.array_equal(seen(colour, rgba)[0], over)
    red = np.zeros((28, 28, 3), np.uint8)
    red[..., 0] = 255
    assert (seen(classifier, red)[0] == 76).all()  # 0.299 * 255


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pil_images_of_every_mode_answer_as_their_files(colour, mode):
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (6, 5, 3), np.uint8)).convert(mode)
    as_file = image if mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")
    assert np.array_equal(seen(colour, image)[0], seen(colour, encoded(as_file))[0])


def test_a_pil_image_is_turned_as_its_file_would_be(colour):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image = Image.fromarray(np.arange(90, dtype=np.uint8).reshape(5, 6, 3))
    jpeg = encoded(image, "jpeg", exif=exif, quality=95)
    turned = Image.open(io.BytesIO(jpeg))
    (expected,) = seen(colour, jpeg)
    assert np.abs(seen(colour, turned)[0].astype(int) - expected).max() <= 1  # Pillow's libjpeg is another
    assert np.abs(seen(colour, turned.convert("RGB"))[0].astype(int) - expected).max() <= 1
    png = encoded(image, exif=exif)  # a JPEG's alone is heeded
    assert np.array_equal(seen(colour, Image.open(io.BytesIO(png)))[0], seen(colour, png)[0])


def test_an_array_that_is_filled_again_for_the_next_image_is_no_trap(colour):
    frame = np.zeros((6, 5, 3), np.uint8)

    def frames():
        for i in range(50):
            frame[:] = i
            yield frame

    assert [int(pixels[0, 0, 0]) for pixels in seen(colour, frames())] == list(range(50))


def test_a_folder_stands_for_its_images(classifier):
    files = find.image_files([SAMPLES])
    assert len(files) == 64
    assert [p.file for p in classifier.predict(SAMPLES)] == files
    assert [p.file for p in classifier.predict([str(SAMPLES), files[3]])] == [*files, files[3]]
    with pytest.raises(DataError, match="has no images"):
        classifier.predict(".")


# What is no image


@pytest.mark.parametrize(
    "given, told",
    [
        (5, "Received: int 5"),
        (True, "Received: bool True"),
        (None, "Received: NoneType None"),
        (2.5, "Received: float 2.5"),
        ({"a.png": 1}, "Received: dict {'a.png': 1}"),
        ([3, 4, 5], "Received: int 3"),
        (["a.png", 7], "Received: int 7"),
        (range(60), "Received: int 0"),
        (iter([8]), "Received: int 8"),
        ([["a.png"]], "Received: list ['a.png']"),
        (np.arange(60), "Received: int64 array (60,)"),
        (np.int64(3), "Received: int64 array ()"),
        (np.zeros((28, 28), np.float32), "255 * x"),
        (np.zeros((28, 28), bool), "Received: bool array (28, 28)"),
        (np.zeros((28, 28), np.int64), "Received: int64 array (28, 28)"),
        (np.zeros((3, 28, 28), np.uint8), "Received: uint8 array (3, 28, 28)"),  # channels first
        ([np.zeros((2, 28, 28, 1), np.uint8)], "Received: uint8 array (2, 28, 28, 1)"),
        (np.zeros((28, 0), np.uint8), "at least one pixel"),
        (Path("https://example.org/a.png"), "A URL is given as text"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line_and_nothing_is_opened(classifier, monkeypatch, given, told):
    def touched(*arguments, **more):
        raise AssertionError(arguments)

    with monkeypatch.context() as patch:
        for where, name in ((os, "stat"), ("builtins.open", None), (os, "close")):
            patch.setattr(where, name, touched) if name else patch.setattr(where, touched)
        with pytest.raises(DataError) as error:
            classifier.predict(given)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_no_whole_number_is_ever_taken_for_an_open_file(classifier, tmp_path):
    from kerascls.images.files import looks_like_image, read_bytes, read_encoded

    with (tmp_path / "log").open("w") as log:
        for refuse in (read_bytes, read_encoded):
            with pytest.raises(DataError, match="A path is text or a Path. Received: int"):
                refuse(log.fileno())
        assert not looks_like_image(log.fileno())
        assert isinstance(classifier.read([log.fileno()])[0], DataError)
        log.write("still open")
    assert (tmp_path / "log").read_text() == "still open"


def test_bytes_close_none_of_the_callers_files(classifier):
    files = [open(os.devnull, "rb") for _ in range(80)]
    try:
        assert classifier.predict((SAMPLES / "000.png").read_bytes())[0].label == "2"
        assert all(os.fstat(file.fileno()) for file in files)
    finally:
        for file in files:
            file.close()


def test_what_cannot_be_read_costs_no_other(classifier, tmp_path):
    class Broken:
        def read(self, most):
            raise OSError("it is gone")

    good = (SAMPLES / "000.png").read_bytes()
    (tmp_path / "text.txt").write_text("hello")
    cut = Image.open(io.BytesIO(good[:150]))
    with open("text.txt", encoding="utf-8") as text:
        given = [b"hello", b"", io.BytesIO(good[:100]), Broken(), text, cut, "a\0b", "nowhere.png", good]
        answers = classifier.predict(given)
    assert [answer.error for answer in answers] == [
        "is not an image. Expected PNG, JPEG, BMP, GIF, WebP or TIFF.",
        "is empty. Expected PNG, JPEG, BMP, GIF, WebP or TIFF.",
        "does not decode as png: it is cut short or damaged.",
        "cannot be read: it is gone.",
        "cannot be read: its read() gives str: open it with 'rb'.",
        answers[5].error,
        "is not a path: it has a character of code 0.",
        "cannot be read: No such file or directory.",
        None,
    ]
    assert answers[5].error.startswith("cannot be read: ") and answers[8].label == "2"
    (answer,) = classifier.predict(Image.new("F", (28, 28)))
    assert answer.error == "cannot be read: its mode F does not say which value is white: make it 'L' or 'RGB'."


def test_nothing_has_no_answers(classifier):
    assert classifier.predict([]) == classifier.predict(iter(())) == []
    assert classifier.predict(np.zeros((0, 9, 9, 3), np.uint8)) == []
    assert classifier.resize(np.zeros((0, 9, 9, 1), np.uint8)).shape == (0, 28, 28, 1)
    assert classifier.probabilities(np.zeros((0, 28, 28, 1), np.uint8)).shape == (0, 10)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((28, 28), np.uint8),
        np.zeros((28, 28, 1), np.uint8),
        np.zeros((1, 28, 28, 3), np.uint8),
        np.zeros((1, 0, 28, 1), np.uint8),
        np.zeros((1, 28, 28, 1), np.float32),
        [[1]],
        None,
    ],
)
def test_resizing_and_naming_pixels_of_other_shapes_is_one_line(classifier, images):
    with pytest.raises(DataError, match=r"^`resize` takes a uint8 array \(n, height, width, 1\). Received: "):
        classifier.resize(images)
    with pytest.raises(DataError, match=r"^Images must be uint8 \(n, 28, 28, 1\)"):
        classifier.probabilities(images)


def test_a_loaded_classifier_explains_what_it_is_given_and_writes_nothing_unasked(classifier, tmp_path):
    sample = SAMPLES / "000.png"
    one, other, bad = kerascls.explain(classifier, [sample, sample.read_bytes(), b"hello"])
    assert (one.label, one.heat_map, one.heat.shape, one.heat.max()) == ("2", None, (28, 28), 1)
    assert np.array_equal(one.heat, other.heat) and other.file == "image 1" and "is not an image" in bad.error
    assert one._repr_png_().startswith(b"\x89PNG") and list(tmp_path.iterdir()) == []
    (written,) = kerascls.explain(classifier, sample.read_bytes(), out="maps")
    assert written.heat_map == "maps/image 0_explained.png" and Path(written.heat_map).is_file()
    assert written.heat is None


# URLs and stdin


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        place, _, count = self.path.partition("?")
        content = (SAMPLES / "000.png").read_bytes()
        if place == "/loop":
            self.send_response(302)
            self.send_header("Location", f"/loop?{int(count or 0) + 1}")
            self.end_headers()
        elif place == "/away":
            self.send_response(302)
            self.send_header("Location", f"file://{SAMPLES}/000.png")
            self.end_headers()
        elif place == "/moved":
            self.send_response(301)
            self.send_header("Location", "/a.png")
            self.end_headers()
        elif place in ("/a.png", "/b%20c.png", "/cut"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + 10 * (place == "/cut")))
            self.end_headers()
            self.wfile.write(content)
        elif place == "/large":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(bytes(10_000))
        elif place == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif place == "/silent":
            time.sleep(5)
        elif place == "/wordless":
            self.wfile.write(b"HTTP/1.0 418 \r\n\r\n")
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *_: None  # a client that has had enough
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_are_fetched_within_limits(classifier, address, monkeypatch):
    monkeypatch.setattr(urls, "URL_BYTES", 500_000)
    monkeypatch.setattr(urls, "URL_SECONDS", 3)
    places = ["a.png", "moved", "b%20c.png", "none", "loop", "away", "cut", "large", "slow", "silent"]
    began = time.monotonic()
    answers = classifier.predict([f"{address}/{place}" for place in places])
    assert time.monotonic() - began < 20
    assert [answer.file for answer in answers] == [f"{address}/{place}" for place in places]
    assert [answer.label for answer in answers] == ["2"] * 3 + [None] * 7
    told = dict(zip(places, [answer.error for answer in answers], strict=True))
    assert told["none"] == "cannot be fetched: the server answers 404 Not Found."
    assert told["loop"] == "cannot be fetched: it leads to /loop?6."
    assert told["away"] == f"cannot be fetched: it leads to {f'file://{SAMPLES}/000.png'[:100]}."
    assert told["cut"] == "cannot be fetched: the answer was cut off."
    assert told["large"] == "is larger than 500,000 bytes, the most that are fetched."
    assert told["slow"] == told["silent"] == "did not arrive within 3 seconds."
    refused = classifier.predict(["http://127.0.0.1:9/a.png", "http://[", "https://127.0.0.1:x/a.png"])
    assert all(answer.error.startswith("cannot be fetched: ") for answer in refused)


def test_an_error_without_words_is_told_by_its_number(classifier, address):
    began = time.monotonic()
    (answer,) = classifier.predict(f"{address}/wordless")
    assert answer.error == "cannot be fetched: the server answers 418." and time.monotonic() - began < 20


def test_a_urls_scheme_is_the_same_in_any_case(classifier, address, capsys):
    url = address.replace("http", "HTTP") + "/a.png"
    assert [answer.label for answer in classifier.predict([url])] == ["2"]
    assert here("predict", RELEASED, url, capsys=capsys)[1].startswith(f"{url}: 2 ")


def test_a_closed_stdin_is_told(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert "stdin, which is closed. Name a file" in one_line_error("predict", RELEASED, "-", capsys=capsys)


def test_a_command_names_urls_and_stdin(address, capsys, monkeypatch):
    code, out, err = here("predict", RELEASED, f"{address}/a.png", "--json", "--csv", "a.csv", capsys=capsys)
    assert (code, err) == (0, "") and json.loads(out)["label"] == "2" and json.loads(out)["file"] == f"{address}/a.png"
    assert Path("a.csv").read_text().splitlines()[1].startswith(f"{address}/a.png,2,")
    code, out, err = here("predict", RELEASED, f"{address}/none", capsys=capsys)
    assert code == 1 and f"{address}/none: cannot be fetched: the server answers 404" in err
    code, out, err = here("explain", RELEASED, f"{address}/a.png", "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["heat_map"] == "a_explained.png"
    for content, told in (((SAMPLES / "000.png").read_bytes(), "-: 2 "), (b"hello", "-: is not an image")):
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))
        code, out, err = here("predict", RELEASED, "-", capsys=capsys)
        assert (out or err).startswith(told) and code == (err != "")


def test_a_path_that_is_missing_is_told_by_the_command(capsys):
    assert "Image nowhere.png does not exist." in one_line_error("predict", RELEASED, "nowhere.png", capsys=capsys)

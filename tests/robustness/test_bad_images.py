"""Files that are not the images they seem: each costs itself and a line, in bounded time and memory."""

import csv
import io
import json
import os
import re
import socket
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from conftest import command, here, one_line_error
from PIL import Image

from kerascls.data import loading
from kerascls.errors import DataError, TooLarge
from kerascls.images import files
from kerascls.images.read import read_pixels
from kerascls.images.resize import resize
from kerascls.runs.run import Run
from kerascls.system.atomic_files import write_csv

SHAPE = (16, 16, 3)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
RECIPE = """
[data]
image_shape = [28, 28, 1]
validation = 0
test = 0
[model]
name = "mnist_cnn"
[train]
epochs = 1
"""


def encoded(kind, image=None, **options):
    written = io.BytesIO()
    (image or Image.fromarray(NOISE)).save(written, kind, **options)
    return written.getvalue()


def png(width, height, rows, bits=8):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(width, height, bits=24, start=54, header=40, colours=0):
    head = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, 0, 80, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 134, 0, 0, start) + head + bytes(80)


def tiff(width, height, next_directory=0):
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: height, 279: width * height % 2**32}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_directory) + bytes(400)


def changed(content, at, fmt, *values):
    end = at + struct.calcsize(fmt)
    return content[:at] + struct.pack(fmt, *values) + content[end:]


JPEG, GIF, WEBP = encoded("jpeg"), encoded("gif"), encoded("webp")
JPEG_SIZE, GIF_FRAME, WEBP_SIZE = JPEG.find(b"\xff\xc0") + 5, GIF.find(b",\0\0\0\0") + 5, WEBP.find(b"VP8 ") + 14
DAMAGED = "it is cut short or damaged."

LIARS = {
    "empty.png": (b"", "is empty."),
    "text.png": (b"hello", "is not an image."),
    "30000.png": (png(30000, 30000, b"\0" * 99), "has more pixels than 178,956,970, the most that are read."),
    "13000.png": (png(13000, 13000, b"\0" * 99), DAMAGED),
    "most.png": (png(2**31 - 1, 2**31 - 1, b""), "has more pixels than 178,956,970"),
    "none.png": (png(0, 0, b""), DAMAGED),
    "short.png": (png(20, 20, b"\0" * 100), DAMAGED),
    "wide.png": (png(100_001, 1, b"\0" * 100_002), "has 100001 x 1 pixels. At most 100,000 a side are read."),
    "65535.jpg": (changed(JPEG, JPEG_SIZE, ">HH", 65535, 65535), "has more pixels than 178,956,970"),
    "none.jpg": (changed(JPEG, JPEG_SIZE, ">HH", 0, 0), DAMAGED),
    "cut.jpg": (JPEG[:200], DAMAGED),
    "65535.gif": (changed(GIF, 6, "<HH", 65535, 65535), "has more pixels than 178,956,970"),
    "frame.gif": (changed(GIF, GIF_FRAME, "<HH", 65535, 65535), "has more pixels than 178,956,970"),
    "head.gif": (b"GIF89a", DAMAGED),
    "16383.webp": (changed(WEBP, WEBP_SIZE, "<HH", 16383, 16383), "has more pixels than 178,956,970"),
    "cut.webp": (WEBP[:40], DAMAGED),
    "negative.bmp": (bmp(-5, 5), "has more pixels than 178,956,970"),
    "lowest.bmp": (bmp(5, -(2**31)), "has more pixels than 178,956,970"),
    "highest.bmp": (bmp(2**31 - 1, 2**31 - 1), "has more pixels than 178,956,970"),
    "13000.bmp": (bmp(13000, 13000, 8), DAMAGED),
    "start.bmp": (bmp(5, 5, start=2**32 - 1), DAMAGED),
    "header.bmp": (bmp(5, 5, 8, header=2**31 - 1), DAMAGED),
    "none.bmp": (bmp(5, 0, 8), DAMAGED),
    "30000.tiff": (tiff(30000, 30000), "has more pixels than 178,956,970"),
    "13000.tiff": (tiff(13000, 13000), "does not decode as tiff: "),
    "none.tiff": (tiff(0, 0), "does not decode as tiff: its header cannot be read."),
    "itself.tiff": (b"II*\0\x04\0\0\0", "does not decode as tiff: its header cannot be read."),
}


@pytest.mark.parametrize("name", LIARS)
def test_a_lying_header_is_refused_in_one_line(name, tmp_path):
    content, reason = LIARS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_pixels(tmp_path / name, SHAPE)
    assert str(error.value).startswith(f"{tmp_path / name}: ") and reason in str(error.value)


@pytest.mark.parametrize("name", ["itself.tiff", "none.tiff", "cut.webp", "none.jpg", "short.png"])
def test_a_damaged_header_is_refused_the_same_where_warnings_are_errors(name, tmp_path):
    """As under `python -W error`: Pillow warns of some."""
    content, reason = LIARS[name]
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(DataError) as error:
        warnings.simplefilter("error")
        read_pixels(tmp_path / name, SHAPE)
    assert str(error.value).startswith(f"{tmp_path / name}: ") and reason in str(error.value)


def test_directories_of_a_tiff_that_point_at_each_other_are_read_once(tmp_path):
    (tmp_path / "cyclic.tiff").write_bytes(tiff(5, 5, next_directory=8))
    assert read_pixels(tmp_path / "cyclic.tiff", SHAPE).max() == 0


@pytest.mark.parametrize("kind, most", [("gif", 16 * 480), ("webp", 4 * 480)])
def test_an_animation_counts_with_all_its_frames(kind, most, tmp_path, monkeypatch):
    frames = [Image.fromarray(np.roll(NOISE, i, 0)) for i in range(16)]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(kind, frames[0], save_all=True, append_images=frames[1:]))
    still = encoded(kind)
    for limit, read in ((16 * 480 // (4 if kind == "gif" else 1), True), (most // 4 - 1, False)):
        monkeypatch.setattr(files, "MAX_PIXELS", max(limit, 480))
        if read:
            assert read_pixels(path, SHAPE).shape == SHAPE
        else:
            with pytest.raises(TooLarge, match="an animation of too many frames of 24 x 20 pixels. Keep its first"):
                read_pixels(path, SHAPE)
            path.write_bytes(still)
            assert read_pixels(path, SHAPE).shape == SHAPE


@pytest.mark.parametrize("rule", ["stretch", "nearest", "center_crop"])
@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_a_line_of_pixels_is_an_image(rule, size, tmp_path):
    Image.new("RGB", size, (7, 8, 9)).save(tmp_path / "line.png")
    pixels = read_pixels(tmp_path / "line.png", (224, 224, 3), rule=rule)
    assert (pixels == (7, 8, 9)).all()


def test_cover_takes_the_middle_of_what_is_longer_than_a_hundred_times_its_side():
    line = np.zeros((1, 500, 3), np.uint8)
    line[:, 200:300] = 90
    assert resize(line, 4, 4, "cover").numpy().min() == 90
    assert np.array_equal(resize(line, 4, 4, "cover"), resize(line[:, 200:300], 4, 4, "cover"))


CHILD = """
import sys
from kerascls.system.tensorflow import start
start()
from kerascls.images import read_pixels
def highest():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1000
read_pixels(sys.argv[1], (16, 16, 1))
before = highest()
read_pixels(sys.argv[2], (16, 16, 1))
print(highest() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "kind, mode, most", [("png", "RGBA", 16), ("png", "L", 16), ("webp", "RGB", 16), ("tiff", "RGBA", 32)]
)
def test_memory_is_bounded_by_so_many_bytes_a_pixel(kind, mode, most, tmp_path):
    import subprocess

    Image.new(mode, (8, 8)).save(tmp_path / f"small.{kind}")
    options = {"compression": "tiff_deflate"} if kind == "tiff" else {"lossless": True} if kind == "webp" else {}
    Image.new(mode, (8000, 8000)).save(tmp_path / f"large.{kind}", **options)
    arguments = [sys.executable, "-c", CHILD, tmp_path / f"small.{kind}", tmp_path / f"large.{kind}"]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=True)
    assert int(ran.stdout) <= most * 64


def test_strips_give_the_bits_of_the_whole(monkeypatch, tmp_path):
    from kerascls.images import read, resize

    rgba = np.random.default_rng(1).integers(0, 256, (37, 50, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    whole = read_pixels(tmp_path / "a.png", (37, 50, 1), (1, 2, 3))
    monkeypatch.setattr(resize, "_STRIP", 100)
    read._road.cache_clear()
    assert np.array_equal(read_pixels(tmp_path / "a.png", (37, 50, 1), (1, 2, 3)), whole)
    read._road.cache_clear()


# Things that are no files, and names


@pytest.fixture
def folder(tmp_path):
    """Two classes of twelve gray images."""
    for i in range(24):
        path = tmp_path / "d" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (28, 28), np.uint8)).save(path)
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path / "d"


def train(folder, *options):
    return ("train", "r.toml", "--data", folder, "--out", "run", *options)


NOT_A_FILE = "is not a file, but a folder, a pipe, a socket or a device."


def no_files(place):
    """Pipes, sockets, links to devices and to nowhere, loops; each with its reason."""
    os.mkfifo(place / "pipe.png")
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.getcwd()
        os.chdir(place)  # a socket's path is short
        opened.bind("socket.png")
        os.chdir(here)
    (place / "zero.png").symlink_to("/dev/zero")
    (place / "gone.png").symlink_to("nowhere.png")
    (place / "loop.png").symlink_to("loop.png")
    (place / "folder.png").mkdir()
    (place / "folder.png" / "again.png").symlink_to("..")
    return {
        "pipe.png": NOT_A_FILE,
        "socket.png": NOT_A_FILE,
        "zero.png": NOT_A_FILE,
        "gone.png": "cannot be read: No such file or directory.",
        "loop.png": "cannot be read: Too many levels of symbolic links.",
    }


def test_pipes_sockets_devices_and_loops_are_left_out_and_nothing_waits_for_them(folder, digits_run, capsys):
    expected = {f"a/{name}": reason for name, reason in no_files(folder / "a").items()}
    refused = one_line_error(*train(folder), capsys=capsys)
    assert re.search(r"d: 5 of 29 images cannot be read, and data.max_bad_share = 0.05 allows 2. The first: ", refused)
    assert refused.endswith("go on without them: --set data.max_bad_share=0.173") and not os.path.exists("run")
    code, _, err = here(*train(folder, "--set", "data.max_bad_share=0.173"), capsys=capsys)
    assert code == 0, err
    with open("run/skipped.csv", encoding="utf-8", newline="") as file:
        assert dict(list(csv.reader(file))[1:]) == expected
    code, out, err = here("split", folder, "parts", capsys=capsys)
    assert code == 0 and "left out: a/pipe.png: is not a file" in err
    code, out, _ = here("predict", digits_run, folder, "--json", capsys=capsys)
    assert code == 0 and len(out.splitlines()) == 24  # of a folder, files alone
    code, out, _ = here(
        "predict", digits_run, folder / "a" / "pipe.png", folder / "a" / "0.png", "--json", capsys=capsys
    )
    assert code == 1 and json.loads(out.splitlines()[0]) == {
        "file": str(folder / "a" / "pipe.png"),
        "error": NOT_A_FILE,
    }
    code, _, err = here("explain", digits_run, folder / "a" / "zero.png", "--out", "maps", capsys=capsys)
    assert code == 1 and NOT_A_FILE in err


STRANGE = [
    "two\nlines",
    "tab\t",
    'quote"',
    "'",
    "-rf",
    "--out",
    "cr\rhere",
    "שלום",
    "\u202egnp.exe",
    "a,b",
    " ",
    "é" * 120,
]


def test_names_of_every_kind_are_written_so_that_csv_reads_them_back(folder, digits_run, capsys):
    names = [f"{name}.png" for name in STRANGE] + [os.fsdecode(b"\xff\xfe.png")]
    for name in names:
        (folder / "a" / name).write_bytes(b"")
    code, _, err = here(*train(folder, "--set", "data.max_bad_share=0.5"), capsys=capsys)
    assert code == 0, err
    lines = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 11 and lines[-1] == f"left out: {len(names) - 10} more, listed in run/skipped.csv"
    assert "left out: a/two\\nlines.png: is empty. Expected PNG, JPEG, BMP, GIF, WebP or TIFF." in lines
    assert all(line.isprintable() for line in lines)

    def column(path, newline=""):
        with open(path, encoding="utf-8", errors="surrogateescape", newline=newline) as file:
            return [row["file"] for row in csv.DictReader(file)]

    assert sorted(column("run/skipped.csv")) == sorted(f"a/{name}" for name in names)
    for name in names:
        (folder / "a" / name).write_bytes((folder / "a" / "0.png").read_bytes())
    assert here("split", folder, "parts", capsys=capsys)[0] == 0
    assert sorted(column("parts/splits.csv")) == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    assert here("predict", digits_run, folder / "a", "--csv", "a.csv", capsys=capsys)[0] == 0
    assert sorted(column("a.csv")) == sorted(map(str, (folder / "a").rglob("*.png")))


def test_a_carriage_return_in_a_cell_ends_no_row(tmp_path):
    write_csv(tmp_path / "a.csv", ("file", "n"), [("a\rb", 1), ("plain", 2)])
    assert (tmp_path / "a.csv").read_bytes() == b'file,n\n"a\rb","1"\nplain,2\n'


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_left_out(folder):
    (folder / "a" / "0.png").chmod(0)
    assert load(folder).skipped == (("a/0.png", "cannot be read: Permission denied."),)


def test_a_file_that_a_disk_refuses_is_left_out(folder, monkeypatch):
    def failing(path, *arguments, **options):
        if str(path).endswith("a/0.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(files, "open", failing, raising=False)
    assert load(folder).skipped == (("a/0.png", "cannot be read: Permission denied."),)


def load(folder, **more):
    return loading.load_dataset(str(folder), image_shape=(28, 28, 1), **more)


def test_a_file_that_goes_between_listing_and_reading_is_left_out(folder, monkeypatch):
    from kerascls.data import folder as opening

    listed = opening.list_folder(folder)
    (folder / "a" / "0.png").unlink()
    monkeypatch.setattr(opening, "list_folder", lambda root, classes: listed)
    assert load(folder).skipped == (("a/0.png", "cannot be read: No such file or directory."),)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    for name, head, reason in [
        ("a.png", b"\x89PNG\r\n\x1a\n", "is larger than 1,073,741,824 bytes, the most that are read."),
        ("b.png", b"video", "is not an image."),
    ]:
        with open(tmp_path / name, "wb") as file:
            file.write(head)
            file.truncate(1 << 40)  # takes no place on the disk
        with pytest.raises(DataError, match=reason):
            read_pixels(tmp_path / name, SHAPE)


# How many may be bad


def test_on_bad_image_error_stops_at_the_first_and_writes_nothing(folder, capsys):
    (folder / "a" / "notes.txt").write_text("no image, and none by its name")
    (folder / "b" / "1.png").write_bytes(b"")
    error = one_line_error(*train(folder, "--set", "data.on_bad_image=error"), capsys=capsys)
    assert error == (
        f"Error: Folder {folder}: b/1.png: is empty. Repair or remove it, or leave out what cannot be read: "
        "--set data.on_bad_image=skip"
    )
    assert not os.path.exists("run")
    assert here(*train(folder), capsys=capsys)[0] == 0


def test_one_bad_image_of_few_is_left_out_and_two_are_too_many(folder):
    (folder / "a" / "0.png").write_bytes(b"")
    assert len(load(folder).skipped) == 1  # 0.05 of 24 is 1.2, and so 2 may be
    for i in (2, 4):
        (folder / "a" / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        load(folder)
    assert str(error.value) == (
        f"Folder {folder}: 3 of 24 images cannot be read, and data.max_bad_share = 0.05 allows 2. The first: "
        "a/0.png: is empty; a/2.png: is empty; a/4.png: is empty. Repair or remove them, or go on without them: "
        'overrides={"data": {"max_bad_share": 0.125}}'
    )
    assert len(load(folder, max_bad_share=0.125).skipped) == 3
    with pytest.raises(DataError, match="data.max_bad_share = 0 allows 0"):
        load(folder, max_bad_share=0)


def test_a_class_without_a_readable_image_is_an_error_unless_it_is_left_out_on_purpose(folder):
    for i in range(2):
        (folder / "c").mkdir(exist_ok=True)
        (folder / "c" / f"{i}.png").write_bytes(b"")
    for more in ({}, {"classes": ["a", "b", "c"]}):
        with pytest.raises(DataError) as error:
            load(folder, max_bad_share=0.9, **more)
        assert str(error.value) == (
            f"Folder {folder}: no image can be read of 1 of 3 classes: c (2 images; c/0.png: is empty). Convert or "
            'repair them, or leave the class out on purpose: data.classes = ["a", "b"]'
        )
    dataset = load(folder, max_bad_share=0.9, classes=["b", "a"])
    assert dataset.class_names == ("a", "b")
    assert dataset.skipped[0] == ("c", "has no image that can be read")  # before its files


def test_a_folder_without_any_image_is_no_lost_class(folder):
    (folder / "docs").mkdir()
    (folder / "docs" / "notes.txt").write_text("hello")
    dataset = load(folder)
    assert dataset.class_names == ("a", "b")
    assert dataset.skipped[0] == ("docs", "has no image that can be read")


def test_a_class_of_heic_alone_is_named_with_its_kind(folder, capsys):
    (folder / "c").mkdir()
    for i in range(12):
        head = (24).to_bytes(4, "big") + b"ftypheic\0\0\0\0mif1heic"
        (folder / "c" / f"IMG_{i}.HEIC").write_bytes(head + bytes(800))
    line = one_line_error(*train(folder), capsys=capsys)
    assert "no image can be read of 1 of 3 classes: c (12 images; c/IMG_0.HEIC: is HEIC" in line
    for name in "ab":  # as many beside the images of classes that are read
        for i in range(12):
            (folder / name / f"IMG_{i}.HEIC").write_bytes(head + bytes(800))
        (folder / "c" / f"{name}.png").write_bytes((folder / "a" / "0.png").read_bytes())
    line = one_line_error(*train(folder), capsys=capsys)
    assert "36 of 62 images cannot be read" in line and "is HEIC" in line


def test_evaluate_says_what_it_leaves_out_of_a_folder(folder, digits_run, tmp_path, capsys):
    for name in "ab":
        (folder / name).rename(folder / str("ab".index(name)))
    (folder / "0" / "0.png").write_bytes(b"")
    code, out, err = here("evaluate", digits_run, "--data", folder, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["examples"] == 23
    assert "left out: 0/0.png: is empty. Expected PNG" in err
    code, _, err = here("predict", digits_run, "--data", folder, "--split", "train", capsys=capsys)
    assert code == 0 and "left out: 0/0.png: is empty. Expected PNG" in err
    assert "left out: 0/0.png: is empty" in here("show", folder, "--plot", "a.png", capsys=capsys)[2]
    for path in sorted((folder / "0").iterdir())[1:5]:  # more than a training would allow
        path.write_bytes(b"")
    code, out, err = here("evaluate", digits_run, "--data", folder, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["examples"] == 19 and err.count("is empty") == 5


@pytest.mark.slow
def test_an_image_replaced_by_another_while_it_is_streamed_stops_the_training(folder, capsys, monkeypatch):
    create = Run.create.__func__

    def replace(cls, *arguments):
        (folder / "a" / "0.png").write_bytes((folder / "b" / "1.png").read_bytes())
        return create(cls, *arguments)

    monkeypatch.setattr(Run, "create", classmethod(replace))
    error = one_line_error(*train(folder, "--set", "data.cache_mb=0", "--quiet"), capsys=capsys)
    assert error == (
        f"Error: An image is not what it was before training: {folder}/a/0.png was changed. The training stops, since "
        "on other images it would be another: put the image back and go on with --resume, or train again."
    )
    images = load(folder, cache_mb=0).splits["all"].images
    (folder / "a" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="0.png: was changed since the folder was read"):
        images[:]


def test_a_path_that_is_too_long_is_one_line(digits_run, capsys):
    for arguments in (("predict", digits_run, "x" * 5000), ("train", "mnist_cnn", "--data", "x" * 5000)):
        one_line_error(*arguments, capsys=capsys)


@pytest.mark.slow
def test_sixty_bad_images_in_a_fresh_process_end_in_one_line(folder):
    for i in range(60):
        (folder / "a" / f"bad{i}.png").write_bytes(LIARS["13000.png"][0])
    ran = command("train", "r.toml", "--data", folder, "--out", "run", cwd=folder.parent, check=1)
    assert ran.stdout == "" and ran.stderr.count("\n") == 1 and "60 of 84 images cannot be read" in ran.stderr

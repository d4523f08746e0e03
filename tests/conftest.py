"""What all tests share. No test sees the network, the user's data, or the folder that pytest was started in."""

import gc
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

REPOSITORY = Path(__file__).parent.parent
# A proxy that refuses at once: every request fails as on a machine without a network.
NO_NETWORK = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
REAL_DATA = os.environ.get("KERASCLS_TEST_TFDS") or os.environ.get("TFDS_DATA_DIR")


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory):
    """The session's environment: no network, an empty home, no prepared data; TensorFlow started as commands do."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script; tests press Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(NO_NETWORK)
    for name in ("TFDS_DATA_DIR", "KERASCLS_CACHE", "KERASCLS_CACHE_MB", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
    from kerascls.system import tensorflow

    tensorflow.start()
    gc.freeze()  # TensorFlow's objects, which every training would else go through: 0.25 seconds each time
    yield
    gc.unfreeze()  # Hypothesis, which pytest imports at the end, asks who refers to a library's random numbers


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every test stands in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def readers_folder(empty_folder):
    """What the examples of the pages and docstrings find: photographs, a seven on white, and the released models."""
    shutil.copytree(REPOSITORY / "saved_models" / "released", "saved_models/released")
    table = ["file,class\n"]
    for name, color in (("bear", (200, 100, 60)), ("chimp", (60, 100, 200))):
        Path("my_photos", name).mkdir(parents=True)
        for i in range(20):
            picture = Image.linear_gradient("L").rotate(18 * i).resize((64, 48))
            picture = ImageOps.colorize(picture, (i, i, i), color)
            picture.save(f"my_photos/{name}/{i}.jpg")
            table.append(f"my_photos/{name}/{i}.jpg,{name}\n")
    Path("labels.csv").write_text("".join(table))
    page = Image.new("L", (400, 400), "white")
    ImageDraw.Draw(page).line([(120, 90), (280, 90), (190, 320)], "black", 36, "curve")
    page.save("seven.png")
    return empty_folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run of `mnist_cnn` on the embedded digits, five epochs: enough to answer, cheap to make. Do not change it."""
    import kerascls

    out = tmp_path_factory.mktemp("runs") / "digits_run"
    kerascls.train(
        "mnist_cnn",
        data="digits",
        out=out,
        epochs=5,
        overrides={"train": {"optimizer": "adam", "learning_rate": 0.01, "warmup_epochs": 0, "batch_size": 32}},
    )
    return out


@pytest.fixture(scope="session")
def digit_pngs(tmp_path_factory):
    """Folder of twelve test digits as PNG files, and their labels."""
    from kerascls.data.loading import load_dataset
    from kerascls.images.files import encode_png

    folder = tmp_path_factory.mktemp("pngs")
    test = load_dataset("digits").splits["test"]
    for i in range(12):
        (folder / f"digit{i}.png").write_bytes(encode_png(test.images[i]))
    return folder, test.labels[:12]


@pytest.fixture(scope="session")
def real_data():
    """The folder where TFDS has real MNIST prepared."""
    if not REAL_DATA or not (Path(REAL_DATA) / "mnist").is_dir():
        pytest.skip("needs real MNIST prepared by TFDS: KERASCLS_TEST_TFDS=DIR names its folder")
    return str(Path(REAL_DATA).resolve())


def command(*arguments, cwd=None, check=None, **environment):
    """Runs `kerascls ARGUMENTS` in a fresh process; `check` is the exit code that it must have."""
    process = subprocess.run(
        [sys.executable, "-m", "kerascls", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )
    if check is not None:
        assert process.returncode == check, f"exit {process.returncode}\n{process.stdout}\n{process.stderr}"
    return process


def here(*arguments, capsys=None):
    """Runs `kerascls ARGUMENTS` in this process: (exit code, stdout, stderr)."""
    from kerascls.cli import run

    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def processor_seconds():
    """Of this process and of its children that have ended. A busy machine lengthens a wait, and these not."""
    return sum(os.times()[:4])


def one_line_error(*arguments, capsys, code=1):
    """Runs a command that must fail with exactly one line on stderr, and returns the line."""
    got, out, err = here(*arguments, capsys=capsys)
    assert got == code, f"exit {got}: {err}"
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), err
    assert "bug" not in lines[0], err
    return lines[0]


def tiny_backbone(path):
    """A .keras file of two convolutions with batch normalisation, for images of any size: 456 parameters."""
    import keras

    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((None, None, 3))
    for i, filters in ((1, 4), (2, 8)):
        x = keras.layers.Conv2D(filters, 3, name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{i}")(x)
        x = keras.layers.ReLU(name=f"relu{i}")(x)
    model = keras.Model(inputs, x, name="tiny")
    for layer in (model.get_layer("bn1"), model.get_layer("bn2")):
        layer.moving_mean.assign(np.linspace(-0.1, 0.1, layer.moving_mean.shape[0]))
        layer.moving_variance.assign(np.linspace(0.5, 1.5, layer.moving_mean.shape[0]))
    model.save(path)
    return path


def small_npz(path, count=10, classes=3, shape=(28, 28, 1), seed=0, **more):
    """A .npz of `count` training and `count` test images that tell their class by brightness."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = np.clip(generator.integers(0, 40, (count, *shape)) + labels[:, None, None, None] * 80, 0, 255)
    np.savez(
        path,
        **{
            "x_train": images.astype("uint8"),
            "y_train": labels,
            "x_test": images.astype("uint8"),
            "y_test": labels,
            **more,
        },
    )
    return path


def odd_files():
    """{name: bytes} of image files of every kind, mode and depth that Pillow can write, and of some that it cannot."""
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 256, (37, 50, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(generator.integers(0, 256, (5, 6, 3), np.uint8)).resize((50, 37)))
    rgba = Image.fromarray(np.concatenate([rgb, generator.integers(0, 256, (37, 50, 1), np.uint8)], -1))
    image = Image.fromarray(rgb)
    clear = Image.fromarray(np.concatenate([smooth, smooth[..., :1]], -1))
    files = {}

    def add(name, image, kind, **options):
        written = io.BytesIO()
        image.save(written, kind, **options)
        files[name] = written.getvalue()

    for mode in ("RGB", "L", "1", "P", "RGBA", "LA"):
        for kind in ("png", "bmp", "tiff", "gif", "webp"):
            if (mode, kind) not in (("LA", "bmp"), ("LA", "gif"), ("RGBA", "gif"), ("LA", "webp")):
                lossless = {"lossless": True} if kind == "webp" else {}
                add(f"{mode}.{kind}", (rgba if mode in ("RGBA", "LA") else image).convert(mode), kind, **lossless)
    sixteen = generator.integers(0, 65536, (37, 50), np.uint16)
    for kind in ("png", "tiff"):
        add(f"sixteen.{kind}", Image.fromarray(sixteen), kind)
    for bits in (1, 2, 4, 8):
        palette = image.quantize(2**bits)
        add(f"palette{bits}.png", palette, "png", bits=bits)
        add(f"palette{bits} clear.png", palette, "png", bits=bits, transparency=1)
        add(f"palette{bits} clear levels.png", palette, "png", bits=bits, transparency=bytes([0, 128]))
        if bits != 2:
            add(f"palette{bits}.bmp", palette, "bmp")
    add("gray clear.png", image.convert("L"), "png", transparency=77)
    add("colour clear.png", image, "png", transparency=tuple(map(int, rgb[3, 4])))
    for bits in (1, 2, 4, 8, 16):
        for colours in (1, 2, 3, 4):
            if bits >= 8 or colours == 1:
                name = {1: "gray", 2: "gray alpha", 3: "colour", 4: "colour alpha"}[colours]
                files[f"raw {name} {bits}.png"] = raw_png(generator, bits, colours)
                if colours in (1, 3):
                    files[f"raw {name} {bits} clear.png"] = raw_png(generator, bits, colours, clear=True)
    files["interlaced.png"] = raw_png(generator, 8, 3, interlaced=True)
    for mode in ("RGB", "L", "CMYK"):
        for name, options in {
            "": {},
            " 75": {"quality": 75},
            " 444": {"quality": 95, "subsampling": 0},
            " 422": {"quality": 90, "subsampling": 1},
            " progressive": {"quality": 85, "progressive": True},
            " optimised": {"quality": 60, "optimize": True},
        }.items():
            for size in ((50, 37), (33, 64), (17, 16)):
                source = Image.fromarray(rgb if name == " 444" else smooth).resize(size).convert(mode)
                add(f"{mode}{name} {size[0]}x{size[1]}.jpeg", source, "jpeg", **options)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"turned {orientation}.jpeg", Image.fromarray(smooth), "jpeg", quality=95, exif=exif.tobytes())
    add("exif.png", image, "png", exif=exif.tobytes())  # a JPEG's alone is heeded
    for method in (0, 4):
        for quality in (20, 90):
            add(f"lossy {method} {quality}.webp", Image.fromarray(smooth), "webp", quality=quality, method=method)
            add(f"lossy alpha {method} {quality}.webp", clear, "webp", quality=quality, method=method)
    others = [Image.fromarray(np.roll(smooth, i, 0)) for i in (5, 9)]
    add("animated.gif", Image.fromarray(smooth), "gif", save_all=True, append_images=others)
    add("clear.gif", image.quantize(16), "gif", transparency=3)
    add("interlaced.gif", image, "gif", interlace=True)
    add("animated.webp", Image.fromarray(smooth), "webp", save_all=True, append_images=others, lossless=True)
    add("animated alpha.webp", clear, "webp", save_all=True, append_images=[rgba], lossless=True)
    add("animated.png", Image.fromarray(smooth), "png", save_all=True, append_images=others)
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg"):
        add(f"{compression}.tiff", image, "tiff", compression=compression)
    files["24 bits, top first.bmp"] = raw_bmp(generator, 24, -37)
    files["32 bits.bmp"] = raw_bmp(generator, 32, 37)
    files["32 bits alpha.bmp"] = raw_bmp(generator, 32, 37, alpha=True)
    return files


def raw_png(generator, bits, colours, clear=False, interlaced=False, size=(50, 37)):
    """A PNG of noise in any depth; with `clear`, the colour of its second pixel is declared transparent (tRNS)."""
    width, height = size
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[colours]

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    def rows(across, down):
        each = (across * colours * bits + 7) // 8
        return b"".join(b"\0" + generator.bytes(each) for _ in range(down)) if across and down else b""

    if interlaced:  # Adam7
        passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        data = b"".join(rows(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    else:
        data = rows(width, height)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, interlaced))
    if clear:
        each = colours * bits // 8
        second = data[1 + each : 1 + 2 * each] if bits >= 8 else bytes([data[1] >> (8 - 2 * bits) & (2**bits - 1)])
        wide = second if bits == 16 else b"".join(b"\0" + second[i : i + 1] for i in range(colours))
        out += chunk(b"tRNS", wide)
    return out + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def raw_bmp(generator, bits, height, alpha=False, width=50):
    """A BMP of noise, its rows from the top where `height` is negative; with `alpha`, its fourth byte is declared."""
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) if alpha else b""
    stride = (width * bits + 31) // 32 * 4
    data = generator.bytes(stride * abs(height))
    header = struct.pack("<IiiHHIIiiII", 108 if alpha else 40, width, height, 1, bits, 3 * alpha, len(data), 0, 0, 0, 0)
    header += masks + bytes(52 if alpha else 0)
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + data


def tiny_transfer(more, count=48, validation=0.1):
    """Writes a transfer recipe tiny.toml that goes on with `more`, behind [model]'s keys; its tiny.keras and small.npz.

    Returns the recipe's name.
    """
    tiny_backbone("tiny.keras")
    small_npz("small.npz", count=count, shape=(12, 12, 3))
    data = f'[data]\nname = "small.npz"\nvalidation = {validation}\n'
    model = '[model]\nname = "transfer"\nbackbone = "tiny.keras"\npixel_range = [-1, 1]\n'
    Path("tiny.toml").write_text(f"# kerascls train tiny.toml\n\n{data}\n{model}{more}")
    return "tiny.toml"

"""`kerascls serve` under load: clients that ask one after another, each answer held against `predict`.

    python -m benchmarks.serving                        # the released MNIST network
    python -m benchmarks.serving --resnet50             # ResNet50 with random weights, 224x224 JPEGs
    python -m benchmarks.serving --seconds 10 --clients 8

The server is a process of its own; the clients are one process more, on the same cores. First one client alone, then
all. A client sends TensorFlow Serving's request for one image, reads the answer whole, compares all probabilities, and
sends the next; its time is from the first byte sent to the last read.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parent.parent
TOLERANCE = 1e-6  # a probability depends on who shares its batch by less


@contextlib.contextmanager
def running(model: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """A server of `model` on a free port: its port and process. It ends by SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kerascls", "serve", str(model), "--name", "model", "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit("The server did not start.")
        yield int(line.rsplit(":", 1)[1].strip().rstrip("/")), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def as_request(encoded: bytes) -> bytes:
    body = json.dumps({"instances": [{"b64": base64.b64encode(encoded).decode()}]}).encode()
    head = f"POST /v1/models/model:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def one_client(port: int, requests: list[bytes], expected: np.ndarray, first: int, until: float) -> dict:
    """Asks until the time is over. Seconds of each answer, and how many were errors or wrong."""
    seconds, errors, wrong, largest = [], 0, 0, 0.0
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    at = first
    while time.perf_counter() < until:
        which = at % len(requests)
        at += 1
        begin = time.perf_counter()
        try:
            writer.write(requests[which])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            errors += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
            continue
        seconds.append(time.perf_counter() - begin)
        if not head.startswith(b"HTTP/1.1 200"):
            errors += 1
            continue
        answer = json.loads(body)["predictions"][0]
        difference = float(np.abs(np.array(answer["probabilities"]) - expected[which]).max())
        largest = max(largest, difference)
        wrong += not difference < TOLERANCE
    writer.close()
    return {"seconds": seconds, "errors": errors, "wrong": wrong, "largest": largest}


def load(port: int, requests: list[bytes], expected: np.ndarray, clients: int, seconds: float) -> dict:
    """`clients` at once for `seconds`: answers a second, the median and the 99th percentile of their milliseconds."""

    async def all_clients() -> list[dict]:
        until = time.perf_counter() + seconds
        return await asyncio.gather(*(one_client(port, requests, expected, 17 * i, until) for i in range(clients)))

    begin = time.perf_counter()
    told = asyncio.run(all_clients())
    passed = time.perf_counter() - begin
    times = np.concatenate([one["seconds"] for one in told])
    return {
        "clients": clients,
        "seconds": round(passed, 1),
        "answers": len(times),
        "per_second": round(len(times) / passed, 1),
        "p50_ms": round(float(np.percentile(times, 50)) * 1000, 2),
        "p99_ms": round(float(np.percentile(times, 99)) * 1000, 2),
        "errors": sum(one["errors"] for one in told),
        "wrong": sum(one["wrong"] for one in told),
        "largest_difference": max(one["largest"] for one in told),
    }


def measure(model: Path, files: list[Path], clients: int, seconds: float, options: tuple[str, ...] = ()) -> dict:
    """One client alone, then `clients`, on the same server; what `predict` says is computed before."""
    import kerascls

    classifier = kerascls.load(model)
    expected = np.stack([classifier.probabilities(pixels[None])[0] for pixels in classifier.read(files)])
    requests = [as_request(file.read_bytes()) for file in files]
    with running(model, *options) as (port, process):
        load(port, requests, expected, clients, min(3.0, seconds))  # warm
        alone = load(port, requests, expected, 1, seconds)
        together = load(port, requests, expected, clients, seconds)
        memory = Path(f"/proc/{process.pid}/status")
        peak = memory.read_text().split("VmHWM:")[1].split()[0] if memory.is_file() else "0"
    ratio = round(together["per_second"] / alone["per_second"], 2)
    return {"alone": alone, "together": together, "ratio": ratio, "server_peak_mb": int(peak) // 1000}


def resnet50(folder: Path) -> tuple[Path, list[Path]]:
    """ResNet50 with random weights for 1,000 classes, and 64 photographs of noise as JPEG files."""
    import keras
    from PIL import Image

    keras.utils.set_random_seed(0)
    inputs = keras.Input((224, 224, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    outputs = keras.applications.ResNet50(weights=None)(scaled)
    path = folder / "resnet50.keras"
    keras.Model(inputs, outputs).save(path)
    generator = np.random.default_rng(0)
    files = []
    for i in range(64):
        small = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        files.append(folder / f"{i}.jpg")
        small.resize((320, 240), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return path, files


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--resnet50", action="store_true", help="In place of the released MNIST network.")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("options", nargs="*", help="Options of kerascls serve, behind --.")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.resnet50:
            model, files = resnet50(Path(scratch))
        else:
            model = REPOSITORY / "saved_models" / "released" / "mnist_cnn"
            files = sorted((model / "samples").glob("*.png"))
        told = measure(model, files, arguments.clients, arguments.seconds, tuple(arguments.options))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

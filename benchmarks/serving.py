"""`kerascls serve` under load: clients that ask one after another, each answer held against `predict`.

    python -m benchmarks.serving                        # the released MNIST network
    python -m benchmarks.serving --resnet50             # ResNet50 with random weights, 224x224 JPEGs
    python -m benchmarks.serving --turns 1 --seconds 60 -- --max-batch 8

The server is a process of its own; the clients are one process more, on the same cores. One client alone and all of
them take turns. A client sends TensorFlow Serving's request for one image, reads the answer whole, compares all
probabilities, and sends the next; its time is from the first byte sent to the last read.
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
    """`clients` at once for `seconds`: what they were told, as `one_client` has it, and the seconds that passed."""

    async def all_clients() -> list[dict]:
        until = time.perf_counter() + seconds
        return await asyncio.gather(*(one_client(port, requests, expected, 17 * i, until) for i in range(clients)))

    begin = time.perf_counter()
    told = asyncio.run(all_clients())
    return {
        "passed": time.perf_counter() - begin,
        "times": [second for one in told for second in one["seconds"]],
        "errors": sum(one["errors"] for one in told),
        "wrong": sum(one["wrong"] for one in told),
        "largest": max(one["largest"] for one in told),
    }


def cpu_seconds(pid: int) -> float:
    """That a process has used; 0 where there is no /proc."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return 0.0
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    model: Path, files: list[Path], clients: int, seconds: float, turns: int = 1, options: tuple[str, ...] = ()
) -> dict:
    """One client alone and `clients`, in turns on the same server, `seconds` each; `predict` answers before."""
    import kerascls

    classifier = kerascls.load(model)
    expected = np.stack([classifier.probabilities(pixels[None])[0] for pixels in classifier.read(files)])
    distances = np.abs(expected[:, None] - expected[None]).max(-1) + np.eye(len(expected))
    requests = [as_request(file.read_bytes()) for file in files]
    told: dict[str, list[dict]] = {"alone": [], "together": []}
    with running(model, *options) as (port, process):
        load(port, requests, expected, clients, min(3.0, seconds))  # warm
        for _ in range(turns):
            for which, count in (("alone", 1), ("together", clients)):
                before = cpu_seconds(process.pid)
                one = load(port, requests, expected, count, seconds)
                told[which].append({**one, "cpu": cpu_seconds(process.pid) - before})
        memory = Path(f"/proc/{process.pid}/status")
        peak = memory.read_text().split("VmHWM:")[1].split()[0] if memory.is_file() else "0"

    def summed(parts: list[dict]) -> dict:
        times = np.concatenate([part["times"] for part in parts])
        passed = sum(part["passed"] for part in parts)
        return {
            "seconds": round(passed, 1),
            "answers": len(times),
            "per_second": round(len(times) / passed, 2),
            "p50_ms": round(float(np.percentile(times, 50)) * 1000, 2),
            "p99_ms": round(float(np.percentile(times, 99)) * 1000, 2),
            "server_cpu_ms_each": round(1000 * sum(part["cpu"] for part in parts) / len(times), 2),
            "errors": sum(part["errors"] for part in parts),
            "wrong": sum(part["wrong"] for part in parts),
            "largest_difference": max(part["largest"] for part in parts),
        }

    rates = [[len(part["times"]) / part["passed"] for part in told[which]] for which in ("alone", "together")]
    return {
        "clients": clients,
        "turns": turns,
        "alone": summed(told["alone"]),
        "together": summed(told["together"]),
        "ratio": round(float(np.median(rates[1]) / np.median(rates[0])), 2),
        "ratios_of_turns": [round(together / alone, 2) for alone, together in zip(*rates, strict=True)],
        "server_peak_mb": int(peak) // 1000,
        "nearest_images": float(distances.min()),  # by their largest difference: an answer to another image shows
    }


def resnet50(folder: Path) -> tuple[Path, list[Path]]:
    """ResNet50 with random weights for 1,000 classes, and 64 photographs of noise as JPEG files."""
    import keras
    from PIL import Image

    keras.utils.set_random_seed(0)
    inputs = keras.Input((224, 224, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    network = keras.applications.ResNet50(weights=None)
    outputs = network(scaled)
    # Random weights say nearly the same of all images; so that a mixed-up answer shows, they are told apart here.
    kernel = network.layers[-1].kernel
    kernel.assign(kernel * 300)
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
    parser.add_argument("--seconds", type=float, default=20, help="Of each turn of each.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("options", nargs="*", help="Options of kerascls serve, behind --.")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.resnet50:
            model, files = resnet50(Path(scratch))
        else:
            model = REPOSITORY / "saved_models" / "released" / "mnist_cnn"
            files = sorted((model / "samples").glob("*.png"))
        told = measure(model, files, arguments.clients, arguments.seconds, arguments.turns, tuple(arguments.options))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

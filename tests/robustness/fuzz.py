"""Bad input without end: cases of `strategies`, each in a process that may crash, hang or swell without harm.

    python -m tests.robustness.fuzz --minutes 10 --seed 0

Every case ends within SECONDS with exit code 0, 1, 2 or 3 and, but for 0, one `Error` line; no traceback; nothing of
what lay there changed, nothing half-written beside it; the marker of no payload; memory that grew by MEMORY at most,
and by AT_REST once it is over. A server answers every request, never by 500, and holds nothing of it afterwards. What
fails is kept in regressions/, the smallest input of each fault, and replayed by `test_fuzz`, which runs a short
form.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import dataclasses
import faulthandler
import fnmatch
import functools
import gc
import hashlib
import json
import multiprocessing.connection
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.robustness.strategies import FIFO, FOLDER, KINDS, PWNED, Case, Templates

REGRESSIONS = Path(__file__).parent / "regressions"
REPOSITORY = Path(__file__).parents[2]
SECONDS = 10.0
MEMORY = 1_500_000_000  # bytes, while a case runs: a picture of the most pixels that are read takes most of it
AT_REST = 300_000_000  # bytes that a case may leave in memory: TensorFlow's graphs, and a heap that does not shrink
LARGEST = 6_000_000_000  # bytes of data that the process may have at all
RENEWED = 1000  # cases after which a worker makes place for a fresh one
SHARES = {  # cases of a turn
    "recipe": 100,
    "image": 80,
    "folder": 40,
    "model": 150,
    "run": 15,
    "npz": 30,
    "table": 10,
    "request": 150,
    "train": 2,
}


@dataclasses.dataclass
class Outcome:
    """What became of a case. `ended` says how the process died, if it did."""

    code: int = 0
    out: str = ""
    err: str = ""
    new: tuple[tuple[str, bool], ...] = ()  # paths, and whether each is whole
    changed: tuple[str, ...] = ()
    seconds: float = 0.0
    peak: int = 0  # bytes that memory grew by at most
    left: int = 0  # and in the end
    ended: str | None = None


# Judging

_OF_OTHERS = re.compile(
    r"^([WEIF]\d{4} |\d{4}-\d\d-\d\d |\[.*onnxruntime|libpng|Exception ignored|terminate called|.*Warning: )"
)
# Ours, and what OpenVINO's readers of other formats write of a damaged model.xml (runtimes.py could hold it back).
_LEFT = r"Warning: |.*text_format\.cc"


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with an outcome, a line each."""
    if outcome.ended:
        return [f"the process {outcome.ended}"]
    found = []
    text = outcome.err + outcome.out
    lines = outcome.err.splitlines()
    errors = [line for line in lines if line.startswith("Error:")]
    if "Traceback" in text or "is a bug" in text:
        found.append(f"not one line for people: {(errors or lines or [''])[-1][:300]}")
    if outcome.code not in (0, 1, 2, 3):
        found.append(f"exit {outcome.code}")
    if len(errors) != (outcome.code != 0):
        found.append(f"exit {outcome.code} with {len(errors)} Error lines: {outcome.err[-300:]!r}")
    if outcome.code == 2 and "Usage:" not in outcome.err:
        found.append("exit 2 without the usage")
    if noise := [line for line in lines if _OF_OTHERS.match(line) and not re.match(_LEFT, line)]:
        found.append(f"a library's own words on stderr: {noise[0][:200]}")
    allowed = case.writes if outcome.code == 0 else case.leaves
    within = lambda path, patterns: any(fnmatch.fnmatchcase(path, f"here/{one}") for one in patterns)  # noqa: E731
    for path, whole in outcome.new:
        if PWNED in path:
            found.append(f"a payload ran: {path}")
        elif not within(path, allowed) or "/.kerascls-" in path:
            found.append(f"left behind: {path}")
        elif not whole:
            found.append(f"half-written: {path}")
    found += [f"changed: {path}" for path in outcome.changed if not within(path, (*case.writes, *case.leaves))]
    if outcome.seconds > SECONDS:
        found.append(f"took {outcome.seconds:.0f} s")
    if outcome.peak > MEMORY:
        found.append(f"memory grew by {outcome.peak / 1e6:,.0f} MB")
    if outcome.left > AT_REST:
        found.append(f"left {outcome.left / 1e6:,.0f} MB in memory")
    return found


# The worker: a process that runs what it is sent


def lay_out(tree: dict[str, bytes | str], folder: Path) -> None:
    for name, content in tree.items():
        path = folder / name
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            _make_folders(path if content == FOLDER else path.parent)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content == FIFO:
                os.mkfifo(path)
            elif content != FOLDER:
                path.symlink_to(content.removeprefix("link "))


def _make_folders(path: Path) -> None:
    """`mkdir(parents=True)` of any depth, which recursion would end."""
    at = Path(path.anchor)
    for part in path.parts[1:]:
        at = at / part
        at.mkdir(exist_ok=True)


def remove(folder: Path) -> None:
    """`shutil.rmtree`, which recurses, of folders as deep as some cases have."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * _RECURSION)
    shutil.rmtree(folder, ignore_errors=True)
    sys.setrecursionlimit(limit)


def snapshot(folder: Path) -> dict[str, str]:
    """Of each path below what it is and holds."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            state = os.lstat(path)
            if stat.S_ISREG(state.st_mode):
                with open(path, "rb") as file:
                    what = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                what = os.readlink(path) if stat.S_ISLNK(state.st_mode) else str(stat.S_IFMT(state.st_mode))
            found[os.path.relpath(path, folder)] = what
    return found


def is_whole(path: Path) -> bool:
    """Whether a file that was written can be read to its end."""
    from PIL import Image

    if path.is_symlink() or not path.is_file() or path.name == "lock":
        return True
    try:
        match path.suffix:
            case ".png":
                with Image.open(path) as image:
                    image.load()
            case ".json":
                json.loads(path.read_bytes())
            case ".csv":
                return path.read_bytes().endswith(b"\n")
            case ".keras" | ".npz":
                with zipfile.ZipFile(path) as archive:
                    return archive.testzip() is None
    except Exception:
        return False
    return True


def memory() -> tuple[int, int]:
    """Resident bytes now, and the most since `forget_peak`."""
    told = Path("/proc/self/status").read_text()
    return tuple(int(re.search(rf"{name}:\s*(\d+)", told)[1]) * 1024 for name in ("VmRSS", "VmHWM"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@contextlib.contextmanager
def captured() -> Iterator[dict[str, str]]:
    """What Python and C write to stdout and stderr meanwhile, under "out" and "err" when it is over."""
    held: dict[str, str] = {}
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            yield held
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, file, name in ((1, out, "out"), (2, err, "err")):
                os.dup2(kept[number - 1], number)
                os.close(kept[number - 1])
                file.seek(0)
                held[name] = file.read(1 << 20).decode("utf-8", "replace")


class Doer:
    """What a worker can do; `templates` is the folder of the good files."""

    def __init__(self, templates: Path):
        self.templates = templates

    def cli(self, *arguments: str) -> int:
        from kerascls.cli import run

        return run([argument.replace("@run", str(self.templates / "run")) for argument in arguments])

    def config(self, name: str) -> int:
        """A recipe that is taken is the same once it was written and read again."""
        from kerascls.errors import KerasclsError
        from kerascls.recipes.load import config_from_toml, load_config

        try:
            config = load_config(name if name.endswith(".toml") else f"./{name}")
        except KerasclsError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
        assert repr(config_from_toml(config.as_toml(), config.recipe, None)) == repr(config)
        return 0

    def read(self, names: list[str], shape: list[int], rule: str) -> int:
        """Images by both roads, and as uploads: pixels, or one line."""
        import numpy as np

        from kerascls.errors import DataError
        from kerascls.images import pillow, read
        from kerascls.images.files import Upload

        uploads = [Upload(Path(name).read_bytes(), max_pixels=1_000_000) for name in names]
        for road in (read.read_batch, pillow.read_batch):
            for sources in (names, uploads):
                for answer in road(sources, tuple(shape), (255, 255, 255), rule):
                    if isinstance(answer, DataError):
                        assert str(answer) and "Traceback" not in str(answer)
                    else:
                        assert answer.dtype == np.uint8 and answer.shape == tuple(shape), answer.shape
        return 0

    @functools.cached_property
    def server(self) -> "Server":
        return Server(self.templates / "run")

    def request(self, *request: Any) -> int:
        return self.server.ask(*request)

    def socket(self, encoded: str) -> int:
        return self.server.send(base64.b64decode(encoded))


class Server:
    """The app in an event loop of its own, called in place and, at a port, through its own connections."""

    def __init__(self, model: Path):
        import uvicorn

        from kerascls.inference.loading import load
        from kerascls.serving.app import make_app
        from kerascls.serving.limits import Connection, Limits
        from kerascls.serving.server import warm_up

        classifier = load(model)
        warm_up(classifier, 4)
        limits = Limits(max_batch=4, max_queue=64, max_body=100_000, max_pixels=1_000_000, timeout=3.0)
        self.app = make_app(classifier, "model", "1", limits)
        config = uvicorn.Config(
            self.app, http=Connection, ws="none", log_level="error", access_log=False, timeout_keep_alive=3
        )
        self.uvicorn = uvicorn.Server(config)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.loop = asyncio.new_event_loop()
        serve = functools.partial(self.loop.run_until_complete, self.uvicorn._serve([self.listener]))
        threading.Thread(target=serve, daemon=True).start()
        while not self.uvicorn.started:
            time.sleep(0.01)

    def ask(self, method: str, path: str, query: str, headers: list[tuple[str, str]], chunks: list[str | None]) -> int:
        """One request to the app itself."""
        bodies = [None if chunk is None else base64.b64decode(chunk) for chunk in chunks]
        messages = [
            {"type": "http.request", "body": body, "more_body": i < len(bodies) - 1}
            if body is not None
            else {"type": "http.disconnect"}
            for i, body in enumerate(bodies)
        ]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "root_path": "",
            "query_string": query.encode("latin-1", "replace"),
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1", "replace")) for k, v in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        sent: list[dict] = []

        async def one() -> None:
            rest = iter(messages)

            async def receive() -> dict:
                return next(rest, {"type": "http.disconnect"})

            async def send(message: dict) -> None:
                sent.append(message)

            await self.app(scope, receive, send)

        asyncio.run_coroutine_threadsafe(one(), self.loop).result(SECONDS)
        if not sent:
            assert None in chunks, "no answer"
            return 0
        status, text = sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
        self._check(status, text if method != "HEAD" else b"")
        return 0

    def send(self, request: bytes) -> int:
        """Bytes to the port; whatever comes back is no failure of the server's."""
        with socket.create_connection(self.listener.getsockname(), timeout=SECONDS) as connection:
            told = b""
            with contextlib.suppress(OSError):  # it was refused
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(1 << 16):
                    told += part
        for status in re.findall(rb"^HTTP/1\.1 (\d+)", told, re.MULTILINE):
            self._check(int(status), b"")
        self._check(*self._healthz())
        return 0

    def _healthz(self) -> tuple[int, bytes]:
        with socket.create_connection(self.listener.getsockname(), timeout=SECONDS) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := connection.recv(1 << 16):
                answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def _check(self, status: int, body: bytes) -> None:
        assert 100 <= status < 500 or status in (503, 504), f"status {status}: {body[:200]!r}"
        if status >= 400 and body:
            told = json.loads(body)
            assert list(told) == ["error"] and "bug" not in told["error"], told
        until = time.time() + 3
        models = self.app.app.router.lifespan_context.__self__.models.values()
        while (self.app.held or any(model.batcher.under_way for model in models)) and time.time() < until:
            time.sleep(0.01)
        assert self.app.held == 0, f"{self.app.held} bytes of bodies are still held"


_RECURSION = sys.getrecursionlimit()
CALLS = ("cli", "config", "read", "request", "socket")


def perform(doer: Doer, case: Case, folder: Path) -> Outcome:
    """One case in a folder of its own."""
    name, *arguments = case.call
    assert name in CALLS
    here = folder / "here"
    here.mkdir()
    lay_out(case.tree, here)
    before = snapshot(folder)
    os.chdir(here)
    gc.collect()
    forget_peak()
    resident, _ = memory()
    began = time.monotonic()
    with captured() as told:
        sys.setrecursionlimit(_RECURSION)
        try:
            code = getattr(doer, name)(*arguments)
        except Exception:
            traceback.print_exc()
            code = 1
        sys.setrecursionlimit(10 * _RECURSION)  # `snapshot` too goes down into folders as deep as some cases have
    seconds = time.monotonic() - began
    gc.collect()
    left, peak = memory()
    after = snapshot(folder)
    os.chdir(folder.parent)
    return Outcome(
        code,
        told["out"],
        told["err"],
        tuple(
            (path, after[path] in before.values() or is_whole(folder / path)) for path in after if path not in before
        ),
        tuple(path for path in before if after.get(path) != before[path]),
        seconds,
        peak - resident,
        left - resident,
    )


def make_templates(folder: Path) -> None:
    """Fills `folder` with what the strategies break."""
    import numpy as np

    from kerascls.cli import run
    from kerascls.formats import h5, keras, litert, onnx, openvino, saved_model, weights
    from kerascls.inference.csv_table import table_key
    from kerascls.inference.loading import load
    from kerascls.recipes.catalog import policy_options
    from kerascls.recipes.schema import SECTIONS
    from kerascls.runs import checkpoint

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import odd_files, small_npz

    def kerascls(*arguments: str, code: int = 0) -> None:
        assert run(arguments) == code, arguments

    work = Path(tempfile.mkdtemp(dir=folder.parent))
    os.chdir(work)
    small_npz("data.npz", count=12, classes=2, shape=(8, 8, 1))
    model = '[model]\nname = "small_cnn"\nfilters = 2\nblocks = 1\n'
    Path("r.toml").write_text(f'[data]\nname = "data.npz"\n{model}[train]\nepochs = 1\ncheckpoint_steps = 1\n')
    kerascls("train", "r.toml", "--out", "run", "--quiet")
    write = checkpoint.write

    def write_once(*arguments: Any) -> None:
        checkpoint.write = write
        write(*arguments)
        raise KeyboardInterrupt

    checkpoint.write = write_once
    kerascls("train", "r.toml", "--out", "stopped", "--quiet", code=130)
    loaded = load("run")
    for name, writer in {
        "m.keras": keras.save_keras,
        "m.h5": h5.save_h5,
        "m.tflite": litert.save_litert,
        "m.onnx": onnx.save_onnx,
        "weights": weights.save_weights,
        "saved_model": saved_model.save_saved_model,
        "openvino": openvino.save_openvino,
    }.items():
        writer(loaded.keras_model, loaded.card, Path(name))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)
    litert.save_litert(loaded.keras_model, loaded.card, Path("m.int8.tflite"), "int8", images)
    Path("images").mkdir()
    for name, content in odd_files().items():
        Path("images", name).write_bytes(content)
    Path("pictures").mkdir()
    for i in range(40):
        shutil.copy("images/L.png", f"pictures/{i:02}.png")
    kerascls("predict", "run", "pictures", "--csv", "table.csv", "--json")
    shutil.rmtree("pictures")
    keys = {
        "sections": {name: [field.name for field in dataclasses.fields(table)] for name, table in SECTIONS.items()},
        "policies": {name: sorted(options) for name, options in policy_options().items()},
        "partial": f"t.csv.{table_key('run', 2, False)}.partial",
    }
    keys["sections"]["model"] = ["name", "filters", "blocks", "dropout", "options"]
    Path("keys.json").write_text(json.dumps(keys))
    np.random.seed(0)
    os.chdir(folder.parent)
    os.replace(work, folder)


def worker(number: int, folder: str) -> None:
    """Runs cases that come through file descriptor `number` until it closes."""
    parent, templates = multiprocessing.connection.Connection(number), Path(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["COLUMNS"] = "200"
    warnings.simplefilter("ignore")  # as `cli.main` does
    sys.stdin = open(os.devnull)
    faulthandler.enable(open(templates.parent / "crash", "w"))
    with captured() as told:
        from kerascls.system import tensorflow

        tensorflow.start()
        if not templates.exists():
            make_templates(templates)
        doer = Doer(templates)
        doer.cli("predict", "@run", str(templates / "images" / "L.png"))
    gc.collect()
    gc.freeze()  # so that looking for garbage between cases takes no time
    resource.setrlimit(resource.RLIMIT_DATA, (LARGEST, LARGEST))
    sys.setrecursionlimit(10 * _RECURSION)
    parent.send(told["err"])
    while True:
        try:
            case = parent.recv()
        except EOFError:
            return
        with tempfile.TemporaryDirectory(dir=templates.parent, ignore_cleanup_errors=True) as folder:
            parent.send(perform(doer, case, Path(folder)))


# The parent

_WORKER = "import sys; from tests.robustness.fuzz import worker; worker(int(sys.argv[1]), sys.argv[2])"


class Workers:
    """One worker at a time in `folder`, replaced when it dies, hangs or is old."""

    def __init__(self, folder: Path):
        self.folder, self.templates_folder = folder, folder / "templates"
        self.process: subprocess.Popen | None = None
        self.done = 0
        self._begin()
        self.templates = Templates(self.templates_folder)

    def _begin(self) -> None:
        ours, theirs = multiprocessing.connection.Pipe()
        arguments = [sys.executable, "-c", _WORKER, str(theirs.fileno()), str(self.templates_folder)]
        home = {"HOME": str(self.folder), "PYTHONPATH": str(REPOSITORY), "KERASCLS_CACHE": str(self.folder / "cache")}
        environment = {name: value for name, value in os.environ.items() if name != "TFDS_DATA_DIR"} | home
        log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            arguments,
            cwd=self.folder,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        theirs.close()
        self.pipe, self.done = ours, 0
        if not self.pipe.poll(120):
            self.end()
            raise RuntimeError(f"The worker did not start: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"The worker did not start: {(self.folder / 'log').read_text()[-2000:]}") from None

    def end(self) -> None:
        """Ends the worker and what it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.pipe.close()
            self.process = None
            for left in self.folder.glob("tmp*"):
                remove(left)

    def run(self, case: Case) -> Outcome:
        if self.done >= RENEWED:
            self.end()
        if self.process is None:
            self._begin()
        self.done += 1
        try:
            self.pipe.send(case)
            if self.pipe.poll(SECONDS + 2):
                return self.pipe.recv()
            ended = f"hung for {SECONDS + 2:.0f} s"
            os.kill(self.process.pid, signal.SIGABRT)  # faulthandler tells where
            self.process.wait(10)
        except (EOFError, ConnectionError, subprocess.TimeoutExpired):
            ended = f"died of {signal.Signals(-code).name if (code := self.process.wait()) < 0 else f'exit {code}'}"
        self.end()
        return Outcome(ended=f"{ended}{self._where()}")

    def _where(self) -> str:
        told = re.findall(r'File ".*?([^/"]+/[^/"]+)", line (\d+) in (\S+)', (self.folder / "crash").read_text())
        return " in " + " < ".join(f"{file}:{line} {name}" for file, line, name in told[:6]) if told else ""

    def faults(self, case: Case) -> list[str]:
        """`faults` of a case; what depends on the hour (time, memory) counts only if a fresh worker shows it too."""
        outcome = self.run(case)
        found = faults(case, outcome)
        if found and (outcome.ended or all(re.match("took|memory|left .* MB", fault) for fault in found)):
            self.end()
            again = faults(case, self.run(case))
            self.end()
            return again
        return found


@contextlib.contextmanager
def working(folder: Path) -> Iterator[Workers]:
    workers = Workers(folder)
    try:
        yield workers
    finally:
        workers.end()


def generate(kind: str, templates: Templates, count: int, seed: int, each: Callable[[Case], None]) -> None:
    """Calls `each` with `count` cases of a kind, the same for the same seed."""
    import hypothesis

    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.seed(seed)
    @hypothesis.given(KINDS[kind](templates))
    def one(case: Case) -> None:
        each(case)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name", module="zipfile")  # as some archives here have
        one()


def signature(kind: str, found: list[str]) -> str:
    """The same for inputs that show the same fault."""
    return re.sub(r"0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"", "#", f"{kind}: {found[0]}")[:120]


def keep(case: Case, found: list[str], folder: Path) -> Path:
    """Writes a case to `folder`, in the place of a larger one of the same fault."""
    digest = hashlib.sha256(signature(case.kind, found).encode()).hexdigest()[:10]
    path, text = folder / f"{case.kind}-{digest}.json", case.as_json("; ".join(found))
    if not path.exists() or len(text) < path.stat().st_size:
        folder.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--count", type=int, default=10**9, help="cases after which it ends")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--keep", type=Path, default=REGRESSIONS, help="where failing inputs go")
    options = parser.parse_args()
    until = time.monotonic() + options.minutes * 60
    counts: collections.Counter[str] = collections.Counter()
    wrong: collections.Counter[str] = collections.Counter()
    slowest: dict[str, float] = collections.defaultdict(float)
    taken: dict[str, float] = collections.defaultdict(float)
    turn = 0
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        with working(folder) as workers:

            def each(case: Case) -> None:
                if time.monotonic() > until or counts.total() >= options.count:
                    return
                began = time.monotonic()
                found = workers.faults(case)
                seconds = time.monotonic() - began
                slowest[case.kind], taken[case.kind] = max(slowest[case.kind], seconds), taken[case.kind] + seconds
                counts[case.kind] += 1
                if found:
                    name = signature(case.kind, found)
                    if not wrong[name]:
                        print(
                            f"{case.kind}: {'; '.join(found)[:400]}\n    {keep(case, found, options.keep)}", flush=True
                        )
                    else:
                        keep(case, found, options.keep)
                    wrong[name] += 1

            while time.monotonic() < until and counts.total() < options.count:
                for kind in options.kinds:
                    generate(kind, workers.templates, SHARES[kind], options.seed * 1000 + turn, each)
                turn += 1
                print(f"turn {turn}: {counts.total():,} cases, {wrong.total()} failed", flush=True)
    finally:
        remove(folder)
    for kind, count in counts.items():
        print(f"{kind:<10}{count:>8,}   mean {taken[kind] / count:.2f} s, slowest {slowest[kind]:.1f} s")
    for name, count in wrong.most_common():
        print(f"{count:>8,} x {name}")
    print(f"{counts.total():,} cases in {turn} turns, {wrong.total():,} failed. Seed {options.seed}.")
    sys.exit(wrong.total() > 0)


if __name__ == "__main__":
    main()

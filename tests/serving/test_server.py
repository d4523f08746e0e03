"""The server, asked over HTTP by clients that know nothing of kerascls."""

import base64
import concurrent.futures
import contextlib
import gzip
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import REPOSITORY, here, one_line_error

import kerascls
from benchmarks import serving
from kerascls.errors import DataError
from kerascls.serving import tf_serving
from kerascls.serving.server import default_name

RELEASED = REPOSITORY / "saved_models" / "released" / "mnist_cnn"
SAVED_MODEL = RELEASED / "exports" / "saved_model"
FILES = sorted((RELEASED / "samples").glob("*.png"))[:16]
OPTIONS = ("--timeout", "2", "--max-body-mb", "2", "--max-pixels", "1000000", "--max-queue", "64")
PREDICT = "/v1/models/model:predict"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def server():
    """The port of a server of the released network, with limits small enough to be tried, and its process."""
    with serving.running(RELEASED, *OPTIONS) as (port, process):
        yield port, process
        assert process.poll() is None, "the server died"


@pytest.fixture(scope="module")
def expected():
    """Probabilities of FILES, as `predict` computes them."""
    classifier = kerascls.load(RELEASED)
    return classifier.probabilities(np.stack(classifier.read(FILES)))


def ask(server, method, path, body=None, headers=None):
    """(status, headers, text) of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server[0], timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


def predict(server, request, path=PREDICT):
    status, _, text = ask(server, "POST", path, json.dumps(request))
    return status, json.loads(text)


def b64(path):
    return {"b64": base64.b64encode(Path(path).read_bytes()).decode()}


def still_answers(server, expected):
    status, answer = predict(server, {"instances": [b64(FILES[0])]})
    assert status == 200
    assert np.abs(np.array(answer["predictions"][0]["probabilities"]) - expected[0]).max() < 1e-6


def bomb(width, height):
    """A PNG whose header is whole and declares that size; all else is left out."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


# TensorFlow Serving's API, https://www.tensorflow.org/tfx/serving/api_rest


def test_model_status_is_tensorflow_servings(server):
    shown = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/model", "/v1/models/model/versions/1"):
        status, headers, text = ask(server, "GET", path)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(text) == {"model_version_status": [shown]}


def test_metadata_is_that_of_the_exported_saved_model(server):
    from google.protobuf import json_format
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((SAVED_MODEL / "1" / "saved_model.pb").read_bytes())
    signatures = {
        name: json_format.MessageToDict(
            one, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, one in saved.meta_graphs[0].signature_def.items()
        if not name.startswith("__")
    }
    told = json.loads(ask(server, "GET", "/v1/models/model/metadata")[2])
    assert told["model_spec"] == {"name": "model", "signature_name": "", "version": "1"}
    assert told["metadata"]["signature_def"]["signature_def"] == signatures


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/model/versions/1:predict"])
def test_rows_and_columns_of_encoded_images_answer_as_the_saved_model_does(server, path):
    import tensorflow as tf

    encoded = tf.constant([file.read_bytes() for file in FILES])
    outputs = tf.saved_model.load(str(SAVED_MODEL / "1")).signatures["serving_default"](image_bytes=encoded)
    columns = {name: value.numpy() for name, value in outputs.items()}
    images = [b64(file) for file in FILES]
    for request in (
        {"instances": images},
        {"instances": [{"image_bytes": image} for image in images]},
        {"signature_name": "serving_default", "instances": images},
        {"inputs": images},
        {"inputs": {"image_bytes": images}},
    ):
        status, answer = predict(server, request, path)
        assert status == 200
        if "instances" in request:
            assert list(answer) == ["predictions"]
            rows = answer["predictions"]
            assert all(set(row) == set(columns) for row in rows)
            told = {name: [row[name] for row in rows] for name in columns}
        else:
            assert list(answer) == ["outputs"] and set(answer["outputs"]) == set(columns)
            told = answer["outputs"]
        assert told["label"] == [name.decode() for name in columns["label"]]
        assert told["top_labels"] == [[name.decode() for name in names] for names in columns["top_labels"]]
        for name in ("probabilities", "top_probabilities"):
            assert np.abs(np.array(told[name]) - columns[name]).max() < 1e-6


@pytest.mark.parametrize("signature", ["pixels", "serve"])
def test_arrays_of_pixels_of_any_size_answer_as_the_saved_model_does(server, signature):
    import tensorflow as tf

    model = tf.saved_model.load(str(SAVED_MODEL / "1"))
    for size in ((28, 28), (40, 33)):
        images = np.random.default_rng(0).integers(0, 256, (3, *size, 1), np.uint8)
        probabilities = model.signatures[signature](images=tf.constant(images))["probabilities"].numpy()
        rows = {"signature_name": signature, "instances": images.tolist()}
        named = {"signature_name": signature, "instances": [{"images": image} for image in images.tolist()]}
        for request in (rows, named):
            status, answer = predict(server, request)
            assert status == 200
            told = np.array([row["probabilities"] for row in answer["predictions"]])
            assert np.abs(told - probabilities).max() < 1e-6
        answer = predict(server, {"signature_name": signature, "inputs": {"images": images.tolist()}})[1]
        assert np.abs(np.array(answer["outputs"]["probabilities"]) - probabilities).max() < 1e-6


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/models/other:predict", "{}", 404, "Servable not found for request: Latest(other)"),
        ("/v1/models/model/versions/7:predict", "{}", 404, "Servable not found for request: Specific(model, 7)"),
        ("/v1/models/model:classify", "{}", 400, "predict"),
        ("/v1/models/model", "{}", 400, "Malformed request: POST /v1/models/model"),
        (PREDICT, "not json", 400, "JSON Parse error"),
        (PREDICT, "[" * 100_000, 400, "JSON Parse error"),
        (PREDICT, b"\xff\xfe{}", 400, "JSON Parse error"),
        (PREDICT, "[]", 400, "instances"),
        (PREDICT, "{}", 400, "instances"),
        (PREDICT, '{"instances": [1], "inputs": [1]}', 400, "either"),
        (PREDICT, '{"instances": []}', 400, "at least one"),
        (PREDICT, '{"instances": 3}', 400, "must be a list"),
        (PREDICT, '{"inputs": {"b64": "AAAA"}}', 400, "must be a list"),
        (PREDICT, '{"instances": [{"picture": {"b64": "AAAA"}}]}', 400, "image_bytes"),
        (PREDICT, '{"instances": [{"b64": "?!"}]}', 400, "base64"),
        (PREDICT, '{"instances": [{"b64": 3}]}', 400, "base64"),
        (PREDICT, '{"instances": [{"b64": "AAAA"}]}', 400, "image 0: is not an image"),
        (PREDICT, '{"instances": ["text"]}', 400, "image 0: is not an image"),
        (PREDICT, '{"instances": ["\\ud800"]}', 400, "image 0: is not an image"),
        (PREDICT, '{"signature_name": "nothing", "instances": [1]}', 400, "not found in signature def"),
        (PREDICT, '{"signature_name": ["pixels"], "instances": [1]}', 400, "not found in signature def"),
        (PREDICT, '{"signature_name": "pixels", "instances": [[[[256]]]]}', 400, "[0, 255]"),
        (PREDICT, '{"signature_name": "pixels", "instances": [[[[0.5]]]]}', 400, "[0, 255]"),
        (PREDICT, '{"signature_name": "pixels", "instances": [[[["a"]]]]}', 400, "[0, 255]"),
        (PREDICT, '{"signature_name": "pixels", "instances": [[[[1' + "0" * 40 + "]]]]}", 400, "[0, 255]"),
        (PREDICT, '{"signature_name": "pixels", "instances": [[[[0]]], [[[0], [0]]]]}', 400, "same shape"),
        (PREDICT, '{"signature_name": "pixels", "instances": [[[[0, 0]]]]}', 400, "(batch, height, width, 1)"),
        (PREDICT, '{"signature_name": "pixels", "instances": [[[]]]}', 400, "(batch, height, width, 1)"),
        (PREDICT, json.dumps({"instances": [{"b64": "AAAA"}] * 65}), 413, "64 images"),
    ],
)
def test_what_cannot_be_answered_is_an_error_object(server, path, body, status, words):
    told, headers, text = ask(server, "POST", path, body)
    assert (told, headers["content-type"]) == (status, "application/json")
    assert list(json.loads(text)) == ["error"] and words in json.loads(text)["error"]


# Uploads


def test_an_upload_gets_what_predict_says(server):
    answers = kerascls.load(RELEASED).predict(FILES[:2], top_k=3)
    with httpx.Client(base_url=f"http://127.0.0.1:{server[0]}", trust_env=False) as client:
        for file, said in zip(FILES, answers, strict=False):
            for response in (
                client.post("/predict", files={"image": (file.name, file.read_bytes())}, data={"top": "3"}),
                client.post("/predict?top=3", content=file.read_bytes()),
            ):
                answer = response.raise_for_status().json()
                assert answer["label"] == said.label
                assert [one["label"] for one in answer["top"]] == [name for name, _ in said.top]
                told = np.array([one["probability"] for one in answer["top"]])
                assert np.abs(told - [probability for _, probability in said.top]).max() < 1e-6
        black_on_white = client.post("/predict?invert=1", content=FILES[0].read_bytes()).json()
        assert "dark borders" in black_on_white["warning"]


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (b"", {}, "is empty"),
        (b"GIF89a" + bytes(20), {}, "does not decode"),
        (FILES[0].read_bytes()[:100], {}, "does not decode"),
        (b"\xff\xd8\xff" + bytes(100), {}, "does not decode"),
        (b"--x\r\n\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, ""),
        (b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, "no file"),
        (b"garbage", {"Content-Type": "multipart/form-data"}, "boundary"),
    ],
)
def test_garbage_is_refused_in_a_line(server, body, headers, words):
    status, _, text = ask(server, "POST", "/predict", body, headers)
    assert status == 400 and words in json.loads(text)["error"]


def test_a_damaged_image_in_a_shared_batch_fails_alone(server, expected):
    images = [b64(file) for file in FILES]
    damaged = {"b64": base64.b64encode(FILES[0].read_bytes()[:150]).decode()}

    def one(i):
        return predict(server, {"instances": [damaged if i % 3 == 0 else images[i % 16]]})

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(96)))
    for i, (status, answer) in enumerate(answers):
        if i % 3 == 0:
            assert status == 400 and "does not decode" in answer["error"]
        else:
            assert status == 200
            assert np.abs(np.array(answer["predictions"][0]["probabilities"]) - expected[i % 16]).max() < 1e-6
    sizes = re.findall(
        r'kerascls_batch_images_bucket{le="1.0"} (\S+)|kerascls_batch_images_count (\S+)', metrics(server)
    )
    single, batches = float(sizes[0][0]), float(sizes[1][1])
    assert single < batches, "no two requests ever shared a batch"


# Limits


def metrics(server):
    status, headers, text = ask(server, "GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    return text


def resident_mb(server):
    status = Path(f"/proc/{server[1].pid}/status")
    if not status.is_file():
        pytest.skip("needs /proc to read a process's memory")
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1000


@contextlib.contextmanager
def raw(server, *sent):
    with socket.create_connection(("127.0.0.1", server[0]), timeout=20) as connection:
        for data in sent:
            connection.sendall(data)
        yield connection


def head(length, *more):
    lines = [f"POST {PREDICT} HTTP/1.1", "Host: x", *([f"Content-Length: {length}"] if length else []), *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_a_declared_gigabyte_is_refused_before_it_is_sent(server, expected):
    with raw(server, head(10**9)) as connection:
        answer = b""
        while not answer.endswith(b"}") and (part := connection.recv(4096)):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413") and b"2,000,000 bytes" in answer
    still_answers(server, expected)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_gigabyte_that_is_sent_anyway_takes_no_memory(server, expected, chunked):
    before = resident_mb(server)
    piece = bytes(1_000_000)
    if chunked:
        piece = b"%x\r\n%s\r\n" % (len(piece), piece)
    pieces = 0
    with raw(server, head(0, "Transfer-Encoding: chunked") if chunked else head(10**9)) as connection:
        with contextlib.suppress(OSError):  # the server may hang up
            while pieces < 1000:
                connection.sendall(piece)
                pieces += 1
        with contextlib.suppress(OSError):
            assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert pieces > 2
    still_answers(server, expected)
    assert resident_mb(server) - before < 100


@pytest.mark.parametrize("size", [(30_000, 30_000), (2_000, 1_000)])
def test_a_decompression_bomb_is_refused_by_its_header(server, expected, size):
    before = resident_mb(server)
    encoded = base64.b64encode(bomb(*size)).decode()
    status, answer = predict(server, {"instances": [{"b64": encoded}]})
    assert status == 413 and "pixels" in answer["error"]
    assert ask(server, "POST", "/predict", bomb(*size))[0] == 413
    assert resident_mb(server) - before < 100
    still_answers(server, expected)


def ended_within(connection, seconds):
    """Whether the server hangs up by then; what it says before goes unread."""
    connection.settimeout(seconds)
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass
    return True


def test_slow_senders_are_cut_off_and_others_are_answered(server, expected):
    begins = [b"", b"POST /pre", head(0)[:-2], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET"]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(raw(server, begin)) for begin in begins * 20]
        slow_body = stack.enter_context(raw(server, head(1000), b"{"))
        until = time.monotonic() + 4
        while time.monotonic() < until:  # a byte now and then keeps no connection
            for connection in connections[1::4]:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")
            still_answers(server, expected)
            time.sleep(0.2)
        assert slow_body.recv(4096).startswith(b"HTTP/1.1 408")
        assert all(ended_within(connection, 3) for connection in connections)
        assert ended_within(slow_body, 3)


def test_endless_headers_are_cut_off(server, expected):
    with raw(server, b"GET / HTTP/1.1\r\n") as connection:
        with pytest.raises(OSError):
            for i in range(200):
                connection.sendall(b"X-%d: %s\r\n" % (i, b"y" * 10_000))
                time.sleep(0.005)
    still_answers(server, expected)


def test_clients_that_vanish_leave_nothing_behind(server, expected):
    body = json.dumps({"instances": [b64(file) for file in FILES]}).encode()
    for i in range(60):
        part = body if i % 2 else body[: len(body) // 2]
        with raw(server, head(len(body)), part) as connection:  # closed with a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until = time.monotonic() + 10
    while time.monotonic() < until:
        told = metrics(server)
        if "kerascls_images_under_way 0.0" in told and "kerascls_held_bytes 0.0" in told:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(told)
    still_answers(server, expected)


def test_more_images_than_the_queue_holds_get_429_and_a_time_to_come_again(server, expected):
    body = json.dumps({"instances": [b64(file) for file in FILES] * 4})

    def one(_):
        status, headers, _ = ask(server, "POST", PREDICT, body)
        return status, headers.get("Retry-After")

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = set(pool.map(one, range(48)))
    assert answers == {(200, None), (429, "1")}
    still_answers(server, expected)


def test_too_many_bytes_at_once_get_503_and_a_time_to_come_again(server, expected):
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(raw(server, head(1_900_000), b" " * 1_800_000)) for _ in range(9)]
        time.sleep(0.5)
        answers = []  # all before the others' time is over
        for connection in waiting:
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                answers.append(connection.recv(4096))
        assert answers and all(answer.startswith(b"HTTP/1.1 503") for answer in answers)
        assert all(b"retry-after: 1" in answer.lower() for answer in answers)
    time.sleep(0.2)
    still_answers(server, expected)


def test_health_and_unknown_paths(server):
    assert ask(server, "GET", "/healthz")[::2] == (200, '{"status": "ok"}')
    assert ask(server, "GET", "/nothing")[::2] == (404, '{"error": "Not Found"}')
    assert ask(server, "GET", "/predict")[::2] == (405, '{"error": "Method Not Allowed"}')
    assert 'kerascls_requests_total{path="other",status="404"}' in metrics(server)


# Starting and stopping


def test_sigterm_finishes_what_was_taken():
    body = json.dumps({"instances": [b64(FILES[0])]}).encode()
    with serving.running(RELEASED) as (port, process):
        with raw((port,), head(len(body)), body[:50]) as connection:
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=2).close()
            connection.sendall(body[50:])
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert process.wait(20) == 0


@pytest.mark.slow
def test_an_export_and_a_litert_model_are_served_too(server, expected, tmp_path):
    with serving.running(SAVED_MODEL) as one:
        still_answers(one, expected)
        answer = json.loads(ask(one, "POST", "/explain", FILES[0].read_bytes())[2])
        assert answer["heat_map"] is None and "layers" in answer["note"] and answer["top"]
    lite = kerascls.export(RELEASED, "litert", tmp_path / "model.tflite").path
    with serving.running(lite) as one:
        rows = predict(one, {"instances": [b64(file) for file in FILES]})[1]["predictions"]
        assert np.abs(np.array([row["probabilities"] for row in rows]) - expected).max() < 1e-5
        noise = np.random.default_rng(0).integers(0, 256, (1, 40, 33, 1), np.uint8).tolist()
        assert predict(one, {"signature_name": "pixels", "instances": noise})[0] == 200


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("saved_models/mnist_cnn", "mnist_cnn"),
        ("saved_models/mnist_cnn/exports/saved_model", "mnist_cnn"),
        ("saved_models/mnist_cnn/exports/saved_model/1", "mnist_cnn"),
        ("exported/1", "exported"),
        ("my model", "my_model"),
    ],
)
def test_a_models_name_in_urls(path, name):
    assert default_name(path) == name


def test_what_cannot_be_served_is_told_in_a_line(server, capsys):
    assert "port" in one_line_error("serve", RELEASED, "--port", server[0], capsys=capsys)
    assert "does not exist" in one_line_error("serve", "nothing", "--port", "0", capsys=capsys)
    assert "slash" in one_line_error("serve", RELEASED, "--name", "a/b", capsys=capsys)
    program = "import sys; sys.modules['uvicorn'] = None; from kerascls.cli import run; sys.exit(run(['serve', 'x']))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr == ("Error: kerascls serve needs uvicorn, which is missing: pip install 'kerascls[serve]'\n")


# The page


def test_the_page_asks_no_other_server(server):
    status, headers, text = ask(server, "GET", "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    assert "http://" not in text and "https://" not in text and "//" not in re.sub(r"\s//.*", "", text)
    assert "model" in text and "28 x 28" in text


@pytest.fixture
def browser(tmp_path, monkeypatch):
    if not CHROMIUM:
        pytest.skip("no Chromium is installed: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    exceptions = pytest.importorskip("selenium.common.exceptions")
    monkeypatch.setenv("SE_OFFLINE", "true")  # Selenium downloads no driver where none is installed
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)  # the driver is on this machine
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
        "disable-component-update disable-sync disable-dev-shm-usage no-proxy-server window-size=760,1080"
    ).split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver_path = shutil.which("chromedriver")
    try:
        driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path) if driver_path else None)
    except exceptions.WebDriverException as error:  # no driver, or one of another version
        reason = str(error.msg).strip().splitlines()[0].split(";")[0]
        pytest.skip(f"{CHROMIUM} cannot be driven: {reason}. Install chromium-driver of its version.")
    yield driver
    driver.quit()


# Gives the page a file as a user's hand would: dropped on it, or pasted.
HAND_OVER = """
const bytes = Uint8Array.from(atob(arguments[1]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], "digit.png", { type: "image/png" }));
const more = { bubbles: true, cancelable: true };
document.getElementById("drop").dispatchEvent(arguments[0] === "paste"
  ? new ClipboardEvent("paste", { ...more, clipboardData: data })
  : new DragEvent("drop", { ...more, dataTransfer: data }));
"""


def test_the_page_names_a_dropped_pasted_or_chosen_image_and_shows_what_decided(server, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def find(name):
        return browser.find_element(By.ID, name)

    def said(label):
        WebDriverWait(browser, 30).until(lambda _: find("status").text.startswith(f"Most probable: {label},"))

    answers = kerascls.load(RELEASED).predict(FILES)
    digits = {answer.label: file for answer, file in zip(answers, FILES, strict=True)}
    (first, dropped), (second, pasted), (third, chosen) = list(digits.items())[:3]
    browser.get(f"http://127.0.0.1:{server[0]}/")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element == find("file")  # the keyboard reaches it first
    assert find("status").get_attribute("aria-live") == "polite"
    browser.execute_script(HAND_OVER, "drop", b64(dropped)["b64"])
    said(first)
    assert find("best").text == first
    names = browser.find_elements(By.CSS_SELECTOR, "#names li")
    assert len(names) == 5 and names[0].text.split()[0] == first
    bars = [bar.size["width"] for bar in browser.find_elements(By.CSS_SELECTOR, ".bar div")]
    assert bars == sorted(bars, reverse=True) and bars[0] > 10 * max(1, bars[1])
    heat = find("heat")
    WebDriverWait(browser, 10).until(lambda _: heat.is_displayed() and heat.get_property("naturalWidth") == 28)
    assert first in heat.get_attribute("alt") and not find("seen").is_displayed()
    if os.environ.get("KERASCLS_SCREENSHOT"):
        browser.save_screenshot(os.environ["KERASCLS_SCREENSHOT"])
    find("show").click()
    assert not heat.is_displayed() and find("seen").is_displayed()
    browser.execute_script(HAND_OVER, "paste", b64(pasted)["b64"])
    said(second)
    find("file").send_keys(str(chosen))
    said(third)
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= 360  # a phone scrolls one way
    browser.execute_script(HAND_OVER, "drop", "AAAA")
    WebDriverWait(browser, 30).until(lambda _: "is not an image" in find("status").text)
    assert not find("answer").is_displayed()
    log = [entry["message"] for entry in browser.get_log("browser") if "400 (Bad Request)" not in entry["message"]]
    assert log == []  # nothing was blocked, nothing failed
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert {re.sub(r"^(http://127\.0\.0\.1:\d+/|data:|blob:).*", r"\1", name) for name in loaded} <= {
        f"http://127.0.0.1:{server[0]}/",
        "data:",
        "blob:",
    }


# Under load


@pytest.mark.slow
def test_32_clients_get_no_wrong_answer_and_twice_the_throughput_of_one(tmp_path):
    told = serving.measure(RELEASED, FILES, clients=32, seconds=10)
    assert told["together"]["errors"] == told["together"]["wrong"] == told["alone"]["wrong"] == 0, told
    assert told["ratio"] >= 2, told


# Clients of TensorFlow Serving, pages and proxies


@pytest.fixture(scope="module")
def app():
    """Asks an app of the released network in this process: `app(origins)` is an httpx client of it."""
    import asyncio

    from kerascls.serving.app import make_app
    from kerascls.serving.cross_origin import CrossOrigin
    from kerascls.serving.limits import Limits

    gate = make_app(kerascls.load(RELEASED), "model", "1", Limits(max_body=200_000))

    def asked(method, path, origins=(), **request):
        async def ask():
            starlette = gate.app
            async with starlette.router.lifespan_context(starlette):
                transport = httpx.ASGITransport(CrossOrigin(gate, origins))
                async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                    return await client.request(method, path, **request)

        return asyncio.run(ask())

    return asked


PNG = FILES[0].read_bytes()
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(PNG).decode(),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        base64.encodebytes(PNG).decode(),
        TEXT + "\n",
        "\r\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)) + "\r\n",
        f" \t{TEXT[:10]}\v\f {TEXT[10:]} ",
        TEXT.rstrip("=") + " = \n",
    ],
)
def test_base64_is_taken_as_tensorflow_serving_takes_it(text):
    body = json.dumps({"instances": [{"b64": text}]})
    assert tf_serving.parse(body.encode(), 1).inputs == [PNG]


@pytest.mark.parametrize(
    "value, words",
    [
        ({"b64": f"data:image/png;base64,{TEXT}"}, "b64 is a data: URL. Leave out what stands up to the comma"),
        ({"b64": str(base64.b64encode(PNG))}, "Send base64.b64encode(data).decode()"),
        ({"b64": TEXT[:21]}, "b64 is not base64"),
        ({"b64": TEXT + "!"}, "b64 is not base64"),
        (TEXT, 'is not an image, but text. Send {"b64": "..."}, the file in base64.'),
        (
            f"data:image/png;base64,{TEXT}",
            'Send {"b64": "..."}, the file in base64, without what stands up to the comma.',
        ),
    ],
)
def test_what_is_no_base64_is_told_with_what_to_do(value, words):
    with pytest.raises(DataError) as error:
        tf_serving.parse(json.dumps({"instances": [value]}).encode(), 1)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/predict/"),
        ("POST", "/explain//"),
        ("GET", "/healthz/"),
        ("GET", "/metrics/"),
        ("GET", "/v1/models/model/"),
        ("GET", "/v1/models/model/metadata/"),
        ("POST", f"{PREDICT}/"),
    ],
)
def test_a_slash_at_the_end_changes_nothing(app, method, path):
    body = json.dumps({"instances": [b64(FILES[0])]}) if ":" in path else PNG
    with_slash, without = (app(method, each, content=body) for each in (path, path.rstrip("/")))
    assert with_slash.status_code == without.status_code == 200
    if "metrics" not in path:
        assert with_slash.text == without.text


def test_gzip_bodies_are_unpacked_and_other_encodings_refused(app):
    plain = app("POST", "/predict", content=PNG).json()
    request = json.dumps({"instances": [b64(FILES[0])]}).encode()
    for packed in (gzip.compress(PNG), gzip.compress(PNG[:50]) + gzip.compress(PNG[50:])):
        answer = app("POST", "/predict", content=packed, headers={"Content-Encoding": "gzip"})
        assert answer.json() == plain
    rows = app("POST", PREDICT, content=gzip.compress(request), headers={"Content-Encoding": "GZIP"}).json()
    assert rows == app("POST", PREDICT, content=request).json()
    for encoding in ("br", "deflate", "zstd", "gzip, gzip"):
        refused = app("POST", "/predict", content=PNG, headers={"Content-Encoding": encoding})
        assert refused.status_code == 415 and refused.headers["accept-encoding"] == "gzip"
        assert refused.json()["error"] == (
            f"A body of Content-Encoding {encoding!r} is not taken. Send gzip, or the body as it is."
        )


@pytest.mark.parametrize(
    "packed, status, words",
    [
        (gzip.compress(bytes(100_000_000), 1), 413, "larger than 200,000 bytes"),
        (gzip.compress(gzip.compress(bytes(200_001)))[:-3], 400, "cut short"),
        (PNG, 400, "is not gzip"),
        (gzip.compress(PNG) + b"garbage", 400, "is not gzip"),
    ],
    ids=["bomb", "cut", "no gzip", "garbage behind"],
)
def test_a_gzip_bomb_and_damaged_gzip_are_refused(app, packed, status, words):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = app("POST", "/predict", content=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == status and words in answer.json()["error"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB, of the 100 MB of the bomb


SHOP = {"Origin": "https://shop.example"}
PREFLIGHT = {
    **SHOP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
}


def test_pages_of_other_origins_may_not_ask_by_default(app):
    assert app("OPTIONS", PREDICT, headers=PREFLIGHT).status_code == 405
    answer = app("POST", "/predict", content=PNG, headers=SHOP)
    assert answer.status_code == 200 and not [name for name in answer.headers if name.startswith("access-control")]


def test_pages_of_an_allowed_origin_may_ask_and_read_errors_too(app):
    origins = ("https://shop.example:443/", "http://localhost:3000")
    preflight = app("OPTIONS", PREDICT, origins, headers=PREFLIGHT)
    assert preflight.status_code == 204 and preflight.content == b""
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "content-type"
    assert "Origin" in preflight.headers["vary"]
    for path, body, status in (
        ("/predict", PNG, 200),
        ("/predict", b"x", 400),
        ("/nothing", b"", 404),
        ("/predict", bytes(200_001), 413),
    ):
        answer = app("POST", path, origins, content=body, headers=SHOP)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["vary"] == "Origin"
    for foreign in ({"Origin": "https://shop.example.evil"}, {"Origin": "http://shop.example"}, {}):
        answer = app("POST", "/predict", origins, content=PNG, headers=foreign)
        assert answer.headers["vary"] == "Origin" and "access-control-allow-origin" not in answer.headers
        if foreign:
            refused = app("OPTIONS", PREDICT, origins, headers={**PREFLIGHT, **foreign})
            assert refused.status_code == 403 and "--allow-origin" in refused.json()["error"]
            assert "access-control-allow-origin" not in refused.headers


def test_every_origin_may_ask_where_all_are_allowed(app):
    answer = app("POST", "/predict", ("*",), content=b"x", headers=SHOP)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (400, "*")
    assert "vary" not in answer.headers
    preflight = app("OPTIONS", "/explain", ("*",), headers=PREFLIGHT)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")


@pytest.mark.parametrize(
    "origin", ["shop.example", "https://shop.example/page", "https://", "https://a@b", "http://a:x"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin, capsys):
    error = one_line_error("serve", RELEASED, "--allow-origin", origin, capsys=capsys)
    assert "as https://shop.example or http://localhost:3000; or * for all." in error and repr(origin) in error


# Several models


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """A server of the released network and of its .tflite under another name."""
    lite = tmp_path_factory.mktemp("lite") / "model.tflite"
    kerascls.export(RELEASED, "litert", lite)
    with serving.running(RELEASED, "--model", f"small={lite}", *OPTIONS) as (port, process):
        yield port, process


def test_each_of_several_models_answers_under_its_name(two_models, expected):
    for name in ("model", "small"):
        status, answer = predict(two_models, {"instances": [b64(file) for file in FILES]}, f"/v1/models/{name}:predict")
        assert status == 200
        rows = np.array([row["probabilities"] for row in answer["predictions"]])
        assert np.abs(rows - expected).max() < 1e-5
        assert ask(two_models, "GET", f"/v1/models/{name}")[0] == 200
        status, _, text = ask(two_models, "GET", f"/v1/models/{name}/metadata")
        assert json.loads(text)["model_spec"]["name"] == name
        status, _, text = ask(two_models, "POST", f"/explain?model={name}", FILES[0].read_bytes())
        assert status == 200 and (json.loads(text)["heat_map"] is None) == (name == "small")  # which has no layers
    status, _, text = ask(two_models, "GET", "/models")
    assert json.loads(text) == {
        "models": [
            {"name": name, "version": "1", "image_shape": [28, 28, 1], "classes": 10} for name in ("model", "small")
        ]
    }
    first = ask(two_models, "POST", "/predict", FILES[0].read_bytes())
    assert first[2] == ask(two_models, "POST", "/predict?model=model", FILES[0].read_bytes())[2]
    with httpx.Client(base_url=f"http://127.0.0.1:{two_models[0]}", trust_env=False) as client:
        named = client.post("/predict", files={"image": FILES[0].read_bytes()}, data={"model": "small"})
        assert named.status_code == 200
    told = metrics(two_models)
    assert 'kerascls_requests_total{model="small",path="/predict",status="200"} 1.0' in told
    for name in ("model", "small"):
        assert f'kerascls_images_under_way{{model="{name}"}} 0.0' in told
        assert re.search(rf'kerascls_batch_images_count{{model="{name}"}} [1-9]', told)


def test_a_name_that_is_not_served_is_told_with_those_that_are(two_models):
    for method, path in (
        ("GET", "/v1/models/other"),
        ("POST", "/v1/models/other:predict"),
        ("POST", "/predict?model=other"),
    ):
        status, _, text = ask(two_models, method, path, FILES[0].read_bytes() if method == "POST" else None)
        assert status == 404 and "other" in json.loads(text)["error"]
        assert json.loads(text)["error"].endswith(" Served: model, small")


def test_the_page_lets_one_choose_among_several_models(two_models, server):
    _, headers, text = ask(two_models, "GET", "/")
    assert re.findall(r"<option [^>]*>(\w+)</option>", text) == ["model", "small"]
    assert '<label for="model">Model</label>' in text and "MODEL_" not in text
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in headers["content-security-policy"]
    assert "<select" not in ask(server, "GET", "/")[2]


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        ((RELEASED, "--model", f"mnist_cnn={SAVED_MODEL}"), 1, "Two models are named 'mnist_cnn'."),
        (("--model", f"a={RELEASED}", "--model", f"a={RELEASED}"), 1, "Two models are named 'a'."),
        (("--model", f"a/b={RELEASED}"), 1, "no slash, colon or space. Received: 'a/b'"),
        (("--model", "a"), 2, "--model takes NAME=PATH"),
        (("--model", "=x"), 2, "--model takes NAME=PATH"),
        ((), 2, "Give RUN_OR_EXPORT, or --model NAME=PATH"),
        (("--name", "b", "--model", f"a={RELEASED}"), 2, "leave it out"),
    ],
)
def test_models_that_cannot_be_told_apart_are_refused_before_any_is_loaded(arguments, code, words, capsys):
    told, _, err = here("serve", *arguments, capsys=capsys)
    assert told == code and words in err

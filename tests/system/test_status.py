"""The line that says what a command is doing: on a terminal, in nobody's way, and gone at the end."""

import contextlib
import os
import pty
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, here, small_npz
from PIL import Image

import kerascls
from kerascls.cli import run
from kerascls.system import status
from kerascls.system.status import Doing, clock, doing, fitting, shown, width

RELEASED = REPOSITORY / "saved_models" / "released" / "mnist_cnn"


class Terminal:
    """Inside, stdout and stderr are a pseudo-terminal: `said` is all that was written to it, `screen` the lines that
    stand there in the end."""

    def __enter__(self):
        self.said = ""
        reader, writer = pty.openpty()
        self.thread = threading.Thread(target=self.read, args=[reader])
        self.thread.start()
        self.before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (os.fdopen(os.dup(writer), "w", buffering=1) for _ in self.before)
        os.close(writer)
        return self

    def __exit__(self, *_):
        mine = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self.before
        for file in mine:
            file.close()
        self.thread.join(20)

    def read(self, reader):
        with os.fdopen(reader, "rb", buffering=0) as file, contextlib.suppress(OSError):  # when nobody has it open
            while chunk := file.read(65536):
                self.said += chunk.decode()

    def wait_for(self, text):
        end = time.perf_counter() + 30
        while text not in self.said:
            assert time.perf_counter() < end, (text, self.said)
            time.sleep(0.005)

    @property
    def screen(self):
        lines, column = [""], 0
        for character in self.said:
            if character == "\n":
                lines.append("")
            if character in "\r\n":
                column = 0
            elif character == "\b":
                column -= 1
            else:
                line = lines[-1].ljust(column)
                lines[-1] = line[:column] + character + line[column + 1 :]
                column += 1
        return [line.rstrip() for line in lines]


def test_what_is_done_is_told_with_its_share_its_rate_and_the_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    one, many = Doing("loading"), Doing("reading", 200, "files", done=20, ahead=100)
    assert (str(one), str(many)) == ("loading ...", "reading: 10 % of 200 files ...")
    now[0] += 5
    assert str(one) == "loading ... 5 s"
    many.step(20)  # it took 5 s, in which all was compiled
    assert str(many) == "reading: 20 % of 200 files ... 5 s"
    now[0] += 2
    many.step(40)  # 20 a second; 120 and 100 more are left
    many.note = "loss 0.5"
    assert str(many) == "reading: 40 % of 200 files, 20 files/s, 0:11 left, loss 0.5"
    assert (clock(59.6), clock(3600)) == ("1:00", "1:00:00")


def test_the_line_is_rewritten_while_nothing_else_is_written(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    with Terminal() as terminal, shown("train"), doing("loading TensorFlow"):
        for second in range(1, 4):
            now[0] = float(second)
            terminal.wait_for(f"\rloading TensorFlow ... {second} s")
    assert terminal.screen == [""]
    assert status.EVERY < 1  # so it is never older than a second and a half


def test_results_prompts_and_bars_of_others_are_not_garbled(monkeypatch):
    monkeypatch.setattr(status, "EVERY", 0.01)
    with Terminal() as terminal, shown("train"):
        with doing("reading a folder of many images", 100) as progress:
            progress.step(50)
            print("a result")
            print("a note", file=sys.stderr)
            terminal.wait_for("\rreading a folder of many images: 50 % of 100 images")
            sys.stderr.write("Go on? [y/n]: ")  # a prompt has the line
            sys.stderr.flush()
            time.sleep(0.05)
            print("y")
            for i in range(3):
                sys.stderr.write(f"\rdownload {i}")  # as tqdm writes
                time.sleep(0.02)
            print(file=sys.stderr)
            time.sleep(0.05)
        print("the end")
    assert terminal.screen == ["a result", "a note", "Go on? [y/n]: y", "download 2", "the end", ""]


def test_the_innermost_is_told_unless_one_around_it_counts():
    with Terminal() as terminal, shown("export"):
        line = status._line
        assert line.text() == "export ..."
        with doing("loading the model"), doing("loading TensorFlow"):
            assert line.text() == "loading TensorFlow ..."
        with doing("naming", 4), doing("answering", 2):
            assert line.text() == "naming: 0 % of 4 images ..."
        with doing("export", 9, "formats", stays=True), doing("onnx: writing"):
            assert line.text() == "export: 0 % of 9 formats ... | onnx: writing ..."
        with doing(""):
            assert line.text() == ""
            other = threading.Thread(target=lambda: doing("in a thread").__enter__())
            other.start()
            other.join()
            assert line.text() == ""
        assert line.text() == "export ..."
    assert terminal.screen == [""]


def test_a_line_fits_its_terminal_and_moves_no_cursor():
    assert fitting("reading \x1b[2J\n犬犬犬", 80) == "reading ?[2J?犬犬犬"
    assert fitting("犬犬犬", 5) == "犬犬" and width("犬犬") == 4
    assert fitting("abc", 0) == ""


def test_streams_are_put_back_whatever_happens():
    with Terminal():
        before = sys.stdout, sys.stderr
        with pytest.raises(ZeroDivisionError), shown("train"):
            assert (sys.stdout, sys.stderr) != before and sys.stdout.fileno() == before[0].fileno()
            with shown("again"):
                assert status._line.text() == "train ..."
            print(1 / 0)
        assert (sys.stdout, sys.stderr) == before and status._line is None


def images(folder, count=2):
    for name, colour in (("dark", 0), ("light", 255)):
        Path(folder, name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((8, 8), abs(colour - i), np.uint8)).save(Path(folder, name, f"{i}.png"))


COMMANDS = {
    "predict RUN RUN/samples": ["listing images", "loading the model mnist_cnn", "naming: 0 % of 64 images"],
    "evaluate RUN --data digits": ["reading digits", "answering: ", "drawing confusion.png"],
    "explain RUN RUN/samples/000.png": ["loading the model mnist_cnn", "looking for", "explaining: 0 % of 1 images"],
    "export RUN --format keras": ["keras: writing", "keras: answering in a fresh process"],
    "inspect RUN": ["reading model.keras"],
    "show pets": ["listing pets", "reading pets: 0 % of 4 images", "drawing pets.png"],
    "split pets parts --train 1 --validation 1": ["looking at pets: ", "filling parts: 0 % of 4 images"],
    "train mnist_cnn --data small.npz --epochs 1": [
        "reading small.npz",
        "building the model",
        "epoch 1/1: 0 % of 9 images",
        "epoch 1/1: validating",
        "drawing curves.png",
    ],
    "sweep mnist_cnn --data small.npz --epochs 1": ["sweep: 0 % of 1 trainings ...", " | epoch 1/1: 0 % of 9 images"],
}


# An export is answered by a fresh TensorFlow.
@pytest.mark.parametrize(
    "words", [pytest.param(words, marks=[pytest.mark.slow] * words.startswith("export")) for words in COMMANDS]
)
def test_every_command_says_what_it_is_doing(words, tmp_path):
    shutil.copytree(RELEASED, tmp_path / "mnist_cnn")
    images("pets")
    small_npz("small.npz", count=10)
    with Terminal() as terminal:
        code = run([word.replace("RUN", "mnist_cnn") for word in words.split()])
    assert code == 0
    assert [text for text in COMMANDS[words] if text not in terminal.said] == []
    assert [line for line in terminal.screen if " ..." in line or " % of " in line] == []


def test_results_on_a_terminal_are_those_of_a_pipe(monkeypatch, capsys):
    files = sorted((RELEASED / "samples").glob("*.png"))[:40]
    _, out, err = here("predict", RELEASED, *files, capsys=capsys)
    assert err == "" and "\r" not in out
    monkeypatch.setattr(status, "EVERY", 0.001)
    with Terminal() as terminal:
        assert run(["predict", str(RELEASED), *map(str, files)]) == 0
    assert "\rnaming: " in terminal.said
    assert "\n".join(terminal.screen) == out


def test_with_quiet_and_after_an_error_no_line_is_left():
    Path("broken.keras").write_bytes(b"nothing")
    with Terminal() as terminal:
        assert run(["predict", "broken.keras", str(RELEASED / "samples" / "000.png")]) == 1
    assert "\rloading the model broken.keras" in terminal.said
    assert len(terminal.screen) == 2 and terminal.screen[0].startswith("Error: ")
    with Terminal() as terminal:
        assert run(["sweep", "mnist_cnn", "--data", "nothing.npz", "--quiet"]) == 1
    assert "\r" not in terminal.said.replace("\r\n", "")


def test_in_python_nothing_is_said_unless_asked():
    small_npz("small.npz", count=10)
    with Terminal() as terminal:
        kerascls.load(RELEASED).probabilities(np.zeros((40, 28, 28, 1), np.uint8))
        assert terminal.said == ""
        kerascls.train("mnist_cnn", data="small.npz", epochs=1, quiet=False)
    assert "\repoch 1/1: 0 % of 9 images" in terminal.said

"""The command line: light, quiet, and one line for an error."""

import subprocess
import sys
import time

import pytest
from conftest import command, here

import kerascls
from kerascls.cli import cli


def test_help_is_quick_and_leaves_tensorflow_unimported():
    program = (
        "import sys; from kerascls.cli import run; code = run(['--help']); "
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'matplotlib') if m in sys.modules], code)"
    )
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - begin)
    assert process.stdout.splitlines()[-1] == "[] 0"
    assert min(times) < 0.4


@pytest.mark.parametrize(
    "arguments", [["list"], ["new", "mine"], ["train", "--help"], ["train", "nothing"], ["--version"]]
)
def test_light_commands_leave_tensorflow_unimported(arguments):
    program = f"import sys; from kerascls.cli import run; run({arguments!r}); print('tensorflow' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "False"


def test_import_is_light_and_functions_stay_functions():
    program = (
        "import sys, kerascls; light = 'tensorflow' not in sys.modules; import kerascls.train, kerascls.load; "
        "from kerascls import train; print(light, callable(kerascls.train), callable(kerascls.load), callable(train))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout == "True True True True\n"
    assert all(callable(getattr(kerascls, name)) for name in kerascls.__all__ if not name.startswith("_"))


def test_every_command_has_an_example_in_its_help():
    for name, one in cli.commands.items():
        if name not in ("list", "env"):
            assert f"kerascls {name}" in one.help, name


@pytest.mark.parametrize(
    "arguments", [["train"], ["nothing"], ["train", "mnist_cnn", "--epochs", "0"], ["train", "mnist_cnn", "--nothing"]]
)
def test_usage_mistakes_exit_2(arguments, capsys):
    code, _, err = here(*arguments, capsys=capsys)
    assert code == 2 and "Error: " in err


def test_an_error_is_one_line_and_debug_shows_the_traceback():
    plain = command("train", "nothing", check=1)
    assert plain.stderr.count("\n") == 1 and plain.stdout == ""
    process = command("--debug", "train", "nothing")
    assert process.returncode == 1 and "Traceback" in process.stderr


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.run(
        f"{sys.executable} -m kerascls list | head -1", shell=True, capture_output=True, text=True, check=True
    )
    assert (process.stdout, process.stderr) == ("recipes:\n", "")

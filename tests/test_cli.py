"""The command line: light, quiet, and one line for an error."""

import subprocess
import sys

import pytest
from conftest import command, here, one_line_error, processor_seconds

import kerascls
from kerascls import errors
from kerascls.cli import cli


def test_help_is_quick_and_leaves_tensorflow_unimported():
    program = (
        "import sys; from kerascls.cli import run; code = run(['--help']); "
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'matplotlib') if m in sys.modules], code)"
    )
    times = []
    for _ in range(3):
        begin = processor_seconds()
        process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        times.append(processor_seconds() - begin)
    assert process.stdout.splitlines()[-1] == "[] 0"
    assert min(times) < 0.4


def test_the_help_of_export_names_the_registrys_formats_without_a_heavy_import():
    program = (
        "import sys; from kerascls.cli import run; run(['export', '--help']); "
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'h5py', 'onnx') if m in sys.modules]); "
        "from kerascls.formats.registry import FORMATS; print('|'.join(FORMATS))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *told, imported, names = process.stdout.splitlines()
    assert imported == "[]" and f"--format [{names}]" in " ".join("".join(told).split())


@pytest.mark.parametrize(
    "arguments", [["list"], ["new", "mine"], ["train", "--help"], ["train", "nothing"], ["--version"]]
)
def test_light_commands_leave_tensorflow_unimported(arguments):
    program = f"import sys; from kerascls.cli import run; run({arguments!r}); print('tensorflow' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "False"


def test_import_is_light_and_functions_stay_functions():
    program = (
        "import sys, kerascls; light = 'tensorflow' not in sys.modules; import kerascls.training.train; "
        "from kerascls import train; print(light, callable(kerascls.train), callable(kerascls.load), callable(train))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout == "True True True True\n"
    assert all(callable(getattr(kerascls, name)) for name in kerascls.__all__ if not name.startswith("_"))


@pytest.mark.parametrize("name", cli.list_commands(None))
def test_the_help_of_a_command_begins_with_two_examples(name, capsys):
    code, out, _ = here(name, "--help", capsys=capsys)
    first, second, empty, usage = out.splitlines()[:4]
    assert code == 0 and empty == "" and usage.startswith(f"Usage: kerascls {name}")
    assert first.startswith(f"$ kerascls {name}") and second.startswith(f"$ kerascls {name}") and first != second


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


@pytest.mark.parametrize(
    "words, hint",
    [
        ("train mnist_cnn --lr 0.01", "'--set train.learning_rate=0.01'"),
        ("train mnist_cnn --model=small_cnn", "'--set model.name=small_cnn'"),
        ("train mnist_cnn --imgsz 64", "'--set data.image_shape=64'"),
        ("train mnist_cnn --image-size --quiet", "'--set data.image_shape=VALUE'"),
        ("sweep mnist_cnn --bs 32", "'--set train.batch_size=32'"),
        ("train mnist_cnn --epoch 3", "'--epochs 3'"),
        ("train mnist_cnn --size 64", "'--set data.image_shape=64'"),
        ("train mnist_cnn --device", "'--devices VALUE'"),
        ("train mnist_cnn --debices cpu", "'--devices'"),
        ("export run --format tflite", "litert?"),
        ("export run --format tf", "saved_model?"),
        ("export run --format savedmodel", "saved_model?"),
        ("export run --format hdf5", "h5?"),
        ("export run --format onx", "onnx?"),
    ],
)
def test_what_other_tools_call_it_is_answered_by_its_name_here(words, hint, capsys):
    code, _, err = here(*words.split(), capsys=capsys)
    assert code == 2 and f"Did you mean {hint}" in err.splitlines()[-1]


def test_an_option_like_no_other_gets_no_hint(capsys):
    for words in ("evaluate run --lr 0.1", "train mnist_cnn --nothing"):
        assert "Did you mean" not in here(*words.split(), capsys=capsys)[2]


def test_python_hints_at_a_format_too():
    with pytest.raises(kerascls.errors.OutputError, match=r"Received: 'tflite'. Did you mean litert\?"):
        kerascls.export("run", "tflite")


@pytest.mark.parametrize(
    "text, python",
    [
        ("Try --set train.epochs=3.", 'Try overrides={"train": {"epochs": 3}}.'),
        ("as in --set 'model.pixel_range=[-1, 1]'.", 'as in overrides={"model": {"pixel_range": [-1, 1]}}.'),
        ("name it: --set model.weights=PATH.", 'name it: overrides={"model": {"weights": PATH}}.'),
        ("--set train.class_weight=balanced", 'overrides={"train": {"class_weight": "balanced"}}'),
        ("Name them: --data FOLDER.", "Name them: data=FOLDER."),
        ("or give --out another place, or --data-dir.", "or give `out` another place, or `data_dir`."),
        ("`kerascls train --resume RUN` goes on", "`kerascls train --resume RUN` goes on"),
        ("a-b--c.png and x -- y", "a-b--c.png and x -- y"),
    ],
)
def test_errors_speak_of_arguments_to_python_and_of_options_to_the_shell(text, python, capsys):
    assert str(errors.DataError(text)) == python
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(errors, "command", True)
        assert str(errors.DataError(text)) == text


def test_a_commands_error_names_its_options(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert "give --out another place" in one_line_error("train", "mnist_cnn", "--out", "out", capsys=capsys)
    with pytest.raises(errors.OutputError, match="give `out` another place"):
        kerascls.train("mnist_cnn", out="out")

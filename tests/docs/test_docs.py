"""The documentation: its commands and programs are run, what is generated is current, and nothing is without a page."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from conftest import REPOSITORY, here

import kerascls
from kerascls.cli import cli
from tools import generate_docs

DOCS = REPOSITORY / "docs"
PAGES = {path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8") for path in generate_docs.pages()}
README = PAGES["README.md"]
CHINESE = (REPOSITORY / "README.zh-CN.md").read_text(encoding="utf-8")


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def console(page):
    """Commands after a `$`, each with the lines shown under it."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *shown = part.splitlines()
            yield line, shown


def without_numbers(text):
    """Nor the spaces that align them in columns."""
    return re.sub(r" +", " ", re.sub(r"\d[\d.,]*", "#", text))


def shows(text, line):
    """Whether a line of a page is in a text, numbers apart; `...` stands for anything."""
    pattern = ".*".join(re.escape(without_numbers(part)) for part in line.split("..."))
    return re.search(pattern, without_numbers(text)) is not None


def described(page):
    """The keys in each section of a page: the first column of its tables."""
    sections = re.split(r"^## (.+)$", page, flags=re.MULTILINE)[1:]
    return {
        head: set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
        for head, text in zip(sections[::2], sections[1::2], strict=True)
    }


# What a reader has


@pytest.fixture(scope="session")
def mnist_cnn(tmp_path_factory):
    """The run of which pages say that they use it."""
    run = tmp_path_factory.mktemp("docs") / "mnist_cnn"
    command = [sys.executable, "-m", "kerascls", "train", "mnist_cnn", "--data", "digits", "--out", str(run)]
    subprocess.run(command, check=True, capture_output=True)
    return run


@pytest.fixture(scope="session")
def pretrained_weights():
    """Random numbers, where Keras keeps what it has downloaded."""
    cache = Path.home() / ".keras" / "models"
    cache.mkdir(parents=True, exist_ok=True)
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(224, 224, 3))
    network.save(cache / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5")


def my_digits():
    """The released model's samples in one folder per digit."""
    samples = Path("saved_models/released/mnist_cnn/samples")
    told = json.loads((samples / "samples.json").read_text())
    for file, label in zip(told["files"], told["labels"], strict=True):
        Path("my_digits", label).mkdir(parents=True, exist_ok=True)
        shutil.copy(samples / file, Path("my_digits", label, file))


def foreign():
    layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")]
    keras.Sequential(layers).save("foreign.keras")


def give(thing, request):
    """Puts into the folder what a page says in a comment, `given`, that its reader has."""
    if Path(thing).exists():
        return
    if thing == "saved_models/mnist_cnn of MNIST":
        shutil.copytree("saved_models/released/mnist_cnn", "saved_models/mnist_cnn")
    elif thing == "saved_models/mnist_cnn":
        shutil.copytree(request.getfixturevalue("mnist_cnn"), thing)
    elif thing == "pretrained weights":
        request.getfixturevalue("pretrained_weights")
    elif thing == "names.txt":
        Path(thing).write_text("cat\ndog\n")
    else:
        {"my_digits": my_digits, "foreign.keras": foreign}[thing]()


class Shell:
    """Runs a page's lines in the folder, as a reader would type them."""

    def __init__(self, folder):
        self.servers, self.server, self.port = contextlib.ExitStack(), None, "8501"
        (folder / "bin").mkdir()
        for name, arguments in (("kerascls", "-m kerascls"), ("python", "")):
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}

    def run(self, line):
        """What a command prints on stdout and stderr. A server answers the lines that follow: its first line."""
        if line.startswith("kerascls serve "):
            return self.serve(line)
        line = line.replace("8501", self.port)  # which something else may have here
        process = subprocess.run(
            line, shell=True, capture_output=True, text=True, env=self.environment, timeout=1200, check=False
        )
        assert process.returncode == 0, f"{line}\n{process.stdout}{process.stderr}"
        return process.stdout, process.stderr

    def serve(self, line):
        self.close()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        command = [*line.split(), "--port", self.port]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        return self.server.stdout.readline(), ""

    def program(self, text):
        """A Python program, or a file whose first line says what to do with it."""
        command = [sys.executable, "-c", text]
        if head := re.match(r"# (\w+\.py): (kerascls train .+)\n", text):
            Path(head[1]).write_text(text)
            command = [*head[2].split(), "--epochs", "1"]
        process = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=1200, check=False
        )
        assert process.returncode == 0, f"{text}\n{process.stderr}"

    def close(self):
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.communicate(timeout=60)
            assert self.server.returncode == 0
            self.server = None


@pytest.fixture
def shell(readers_folder):
    with contextlib.closing(Shell(readers_folder)) as shell:
        yield shell


# Pages


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if blocks(page, "console|python")])
def test_a_page_prints_what_it_shows(name, shell, request):
    """Numbers apart: those that a page may promise are asserted elsewhere."""
    page = PAGES[name]
    for things in re.findall(r"<!-- given: (.+) -->", page):
        for thing in things.split(", "):
            give(thing, request)
    lines = [(line, shown) for line, shown in console(page) if "pip install" not in line]
    for line, shown in lines:
        printed = shell.run(line)
        for expected in shown:
            assert shows("".join(printed), expected), f"{line}\n{''.join(printed)}"
        if "released" in line and "predict " in line and "seven.png" in line:
            assert printed[0].startswith("seven.png: 7 ")
    for program in blocks(page, "python"):
        shell.program(program)


def test_every_command_has_its_page_and_every_page_its_command():
    pages = {path.stem for path in (DOCS / "commands").glob("*.md")} - {"index"}
    assert pages == set(cli.list_commands(None))


@pytest.mark.parametrize("name", cli.list_commands(None))
def test_a_commands_page_begins_with_the_examples_of_its_help(name):
    page = PAGES[f"docs/commands/{name}.md"]
    examples = cli.get_command(None, name).examples
    shown = [line for line, _ in console(page.partition("\n## ")[0]) if line.startswith(f"kerascls {name}")]
    assert shown[:2] == list(examples) and f"<!-- generated: synopsis {name} -->" in page


def test_generated_parts_are_current(capsys):
    assert generate_docs.main(["--check"]) == 0, capsys.readouterr().out + "run: python -m tools.generate_docs"


def test_the_generator_names_and_mends_pages_that_are_out_of_date(empty_folder, monkeypatch, capsys):
    (empty_folder / "docs").mkdir()
    Path("README.md").write_text("Nothing is generated.\n")
    Path("docs/train.md").write_text("# Train\n<!-- generated: synopsis train -->\nold\n<!-- end -->\nby hand\n")
    monkeypatch.setattr(generate_docs, "ROOT", empty_folder)
    assert generate_docs.main(["--check"]) == 1 and capsys.readouterr().out == "out of date: docs/train.md\n"
    assert generate_docs.main([]) == 0 and generate_docs.main(["--check"]) == 0
    text = Path("docs/train.md").read_text()
    assert "kerascls train [OPTIONS] [RECIPE]" in text and "\nold\n" not in text and text.endswith("-->\nby hand\n")


def test_commands_and_recipe_keys_are_generated_without_tensorflow():
    program = (
        "import sys; from tools.generate_docs import PARTS; PARTS['commands'](); PARTS['synopsis']('train'); "
        "PARTS['recipe-keys']('train'); PARTS['models'](); PARTS['augmentations'](); PARTS['errors'](); "
        "print('tensorflow' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert process.stdout == "False\n", process.stderr


def test_everything_public_is_in_the_python_reference():
    parts = re.findall(r"<!-- generated: api (\w+) -->", PAGES["docs/reference/python-api.md"])
    assert sorted(parts) == sorted(name for name in kerascls.__all__ if name != "__version__")


def test_the_first_screen_has_the_two_lines_that_ci_runs():
    lines = [line for line, _ in console(README)][:2]
    assert lines[0].endswith("pip install . && kerascls train mnist_cnn")
    assert lines[1].endswith("pip install -e '.[test]' && python -m pytest")
    assert README.index(lines[1]) < 1200


@pytest.mark.parametrize("page", [README, CHINESE], ids=["README.md", "README.zh-CN.md"])
def test_links_of_the_readme_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (REPOSITORY / target).exists(), target


def test_the_chinese_readme_has_the_commands_the_links_and_the_figures_of_the_readme():
    pages = (CHINESE, README)
    commands, english_commands = (list(console(page)) for page in pages)
    assert commands == english_commands
    links, english_links = (re.findall(r"\]\(((?:docs|CHANGELOG)[^)]*)\)", page) for page in pages)
    assert links == english_links
    lines = [[line for line in page.splitlines() if re.match(r"\| `(mnist|cifar)", line)] for page in pages]
    rows, english_rows = ([re.findall(r"`\w+`|\d[\d,.]*", line) for line in found] for found in lines)
    assert rows == english_rows and len(rows) == 6


def test_the_readme_is_one_page():
    assert len(README.splitlines()) <= 120


def test_every_environment_variable_that_is_read_is_documented():
    page = PAGES["docs/reference/environment-variables.md"]
    read = set()
    for path in (REPOSITORY / "kerascls").rglob("*.py"):
        read |= set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"", path.read_text(encoding="utf-8")))
    read -= {"KERASCLS_CORES"}  # which a proof gives to its own process
    assert read <= set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_is_printed(shell_name):
    assert f"_KERASCLS_COMPLETE={shell_name}_source kerascls" in PAGES["docs/guides/shell-completion.md"]
    assert f"_KERASCLS_COMPLETE={shell_name}_complete" in completed(f"{shell_name}_source")


def test_a_commands_name_is_completed():
    assert completed("bash_complete", COMP_WORDS="kerascls tr", COMP_CWORD="1") == "plain,train\n"
    formats = completed("bash_complete", COMP_WORDS="kerascls export --format lite", COMP_CWORD="3")
    assert formats == "plain,litert\nplain,litert_float16\nplain,litert_int8\n"


def completed(instruction, **environment):
    program = "from kerascls.cli import main; main()"
    environment = {**os.environ, "_KERASCLS_COMPLETE": instruction, **environment}
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    return process.stdout


@pytest.mark.slow
def test_json_outputs_have_the_keys_that_their_page_describes(readers_folder, capsys):
    my_digits()
    sections = described(PAGES["docs/reference/json-outputs.md"])
    sometimes = {"confusion_counts", "seen", "features", "resumed", "error"}

    def printed(*arguments):
        code, out, err = here(*arguments, capsys=capsys)
        assert code == 0, err
        return json.loads(out.splitlines()[-1])

    trained = printed("train", "mnist_cnn", "--data", "digits", "--epochs", 2, "--profile", "--out", "run", "--json")
    here("export", "run", "--format", "h5", capsys=capsys)
    read = lambda name: json.loads(Path("run", name).read_text())  # noqa: E731
    answers = {
        "Scores": trained["test"],
        "metrics.json": read("metrics.json"),
        "manifest.json": read("manifest.json"),
        "kerascls train --json": trained,
        "kerascls predict --json": printed("predict", "run", "my_digits/7", "--json"),
        "kerascls explain --json": printed("explain", "run", "my_digits/7", "--json"),
        "kerascls summary --json": printed("summary", "run", "--json"),
        "kerascls inspect --json": printed("inspect", "run", "--json"),
        "kerascls sweep --json": printed("sweep", "mnist_cnn", "--data", "digits", "--epochs", 1, "--json")[0],
        "kerascls devices --json": printed("devices", "--json"),
        "exports/export.json": read("exports/export.json"),
        "profile.json": read("profile.json"),
    }
    for head, answer in answers.items():
        assert sections[head] - sometimes <= set(answer) <= sections[head], head
    other = printed("evaluate", "run", "--data", "my_digits", "--json")
    assert set(other) == set(trained["test"]) | {"seen"} <= sections["Scores"]
    page = PAGES["docs/reference/json-outputs.md"]
    columns = Path("run/history.csv").read_text().splitlines()[0].split(",")
    (export,) = read("exports/export.json")["exports"].values()
    manifest = read("manifest.json")
    for key in (*columns, *manifest["device"], *manifest["data"], *manifest["parameters"], *manifest["seconds"]):
        assert f"`{key}`" in page, key
    assert all(f'"{key}"' in page for key in export)


# What else is written


def test_recipe_headers_say_what_was_measured():
    for path in (REPOSITORY / "configs").rglob("*.toml"):
        header = path.read_text(encoding="utf-8").split("\n\n")[0]
        seeds = re.search(r"seeds 0, 1, 2|seed 0", header)
        measured = re.search(r"(test|validation) accuracy 0\.\d{4}", header) and seeds
        assert measured or "# Not measured: " in header, path
        assert path.parent.name != "articles" or "# Where it differs: " in header, path


def test_nothing_names_this_machine_or_its_tools():
    words = ["/" + "work/", "/" + "root/", "shared" + "/data"]
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    for name in tracked.stdout.splitlines():
        path = REPOSITORY / name
        if (
            path.suffix in (".py", ".toml", ".md", ".txt", ".json", ".csv")
            and path.is_file()
            and path != Path(__file__)
        ):
            text = path.read_text(encoding="utf-8")
            assert not [word for word in words if word in text], name


@pytest.mark.parametrize("name", ["docs/commands/export.md"])
def test_pages_ask_openvino_for_the_precision_that_exports_are_proved_by(name):
    from kerascls.exporting.proof import PROBES

    option = '"CPU", {"INFERENCE_PRECISION_HINT": "f32"}'
    assert option in PAGES[name] and '"INFERENCE_PRECISION_HINT": "f32"' in (PROBES / "openvino.py").read_text()

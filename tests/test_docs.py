"""The documentation: every command is in it, and what it says is run."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from PIL import Image

from kerascls.cli import cli

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def console():
    """Commands after a `$`, each with the lines shown under it."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *shown = part.splitlines()
            yield line, shown


def without_numbers(text):
    return re.sub(r"\d[\d.,]*", "#", text)


def test_every_command_is_documented():
    commands = {line.split()[1] for line, _ in console() if line.startswith("kerascls ")}
    assert commands == set(cli.commands)


def test_the_first_screen_has_the_two_lines_that_ci_runs():
    lines = [line for line, _ in console()][:2]
    assert lines[0].endswith("pip install . && kerascls train mnist_cnn")
    assert lines[1].endswith("pip install -e '.[test]' && python -m pytest")
    assert README.index(lines[1]) < 1200


@pytest.mark.slow
def test_the_readmes_commands_print_what_it_shows(tmp_path):
    """Numbers apart: those that a README may promise are asserted elsewhere."""
    (tmp_path / "saved_models").mkdir()
    (tmp_path / "saved_models" / "released").symlink_to(REPOSITORY / "saved_models" / "released")
    (tmp_path / "bin").mkdir()
    for name, arguments in (("kerascls", "-m kerascls"), ("python", "")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}
    for name in ("bear", "chimp"):  # the user's photographs
        (tmp_path / "my_photos" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (32, 24), (20 * i, 100, 50)).save(tmp_path / "my_photos" / name / f"{i}.jpg")
    names = [str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "my_photos").rglob("*.jpg"))]
    table = [f"{name},{name.split('/')[1]}\n" for name in names]
    (tmp_path / "labels.csv").write_text("file,class\n" + "".join(table))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with contextlib.ExitStack() as servers:
        for line, shown in list(console())[2:]:
            line = line.replace("8501", port)  # which something else may have here
            if line.startswith("kerascls serve "):  # it answers the lines that follow
                command = [*line.split(), "--port", port]
                server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment)
                servers.enter_context(server)
                servers.callback(server.terminate)
                assert [without_numbers(text) for text in shown] == [without_numbers(server.stdout.readline().rstrip())]
                continue
            process = subprocess.run(
                line, shell=True, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300
            )
            assert process.returncode == 0, f"{line}\n{process.stderr}"
            printed = without_numbers(process.stdout + process.stderr)
            for expected in shown:
                assert without_numbers(expected) in printed, f"{line}\n{process.stdout}{process.stderr}"
            if "released" in line and "predict " in line:
                assert process.stdout.startswith("seven.png: 7 ")
    assert server.returncode == 0
    for program in blocks("python"):
        command = [sys.executable, "-c", program]
        if head := re.match(r"# (\w+\.py): (kerascls train .+)\n", program):  # a file, and what to do with it
            (tmp_path / head[1]).write_text(program)
            command = [*head[2].split(), "--epochs", "1"]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300)
        assert process.returncode == 0, f"{program}\n{process.stderr}"


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


def test_readme_asks_openvino_for_the_precision_that_exports_are_proved_by():
    from kerascls.proof import PROBES

    option = '"CPU", {"INFERENCE_PRECISION_HINT": "f32"}'
    assert option in README and '"INFERENCE_PRECISION_HINT": "f32"' in PROBES["openvino"]

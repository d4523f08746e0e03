"""Predicting files: names, errors, tables, pictures, and a newcomer's own digit."""

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, here, one_line_error
from PIL import Image, ImageDraw

import kerascls
from kerascls.images.files import encode_png
from kerascls.images.find import image_files
from kerascls.inference import csv_table
from kerascls.inference.csv_table import Table, table_key
from kerascls.inference.predict import predict
from kerascls.system.machine import cores
from kerascls.system.names import natural_key

RELEASED = REPOSITORY / "saved_models" / "released" / "mnist_cnn"


def draw_three(path, ink, paper, mode="RGBA", size=400):
    """A 3 as one draws it: two arcs, 400x400, ink on paper."""
    image = Image.new("RGB", (400, 400), paper)
    pen = ImageDraw.Draw(image)
    pen.arc((120, 60, 280, 215), 190, 450, fill=ink, width=36)
    pen.arc((110, 180, 290, 345), 270, 530, fill=ink, width=36)
    image.resize((size, size)).convert(mode).save(path)
    return path


@pytest.mark.parametrize("model", [RELEASED, RELEASED / "exports" / "saved_model"])
def test_a_drawn_three_is_a_three_in_both_polarities(tmp_path, capsys, model):
    on_white = draw_three(tmp_path / "three.png", "black", "white")
    code, out, err = here("predict", model, on_white, "--invert", "--json", capsys=capsys)
    assert code == 0 and err == "" and json.loads(out)["label"] == "3"
    on_black = draw_three(tmp_path / "dark.png", "white", "black")
    code, out, err = here("predict", model, on_black, "--json", capsys=capsys)
    assert code == 0 and err == "" and json.loads(out)["label"] == "3"
    _, _, err = here("predict", model, on_white, capsys=capsys)
    assert "Warning: 1 image has a light border; the training images had dark ones. Try --invert." in err
    _, _, err = here("predict", model, on_black, "--invert", capsys=capsys)
    assert "Leave out --invert." in err


def test_ink_on_transparent_paper_is_ink_on_white(tmp_path, capsys):
    image = Image.open(draw_three(tmp_path / "three.png", "black", "white")).convert("L")
    clear = Image.merge("RGBA", [Image.new("L", image.size)] * 3 + [image.point(lambda level: 255 - level)])
    clear.save(tmp_path / "clear.png")
    answers = [
        here("predict", RELEASED, tmp_path / name, "--invert", "--json", capsys=capsys)[1].split(", ", 1)[1]
        for name in ("three.png", "clear.png")
    ]
    assert answers[0] == answers[1] and '"3"' in answers[0]


def test_json_and_csv_say_the_same_and_bad_files_cost_no_other(digits_run, digit_pngs, tmp_path, capsys):
    folder = shutil.copytree(digit_pngs[0], tmp_path / "图片")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    code, out, err = here(
        "predict", digits_run, folder, "--json", "--csv", "answers.csv", "--top-k", "2", capsys=capsys
    )
    assert (code, err) == (1, f"Passed over in {folder}: 1 .txt.\nError: 1 of 13 images could not be read.\n")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"].rsplit("/", 1)[1] for line in lines] == ["broken.png"] + [f"digit{i}.png" for i in range(12)]
    assert set(lines[0]) == {"file", "error"} and set(lines[1]) == {"file", "label", "probability", "top"}
    with open("answers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "file",
        "label",
        "probability",
        "label_1",
        "label_2",
        "probability_1",
        "probability_2",
        "error",
    ]
    for row, line in zip(rows, lines, strict=True):
        assert row["file"] == line["file"] and row["error"] == line.get("error", "")
        if "top" in line:
            assert (row["label_2"], float(row["probability_2"])) == (
                line["top"][1]["label"],
                line["top"][1]["probability"],
            )


def test_answers_do_not_depend_on_what_else_is_asked(digits_run, digit_pngs, capsys):
    folder, _ = digit_pngs
    _, together, _ = here("predict", digits_run, folder, "--json", capsys=capsys)
    _, alone, _ = here("predict", digits_run, folder / "digit5.png", "--json", capsys=capsys)
    one, other = json.loads(alone), json.loads(together.splitlines()[5])
    assert one["label"] == other["label"] and one["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_examples_of_a_data_set_show_truth_beside_prediction(digits_run, capsys):
    code, out, err = here(
        "predict",
        digits_run,
        "--data",
        "digits",
        "--split",
        "test",
        "--count",
        "4",
        "--plot",
        "four.png",
        capsys=capsys,
    )
    assert code == 0 and out.count("(is ") == 4 and "drawn: four.png" in err
    with Image.open("four.png") as picture:
        assert np.asarray(picture).std() > 10


@pytest.mark.parametrize("name", ["plot.png", "plot.svg", "plot.pdf", "plot"])
def test_plots_take_the_kind_of_their_suffix(digits_run, digit_pngs, tmp_path, capsys, name):
    assert here("predict", digits_run, digit_pngs[0], "--plot", name, capsys=capsys)[0] == 0
    assert (tmp_path / name).stat().st_size > 1000


def test_what_cannot_be_predicted_is_told(digits_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "has no images" in one_line_error("predict", digits_run, "empty", capsys=capsys)
    assert "does not exist" in one_line_error("predict", digits_run, "nowhere.png", capsys=capsys)
    assert here("predict", digits_run, capsys=capsys)[0] == 2
    (tmp_path / "text.png").write_text("hello")
    code, out, err = here("predict", digits_run, "text.png", "--plot", "p.png", capsys=capsys)
    assert code == 1 and "text.png: is not an image" in err and "nothing to plot" in err
    assert "Cannot write" in one_line_error("predict", digits_run, "text.png", "--csv", "no/where.csv", capsys=capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text.png"]


def test_folders_are_read_in_natural_order_below_and_without_hidden_files(tmp_path):
    for name in ("b/10.png", "b/9.PNG", "a/x.jpeg", ".git/y.png", "b/z.txt"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(b"")
    found = [Path(file).relative_to(tmp_path / "f").as_posix() for file in image_files([tmp_path / "f"])]
    assert found == ["a/x.jpeg", "b/9.PNG", "b/10.png"]


def test_the_order_of_files_is_the_natural_one_of_whole_paths(tmp_path):
    for name in (
        "a/1.png",
        "a.png",
        "a-b/2.png",
        "a10/3.png",
        "a9.png",
        "a9/b/4.png",
        "a/10/5.png",
        "a/9.png",
        "é.png",
    ):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(b"")
    found = image_files([tmp_path / "f"])
    assert len(found) == 9 and found == sorted(found, key=natural_key)


# Many files


@pytest.fixture
def many(tmp_path):
    """Folder `many` of 100 images of noise, of which 30.png, 31.png and 64.png are broken."""
    generator = np.random.default_rng(0)
    (tmp_path / "many").mkdir()
    for i in range(100):
        content = encode_png(generator.integers(0, 256, (20, 20, 1), np.uint8))
        (tmp_path / "many" / f"{i}.png").write_bytes(content[:50] if i in (30, 31, 64) else content)
    return tmp_path / "many"


def test_the_next_batches_are_decoded_while_the_model_computes(digits_run, many, monkeypatch):
    classifier = kerascls.load(digits_run)
    reading, probabilities = threading.Event(), classifier.probabilities
    third, read = str(many / "70.png"), classifier.read

    def seen(files, invert):
        if third in files:
            reading.set()
        return read(files, invert)

    def patient(images, batch_size):
        assert reading.wait(60), "the third batch waits for the first to be answered"
        return probabilities(images, batch_size)

    monkeypatch.setattr(classifier, "read", seen)
    monkeypatch.setattr(classifier, "probabilities", patient)
    assert len(list(classifier.batches(image_files([many])))) == 4


def test_what_waits_is_bounded(digits_run, digit_pngs):
    """However many files there are, a bounded number is drawn before an answer is asked for."""
    classifier = kerascls.load(digits_run)
    drawn = itertools.count()
    endless = (digit_pngs[0] / f"digit{next(drawn) % 12}.png" for _ in itertools.count())
    batches = classifier.batches(endless, batch_size=16)
    most = (max(2, -(-2 * cores() * 8 // 16)) + 1) * 16
    for count in range(1, 5):
        assert len(next(batches)) == 16 and next(drawn) <= most + count * 16
    batches.close()


def test_a_stream_answers_as_one_batch_at_a_time_does(digits_run, many):
    classifier = kerascls.load(digits_run)
    for (prediction, pixels), file in zip(classifier.stream(image_files([many]), 3), image_files([many]), strict=True):
        assert prediction.file == file
        (alone,) = classifier.read([file])
        if pixels is None:
            assert Path(file).name in ("30.png", "31.png", "64.png") and str(alone) == f"{file}: {prediction.error}"
        else:
            assert np.array_equal(pixels, alone)
            (row,) = classifier.probabilities(pixels[None])
            assert prediction.label == str(row.argmax()) and abs(prediction.probability - row.max()) < 1e-6


def interrupted(run, folder, batches, csv_file="a.csv", **options):
    """Answers so many batches and stops there; returns the partial table."""
    answers = predict(run, [folder], csv_file=Path(csv_file), **options)
    for _ in range(batches):
        next(answers)
    answers.close()
    (partial,) = Path(".").glob(f"{csv_file}.*.partial")
    return partial


@pytest.mark.parametrize(
    "cut",
    [
        b"",
        b'"many/64.png,',
        *[
            pytest.param(cut, marks=pytest.mark.slow)
            for cut in (b"many/64.p", b"many/64.png,3,0.5,3,0.5\n", b"\0" * 100)
        ],
    ],
)
def test_an_interrupted_table_is_gone_on_with(digits_run, many, capsys, cut):
    code, whole, _ = here("predict", digits_run, "many", "--csv", "whole.csv", "--json", capsys=capsys)
    assert code == 1
    partial = interrupted(digits_run, "many", 2)
    assert not Path("a.csv").exists() and partial.read_bytes().count(b"\n") == 1 + 64
    with open(partial, "ab") as file:
        file.write(cut)
    code, out, err = here("predict", digits_run, "many", "--csv", "a.csv", "--json", "--plot", "p.png", capsys=capsys)
    assert code == 1 and out == whole
    assert err.splitlines()[0] == f"64 of 100 answers are taken over from {partial}"
    assert err.splitlines()[-1] == "Error: 3 of 100 images could not be read."
    assert Path("a.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sorted(path.name for path in Path(".").iterdir()) == ["a.csv", "many", "p.png", "whole.csv"]


def test_half_a_batch_is_answered_again(digits_run, many, capsys):
    here("predict", digits_run, "many", "--csv", "whole.csv", capsys=capsys)
    partial = interrupted(digits_run, "many", 2)
    lines = partial.read_bytes().splitlines(keepends=True)
    partial.write_bytes(b"".join(lines[:60]))
    _, _, err = here("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert err.splitlines()[0].startswith("32 of 100 answers are taken over")
    assert Path("a.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_another_question_takes_nothing_over(digits_run, many, tmp_path, capsys):
    partial = interrupted(digits_run, "many", 1)
    key = table_key(digits_run, 3, False)
    assert partial.name == f"a.csv.{key}.partial" and table_key(digits_run / "model.keras", 3, False) == key
    changed = shutil.copytree(digits_run, tmp_path / "changed")
    with open(changed / "model.keras", "ab") as file:
        file.write(b"\0")
    assert (
        len({key, table_key(digits_run, 2, False), table_key(digits_run, 3, True), table_key(changed, 3, False)}) == 4
    )
    code, _, err = here("predict", digits_run, "many", "--csv", "a.csv", "--invert", capsys=capsys)
    assert code == 1 and "taken over" not in err and partial.exists()


def test_other_or_changed_files_are_answered_again(digits_run, many, capsys):
    partial = interrupted(digits_run, "many", 2)
    (many / "40a.png").write_bytes((many / "2.png").read_bytes())
    _, out, err = here("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert err.splitlines()[0].startswith("32 of 101 answers are taken over")
    partial = interrupted(digits_run, "many", 2)
    later = partial.stat().st_mtime + 10
    os.utime(many / "20.png", (later, later))
    _, out, err = here("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert "taken over" not in err and len(Path("a.csv").read_text().splitlines()) == 102


@pytest.mark.slow
def test_a_killed_command_leaves_no_table_and_the_next_one_finishes_it(digits_run, tmp_path, capsys):
    content = encode_png(np.random.default_rng(0).integers(130, 256, (28, 28, 1), np.uint8))
    (tmp_path / "many").mkdir()
    for i in range(3000):
        (tmp_path / "many" / f"{i}.png").write_bytes(content)
    arguments = ["predict", str(digits_run), "many", "--csv", "a.csv"]
    process = subprocess.Popen([sys.executable, "-m", "kerascls", *arguments], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.kill()
    process.communicate()
    (partial,) = [path for path in tmp_path.iterdir() if path.name != "many"]
    assert partial.suffix == ".partial"
    code, out, err = here(*arguments, capsys=capsys)
    assert code == 0 and out.count("\n") == 3000 and "answers are taken over" in err
    assert "have a light border (of those answered now)" in err
    assert len(Path("a.csv").read_text().splitlines()) == 3001 and not partial.exists()


def test_a_file_that_another_took_the_name_of_is_answered_again(digits_run, many, tmp_path, capsys):
    """However old it says that it is."""
    other = tmp_path / "other.png"
    other.write_bytes((many / "3.png").read_bytes())
    os.utime(other, (1, 1))
    interrupted(digits_run, "many", 2)
    time.sleep(0.05)  # a file system's clock has steps
    shutil.move(other, many / "20.png")
    _, _, err = here("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert "taken over" not in err
    with open("a.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert rows["many/20.png"]["probability"] == rows["many/3.png"]["probability"]


def test_files_of_a_folder_that_another_took_the_name_of_are_answered_again(digits_run, many, tmp_path, capsys):
    (tmp_path / "others").mkdir()
    for path in sorted(many.iterdir()):
        (tmp_path / "others" / path.name).write_bytes((many / "3.png").read_bytes())
    interrupted(digits_run, "many", 2)
    shutil.move(many, tmp_path / "before")
    shutil.move(tmp_path / "others", many)
    _, _, err = here("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert "taken over" not in err
    with open("a.csv", newline="") as file:
        assert len({row["probability"] for row in csv.DictReader(file)}) == 1


def test_a_table_that_is_finished_while_another_opens_it_is_not_written_into(monkeypatch):
    """The other command has given the partial file its last name before this one holds it."""
    original = csv_table._lock

    def finished_meanwhile(file):
        monkeypatch.setattr(csv_table, "_lock", original)
        os.replace("a.csv.key.partial", "a.csv")
        return original(file)

    monkeypatch.setattr(csv_table, "_lock", finished_meanwhile)
    Path("a.csv.key.partial").write_text("the other's")
    with Table(Path("a.csv"), 3, "key", print) as mine:
        assert mine.resume([]) == 0 and mine.partial.exists()
        assert Path("a.csv").read_text() == "the other's"


def test_two_commands_do_not_write_one_table(digits_run, many, capsys):
    with Table(Path("a.csv"), 3, table_key(digits_run, 3, False), print):
        line = one_line_error("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert "another kerascls is writing" in line
    assert os.listdir() == ["many"]


def test_a_full_disk_keeps_what_was_written(digits_run, many, monkeypatch, capsys):
    here("predict", digits_run, "many", "--csv", "whole.csv", capsys=capsys)
    write = Table.write

    def full(table, predictions):
        if table.rows >= 64:
            raise table._cannot(OSError(28, "No space left on device"))
        write(table, predictions)

    monkeypatch.setattr(Table, "write", full)
    code, _, err = here("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert code == 1 and err.splitlines()[-1] == "Error: Cannot write a.csv: No space left on device."
    assert "64 answers are kept in a.csv." in err and not Path("a.csv").exists()
    monkeypatch.undo()
    os.chdir(many.parent)
    here("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert Path("a.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_names_with_commas_quotes_and_line_ends_survive_an_interruption(digits_run, tmp_path, capsys):
    content = encode_png(np.zeros((28, 28, 1), np.uint8))
    (tmp_path / "many").mkdir()
    for i in range(40):
        (tmp_path / "many" / f'{i} ",\n".png').write_bytes(content)
    here("predict", digits_run, "many", "--csv", "whole.csv", capsys=capsys)
    interrupted(digits_run, "many", 1)
    _, _, err = here("predict", digits_run, "many", "--csv", "a.csv", capsys=capsys)
    assert "32 of 40 answers are taken over" in err
    assert Path("a.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.slow  # 25 s
def test_memory_does_not_grow_with_the_number_of_files(digits_run, tmp_path):
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (90, 120, 3), np.uint8)).save(tmp_path / "one.jpg")
    for name, count in (("few", 1000), ("many", 10_000)):
        (tmp_path / name).mkdir()
        for i in range(count):
            os.link(tmp_path / "one.jpg", tmp_path / name / f"{i}.jpg")
    program = (
        "import resource, sys; from kerascls.cli import run; code = run(sys.argv[1:]); "
        "print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    peaks = []
    for name in ("few", "many"):
        arguments = ["predict", digits_run, name, "--csv", f"{name}.csv"]
        process = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
        )
        code, peak = process.stderr.splitlines()[-1].split()
        assert code == "0"
        peaks.append(int(peak))
    assert peaks[1] < 1.1 * peaks[0]

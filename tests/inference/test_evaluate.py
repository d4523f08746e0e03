"""Scoring a run again, on its own data and on other data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import here, one_line_error, small_npz

import kerascls
from kerascls.data.loading import load_dataset
from kerascls.errors import DataError, OutputError
from kerascls.inference import metrics
from kerascls.inference.evaluate import Evaluation
from kerascls.inference.report import accuracy_by_class, chosen_by, largest_class, table
from kerascls.runs.run import Run


@pytest.fixture
def run(digits_run, tmp_path):
    """A copy of the digits run, which a test may change."""
    return shutil.copytree(digits_run, tmp_path / "run")


def test_scores_are_those_of_training_and_pictures_are_drawn(run, capsys):
    for picture in run.glob("*.png"):
        picture.unlink()
    code, out, err = here("evaluate", run, "--json", capsys=capsys)
    assert (code, err) == (0, "") and json.loads(out) == Run.open(run).metrics["splits"]["test"]
    assert {path.name for path in run.glob("*.png")} == {"curves.png", "confusion.png", "most_wrong.png"}
    assert kerascls.evaluate(run, split="validation").scores == Run.open(run).metrics["splits"]["validation"]


def test_the_accuracy_of_a_class_is_a_line_where_there_are_at_most_twenty():
    def scores(classes):
        labels, names = np.array([0, 0, 0, 1]), [f"klasse {i}" for i in range(classes)]
        return metrics.score(labels, np.eye(classes)[[0, 0, 1, 1]], names)

    assert accuracy_by_class(scores(3)).splitlines() == [
        "  klasse 0  0.6667 of 3",
        "  klasse 1  1.0000 of 1",
        "  klasse 2  no images",
    ]
    assert len(accuracy_by_class(scores(20)).splitlines()) == 20 and accuracy_by_class(scores(21)) == ""


def test_the_table_names_every_class_and_says_what_recall_is(run, capsys):
    code, out, _ = here("evaluate", run, capsys=capsys)
    test = Run.open(run).metrics["splits"]["test"]
    assert code == 0 and "recall is the accuracy within a class" in out
    assert f"accuracy {test['accuracy']:.4f}" in out and "top-3" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("7 "))
    seven = test["per_class"]["7"]
    assert row[1:] == [
        f"{seven['precision']:.4f}",
        f"{seven['recall']:.4f}",
        f"{seven['f1']:.4f}",
        str(seven["support"]),
    ]


def test_classes_are_bound_by_name_whatever_their_order(run, tmp_path):
    test = load_dataset("digits").splits["test"]
    order = [7, 3, 1, 0, 2, 9, 4, 5]  # eight of the ten, in another order
    ids = {digit: i for i, digit in enumerate(order)}
    chosen = [i for i, label in enumerate(test.labels) if label in ids]
    np.savez(
        "other.npz",
        x_test=test.images[chosen],
        y_test=[ids[test.labels[i]] for i in chosen],
        class_names=np.array([str(digit) for digit in order]),
    )
    scores = kerascls.evaluate(run, data="other.npz").scores
    own = Run.open(run).metrics["splits"]["test"]
    for digit in range(10):
        row = scores["per_class"][str(digit)]
        if digit in ids:
            assert row["recall"] == own["per_class"][str(digit)]["recall"]
        else:
            assert (row["recall"], row["support"]) == (None, 0)
    assert (run / "evaluate-other-test" / "metrics.json").is_file()


def test_images_of_another_size_and_without_names_are_scored(run):
    small_npz("big.npz", shape=(40, 30, 3))
    assert kerascls.evaluate(run, data="big.npz", pictures=False).scores["examples"] == 10


def test_what_does_not_fit_the_run_is_told(run, capsys):
    small_npz("cats.npz", class_names=np.array(["cat", "dog", "1"]))
    assert "2 classes that the run does not know: cat, dog" in one_line_error(
        "evaluate", run, "--data", "cats.npz", capsys=capsys
    )
    small_npz("many.npz", count=24, classes=12)
    assert "numbers its classes 0 to 11" in one_line_error("evaluate", run, "--data", "many.npz", capsys=capsys)
    assert "does not exist" in one_line_error("evaluate", "nowhere", capsys=capsys)
    small_npz("one.npz")
    assert "no validation split" in one_line_error(
        "evaluate", run, "--data", "one.npz", "--split", "validation", capsys=capsys
    )


def test_data_that_changed_since_training_is_told(tmp_path, capsys):
    small_npz("data.npz", count=10)
    kerascls.train("mnist_cnn", data="data.npz", epochs=1, out="run")
    small_npz("data.npz", count=10, seed=1)
    assert "has changed since" in one_line_error("evaluate", "run", capsys=capsys)
    assert kerascls.evaluate("run", data="data.npz").scores["examples"] == 10
    (tmp_path / "data.npz").unlink()
    assert "is not here" in one_line_error("evaluate", "run", capsys=capsys)


def test_a_run_that_cannot_be_written_to_is_scored_all_the_same(run, capsys, monkeypatch):
    import importlib

    def full(*arguments):
        raise OutputError("Cannot write curves.png: No space left on device.")

    monkeypatch.setattr(importlib.import_module("kerascls.inference.evaluate"), "draw", full)
    code, out, err = here("evaluate", run, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["examples"] == 364
    assert err == "No pictures: Cannot write curves.png: No space left on device.\n"


@pytest.mark.parametrize(
    "kept, best, accuracies, told",
    [
        (2, 2, ("0.9", "0.95", "0.95"), ", of the lowest validation loss"),
        (
            2,
            2,
            ("0.9", "0.95", "0.97"),
            ", of the lowest validation loss, with validation accuracy 0.9500; epoch 3 had 0.9700",
        ),
        (3, 2, ("0.9", "0.95", "0.97"), ""),  # train.keep = "last"
        (3, None, ("", "", ""), ""),  # no validation
    ],
)
def test_why_an_epoch_was_kept_is_said(kept, best, accuracies, told, monkeypatch):
    Path("run").mkdir()
    rows = [f"{epoch},1,0.5,0.8,0.4,{accuracy},0.1\n" for epoch, accuracy in enumerate(accuracies, 1)]
    Path("run/history.csv").write_text(
        "epoch,seconds,loss,accuracy,val_loss,val_accuracy,learning_rate\n" + "".join(rows)
    )
    monkeypatch.setattr(Run, "manifest", {"kept_epoch": kept, "best_epoch": best})
    assert chosen_by(Run(Path("run"))) == told


def many_classes(classes=150):
    """An evaluation of more classes than have a line each, of which every third is taken for the next."""
    labels = np.repeat(np.arange(classes - 10), 2)
    guess = np.where(labels % 3 == 0, labels + 1, labels)
    scores = metrics.score(labels, np.eye(classes)[guess], [f"k{i:03}" for i in range(classes)])
    return Evaluation("many", "test", scores)


def test_of_many_classes_the_worst_and_the_commonest_mistakes_are_printed():
    lines = table(many_classes()).splitlines()
    assert "the 10 classes of the lowest recall, of 150; 10 have no image here" in lines
    assert [line.split()[0] for line in lines if line.startswith("k")] == [f"k{i:03}" for i in range(0, 30, 3)]
    assert lines[-11:-1] == ["taken most often for another class"] + [
        f"      2  k{i:03} for k{i + 1:03}" for i in range(0, 27, 3)
    ]
    assert len(table(many_classes(100)).splitlines()) > 100  # a line each


def test_what_always_answering_the_largest_class_scores_is_said_where_classes_are_uneven():
    def scores(*counts):
        labels = np.repeat(np.arange(len(counts)), counts)
        return metrics.score(labels, np.eye(len(counts))[labels], ["cat", "dog", "owl"][: len(counts)])

    assert scores(201, 21)["largest_class"] == {"name": "cat", "accuracy": 201 / 222}
    line = "always answering 'cat', the largest class, scores 0.9054"
    assert largest_class(scores(201, 21)) == line and line in table(Evaluation("d", "test", scores(201, 21)))
    assert largest_class(scores(29, 10)) == "" and largest_class(scores(10, 0)) == ""
    assert largest_class(scores(30, 0, 10)) == "always answering 'cat', the largest class, scores 0.7500"


# Exports and files


@pytest.mark.slow
def test_an_export_is_scored_as_its_run_is(digits_run, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "run")
    expected = kerascls.evaluate(run, pictures=False)
    made = kerascls.export(run, "saved_model").path
    keras_file = kerascls.export(run, "keras", out=tmp_path / "away.keras").path
    for model in (made, kerascls.load(made), kerascls.load(run), run / "model.keras"):
        found = kerascls.evaluate(model)
        assert (found.split, found.scores, found.own) == ("test", expected.scores, True)
        assert found.pictures == () or model is not made
    assert not list((run / "exports").rglob("*.png"))
    with pytest.raises(DataError, match="away.keras is not in a run's folder, so its data are not known."):
        kerascls.evaluate(keras_file)
    found = kerascls.evaluate(keras_file, "digits")
    assert (found.own, found.seen, found.pictures) == (False, None, ())
    assert "is not known: its file does not say" in found.note

"""Scores, on rows that fit in the head."""

import json

import numpy as np
import pytest

from kerascls.inference import metrics
from kerascls.system.atomic_files import write_json

NAMES = ["cat", "dog", "owl"]
LABELS = np.array([0, 0, 1, 1, 1, 0])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],  # cat, right
        [0.2, 0.5, 0.3],  # cat, called dog
        [0.1, 0.8, 0.1],  # dog, right
        [0.1, 0.8, 0.1],  # dog, right
        [0.3, 0.2, 0.5],  # dog, called owl
        [0.6, 0.3, 0.1],
    ]
)  # cat, right


def test_score_matches_hand_worked_values():
    scores = metrics.score(LABELS, PROBABILITIES, NAMES)
    assert scores["examples"] == 6
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["balanced_accuracy"] == pytest.approx(2 / 3)  # cat 2/3, dog 2/3, owl has no example
    assert scores["confusion"] == [[2, 1, 0], [0, 2, 1], [0, 0, 0]]
    assert scores["per_class"]["cat"] == {
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "support": 3,
    }
    assert scores["per_class"]["owl"] == {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0}
    assert scores["macro"]["precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["loss"] == pytest.approx(-np.log([0.8, 0.2, 0.8, 0.8, 0.2, 0.6]).mean())
    assert scores["top_k"] == {}  # 3 is not below the number of classes


def test_scores_agree_with_scikit_learn():
    from sklearn import metrics as sk

    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(7), 500)
    labels = generator.integers(0, 7, 500)
    scores = metrics.score(labels, probabilities, [str(i) for i in range(7)])
    guess = probabilities.argmax(1)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, guess, average="macro")
    assert scores["macro"] == pytest.approx({"precision": precision, "recall": recall, "f1": f1})
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, guess))
    assert scores["top_k"]["3"] == pytest.approx(sk.top_k_accuracy_score(labels, probabilities, k=3))
    assert scores["loss"] == pytest.approx(sk.log_loss(labels, probabilities))


def test_top_k_counts_ties_as_argmax_does():
    tied = np.array([[0.25, 0.25, 0.25, 0.25]] * 4)
    assert [metrics.top_k_accuracy([i], tied[:1], k=1) for i in range(4)] == [1.0, 0.0, 0.0, 0.0]
    assert metrics.top_k_accuracy([0, 1, 2, 3], tied, k=2) == 0.5


def test_a_certain_wrong_answer_costs_a_finite_loss():
    assert metrics.cross_entropy([1], [[1.0, 0.0]]) == pytest.approx(-np.log(metrics.EPSILON))


@pytest.mark.parametrize("labels, probabilities", [([0, 1], [[1.0, 0.0]]), ([], np.empty((0, 2))), ([[0]], [[1.0]])])
def test_lengths_that_differ_are_refused(labels, probabilities):
    with pytest.raises(ValueError, match="num_classes"):
        metrics.top_k_accuracy(labels, probabilities, k=1)


def test_k_beyond_the_classes_is_refused():
    with pytest.raises(ValueError, match="k=3"):
        metrics.top_k_accuracy([0], [[0.5, 0.5]], k=3)


def many(classes, examples, seed=0):
    """Labels, and probabilities of which two in three have the label's class as the highest."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, examples)
    probabilities = generator.random((examples, classes), np.float32) / 2
    guess = np.where(np.arange(examples) % 3 > 0, labels, (labels + 1) % classes)
    probabilities[np.arange(examples), guess] = 0.9
    return labels, probabilities


def test_batches_score_as_one_array():
    labels, probabilities = many(7, 100)
    batches = metrics.Answers.of(labels, [probabilities[:33], probabilities[33:34], probabilities[34:]])
    names = [str(i) for i in range(7)]
    assert metrics.score_answers(batches, names) == metrics.score(labels, probabilities, names)
    assert batches.highest.tolist() == probabilities.max(1).tolist() and batches.finite


def test_above_a_thousand_classes_the_confusion_matrix_is_its_counts_above_zero():
    labels, probabilities = many(1001, 500)
    scores = metrics.score(labels, probabilities, [f"c{i}" for i in range(1001)])
    assert scores["confusion"] is None
    whole = np.zeros((1001, 1001), int)
    for true, guess, count in scores["confusion_counts"]:
        whole[true, guess] = count
    guess = probabilities.argmax(1)
    assert np.array_equal(whole, metrics.confusion_matrix(labels, guess, 1001)) and whole.sum() == 500
    assert [row[2] for row in scores["confusion_counts"]] == sorted(row[2] for row in scores["confusion_counts"])[::-1]
    fewer = metrics.score(labels % 1000, probabilities[:, :1000], [f"c{i}" for i in range(1000)])
    assert len(fewer["confusion"]) == 1000 and "confusion_counts" not in fewer


def test_the_most_confused_classes_are_those_of_most_mistakes():
    labels = np.array([0] * 5 + [1] * 5 + [2] * 5 + [3])
    guess = np.array([0, 0, 0, 3, 3, 1, 1, 1, 1, 1, 2, 2, 2, 2, 1, 3])
    scores = metrics.score(labels, np.eye(4)[guess], list("abcd"))
    assert metrics.mistakes(scores).tolist() == [[0, 3, 2], [2, 1, 1]]
    chosen, matrix = metrics.most_confused(scores, 2)
    assert chosen.tolist() == [0, 3] and matrix.tolist() == [[3, 2], [0, 1]]


def test_scores_of_ten_thousand_classes_are_small(tmp_path):
    labels, probabilities = many(10_000, 1500)
    scores = metrics.score(labels, probabilities, [f"class {i:05}" for i in range(10_000)])
    write_json(tmp_path / "metrics.json", {"splits": {"test": scores, "validation": scores}})
    assert (tmp_path / "metrics.json").stat().st_size < 4_000_000
    assert json.loads((tmp_path / "metrics.json").read_text())["splits"]["test"] == scores

"""On real MNIST, where TFDS has it prepared: the released models' scores, and that recipes reach theirs."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

import kerascls
from kerascls.data.loading import dataset_module, load_dataset
from kerascls.runs.run import Run

pytestmark = pytest.mark.realdata
RELEASED = REPOSITORY / "saved_models" / "released"


def test_mnist_is_read_whole_and_by_the_one_road(real_data):
    import tensorflow_datasets as tfds

    from kerascls.images.read import to_pixels

    mnist = load_dataset("mnist", real_data)
    assert {name: len(split) for name, split in mnist.splits.items()} == {"train": 60000, "test": 10000}
    assert np.bincount(mnist.splits["test"].labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    raw = tfds.load("mnist", split="test[:300]", data_dir=real_data, decoders={"image": tfds.decode.SkipDecoding()})
    for i, example in enumerate(raw):
        assert np.array_equal(to_pixels(example["image"], (28, 28, 1)), mnist.splits["test"].images[i])


def test_cifar10_is_read_whole_and_named_as_tfds_names_it(real_data):
    if not (Path(real_data) / "cifar10").is_dir():
        pytest.skip("needs CIFAR-10 prepared by TFDS beside MNIST")
    cifar10 = load_dataset("cifar10", real_data)
    assert {name: len(split) for name, split in cifar10.splits.items()} == {"train": 50000, "test": 10000}
    assert np.bincount(cifar10.splits["train"].labels).tolist() == [5000] * 10
    assert np.bincount(cifar10.splits["test"].labels).tolist() == [1000] * 10
    module = dataset_module("cifar10")
    assert (cifar10.class_names, cifar10.image_shape) == (module.class_names, module.image_shape)


@pytest.mark.parametrize("name", ["mnist_cnn", "mnist_cnn_bn"])
def test_released_models_score_what_their_run_says(real_data, name, tmp_path):
    run = Run.open(RELEASED / name)
    scores = kerascls.evaluate(RELEASED / name, data_dir=real_data, pictures=False).scores
    said = run.metrics["splits"]["test"]
    assert run.metrics["fallback_for"] is None and abs(scores["accuracy"] - said["accuracy"]) <= 1e-4
    images = load_dataset("mnist", real_data).splits["test"].images[:1000]
    saved_model = kerascls.load(RELEASED / name / "exports" / "saved_model")
    assert np.array_equal(
        saved_model.probabilities(images, 32), kerascls.load(RELEASED / name).probabilities(images, 32)
    )


def test_the_article_in_keras_reaches_its_number(real_data):
    result = kerascls.train("articles/mnist_tensorflow", data_dir=real_data, out="run")
    assert 0.968 <= result.accuracy <= 0.982  # the article: 0.9748
    manifest = json.loads((result.path / "manifest.json").read_text())
    assert (manifest["kept_epoch"], manifest["data"]["examples"]) == (
        10,
        {"train": 60000, "test": 10000, "validation": 10000},
    )


def test_our_recipe_passes_the_article_in_half_its_epochs(real_data):
    assert kerascls.train("mnist_cnn_bn", data_dir=real_data, epochs=5, out="run").accuracy >= 0.972


def test_a_prepared_folder_is_used_without_a_word_about_a_fallback(real_data, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", real_data)
    result = kerascls.train("mnist_cnn", epochs=1, out="run")
    assert result.notice is None and capsys.readouterr().err == ""
    assert Run.open("run").metrics["data"] == "mnist"


def test_a_head_learns_from_features_what_it_learns_from_images(real_data, monkeypatch):
    folder = Path(real_data).parent / "avp"
    backbones = sorted(Path(real_data).parents[1].glob("weights/mobilenet*.keras"))
    if not folder.is_dir() or not backbones:
        pytest.skip("needs alien and predator beside TFDS's data, and a MobileNet with ImageNet weights")
    monkeypatch.setenv("KERASCLS_CACHE", "cache")
    losses, labels = {}, {}
    for views in (0, 1):
        kerascls.train(
            "avp",
            data=str(folder),
            epochs=2,
            out=str(views),
            overrides={
                "model": {"backbone": str(backbones[0])},
                "augment": {"policy": []},
                "features": {"views": views},
            },
        )
        rows = (Path(str(views)) / "history.csv").read_text().splitlines()[1:]
        losses[views] = [float(row.split(",")[2]) for row in rows]
        answers = kerascls.load(str(views)).predict(sorted(folder.glob("validation/*/*")))
        labels[views] = [answer.label for answer in answers]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(labels[0]) == 200 and sum(map(str.__eq__, labels[0], labels[1])) >= 199

"""What is compared. A new recipe of ours is named here, and nowhere else."""

import dataclasses
import time
from pathlib import Path

from kerascls.recipes.catalog import is_recipe


@dataclasses.dataclass(frozen=True)
class Training:
    """An article's training against ours.

    Attributes:
        article: the recipe that has the article's hyperparameters, which both plain loops read.
        ours: recipes of ours, the first that exists is trained.
        data: the data set's name; "" for a folder of images that the user names.
        stand_in: embedded data of the same shape, for `--tiny`.
        accuracy: the test accuracy that the article reports, until which seconds are counted; None where nothing can
            reach it.
        least, longest: epochs of the article's schedule that its sides run at least, and at most where they have not
            reached `accuracy`. What is not run of the schedule is extrapolated from the epochs that were.
        validated: whether the article's epochs end with its validation images, in the loops' seconds too.
        settings: `--set` of ours.
        network: its name in the loops; "" where that is its name here.
        epochs: in place of the article's; 0 for those.
        block: steps that a loop is timed by, after `warm_up` others, where there is no `accuracy` and it would take too
            long.
        bf16: whether ours is trained once more with features in bfloat16.
    """

    title: str
    article: str
    ours: tuple[str, ...]
    data: str
    stand_in: str = ""
    accuracy: float | None = None
    least: int = 1
    longest: int = 1
    validated: bool = False
    settings: tuple[str, ...] = ()
    network: str = ""
    epochs: int = 0
    block: int = 2000
    warm_up: int = 100
    bf16: bool = False

    @property
    def recipe(self) -> str:
        return next(recipe for recipe in self.ours if is_recipe(recipe))


TRAININGS = {
    "mnist": Training(
        "MNIST, 1,198 parameters",
        "articles/mnist_tensorflow",
        ("mnist_cnn_fast", "mnist_cnn"),
        "mnist",
        "digits",
        0.9748,
        least=10,
        longest=15,
    ),
    "cifar_cnn": Training(
        "CIFAR-10, 3x3 convolutions, 81,302 parameters",
        "articles/cifar_cnn",
        ("cifar_cnn_fast", "cifar_cnn"),
        "cifar10",
        "shapes",
        0.57,
        least=3,
        longest=5,
    ),
    "cifar_lenet": Training(
        "CIFAR-10, LeNet, 62,006 parameters",
        "articles/cifar_lenet",
        ("cifar_lenet_fast", "cifar_lenet"),
        "cifar10",
        "shapes",
        0.60,
        least=5,
        longest=8,
    ),
    "cifar_cnn_bn": Training(
        "CIFAR-10, batch normalisation, 121,374 parameters",
        "articles/cifar_cnn_bn",
        ("cifar_cnn_bn_fast", "cifar_cnn_bn"),
        "cifar10",
        "shapes",
        0.67,
        least=3,
        longest=8,
    ),
    "avp": Training(
        "Alien vs. predator, frozen ResNet50 with random weights, 3 epochs on the images as they are",
        "articles/avp_resnet50",
        ("articles/avp_resnet50",),
        "",
        validated=True,
        settings=("model.weights=none", "features.views=1"),
        block=22,  # an epoch of 694 images
        warm_up=3,
        bf16=True,
    ),
}
TRAININGS["avp_30"] = dataclasses.replace(
    TRAININGS["avp"],
    title="Alien vs. predator, frozen ResNet50 with random weights, 30 epochs on four views of each image",
    settings=("model.weights=none", "features.views=4"),
    network="avp",
    epochs=30,
)
# Ours on the article's own schedule; then the plain loops.
ARTICLE = "article"
SIDES = {"keras": "the article's training in plain Keras", "torch": "the article's training in plain PyTorch"}

# The recipe whose network `epochs` trains, for one epoch after another.
EPOCH_ARTICLE = "articles/mnist_tensorflow"
EPOCH_TARGET = 1.08  # times the hand-written loop that an epoch of compile and fit may take
# The released model that `files` asks.
RELEASED = "saved_models/released/mnist_cnn"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        folder: a temporary folder for runs and prepared data.
        end: `time.monotonic()` at which everything must have stopped.
        full: baselines are run whole, however long they take.
        tiny: embedded data and one epoch, to see that everything runs; its numbers mean nothing.
    """

    folder: Path
    end: float
    data_dir: str | None = None
    avp: Path | None = None
    full: bool = False
    tiny: bool = False

    @property
    def seconds_left(self) -> float:
        return self.end - time.monotonic()

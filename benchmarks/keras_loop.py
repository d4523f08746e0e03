"""The articles' trainings as one writes them in Keras: arrays or ImageDataGenerator, compile, fit.

`python -m benchmarks.keras_loop NAME DATA` prints a JSON object: `epoch_seconds` of each epoch's steps (of avp, which
validates, with validation), `epoch_accuracies` on the test images, scored at each epoch's end outside the clock, the
`images` of an epoch, `fit_seconds` (all of `fit`), and `parameters`. `--epochs` is how many it trains at most;
`--until ACCURACY` ends it with the first epoch that has that test accuracy, from epoch `--least` on. With `--block
STEPS` it trains that many steps twice, and `seconds` is the second time; `steps_of_all` and `images_of_all` are
those of all epochs.
"""

import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

from benchmarks.plan import TRAININGS  # noqa: E402
from benchmarks.trainings import loop_arguments  # noqa: E402
from kerascls.recipes.load import load_config  # noqa: E402
from kerascls.recipes.schema import Train


def network(name: str) -> keras.Model:
    """The article's network; all but ResNet50 take pixels that are scaled already."""
    if name == "mnist":
        return keras.Sequential(
            [
                layers.Input((28, 28, 1)),
                layers.Conv2D(4, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Conv2D(4, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dense(10, activation="softmax"),
            ]
        )
    if name == "avp":
        base = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(224, 224, 3))
        base.trainable = False
        x = layers.GlobalAveragePooling2D()(base.output)
        x = layers.Dense(128, activation="relu")(x)
        return keras.Model(base.input, layers.Dense(2, activation="softmax")(x))
    filters, kernel = {"cifar_cnn": ((6, 16), 3), "cifar_lenet": ((6, 16), 5), "cifar_cnn_bn": ((16, 32), 5)}[name]
    stack = [layers.Input((32, 32, 3))]
    for channels in filters:
        stack += [layers.Conv2D(channels, kernel, activation="relu"), layers.MaxPooling2D(2)]
        if name == "cifar_cnn_bn":
            stack.append(layers.BatchNormalization(momentum=0.9, epsilon=1e-5))
    dense = [layers.Dense(120, activation="relu"), layers.Dense(84, activation="relu")]
    return keras.Sequential([*stack, layers.Flatten(), *dense, layers.Dense(10, activation="softmax")])


def optimizer(train: Train) -> keras.optimizers.Optimizer:
    if train.optimizer == "sgd":
        return keras.optimizers.SGD(train.learning_rate, momentum=train.momentum)
    return keras.optimizers.Adam(train.learning_rate, epsilon=train.epsilon)


def arrays(name: str, data: Path):
    """`x_train`, `y_train`, `x_test`, `y_test`: float32 scaled as the article does, and one-hot labels."""
    loaded = np.load(data)
    low = 0.0 if name in ("mnist", "cifar_cnn") else -1.0
    for split in ("train", "test"):
        yield loaded[f"x_{split}"].astype("float32") * ((1 - low) / 255) + low
        yield keras.utils.to_categorical(loaded[f"y_{split}"], 10)


def folders(data: Path, batch_size: int):
    """Training images augmented as the article's, and its validation images, read anew every epoch."""
    from keras._tf_keras.keras.preprocessing.image import ImageDataGenerator  # where Keras 3 keeps it

    preprocess = keras.applications.resnet50.preprocess_input
    augmented = ImageDataGenerator(
        shear_range=10, zoom_range=0.2, horizontal_flip=True, preprocessing_function=preprocess
    )
    size = {"target_size": (224, 224), "class_mode": "categorical", "batch_size": batch_size}
    yield augmented.flow_from_directory(data / "train", **size)
    yield ImageDataGenerator(preprocessing_function=preprocess).flow_from_directory(
        data / "validation", shuffle=False, **size
    )


class Epochs(keras.callbacks.Callback):
    """Wall time of each epoch's steps; then, with the clock stopped, its accuracy on `test`.

    Where `fit` validates by itself, the time holds that, and the accuracy is the one that it measured.
    """

    def __init__(self, test: list | None, until: float | None, least: int):
        super().__init__()
        self.test, self.until, self.least = test, until, least
        self.seconds: list[float] = []
        self.accuracies: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.begin)
        if self.test is not None:
            self.accuracies.append(float(self.model.evaluate(*self.test, verbose=0)[1]))
        elif "val_accuracy" in logs:
            self.accuracies.append(float(logs["val_accuracy"]))
        if self.until and epoch + 1 >= self.least and self.accuracies[-1] >= self.until:
            self.model.stop_training = True


def run(
    name: str, data: Path, seed: int, epochs: int | None, block: int | None, until: float | None, least: int
) -> dict:
    train = load_config(TRAININGS[name].article).train
    epochs = epochs or train.epochs
    keras.utils.set_random_seed(seed)
    model = network(name)
    model.compile(optimizer(train), "categorical_crossentropy", metrics=["accuracy"])
    if name == "avp":
        examples, test = folders(data, train.batch_size)
        images, steps, fit = examples.samples, len(examples), {"x": examples, "validation_data": test}
        clock = Epochs(None, until, least)
        if block:  # warm-up is one step, not as many
            block = min(block, steps)
            fit["steps_per_epoch"] = block
    else:
        x, y, *test = arrays(name, data)
        images, steps, fit = len(x), -(-len(x) // train.batch_size), {"x": x, "y": y, "batch_size": train.batch_size}
        clock = Epochs(None if block else test, until, least)
        if block:
            block = min(block, len(x) // train.batch_size)
            fit |= {"x": x[: block * train.batch_size], "y": y[: block * train.batch_size]}
    begin = time.perf_counter()
    model.fit(**fit, epochs=2 if block else epochs, verbose=0, callbacks=[clock])
    found = {"fit_seconds": time.perf_counter() - begin, "parameters": model.count_params()}
    if block:
        more = {"steps_of_all": steps * epochs, "images_of_all": images * epochs}
        return {**found, "seconds": clock.seconds[1], "steps": block, **more}
    return {**found, "epoch_seconds": clock.seconds, "epoch_accuracies": clock.accuracies, "images": images}


if __name__ == "__main__":
    print(json.dumps(run(**loop_arguments())))

"""One epoch of the 1,198-parameter network at batch 32: ours against two other ways, in turns within one process.

    tfdata      our pipeline against tf.data's usual one, both under our compile and fit
    while_loop  our compile and fit against the epoch written by hand as one tf.while_loop, which is the floor

As a program, `python -m benchmarks.epochs NAME FILE.npz EPOCHS`, it prints `{"ours": [[seconds, loss]], "plain":
[[seconds, loss]]}`, an epoch's each. Op determinism is on for both sides, as it always is in kerascls on a CPU, and
threads are as the article's recipe asks.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measure import Measurement, run_loop
from benchmarks.plan import EPOCH_ARTICLE, EPOCH_TARGET, TRAININGS, Settings
from benchmarks.trainings import arrays_file

EPOCHS, TINY_EPOCHS = 9, 2  # that count, of each side; one more goes before them, for tracing
TITLES = {
    "tfdata": "An epoch of the MNIST network from our pipeline, and from tf.data's usual one",
    "while_loop": f"An epoch of the MNIST network by compile and fit, and by hand (aim: at most {EPOCH_TARGET} times)",
}
PLAIN = {
    "tfdata": "`from_tensor_slices`, `map`, `shuffle`, `batch`, `prefetch`",
    "while_loop": "gather, tape and Adam in one `tf.while_loop`",
}


def describe(name: str, settings: Settings) -> dict[str, Any]:
    return {
        "title": TITLES[name],
        "stated_accuracy": None,
        "ratio_of": "seconds",
        "sides": {"ours": "our `TrainingBatches` under compile and fit", "plain": PLAIN[name]},
        "conditions": ["batch 32"],
        "method": "Single epochs are timed within one process, each side's first left out; op determinism and one "
        "thread an operation for both; what we compile takes a batch in two shards.",
    }


def turn(
    name: str, settings: Settings, number: int, before: list[dict[str, Measurement]]
) -> list[dict[str, Measurement]]:
    """An epoch of each side is a turn: all of them at once."""
    data = arrays_file(TRAININGS["mnist"], settings)
    epochs = TINY_EPOCHS if settings.tiny else EPOCHS
    found = run_loop("epochs", name, data, epochs + 1, seconds_left=settings.seconds_left)
    return [
        {
            side: {"seconds": seconds, "loss": loss, "images": found["images"]}
            for side, (seconds, loss) in (("ours", found["ours"][i]), ("plain", found["plain"][i]))
        }
        for i in range(1, epochs + 1)
    ]


def run(name: str, file: str, epochs: str) -> Measurement:
    from kerascls.devices import placement_for
    from kerascls.recipes.load import load_config
    from kerascls.system.process import deterministic_ops

    placement_for(load_config(EPOCH_ARTICLE).devices)
    with deterministic_ops():
        return measured(name, file, epochs)


def measured(name: str, file: str, epochs: str) -> Measurement:
    import numpy as np

    data = np.load(file)
    images, labels = data["x_train"], data["y_train"].astype("int32")
    plain = usual_epoch(images, labels) if name == "tfdata" else by_hand(images, labels)
    ours = our_epoch(images, labels)
    told: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    for epoch in range(int(epochs)):
        # Every second time in the opposite order, so that neither has the other's warm caches.
        for side, one in (("ours", ours), ("plain", plain))[:: -1 if epoch % 2 else 1]:
            told[side].append(one(epoch))
    return {**told, "images": len(images)}


Epoch = Callable[[int], tuple[float, float]]  # trains the epoch of that number, from 0: its seconds and mean loss


def our_epoch(images: Any, labels: Any) -> Epoch:
    from kerascls.data.batches import TrainingBatches
    from kerascls.data.dataset import Split
    from kerascls.recipes.load import load_config

    train = load_config(EPOCH_ARTICLE).train
    batches = TrainingBatches(Split.of(images, labels), 10, train.batch_size, train.seed)
    return _fit(None, batches.steps, batches)


def usual_epoch(images: Any, labels: Any) -> Epoch:
    """The pipeline of TensorFlow's guides. Its network, compile and fit are ours."""
    import tensorflow as tf

    from kerascls.recipes.load import load_config

    batch_size = load_config(EPOCH_ARTICLE).train.batch_size
    dataset = (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .map(lambda image, label: (image, tf.one_hot(label, 10)), num_parallel_calls=tf.data.AUTOTUNE)
        .shuffle(len(images), seed=0)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
    return _fit(dataset, len(dataset))


def _fit(dataset: Any, steps: int, batches: Any = None) -> Epoch:
    """Epochs of `fit` on a model that is compiled as `kerascls.train` compiles it, and fed so from `batches`."""
    import keras

    from kerascls.models import build_model
    from kerascls.recipes.load import load_config
    from kerascls.training.callbacks.epoch_state import EpochState
    from kerascls.training.fit import steps_per_execution
    from kerascls.training.optimizers import make_optimizer
    from kerascls.training.step import TrainingModel

    class Clock(keras.callbacks.Callback):
        """What history.csv's `seconds` would be without validation and saving."""

        def on_epoch_begin(self, epoch, logs=None):
            self.begin = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.told = time.perf_counter() - self.begin, logs["loss"]

    config = load_config(EPOCH_ARTICLE)
    train, shards = config.train, config.devices.shards
    each = steps_per_execution(steps, train.batch_size, (28, 28, 1))
    ours = {"gather": batches.gather, "batch_size": batches.batch_size, "steps": steps} if batches else {}
    model = TrainingModel(build_model("mnist_cnn", (28, 28, 1), 10), shards=shards, **ours)
    model.compile(
        optimizer=make_optimizer(train, steps),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        steps_per_execution=each,
    )
    clock = Clock()
    callbacks = [EpochState(train.seed), clock] if batches else [clock]

    def epoch(number: int) -> tuple[float, float]:
        fed = {"x": batches.executions(each, number), "steps_per_epoch": steps} if batches else {"x": dataset}
        model.fit(**fed, initial_epoch=number, epochs=number + 1, shuffle=False, verbose=0, callbacks=callbacks)
        return clock.told

    return epoch


def by_hand(images: Any, labels: Any) -> Epoch:
    """The same network, loss and Adam in TensorFlow alone, an epoch a single call; no metric but the mean loss."""
    import tensorflow as tf

    from kerascls.recipes.load import load_config

    train = load_config(EPOCH_ARTICLE).train
    count, batch_size = len(images), train.batch_size
    images, labels = tf.constant(images), tf.constant(labels)
    glorot = tf.initializers.GlorotUniform(seed=0)
    shapes = ((3, 3, 1, 4), (4,), (3, 3, 4, 4), (4,), (100, 10), (10,))
    weights = [tf.Variable(glorot(shape) if len(shape) > 1 else tf.zeros(shape)) for shape in shapes]
    means, squares = ([tf.Variable(tf.zeros_like(weight)) for weight in weights] for _ in range(2))
    steps_done = tf.Variable(0.0)

    def logits(x):
        x = tf.cast(x, tf.float32) / 255
        for kernel, bias in (weights[:2], weights[2:4]):
            x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID") + bias), 2, 2, "VALID")
        return tf.reshape(x, (-1, 100)) @ weights[4] + weights[5]

    def step(chosen):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.gather(labels, chosen), logits(tf.gather(images, chosen))
            )
            loss = tf.reduce_mean(losses)
        done = steps_done.assign_add(1)
        rate = train.learning_rate * tf.sqrt(1 - train.beta_2**done) / (1 - 0.9**done)
        for weight, mean, square, gradient in zip(weights, means, squares, tape.gradient(loss, weights), strict=True):
            mean.assign_add((gradient - mean) * 0.1)
            square.assign_add((tf.square(gradient) - square) * (1 - train.beta_2))
            weight.assign_sub(rate * mean / (tf.sqrt(square) + train.epsilon))
        return loss

    @tf.function(autograph=False)
    def epoch(number):
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=tf.stack([train.seed, number]))
        steps = -(-count // batch_size)

        def body(i, total):
            return i + 1, total + step(order[i * batch_size : (i + 1) * batch_size])

        return tf.while_loop(lambda i, total: i < steps, body, (0, 0.0))[1] / steps

    def timed(number: int) -> tuple[float, float]:
        begin = time.perf_counter()
        loss = float(epoch(tf.constant(number)))
        return time.perf_counter() - begin, loss

    return timed


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:])))

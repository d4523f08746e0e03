"""Where the time of a training step goes, measured on the recipe's own network, data and augmentation.

Nothing inside a step is timed, which would change it. Whole steps are, each time with one part more, by the function
that `fit` itself runs, in turns:

    forward        the network and the loss, on one batch that stays in memory
    backward       and the gradients and the optimiser
    metrics        and the accuracy
    augmentation   and the policy
    input          the same on the batches of the training
    python         the same by `fit`, with callbacks that read loss and accuracy as those of `train` do

A part is the difference from the line before, so the parts add up to a step. What input does ahead of the step, on
other cores, costs nothing and is not in its part; `input_alone_ms` is what a batch takes without a step.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerascls.training.replicas import copy_for_training
from kerascls.training.step import TrainingModel

ROUNDS, SECONDS = 3, 10  # at least so many rounds, and until so many seconds are over
SPAN_SECONDS = 0.3  # of the steps that are timed together, at least one call into TensorFlow
DRAINED = 8  # batches that tf.data may have made ahead, taken away before steps on them are timed
NAMES = {
    "forward": "forward",
    "backward": "backward and update",
    "metrics": "metrics",
    "augmentation": "augmentation",
    "input": "input",
    "python": "Python: Keras' loop and callbacks",
}


class _Forward(TrainingModel):
    """Computes the loss of a batch and leaves the weights as they are."""

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        shares = self.shares(images, labels, None, tf.shape(labels)[0])
        loss = tf.add_n([share * self.compute_loss(x, y, self(x, training=True)) for _, share, x, y, _ in shares])
        self.metrics[0].update_state(loss)  # what nobody takes is not computed
        return {"loss": loss}


class _Clock(keras.callbacks.Callback):
    """Reads what the callbacks of `train` read, and notes when each call into TensorFlow has ended."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        float(logs["loss"]), float(logs["accuracy"])
        self.ends.append(time.perf_counter())


def time_steps(
    model: TrainingModel, make_optimizer: Callable[[], keras.optimizers.Optimizer], dataset: tf.data.Dataset
) -> dict[str, Any]:
    """Times steps like those of `model.fit(dataset)` on copies; `model` stays as it is.

    Args:
        model: compiled, on one device without a strategy.
        make_optimizer: gives a new optimiser like the model's.
        dataset: what `fit` is given: `TrainingBatches.dataset()`, or `.executions` where the model gathers.

    Returns:
        what profile.json holds: `step_ms`; `parts`, name to `{"ms", "share"}`, which add up to it; `input_alone_ms`;
        `timed`, for each sum of parts the median, lowest and highest of its rounds; `rounds`, and
        `steps_per_execution`, the steps of one call into TensorFlow.
    """
    begin = time.perf_counter()
    start = model.classifier.get_weights()
    classifier = copy_for_training(model.classifier, "float32", False)  # which leaves every layer's precision alone
    each = model.steps_per_execution

    def variant(
        kind: type[TrainingModel], policy: Any = (), metrics: list[str] | None = None, gather: Any = None
    ) -> TrainingModel:
        made = kind(
            classifier,
            policy,
            model.seed,
            class_weight=model.class_weight,
            gather=gather,
            batch_size=model.batch_size,
            steps=each,
            shards=model.shards,
        )
        made.compile(
            optimizer=make_optimizer(),
            loss=model.loss,
            metrics=metrics,
            steps_per_execution=each,
            jit_compile=model.jit_compile,
        )
        return made

    held, flowing = dataset.take(1).cache().repeat(), dataset
    one, per_call = None, each  # elements of the dataset that a call into TensorFlow takes
    if model.gather:
        first = next(iter(dataset))
        batch = model.gather(first[: model.batch_size])
        one, per_call = lambda positions: batch, 1
        flowing = flowing.filter(lambda positions: tf.size(positions) == tf.size(first))  # no shorter last ones
    models = {
        "forward": variant(_Forward, gather=one),
        "backward": variant(TrainingModel, gather=one),
        "metrics": variant(TrainingModel, metrics=["accuracy"], gather=one),
    }
    if model.policy:
        models["augmentation"] = variant(TrainingModel, model.policy, ["accuracy"], one)
    whole = (
        variant(TrainingModel, model.policy, ["accuracy"], model.gather) if model.gather else list(models.values())[-1]
    )
    for made in {*models.values(), whole}:
        made.fit(held, steps_per_epoch=each, shuffle=False, verbose=0)  # traces

    def span(made: TrainingModel, batches: tf.data.Iterator, calls: int) -> float:
        """Milliseconds a step."""
        begin = time.perf_counter()
        for _ in range(calls):
            logs = made.train_function(batches)
        float(logs["loss"])  # a GPU is waited for
        return (time.perf_counter() - begin) * 1000 / (calls * each)

    def on_batches() -> float:
        batches = iter(flowing)
        for _ in range(DRAINED):
            next(batches)
        whole.train_function(batches)  # after which tf.data is as far ahead as it will be
        return span(whole, batches, calls)

    def by_fit() -> float:
        clock = _Clock()
        whole.fit(flowing, steps_per_epoch=(calls + 1) * each, shuffle=False, verbose=0, callbacks=[clock])
        return (clock.ends[-1] - clock.ends[0]) * 1000 / (calls * each)

    def input_alone() -> float:
        batches = iter(flowing)
        for _ in range(DRAINED):
            next(batches)
        begin, count = time.perf_counter(), max(calls * per_call, DRAINED)
        for _ in range(count):
            made = next(batches)
            if model.gather:
                gathered(made)
        return (time.perf_counter() - begin) * 1000 / (count * each / per_call)

    @tf.function(autograph=False)
    def gathered(positions: tf.Tensor) -> tf.Tensor:
        """The batches of an execution, one after another, without a step on them."""

        def one(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = model.gather(positions[start : start + model.batch_size])
            with tf.control_dependencies([images]):
                return start + model.batch_size, total + tf.reduce_sum(labels)

        return tf.while_loop(lambda start, _: start < tf.size(positions), one, (0, 0.0))[1]

    on_held = iter(held)
    calls = max(1, round(SPAN_SECONDS * 1000 / (span(whole, on_held, 1) * each)))
    timings: dict[str, list[float]] = {name: [] for name in (*models, "input", "python", "input_alone")}
    rounds, traced = 0, time.perf_counter()
    while rounds < ROUNDS or time.perf_counter() - traced < SECONDS:
        classifier.set_weights(start)  # no network that has learned one batch by heart
        for name, made in models.items():
            timings[name].append(span(made, on_held, calls))
        timings["input"].append(on_batches())
        timings["python"].append(by_fit())
        timings["input_alone"].append(input_alone())
        rounds += 1
    return {
        **parts_of(timings),
        "timed": {
            name: {"ms": statistics.median(found), "low": min(found), "high": max(found)}
            for name, found in timings.items()
        },
        "rounds": rounds,
        "steps_per_execution": each,
        "seconds": round(time.perf_counter() - begin, 3),
    }


def parts_of(timings: dict[str, list[float]]) -> dict[str, Any]:
    """Differences of medians, in the order given; `input_alone` is no part.

    >>> parts_of({"forward": [1, 1, 9], "backward": [3, 3, 3], "input": [4, 4, 4], "input_alone": [2, 2, 2]})["parts"]
    {'forward': {'ms': 1, 'share': 0.25}, 'backward': {'ms': 2, 'share': 0.5}, 'input': {'ms': 1, 'share': 0.25}}
    """
    medians = {name: statistics.median(found) for name, found in timings.items()}
    alone = medians.pop("input_alone")
    step = list(medians.values())[-1]
    parts, before = {}, 0
    for name, until in medians.items():
        parts[name] = {"ms": until - before, "share": (until - before) / step}
        before = until
    return {"step_ms": step, "parts": parts, "input_alone_ms": alone}


def table(profile: dict[str, Any]) -> str:
    """A line a part, for people; a part below the spread of what was timed is noise, and may be below 0."""
    lines = [
        f"a step takes {profile['step_ms']:.2f} ms (medians of {profile['rounds']} rounds, each with a part more):"
    ]
    for name, part in profile["parts"].items():
        more = f"   ({profile['input_alone_ms']:.2f} ms alone)" if name == "input" else ""
        lines.append(f"  {NAMES[name]:<34}{part['ms']:>9.2f} ms {part['share']:>6.1%}{more}")
    spread = max((found["high"] - found["low"]) for name, found in profile["timed"].items() if name != "input_alone")
    return "\n".join([*lines, f"  rounds differ by up to {spread:.2f} ms"])

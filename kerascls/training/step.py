"""The training step: what a recipe's network trains through, whatever the data, the augmentation and the devices."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerascls.augmentation.policy import apply_policy
from kerascls.inference.metrics import EPSILON


class TrainingModel(keras.Model):
    """Trains `classifier` on images augmented by `policy`. Evaluation and prediction are the classifier's own.

    What is saved, scored and exported is `classifier`, so nothing of the policy or of the optimiser goes along.
    What step s draws is a function of (`seed`, s, replica), where the first step is `first_step`: another phase of a
    training goes on counting. From step `policy_steps` on, images are left as they are.

    Where the replicas of a strategy share a batch, every example weighs alike, however many a replica has: the loss
    that is reported and the gradient that is followed are those of one device.

    Args:
        class_weight: float32 `(num_classes,)`, of each example's class before augmentation; None for 1.
        gather: makes the batch of positions, int32 `(n,)`; `fit` is then given all positions of an execution at a time
            and the steps take theirs by themselves, `batch_size` a step. A batch from tf.data costs 0.1 ms a step, 8 %
            of the 1,198-parameter network's (batch 32, 2 cores). On one device. None where `fit` is given batches.
        steps: of an epoch, where `fit` is given what has no end. 0 where it ends with the epoch.
        skipped: steps of the first epoch that are done already: where it would run them, it does nothing.
        shards: parts of a batch whose loss and gradient are computed by themselves, at the same time where there are
            cores and operations have one thread each. What they add up to is that of the batch, but for the last bits.
            Not for batch normalisation, whose moments are of a whole batch, nor under a strategy.
        schedule: the optimiser's learning rate as a function of the step; None where it is constant.
    """

    def __init__(
        self,
        classifier: keras.Model,
        policy: Sequence[dict[str, Any]] = (),
        seed: int = 0,
        policy_steps: int | None = None,
        first_step: int = 0,
        class_weight: np.ndarray | None = None,
        gather: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
        batch_size: int = 0,
        steps: int = 0,
        skipped: int = 0,
        shards: int = 1,
        schedule: Callable[[int], Any] | None = None,
    ):
        super().__init__(name="training")
        self.classifier = classifier
        self.policy = [dict(entry) for entry in policy]
        self.seed = seed
        self.policy_steps = policy_steps
        # XLA has no kernel for ImageProjectiveTransformV3 or gamma draws, and Keras asks layers only.
        self.supports_jit = not self.policy
        self.first_step = first_step
        self.class_weight = class_weight
        self.gather, self.batch_size = gather, batch_size
        self.steps, self.skipped, self.shards = steps, skipped, shards
        self.schedule = schedule
        self._moments_of: Callable | None = None

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.classifier(images, training=training)

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.class_weight is not None:
            sample_weight = tf.gather(tf.constant(self.class_weight, tf.float32), tf.argmax(labels, axis=-1))
        if self.policy:
            images, labels = self.augmented(images, labels, self.step())
        replicas = self.distribute_strategy.num_replicas_in_sync
        if self.shards == replicas == 1:
            return super().train_step((images, labels, sample_weight))
        count = _examples(labels) if replicas > 1 else tf.shape(labels)[0]
        of_batch = _share_of_batch(count) if replicas > 1 else 1.0
        losses, probabilities, gradients = [], [], []
        for examples, share, *rows in self.shares(images, labels, sample_weight, count):
            with tf.GradientTape() as tape:
                outputs = self(rows[0], training=True)
                losses.append(share * self.compute_loss(*rows[:2], outputs, rows[2]))
                objective = self.optimizer.scale_loss(losses[-1] * of_batch)
            probabilities.append(outputs[:examples])
            gradients.append(tape.gradient(objective, self.trainable_weights))
        summed = [tf.add_n(parts) for parts in zip(*gradients, strict=True)]
        self.optimizer.apply_gradients(zip(summed, self.trainable_weights, strict=True))
        return self._report(tf.add_n(losses), images, labels, tf.concat(probabilities, 0), sample_weight, count)

    def step(self) -> tf.Tensor:
        """Steps that were taken, in all phases."""
        return self.first_step + tf.cast(self.optimizer.iterations.value, tf.int32)

    def augmented(self, images: tf.Tensor, labels: tf.Tensor, drawn_by: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The batch as the policy draws it by the seed and that number; from step `policy_steps` on, as it is."""
        seed = tf.stack([tf.constant(self.seed, tf.int32), drawn_by])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.where(replica > 0, tf.random.experimental.stateless_fold_in(seed, replica), seed)
        images = tf.cast(images, tf.float32)
        if self.policy_steps is None:
            return apply_policy(self.policy, images, labels, seed)
        return tf.cond(
            self.step() < self.policy_steps,
            lambda: apply_policy(self.policy, images, labels, seed),
            lambda: (images, labels),
        )

    def normalisations(self) -> list[keras.layers.BatchNormalization]:
        """The layers whose moments training moves."""
        layers = self.classifier._flatten_layers()
        return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]

    def mean_moments(self, batches: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> list[np.ndarray]:
        """What the moving moments of `normalisations`, layer by layer, would be if they were the means over `batches`
        under the weights as they are. Leaves the variables changed, and the generators of dropout."""
        layers = self.normalisations()
        strategy = self.distribute_strategy

        def of_one(images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> list[tf.Tensor]:
            if self.policy:
                images, labels = self.augmented(images, labels, number)
            for layer in layers:
                for variable in layer.non_trainable_variables:
                    variable.assign(tf.zeros_like(variable))
            self.classifier(images, training=True)
            return [
                tf.identity(variable) / (1 - layer.momentum)
                for layer in layers
                for variable in layer.non_trainable_variables
            ]

        if self._moments_of is None:
            self._moments_of = tf.function(lambda *batch: strategy.run(of_one, args=batch), autograph=False)
        found = [
            [strategy.experimental_local_results(one)[0].numpy() for one in self._moments_of(*batch, tf.constant(i))]
            for i, batch in enumerate(batches)
        ]
        return [np.mean(values, 0) for values in zip(*found, strict=True)]

    def shares(self, images: tf.Tensor, labels: tf.Tensor, sample_weight: Any, count: tf.Tensor) -> Iterator[tuple]:
        """Of each shard how many examples it has, their share of this replica's `count`, its images, labels and
        weights.

        Where there are more shards than examples, one without any has a row all the same, since TensorFlow 2.21's
        convolutions fail on none.
        """
        if self.shards == 1:
            yield count, 1.0, images, labels, sample_weight
            return
        for shard in range(self.shards):
            begin, end = count * shard // self.shards, count * (shard + 1) // self.shards
            rows = slice(begin, tf.maximum(end, begin + 1))
            weights = None if sample_weight is None else sample_weight[rows]
            yield end - begin, tf.cast((end - begin) / count, tf.float32), images[rows], labels[rows], weights

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """The loss is the plain cross-entropy, as `metrics.cross_entropy` has it, whatever the training loss is."""
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        probabilities = self(images, training=False)
        logarithms = tf.math.log(tf.clip_by_value(probabilities, EPSILON, 1.0))
        alone = self.distribute_strategy.num_replicas_in_sync == 1
        count = tf.shape(labels)[0] if alone else _examples(labels)
        self.metrics[0].update_state(-tf.reduce_mean(tf.reduce_sum(labels * logarithms, -1)), sample_weight=count)
        return self.compute_metrics(images, labels[:count], probabilities[:count])

    def used_rate(self) -> float:
        """The learning rate of the last step. `optimizer.learning_rate` is that of the next one."""
        if self.schedule is None:
            return float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        taken = int(keras.ops.convert_to_numpy(self.optimizer.iterations))
        return float(self.schedule(max(taken - 1, 0)))

    def _report(
        self,
        loss: tf.Tensor,
        images: tf.Tensor,
        labels: tf.Tensor,
        probabilities: tf.Tensor,
        sample_weight: Any,
        count: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Updates the metrics by the `count` examples of this replica. Keras' `loss` is a mean over the replicas."""
        self.metrics[0].update_state(loss * self.distribute_strategy.num_replicas_in_sync, sample_weight=count)
        sample_weight = None if sample_weight is None else sample_weight[:count]
        return self.compute_metrics(images, labels[:count], probabilities[:count], sample_weight)

    def make_train_function(self, force: bool = False) -> Callable:
        """Keras' own, or where `steps` is known one that runs the steps that are left of the epoch, and not more."""
        if self.train_function is not None and not force:
            return self.train_function
        if not self.steps:
            return super().make_train_function(force)
        run = self._execution()
        done = 0  # of this epoch

        def execution(iterator: Any) -> dict[str, tf.Tensor]:
            nonlocal done
            count = min(self.steps_per_execution, self.steps - done)
            done = (done + count) % self.steps
            if self.skipped > 0:
                self.skipped -= count
                return self.get_metrics_result()
            return run(iterator, count)

        self.train_function = execution
        return execution

    def compile(self, optimizer: Any, *others: Any, **options: Any) -> None:
        """Keras' own. Without a strategy the optimiser adds up no replicas' gradients: TensorFlow keeps the gradient of
        that sum, and with it the graph of the training, some 7 MB, as long as the process lives."""
        if not tf.distribute.has_strategy():
            for one in (optimizer, getattr(optimizer, "inner_optimizer", None)):
                if isinstance(one, keras.optimizers.Optimizer):
                    one._all_reduce_sum_gradients = list
        super().compile(optimizer, *others, **options)

    def _execution(self) -> Callable[[Any, int], dict[str, tf.Tensor]]:
        """Runs so many steps on what an iterator gives, and returns the metrics."""
        if self._distribute_strategy is not None:
            super().make_train_function(force=True)  # of one step; sets `train_function`
            step_of_all = self.train_function
            return lambda iterator, count: step_of_all(iterator)

        def loop(end: tf.Tensor, stride: int, step: Callable[[tf.Tensor], Any]) -> dict[str, tf.Tensor]:
            def one(at: tf.Tensor) -> tuple[tf.Tensor]:
                step(at)
                return (at + stride,)

            tf.while_loop(lambda at: at < end, one, (tf.constant(0),))
            return self.get_metrics_result()

        train = tf.function(self.train_step, jit_compile=True) if self.jit_compile else self.train_step

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.int32)], autograph=False)
        def gathered(positions: tf.Tensor) -> dict[str, tf.Tensor]:
            size = self.batch_size
            return loop(tf.size(positions), size, lambda at: train(self.gather(positions[at : at + size])))

        @tf.function(autograph=False)
        def counted(iterator: Any, count: tf.Tensor) -> dict[str, tf.Tensor]:
            return loop(count, 1, lambda at: train(next(iterator)))

        if self.gather is not None:
            return lambda iterator, count: gathered(next(iterator))
        return lambda iterator, count: counted(iterator, tf.constant(count))

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Makes the variables of metrics and optimiser before a function is traced: TensorFlow traces one that makes
        variables twice, which takes half a second for a small network and many for a large one.

        Keras does so under a strategy alone, and there 3.15 adds up the replicas' first batches, which fails where
        their shares differ in size.
        """
        if self._distribute_strategy is None:
            shapes = (self.classifier.input_shape, self.classifier.output_shape)
            self._symbolic_build(data_batch=tuple(tf.TensorSpec(shape, tf.float32) for shape in shapes))
            return
        if iterator is not None:
            local = self._distribute_strategy.experimental_local_results
            for _, _, batches in iterator:
                data_batch = tf.nest.map_structure(lambda value: local(value)[0], next(batches))
                break
        super()._maybe_symbolic_build(data_batch=data_batch)


def _examples(labels: tf.Tensor) -> tf.Tensor:
    """How many rows of a replica's labels are examples: all, or 0 where it only keeps the others company.

    See `pipeline.share_among`, whose copies have labels of zero.
    """
    return tf.math.count_nonzero(tf.reduce_max(labels, axis=-1), dtype=tf.int32)


def _share_of_batch(count: tf.Tensor) -> tf.Tensor:
    """`count` examples of this replica over the mean of all replicas': 1 where all have as many.

    Keras divides each replica's mean loss by the number of replicas and adds up their gradients; times the share, they
    add up to the gradient of the mean over all examples.
    """
    context = tf.distribute.get_replica_context()
    count = tf.cast(count, tf.float32)
    return count * context.num_replicas_in_sync / context.all_reduce(tf.distribute.ReduceOp.SUM, count)

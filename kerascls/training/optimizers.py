"""A recipe's Keras optimiser and the schedule of its learning rate."""

import math
import re
from typing import Any

from kerascls.recipes.schema import Train


def make_optimizer(train: Train, steps: int) -> Any:
    """The recipe's Keras optimiser with its schedule, of `steps` steps an epoch."""
    import keras

    options: dict[str, Any] = {"weight_decay": train.weight_decay or None}
    if train.ema_momentum:
        options |= {"use_ema": True, "ema_momentum": train.ema_momentum}
    if train.optimizer in ("adam", "adamw", "nadam"):
        options |= {"beta_2": train.beta_2, "epsilon": train.epsilon}
    if train.optimizer == "rmsprop":
        options |= {"momentum": train.momentum, "epsilon": train.epsilon}
    if train.optimizer == "sgd":
        options |= {"momentum": train.momentum}
    if train.optimizer == "adamw":
        options["weight_decay"] = train.weight_decay
    rate = learning_rate(train, steps)
    classes = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
        "rmsprop": keras.optimizers.RMSprop,
        "nadam": keras.optimizers.Nadam,
        "lion": keras.optimizers.Lion,
    }
    optimizer = classes[train.optimizer](rate, **options)
    # Keras searches TensorFlow's names: "conv1/bias:0", under a strategy "conv1/bias/replica_1:0".
    names = "|".join(map(re.escape, train.exclude_from_weight_decay))
    optimizer.exclude_from_weight_decay(var_names=[rf"(^|/)({names})(/replica_\d+)?(:0)?$"] if names else [])
    return optimizer


def learning_rate(train: Train, steps: int) -> Any:
    """The recipe's learning rate, of `steps` steps an epoch: a number, or a Keras schedule where it changes."""
    if train.schedule == "constant" and not train.warmup_epochs:
        return train.learning_rate
    last = train.epochs * steps
    return _schedule(train.schedule, train.learning_rate, min(round(train.warmup_epochs * steps), last - 1), last)


def _schedule(kind: str, peak: float, warmup_steps: int, total_steps: int) -> Any:
    import keras
    from keras import ops

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        """peak * (step + 1) / warmup_steps, then constant or down to 0 at `total_steps` by a half cosine or a line."""

        def __call__(self, step: Any) -> Any:
            step = ops.cast(step, "float32")
            climbed = (step + 1) / max(warmup_steps, 1)
            done = ops.clip((step - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
            after = {"constant": ops.ones_like(done), "cosine": (1 + ops.cos(math.pi * done)) / 2, "linear": 1 - done}[
                kind
            ]
            return peak * ops.where(step < warmup_steps, climbed, after)

        def get_config(self) -> dict[str, Any]:
            return {"kind": kind, "peak": peak, "warmup_steps": warmup_steps, "total_steps": total_steps}

    return Schedule()

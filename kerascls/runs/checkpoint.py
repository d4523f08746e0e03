"""Checkpoints: all that a training is at one moment, in one file, from which it goes on to the same bits.

`checkpoint/state.npz` in the run folder holds the weights that can change, the optimiser's slots and moving averages,
the weights of the epoch that a second phase will begin from, the metrics of the epoch, the states of dropout's
generators, and as JSON the place in the schedule and what the callbacks remember. It is written whole or not at all,
and holds no code and no name of a class.
"""

import dataclasses
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerascls.errors import RunError, first_line
from kerascls.runs.run import CHECKPOINT
from kerascls.system.atomic_files import atomic
from kerascls.system.json_files import fault, only, read_json

_FILE, _FORMAT = "state.npz", 1
KINDS = ("weights", "optimizer", "metrics", "generators", "kept")
PROGRESS = {  # of manifest.json, what a training goes on with
    "seconds": {"total": (float, None), "fit": (float, None), "epochs": [float]},
    "best_epoch": (int, None),
    "kept_epoch": (int, None),
    "parameters": dict,
    "features?": {"precision": str},
}
_SHAPE = {
    "place": {"phase": (0, 1), "begin": int, "epoch": int, "step": int, "ended": bool},
    "callbacks": dict,
    "progress": PROGRESS,
    "arrays": {kind: [int] for kind in KINDS},
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a training is.

    Attributes:
        phase: 0 for [train], 1 for [finetune].
        begin: epochs that were done when the phase began.
        epoch: epochs that are done.
        step: steps of the next epoch that are done.
        ended: nothing is left of the phase.
    """

    phase: int = 0
    begin: int = 0
    epoch: int = 0
    step: int = 0
    ended: bool = False

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f" and {self.step} steps" if self.step else "")

    @property
    def where(self) -> str:
        """For people, who count epochs from 1."""
        return f"in epoch {self.epoch + 1}, step {self.step}" if self.step else f"after epoch {self.epoch}"


@dataclasses.dataclass(frozen=True)
class State:
    """All that a training is.

    Attributes:
        place: where it goes on.
        callbacks: what each remembers, by its class' name; JSON.
        progress: what manifest.json says so far; JSON.
        arrays: of each of KINDS the variables in their order, of each variable its value on each replica.
    """

    place: Place
    callbacks: dict[str, dict[str, Any]]
    progress: dict[str, Any]
    arrays: dict[str, list[list[np.ndarray]]]

    def recalled(self, name: str, shape: Mapping[str, Any]) -> dict[str, Any]:
        """What the callback of that class remembered, of a shape as `json_files.fault` takes it.

        Raises:
            RunError: it is not there, or of another shape.
        """
        if wrong := fault(self.callbacks, {name: shape}):
            raise RunError(f"The checkpoint's callbacks are not those of this training: {wrong}.")
        return only(self.callbacks[name], shape)

    def restore(self, kind: str, variables: Iterable[Any]) -> None:
        """Brings the values of `kind` back to the tf.Variables that they were taken from.

        Raises:
            RunError: they are others.
        """
        variables, values = list(variables), self.arrays[kind]
        expected = [[(local.shape, local.dtype.as_numpy_dtype) for local in _local(variable)] for variable in variables]
        if expected != [[(value.shape, value.dtype) for value in replicas] for replicas in values]:
            raise RunError(
                f"The checkpoint's {kind} are not those of this training: it was of another network or code."
            )
        assign(variables, values)


def values(variables: Iterable[Any]) -> list[list[np.ndarray]]:
    """Of each tf.Variable its value on each replica, copied."""
    return [[local.numpy().copy() for local in _local(variable)] for variable in variables]


def assign(variables: Iterable[Any], values: Iterable[list[np.ndarray]]) -> None:
    """Gives each tf.Variable what `values` took from it."""
    for variable, replicas in zip(variables, values, strict=True):
        for local, value in zip(_local(variable), replicas, strict=True):
            local.assign(value)


def _local(variable: Any) -> tuple[Any, ...]:
    """A tf.Variable on each replica of the strategy that it was made under, itself where that is none."""
    return tuple(getattr(variable, "values", None) or [variable])


def read(run: Path) -> State | None:
    """The checkpoint of a run folder; None where it has none.

    Raises:
        RunError: it is damaged.
    """
    path = run / CHECKPOINT / _FILE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            told = read_json(bytes(archive["state"]))
            if wrong := fault(told, {"format": _FORMAT}):
                raise RunError(f"{path}: {wrong}; this kerascls reads format {_FORMAT}. Update kerascls.")
            if wrong := fault(told, _SHAPE):
                raise ValueError(wrong)
            arrays = {
                kind: [
                    [_array(archive, f"{kind}/{i}/{replica}") for replica in range(replicas)]
                    for i, replicas in enumerate(told["arrays"][kind])
                ]
                for kind in KINDS
            }
            return State(Place(**told["place"]), told["callbacks"], only(told["progress"], PROGRESS), arrays)
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = first_line(error)
        raise RunError(f"{path} is damaged ({reason}). Remove it to train {run} from its beginning.") from None


def _array(archive: Any, name: str) -> np.ndarray:
    array = archive[name]
    if not isinstance(array, np.ndarray):  # NumPy gives the bytes of what is in none of its formats
        raise ValueError(f"{name} is no array")
    return array


def write(run: Path, state: State) -> None:
    """Writes the checkpoint of a run folder over the one before, whole or not at all."""
    told = {
        "format": _FORMAT,
        "place": dataclasses.asdict(state.place),
        "callbacks": state.callbacks,
        "progress": state.progress,
        "arrays": {kind: [len(replicas) for replicas in state.arrays[kind]] for kind in KINDS},
    }
    named = {
        f"{kind}/{i}/{j}": value
        for kind in KINDS
        for i, replicas in enumerate(state.arrays[kind])
        for j, value in enumerate(replicas)
    }
    folder = run / CHECKPOINT
    folder.mkdir(exist_ok=True)
    with atomic(folder / _FILE) as temporary, temporary.open("wb") as file:
        np.savez(file, state=np.frombuffer(json.dumps(told, allow_nan=False).encode(), np.uint8), **named)

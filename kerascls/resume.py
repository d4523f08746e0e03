"""Going on: a run whose training was ended, found again and held against what it was."""

import contextlib
import dataclasses
import glob
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerascls import checkpoint
from kerascls.config import Config, load_config
from kerascls.datasets import Dataset, load_config_data
from kerascls.devices import Placement, placement_for, prepare, versions
from kerascls.errors import DataError, KerasclsError, RunError
from kerascls.runs import CHECKPOINT, Run, is_run

MACHINE = ("name", "cores", "threads")  # of manifest.json's device: what a run may go on with others of


@dataclasses.dataclass(frozen=True)
class Ended:
    """A training that was ended, with all that it needs to go on.

    Attributes:
        state: its checkpoint; None where it has none.
        moved: in what the machine is another; "" where it is not.
    """

    run: Run
    config: Config
    dataset: Dataset
    placement: Placement
    state: checkpoint.State | None
    moved: str

    def __str__(self) -> str:
        return f"{self.run.path} {how_far(self.state)}"


@contextlib.contextmanager
def taken_up(
    run: Run,
    recipe: str | None,
    tables: Mapping[str, Mapping[str, Any]],
    data: str | os.PathLike | None,
    data_dir: str | None,
) -> Iterator[Ended]:
    """A run to go on with, by its own recipe, or by the one that was typed, which must be the same. Inside, no other
    process trains it.

    Args:
        data: where its data lie by now; None for where they were.

    Raises:
        RunError: it is complete, is being trained, or was of another recipe, data, code or kind of device.
        DataError: its data are not here.
    """
    _refuse_complete(run)
    config = _typed(run, recipe, tables) if recipe is not None else _own(run, data)
    with run.locked():
        _refuse_complete(run)  # by the process that had the lock until now
        run.clear()
        manifest = run.manifest
        state = checkpoint.read(run.path)
        prepare(config.devices)
        dataset = load_config_data(config.data, data_dir)
        placement = placement_for(config.devices)
        now_is = {
            "data": {"fingerprint": dataset.fingerprint()},
            "versions": versions(),
            "code": code_digest(config),
            "device": placement.describe(),
        }
        was = {key: manifest.get(key, {}) for key in now_is}
        was["data"] = {"fingerprint": manifest["data"]["fingerprint"]}
        machine, other = (
            {key: device.pop(key, None) for key in MACHINE} for device in (now_is["device"], was["device"])
        )
        if differ := _differences(now_is, was):
            raise RunError(
                f"{run.path} cannot go on to the same numbers: {'; '.join(differ)}. Go on where all is as it was, or "
                "train again."
            )
        if moved := "; ".join(_differences(machine, other)):
            print(f"On another machine the last bits of the numbers may differ: {moved}.", file=sys.stderr, flush=True)
        yield Ended(run, config, dataset, placement, state, moved)


def _refuse_complete(run: Run) -> None:
    if run.manifest["status"] == "complete":
        shutil.rmtree(run.path / CHECKPOINT, ignore_errors=True)
        raise RunError(f"{run.path} is complete: there is nothing to go on with.")


def _own(run: Run, data: str | os.PathLike | None) -> Config:
    """The recipe that a run keeps, with its data where `data` says."""
    manifest, config = run.manifest, run.config
    code = [name for name in (config.data.name, config.model.name) if name.endswith(".py")]
    if code:
        raise RunError(
            f"{run.path} is of your own code, {' and '.join(code)}, which runs only where you name it. Type the "
            f"command again, with --resume {run.path}: {manifest.get('command')}"
        )
    if data is not None:
        return dataclasses.replace(config, data=dataclasses.replace(config.data, name=os.fspath(data)))
    if manifest["data"].get("source") == "folder" or config.data.name.endswith(".npz"):
        if not Path(config.data.name).exists():
            raise DataError(f"{config.data.name}, the data of {run.path}, is not here. Say where: --data PATH.")
    return config


def _typed(run: Run, recipe: str, tables: Mapping[str, Mapping[str, Any]]) -> Config:
    """The recipe that was typed, if it is the run's."""
    typed = load_config(recipe, tables, use_fallback=run.manifest["data"]["fallback_for"] is not None)
    if differ := _differences(portable(typed).as_tables(), run.config.as_tables()):
        raise RunError(f"{run.path} is of another recipe, and cannot go on by this one: {'; '.join(differ)}.")
    return typed


def interrupted(name: str, config: Config) -> tuple[Run, str] | None:
    """The run of this recipe under saved_models/, among `name`, `name`-2, ..., that was ended before its end, and how
    far it came."""
    for path in sorted(Path("saved_models").glob(f"{glob.escape(name)}*")):
        if re.fullmatch(re.escape(name) + r"(-\d+)?", path.name) and is_run(path):
            try:
                run = Run.unfinished(path)
                if run.manifest["status"] in ("running", "interrupted") and run.config == portable(config):
                    with run.locked():
                        return run, how_far(checkpoint.read(path))
            except KerasclsError:  # damaged, or being trained
                continue
    return None


def how_far(state: checkpoint.State | None) -> str:
    return f"after {state.place}" if state else "before its first checkpoint"


def advice(path: Path) -> str:
    """For a folder that is in the way."""
    with contextlib.suppress(KerasclsError):
        if is_run(path) and Run.unfinished(path).manifest.get("status") != "complete":
            return f" Its training was ended: `kerascls train --resume {path}` goes on with it."
    return ""


def _differences(now_is: Mapping[str, Any], was: Mapping[str, Any], above: str = "") -> list[str]:
    """What differs between two trees of tables, a phrase each."""
    found: list[str] = []
    for key in dict.fromkeys([*was, *now_is]):
        one, other = now_is.get(key), was.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _differences(one, other, f"{above}{key}.")
        elif one != other:
            found.append(f"{above}{key} was {other}, and is {one}")
    return found


def code_digest(config: Config) -> str:
    """SHA-256 of all that a training runs by: kerascls' own code, and the user's code and weights that it names."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    named = [config.data.name, config.model.name, *map(str, config.model.options.values())]
    files += [Path(name) for name in named if name.endswith((".py", ".keras", ".h5")) and Path(name).is_file()]
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def portable(config: Config) -> Config:
    """The recipe without absolute paths: a file or folder named by one keeps its last part alone."""

    def short(value: Any) -> Any:
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    options = {key: short(value) for key, value in config.model.options.items()}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, name=short(config.data.name)),
        model=dataclasses.replace(config.model, name=short(config.model.name), options=options),
    )

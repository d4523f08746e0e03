"""Going on: a run whose training was ended, found again and held against what it was."""

import ast
import contextlib
import dataclasses
import glob
import hashlib
import importlib.machinery
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerascls.data.dataset import Dataset
from kerascls.data.loading import load_config_data
from kerascls.devices import Placement, placement_for, prepare
from kerascls.errors import DataError, KerasclsError, RunError
from kerascls.features.engines import computed_by
from kerascls.recipes.load import load_config
from kerascls.recipes.schema import Config
from kerascls.runs import checkpoint
from kerascls.runs.run import Run, going_on, is_run
from kerascls.system.machine import versions

_PATH = tuple(sys.path)  # before code of the user's own, which may add to it, has run
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
    run.refuse_complete()
    config = _typed(run, recipe, tables, data) if recipe is not None else _own(run, data)
    with run.locked():
        run.refuse_complete()  # by the process that had the lock until now
        run.clear()
        manifest = run.manifest
        state = checkpoint.read(run.path)
        prepare(config.devices)
        name = manifest["data"]["name"]  # it keeps, wherever its data lie by now
        dataset = dataclasses.replace(load_config_data(config.data, data_dir), name=name)
        placement = placement_for(config.devices)
        now_is = {
            "data": {"fingerprint": dataset.fingerprint()},
            "versions": versions(),
            "code": code_digest(config),
            "device": placement.describe() | computed_by(config.features, placement),
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
        return _of_data(config, os.fspath(data))
    if manifest["data"].get("source") == "folder" or config.data.name.endswith(".npz"):
        if not Path(config.data.name).exists():
            raise DataError(f"{config.data.name}, the data of {run.path}, is not here. Say where: --data PATH.")
    return config


def _typed(
    run: Run, recipe: str, tables: Mapping[str, Mapping[str, Any]], data: str | os.PathLike | None = None
) -> Config:
    """The recipe that was typed, if it is the run's, with its data where `data` says."""
    own = run.config
    typed = load_config(recipe, tables, use_fallback=run.manifest["data"]["fallback_for"] is not None)
    same = portable(typed) if data is None else _of_data(portable(typed), own.data.name)
    if differ := _differences(same.as_tables(), own.as_tables()):
        raise RunError(f"{run.path} is of another recipe, and cannot go on by this one: {'; '.join(differ)}.")
    return typed if data is None else _of_data(typed, os.fspath(data))


def _of_data(config: Config, name: str) -> Config:
    """The recipe for the same data elsewhere, which their fingerprint tells."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, name=name))


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
        if is_run(path) and (told := going_on(path, Run.unfinished(path).manifest["status"])):
            return f" Its training was ended:{told}"
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
    """SHA-256 of all that a training runs by: kerascls' own code, and the user's code and weights that it names, with
    the modules that this code imports."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    named = [config.data.name, config.model.name, *map(str, config.model.options.values())]
    own = [Path(name) for name in named if name.endswith((".py", ".keras", ".h5", ".hdf5")) and Path(name).is_file()]
    files += own + imported_by([path for path in own if path.suffix == ".py"])
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def imported_by(files: Sequence[Path]) -> list[Path]:
    """The Python files that these import, and those import, by name, from beside them or from where Python looked when
    it began: but for kerascls', Python's and installed ones, whose versions are compared. Of a package all files.
    Nothing is run, and it does not matter what has been."""
    ours = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = {Path(path).resolve() for path in [*ours, *site.getsitepackages(), site.getusersitepackages()]}
    found: dict[Path, None] = {}
    known, waiting = {"kerascls"}, list(files)
    places = [*dict.fromkeys(str(path.parent.resolve()) for path in files), *_PATH]
    while waiting:
        try:
            tree = ast.parse(waiting.pop().read_bytes())
        except (OSError, SyntaxError, ValueError):  # which the import itself will tell
            continue
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - known:
                known.add(name)
                spec = importlib.machinery.PathFinder.find_spec(name, places)
                origin = [spec.origin] if spec and spec.has_location else []
                for place in map(Path, (spec and spec.submodule_search_locations) or origin):
                    if not installed & {*place.resolve().parents}:
                        new = sorted(place.rglob("*.py")) if place.is_dir() else [place]
                        found |= dict.fromkeys(new)
                        waiting += new
    return [path for path in found if path.suffix == ".py"]


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

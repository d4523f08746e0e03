"""Run folders: the files that pass between commands."""

import contextlib
import dataclasses
import datetime
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from kerascls.errors import ConfigError, OutputError, RunError
from kerascls.recipes.load import config_from_toml
from kerascls.recipes.notices import all_notices
from kerascls.recipes.schema import Config
from kerascls.system.atomic_files import alone, atomic, clear_left, free_name, write_json
from kerascls.system.json_files import fault, read_json

FORMAT = 1  # of manifest.json
MANIFEST = {  # what is read of manifest.json; a key with "?" came later, or a run goes on without
    "recipe": str,
    "status": str,
    "kept_epoch": (int, None),
    "best_epoch": (int, None),
    "data": {"name": str, "fingerprint": str, "fallback_for": (str, None)},
    "versions?": dict,
    "device?": dict,
    "seconds?": dict,
    "parameters?": dict,
    "resumed?": list,
}
CHECKPOINT = "checkpoint"  # the folder in a run's; it goes when the run is complete


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder. Reads its files when asked; `Run.open` has made sure that it is one."""

    path: Path

    @classmethod
    def create(cls, out: Path | None, name: str, fill: Callable[[Path], None]) -> "Run":
        """Makes the folder, with all that `fill` writes into it or not at all: `out`, which must not exist, or the next
        free name under saved_models/.

        Raises:
            OutputError: `out` exists, or the place cannot be written.
        """
        path = out or free_name(Path("saved_models") / name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot make {path.parent}: {error.strerror}.") from None
        while True:
            try:
                with atomic(path) as temporary:
                    temporary.mkdir()
                    fill(temporary)
                return cls(path)
            except OutputError:
                if out is not None or not path.exists():
                    raise
                path = free_name(path.with_name(name))  # another training took the name meanwhile

    @classmethod
    def unfinished(cls, path: str | Path) -> "Run":
        """Raises RunError if `path` is not a run folder of this format, with a model or without."""
        path = Path(path)
        if not path.exists():
            raise RunError(f"Run {path} does not exist. `kerascls train` makes one under saved_models/.")
        if not (path / "manifest.json").is_file():
            raise RunError(
                f"{path} is not a run: it has no manifest.json. Give the folder that `kerascls train` named."
            )
        run = cls(path)
        manifest = run.manifest
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            raise RunError(f"{path} has run format {found}; this kerascls reads format {FORMAT}. Update kerascls.")
        if wrong := fault(manifest, MANIFEST):
            raise RunError(f"{path}/manifest.json is damaged: {wrong}.")
        return run

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Raises RunError if `path` is not a run folder of this format that has a model."""
        run = cls.unfinished(path)
        if not run.model_path.is_file():
            status = run.manifest["status"]
            raise RunError(
                f"{path} has no model.keras: its training ended (status {status}) before an epoch was kept."
                + going_on(path, status)
            )
        return run

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes that train into this folder.

        Raises:
            RunError: another one does.
            OutputError: the folder cannot be written.
        """
        folder = self.path / CHECKPOINT
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(alone(folder / "lock", None))
            except filelock.Timeout:
                raise RunError(f"Another process trains {self.path}. Wait for it, or end it.") from None
            except OSError as error:
                raise OutputError(f"Cannot write {folder}: {error.strerror}.") from None
            yield
        if self.manifest["status"] == "complete":  # Windows removes no folder of a lock that is held
            shutil.rmtree(folder, ignore_errors=True)

    def refuse_complete(self) -> None:
        """Raises RunError where there is nothing to go on with; a checkpoint that a kill left there goes."""
        if self.manifest["status"] == "complete":
            shutil.rmtree(self.path / CHECKPOINT, ignore_errors=True)
            raise RunError(f"{self.path} is complete: there is nothing to go on with. {self.anew()}")

    def anew(self) -> str:
        """How to train by a run's recipe with changes, for people."""
        config = self.config
        moved = self.manifest["data"].get("source") == "folder" or config.data.name.endswith((".npz", ".py"))
        data = " --data PATH" if moved and not Path(config.data.name).exists() else ""
        recipe = f"{shlex.quote(str(self.path / 'config.toml'))}{data} --epochs {2 * config.train.epochs}"
        return f"A longer training, or another, begins from its first epoch: `kerascls train {recipe}`."

    def clear(self) -> None:
        """Removes what writers that were killed left behind. Call it `locked`."""
        for folder in [self.path, *(path for path in self.path.rglob("*") if path.is_dir())]:
            clear_left(folder, others=True)

    def _read(self, name: str) -> Any:
        """A JSON file of the run. Raises RunError if it is missing or damaged."""
        try:
            return read_json((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} is missing or damaged: {error}") from None

    @property
    def model_path(self) -> Path:
        return self.path / "model.keras"

    @property
    def manifest(self) -> dict[str, Any]:
        return self._read("manifest.json")

    @property
    def metrics(self) -> dict[str, Any]:
        return self._read("metrics.json")

    @property
    def class_names(self) -> list[str]:
        return self._read("class_names.json")

    @property
    def config(self) -> Config:
        try:
            text = (self.path / "config.toml").read_text(encoding="utf-8", errors="surrogateescape")
            return config_from_toml(text, self.manifest["recipe"], self.manifest["data"]["fallback_for"])
        except (OSError, ValueError, LookupError, RecursionError, ConfigError) as error:
            raise RunError(f"{self.path / 'config.toml'} is missing or damaged: {error}") from None

    @property
    def notice(self) -> str | None:
        """What every command on this run has to say first, or None."""
        manifest = self.manifest
        return all_notices(
            manifest["data"]["fallback_for"],
            manifest["data"]["name"],
            manifest.get("parameters", {}).get("random_backbone", False),
        )

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.path / "manifest.json", manifest)


def going_on(path: Path, status: str) -> str:
    """How a run whose training ended so can be gone on with; "" where it is complete."""
    command = f"`kerascls train --resume {path}` goes on with it"
    if status == "failed":
        return f" {command} once what it failed by is mended; a loss that is not finite comes again by the same recipe."
    return f" {command}." if status != "complete" else ""


def is_run(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

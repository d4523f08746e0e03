"""Keras files: reads them all, .h5 and folders of weights too, and writes .keras."""

import contextlib
import errno
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerascls.errors import ModelError, OutputError, first_line
from kerascls.formats._format import Format, uncalibrated
from kerascls.formats.card import CARD, Card
from kerascls.formats.scan.archives import WEIGHTS
from kerascls.formats.scan.containers import Contents
from kerascls.formats.scan.isolated import written
from kerascls.formats.scan.layers import keras_2, read_checked, written_by_keras_2
from kerascls.system.atomic_files import atomic
from kerascls.system.process import replaced, same_draws

if TYPE_CHECKING:  # for `kerascls export --help`
    import keras

_ROOM = 4  # times the weights in the file: wrappers build what they wrap, and then their copies of it


def read_model(path: Path, contents: Contents | None = None) -> "keras.Model":
    """Opens a .keras or .h5 file, or a folder of architecture and weights, uncompiled, in safe mode; none of it runs.

    Args:
        contents: what `scan.layers.read_checked` found in it, where that is known already.

    Raises:
        ModelError: it is missing, cut short, damaged, not a model that Keras 3 reads, or holds more than Keras' own
            layers.
        OutputError: there is no room for Keras to unpack it.
    """
    import keras

    contents = contents or read_checked(path)
    if path.suffix == ".keras" and contents.card is not None:
        _need_room(path)
    try:
        with _no_more_than(path, _ROOM * contents.values), same_draws():
            if path.is_file():
                return keras.saving.load_model(path, compile=False, safe_mode=True)
            config = {key: value for key, value in contents.config.items() if key != "compile_config"}
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            model.load_weights(path / WEIGHTS)
            return model
    except ModelError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # not by the file, then
            raise _no_room(path) from None
        raise _unread(path, contents, error) from None
    except Exception as error:  # Keras, zipfile and h5py raise whatever a damaged file leads them to
        raise _unread(path, contents, error) from None


def _need_room(path: Path) -> None:
    """Keras unpacks a .keras with a card into a temporary folder, and leaves it there where that gets full."""
    try:
        free = shutil.disk_usage(tempfile.gettempdir()).free
    except OSError:  # no folder there can be written
        raise OutputError(f"Cannot unpack {path}: no temporary folder can be written. Set TMPDIR to one.") from None
    if free < 1.1 * path.stat().st_size:
        raise _no_room(path)


def _no_room(path: Path) -> OutputError:
    return OutputError(
        f"Cannot unpack {path} in {tempfile.gettempdir()}: {os.strerror(errno.ENOSPC)}. Make room there, or set TMPDIR "
        "to another folder."
    )


@contextlib.contextmanager
def _no_more_than(path: Path, most: int) -> Iterator[None]:
    """Within it, this thread's layers are refused more than `most` numbers for their weights, before these are made.

    How many a layer makes is known to its `build` alone; all of them ask `add_weight` for each.
    """
    import keras

    made = 0

    def counted(original: Callable) -> Callable:
        def add_weight(layer: Any, shape: Any = None, *arguments: Any, **more: Any) -> Any:
            nonlocal made
            made += math.prod((shape,) if isinstance(shape, int) else shape or ())
            if made > most + 1000:  # counters and seeds are in no file
                raise ModelError(
                    f"{path} is refused: its layers would make {made:,} weights by {layer.name}, and "
                    f"{most // _ROOM:,} are in the file."
                )
            return original(layer, shape, *arguments, **more)

        return add_weight

    with replaced(keras.layers.Layer, "add_weight", counted):
        yield


def _unread(path: Path, contents: Contents, error: Exception) -> ModelError:
    if old := keras_2(contents):
        return written_by_keras_2(path, old, (str(error).strip().splitlines() or [type(error).__name__])[-1])
    return not_loadable(path, error)


def not_loadable(path: Path, error: Exception) -> ModelError:
    reason = first_line(error)
    return ModelError(
        f"{path} cannot be loaded: it is cut short, damaged, or not a model that Keras 3 reads ({reason[:160]})."
    )


def save_keras(model: Any, card: Card, path: Path) -> None:
    """Writes a .keras file that carries its card, whole or not at all."""
    with atomic(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CARD, card.as_json())
    written(path)


FORMATS = {"keras": Format("model.keras", ".keras", uncalibrated(save_keras), "keras")}

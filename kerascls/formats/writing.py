"""Model files, written whole or not at all, each with its card. What is written holds the network alone: no
augmentation, no optimiser."""

import contextlib
import errno
import io
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerascls.errors import ModelError, OutputError, first_line
from kerascls.system import tensorflow


def need_room(model: Any, path: Path) -> None:
    """Raises OSError where the disk has less room than a HDF5 file of the weights needs, the largest of their kinds:
    HDF5 1.14 crashes on a full disk, and OpenVINO does not say that it is full."""
    needed = sum(4 * math.prod(weight.shape) + 4096 for weight in model.weights) + 2**16
    if shutil.disk_usage(path.parent).free < 1.1 * needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def converting(model: Any, what: str) -> Iterator[None]:
    """One line in place of what a converter says of a network that it cannot convert, and none of its chatter."""
    try:
        with (
            tensorflow.quiet_stderr(),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    except (OSError, OutputError):
        raise
    except Exception as error:  # each converter has its own
        reason = first_line(error)
        raise ModelError(f"Model {model.name} cannot be converted to {what}: {reason[:200]}") from None

"""Every error kerascls raises on purpose. The command line turns one into a line on stderr and an exit code.

    KerasclsError             exit 1
    ├── ConfigError           a recipe, key, type or value that cannot be
    ├── DataError             a data set or image that is missing, unreadable or does not fit
    │   ├── DataMissing       a named data set that is not prepared here and cannot be downloaded
    │   └── TooLarge          an image or a request of more than is taken
    ├── ModelError            a file that is not a model, or a model that does not fit
    │   └── WeightsMissing    pretrained weights that are not here and cannot be downloaded
    ├── TrainingFailed        the loss became NaN or infinite; the best epoch before that is kept
    ├── RunError              a run folder that is missing, exists already or is not finished
    ├── OutputError           a place that cannot be written
    ├── Busy                  a server that takes nothing more for now
    └── ProofError            exit 3: an export that answers differently from its run

A message names the thing, says what was expected and what came, and what to do next, in one line (a recipe's faults
alone come as a list, a line each).
"""

import unicodedata


class KerasclsError(Exception):
    exit_code = 1


class ConfigError(KerasclsError):
    pass


class DataError(KerasclsError):
    pass


class DataMissing(DataError):
    pass


class TooLarge(DataError):
    pass


class ModelError(KerasclsError):
    pass


class WeightsMissing(ModelError):
    pass


class TrainingFailed(KerasclsError):
    pass


class RunError(KerasclsError):
    pass


class OutputError(KerasclsError):
    pass


class Busy(KerasclsError):
    pass


class ProofError(KerasclsError):
    exit_code = 3


def printable(text: str) -> str:
    r"""`text` on one line that any terminal can show: what cannot be printed, as a line's end, stands as its escape.

    >>> printable("b\n\x1b[31m.png")
    'b\\n\\x1b[31m.png'
    """
    shown = (c if c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text)
    return "".join(shown)

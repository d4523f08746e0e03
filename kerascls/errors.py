"""Every error kerascls raises on purpose. The command line turns one into a line on stderr and an exit code.

A message names the thing, says what was expected and what came, and what to do next, in one line (a recipe's faults
alone come as a list, a line each).
"""

import re
import unicodedata

_SET = re.compile(r"--set (?:'([a-z_]+)\.([a-z_]+)=([^']*)'|([a-z_]+)\.([a-z_]+)=(\[[^]]*\]|[^\s,;:)`]*[^\s,;:.)`]))")
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]+)(?: ([A-Z][A-Z_,./]*[A-Z_]))?(?![\w-])")
command = False  # whether a command of the shell is under way, whose user types options


def spoken(text: str) -> str:
    """A message that names the command line's options, in the words of whom it is for: a caller in Python has
    `overrides` in place of `--set`, and arguments in place of options. Commands in backticks stay what they are.

    >>> spoken("Set --set train.epochs=3, or give --data FOLDER: `kerascls train --resume RUN`.")
    'Set overrides={"train": {"epochs": 3}}, or give data=FOLDER: `kerascls train --resume RUN`.'
    """
    if command:
        return text

    def override(found: re.Match) -> str:
        section, key, value = (found[i] or found[i + 3] for i in (1, 2, 3))
        plain = re.fullmatch(r"-?[\d.]+(e-?\d+)?|\[.*\]|[A-Z_]+", value)
        value = {"true": "True", "false": "False"}.get(value, value if plain else f'"{value}"')
        return f'overrides={{"{section}": {{"{key}": {value}}}}}'

    def argument(found: re.Match) -> str:
        name = found[1].replace("-", "_")
        return f"{name}={found[2]}" if found[2] else f"`{name}`"

    parts = re.split(r"(`kerascls [^`]*`)", text)
    parts[::2] = [_OPTION.sub(argument, _SET.sub(override, part)) for part in parts[::2]]
    return "".join(parts)


class KerasclsError(Exception):
    """The base of all errors that kerascls raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        return spoken(super().__str__())


class ConfigError(KerasclsError):
    """A recipe, key, type or value that is not valid."""


class DataError(KerasclsError):
    """A data set or image that is missing, unreadable or does not fit the model."""


class DataMissing(DataError):
    """A named data set that is not prepared on this machine and cannot be downloaded."""


class TooLarge(DataError):
    """An image or request that exceeds a limit."""


class ModelError(KerasclsError):
    """A file that is not a model, or a model that does not fit the task."""


class WeightsMissing(ModelError):
    """Pretrained weights that are not on this machine and cannot be downloaded."""


class TrainingFailed(KerasclsError):
    """The loss became NaN or infinite. The best epoch before that is kept."""


class RunError(KerasclsError):
    """A run folder that is missing, unfinished, in use by another process, or not resumable."""


class OutputError(KerasclsError):
    """An output that exists already or cannot be written."""


class Busy(KerasclsError):
    """A server that accepts no further requests at the moment."""


class ProofError(KerasclsError):
    """An export whose answers differ from those of its run."""

    exit_code = 3


def printable(text: str) -> str:
    r"""`text` on one line that any terminal can show: what cannot be printed, as a line's end, stands as its escape.

    >>> printable("b\n\x1b[31m.png")
    'b\\n\\x1b[31m.png'
    """
    shown = (c if c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text)
    return "".join(shown)


def first_line(error: BaseException) -> str:
    r"""The first line of what an exception of a library says; its class where it says nothing.

    >>> first_line(ValueError("too short\nfile.c:12")), first_line(KeyboardInterrupt())
    ('too short', 'KeyboardInterrupt')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""The command line: finds a command, runs it, and turns errors into one line and an exit code.

Results go to stdout, progress and warnings to stderr.
"""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from kerascls import errors
from kerascls.commands._output import printable_text
from kerascls.errors import ConfigError, KerasclsError
from kerascls.version import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Commands(click.Group):
    """The commands: each file commands/<name>.py is the command <name>, imported when it is needed."""

    def list_commands(self, context: click.Context | None) -> list[str]:
        return sorted(path.stem for path in (Path(__file__).parent / "commands").glob("[a-z]*.py"))

    def get_command(self, context: click.Context | None, name: str) -> click.Command | None:
        known = name in self.list_commands(context)
        return importlib.import_module(f"kerascls.commands.{name}").command if known else None


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, package_name="kerascls")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """From a data set to a trained, scored, exported and reloaded Keras image classifier.

    \b
    kerascls train mnist_cnn
    kerascls predict saved_models/mnist_cnn three.png
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line: one line on stderr for an error, and the exit codes of errors.py."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, for who calls them; `python -W` and PYTHONWARNINGS show them
    if hasattr(sys.stdout, "reconfigure"):  # a path's bytes that are not UTF-8 go to a pipe as they are
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code."""
    debug = "--debug" in arguments
    disabled, outer, errors.command = logging.root.manager.disable, errors.command, True
    logging.disable(max(disabled, logging.ERROR))  # of libraries: what matters is raised, and told by us
    try:
        cli.main(list(arguments), prog_name="kerascls", standalone_mode=False)
        return 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # the reader of stdout has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        _say_error(error)
        return error.exit_code if isinstance(error, KerasclsError) else 1
    finally:
        logging.disable(disabled)
        errors.command = outer


def _say_error(error: Exception) -> None:
    if isinstance(error, KerasclsError):
        message = str(error)
        if not isinstance(error, ConfigError):
            message = " ".join(message.split())
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    elif isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":  # of TensorFlow
        message = "Out of memory. Lower train.batch_size or data.image_shape."
    else:
        first = (str(error).strip().splitlines() or [""])[0]
        message = f"Unexpected {type(error).__name__}: {first[:300]} This is a bug; `kerascls --debug ...` shows where."
    print(printable_text(f"Error: {message}"), file=sys.stderr)


if __name__ == "__main__":
    main()

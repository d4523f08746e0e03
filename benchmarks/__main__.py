"""`python -m benchmarks`: runs benchmarks in turns, and keeps what they measured in results.json."""

import datetime
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from benchmarks import epochs, files, roofline, trainings
from benchmarks.measure import REPOSITORY, NotRun, machine, package_versions, summary
from benchmarks.plan import TRAININGS, Settings
from benchmarks.table import table, with_table
from kerascls.errors import KerasclsError, OutputError
from kerascls.system.atomic_files import write_json, write_text

RESULTS = REPOSITORY / "benchmarks" / "results.json"
PAGE = REPOSITORY / "docs" / "results" / "benchmarks.md"
# Name to the module that measures it: it has `describe` and `turn`.
BENCHMARKS: dict[str, ModuleType] = {
    **dict.fromkeys(TRAININGS, trainings),
    "predict": files,
    "roofline": roofline,
    "tfdata": epochs,
    "while_loop": epochs,
}


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=f"NAMES: {', '.join(BENCHMARKS)}",
)
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)), metavar="[NAMES]...")
@click.option(
    "--data-dir", metavar="DIR", help="Where TFDS keeps MNIST and CIFAR-10.  [default: $TFDS_DATA_DIR, else TFDS's own]"
)
@click.option(
    "--avp",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of train/ and validation/, each alien/ and predator/.",
)
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True, help="How often each is measured.")
@click.option(
    "--minutes",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="When all must have ended; --full has no end.",
)
@click.option("--full", is_flag=True, help="Run baselines whole, however long they take.")
@click.option("--tiny", is_flag=True, help="See that everything runs: embedded data, one epoch. Needs --results.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=RESULTS,
    help="[default: benchmarks/results.json]",
)
@click.option("--table", "only_table", is_flag=True, help="Measure nothing: write docs/results/benchmarks.md's table.")
def main(
    names: Sequence[str],
    data_dir: str | None,
    avp: Path | None,
    turns: int,
    minutes: int,
    full: bool,
    tiny: bool,
    results: Path,
    only_table: bool,
) -> None:
    """Measure ours beside the plain ways, in turns; all benchmarks, or NAMES.

    Results are written after every turn, of the benchmarks that ran; others keep what they had.
    """
    if only_table:
        write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), read_results(results)))
        return
    if tiny and results == RESULTS:
        raise click.UsageError("--tiny measures nothing worth keeping: name another file with --results FILE.")
    read_results(results)  # a damaged file is told now, not in an hour
    end = float("inf") if full else time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), end, data_dir, avp, full, tiny)
        run(names or list(BENCHMARKS), settings, turns, results)
    click.echo(table(read_results(results)))


def run(names: Sequence[str], settings: Settings, turns: int, results: Path) -> None:
    """A turn of each benchmark, then another of each: a machine that slows down slows all of them.

    A turn after the first is begun only where the time left is what the benchmark's last turn took.
    """
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    took = dict.fromkeys(names, 0.0)
    entries: dict[str, dict[str, Any]] = {}
    for number in range(turns):
        for name in names:
            module = BENCHMARKS[name]
            if number and (module is epochs or "not_run" in entries[name] or took[name] > settings.seconds_left):
                continue
            click.echo(f"{name}: turn {number + 1} of {1 if module is epochs else turns}", err=True)
            begin = time.monotonic()
            if number == 0:
                entries[name] = {
                    **module.describe(name, settings),
                    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                    "machine": machine(),
                    "versions": package_versions(),
                    "load": round(os.getloadavg()[0], 1),
                }
            try:
                measured[name] += module.turn(name, settings, number, measured[name])
                entries[name] |= {
                    "turns": measured[name],
                    "summary": summary(measured[name], entries[name]["ratio_of"]),
                }
            except NotRun as error:
                if number == 0:
                    entries[name]["not_run"] = str(error)
            took[name] = time.monotonic() - begin
            write_entry(results, name, entries[name])


def read_results(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"entries": {}}
    except ValueError as error:
        raise OutputError(f"{path} is damaged: {error}. Remove it to begin anew.") from None


def write_entry(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Puts one benchmark's entry in the place of what it had, in the order of BENCHMARKS."""
    entries = {**read_results(path)["entries"], name: entry}
    write_json(path, {"entries": {key: entries[key] for key in BENCHMARKS if key in entries}})


if __name__ == "__main__":
    try:
        main(prog_name="python -m benchmarks", standalone_mode=False)
    except KerasclsError as error:
        raise SystemExit(f"Error: {error}") from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):
        raise SystemExit(130) from None

"""`kerascls export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from kerascls.commands._command import Command
from kerascls.commands._options import data_dir_option
from kerascls.commands._output import announce

if TYPE_CHECKING:
    from kerascls.exporting.export import Export


class _FormatType(click.ParamType):
    """The name of an export's format; that of another tool gets a hint. Only names in use import the registry."""

    name = "choice"

    @property
    def choices(self) -> list[str]:
        from kerascls.formats.registry import FORMATS

        return list(FORMATS)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"[{'|'.join(self.choices)}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.choices if name.startswith(incomplete)]

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        if value in self.choices:
            return value
        from kerascls.recipes.catalog import USUAL_FORMATS, nearest

        hint = nearest(value, self.choices, USUAL_FORMATS)
        self.fail(f"{value!r} is not one of {', '.join(self.choices)}.{hint}", param, context)


@click.command(
    "export",
    cls=Command,
    examples=(
        "kerascls export saved_models/mnist_cnn --format saved_model",
        "kerascls export saved_models/mnist_cnn --all",
    ),
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=_FormatType(),
    default="saved_model",
    show_default=True,
    help="weights is architecture JSON with weights HDF5.",
)
@click.option("--all", "all_", is_flag=True, help="Every format whose packages are installed.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to; must not exist.  [default: under RUN/exports]")
@click.option(
    "--images", metavar="DIR", help="A folder of more images to compare on, in folders named by their classes."
)
@click.option("--calibration", metavar="DIR", help="A folder of images for litert_int8.  [default: training images]")
@click.option(
    "--data", metavar="DATA", help="Where the run's data is by now; litert_float16 and _int8 are tried on it."
)
@data_dir_option
def command(
    run: Path,
    format_: str,
    all_: bool,
    out: Path | None,
    images: str | None,
    calibration: str | None,
    data: str | None,
    data_dir: str | None,
) -> None:
    """Write RUN's model in another format, proven to answer alike in a fresh process."""
    from kerascls.exporting.export import Exporter, export_all

    if all_ and out is not None:
        raise click.UsageError("--all writes under RUN/exports: leave out --out.")
    exporter = Exporter(run, images, calibration, data, data_dir)
    announce(exporter.notice)
    if all_:
        click.echo(_line(_COLUMNS))
        failed = export_all(exporter, lambda name, found: click.echo(_row(name, found)))
    else:
        exported = exporter.export(format_, out)
        click.echo(
            f"{exported.examples} images answered in a fresh process: largest difference {exported.max_difference:g}"
        )
        click.echo(str(exported.path))
    for line in exporter.unread:
        click.echo(f"left out: {line}", err=True)
    if all_ and failed:
        raise failed


# The table of --all


_COLUMNS = ("format", "MB", "images", "difference", "same label", "accuracy", "run's", "ms at 1", "ms at 32", "file")
_WIDTHS = (14, 8, 6, 10, 10, 8, 6, 8, 8, 0)


def _row(name: str, found: "Export | str") -> str:
    """A line of `--all`'s table."""
    if isinstance(found, str):
        return f"{name.ljust(_WIDTHS[0])}  {found}"
    proof = found.proof
    accuracies = ("" if share is None else f"{share:.4f}" for share in (proof.accuracy, proof.run_accuracy))
    cells = (
        name,
        f"{found.size / 1e6:.3f}",
        f"{proof.examples:,}",
        f"{proof.max_difference:.2g}",
        f"{proof.agreement:.2%}",
        *accuracies,
        f"{proof.ms_1:.2f}",
        f"{proof.ms_32:.2f}",
        str(found.path),
    )
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    name, *rest = zip(cells, _WIDTHS, strict=True)
    return "  ".join([name[0].ljust(name[1]), *(cell.rjust(width) for cell, width in rest)])

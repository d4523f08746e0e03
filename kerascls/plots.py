"""Pictures. Matplotlib without pyplot: no window, no global state."""

import contextlib
import functools
import importlib.metadata
import math
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from kerascls.errors import OutputError, printable
from kerascls.system.atomic_files import atomic
from kerascls.system.status import doing


def save(figure: Figure, path: Path) -> None:
    """Writes the figure whole or not at all, in the format of its suffix (PNG where it has none)."""
    kind = path.suffix.removeprefix(".").lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise OutputError(f"A picture cannot be written as {path.name}. Its suffix must be one of {', '.join(known)}.")
    for text in figure.findobj(Text):  # Matplotlib ends at half of a character, as bytes of a file's name are
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
    unknown = use_fonts_for(figure)
    if unknown:
        print(
            f"No font on this machine has {unknown[:20]}: {path.name} shows boxes. Install one, such as Noto Sans.",
            file=sys.stderr,
        )
    with doing(f"drawing {path.name}"), atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # it was said above
        figure.savefig(
            temporary, format=kind, dpi=100, bbox_inches="tight", metadata={"Software": None} if kind == "png" else None
        )


def use_fonts_for(figure: Figure) -> str:
    """Gives the figure's texts the fonts that their characters need, beside Matplotlib's own. Returns what none has.

    Noto Sans SC, which comes with zhplot, has Chinese and Japanese; other scripts need a font of the system.
    """
    texts = figure.findobj(Text)
    needed = {character for text in texts for character in text.get_text() if character.isprintable()}
    families = ["DejaVu Sans"]
    needed -= _characters(font_manager.findfont("DejaVu Sans"))
    if not needed:
        return ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        bundled = importlib.metadata.distribution("zhplot").locate_file("zhplot/fonts/NotoSansSC-Regular.ttf")
        if str(bundled) not in (font.fname for font in font_manager.fontManager.ttflist):
            font_manager.fontManager.addfont(bundled)
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: "Noto Sans SC" not in font.name):
        if not needed or "Last Resort" in font.name:  # that one has a box for every script
            continue
        if found := needed & _characters(font.fname):
            needed -= found
            families.append(font.name)
    for text in texts:
        text.set_fontfamily(families)
    return "".join(sorted(needed))


@functools.cache
def _characters(font_file: str) -> frozenset[str]:
    """What a font can draw; nothing if it cannot be read."""
    try:
        return frozenset(map(chr, FT2Font(font_file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


def learning_curves(epochs: Sequence[dict[str, float | None]], kept_epoch: int | None) -> Figure:
    """Loss and accuracy by epoch, train and validation; a line at the epoch that was kept.

    Args:
        epochs: rows of history.csv, with epoch, loss, accuracy, val_loss and val_accuracy (None where there is none).
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        x = [row["epoch"] for row in epochs]
        axes.plot(x, [row[name] for row in epochs], marker=".", label="train")
        if any(row[f"val_{name}"] is not None for row in epochs):
            axes.plot(
                x,
                [math.nan if row[f"val_{name}"] is None else row[f"val_{name}"] for row in epochs],
                marker=".",
                label="validation",
            )
        if kept_epoch is not None:
            axes.axvline(kept_epoch, color="gray", linestyle=":", label="kept")
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    return figure


def confusion(counts: np.ndarray, class_names: Sequence[str], title: str = "confusion matrix") -> Figure:
    """A confusion matrix, colour by share of the true class; counts are written where they can be read."""
    counts = np.asarray(counts)
    classes = len(class_names)
    size = min(max(4.5, 0.45 * classes), 16)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), ax=axes, label="share of the true class")
    if classes <= 40:
        axes.set_xticks(range(classes), [shorten(name) for name in class_names], rotation=90, parse_math=False)
        axes.set_yticks(range(classes), [shorten(name) for name in class_names], parse_math=False)
    if classes <= 20:
        for row, column in np.argwhere(counts):
            axes.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if shares[row, column] > 0.5 else "black",
            )
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def image_grid(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    columns: int | None = None,
    heading: str | None = None,
    side: float = 2.1,
) -> Figure:
    """Images in rows, each under its title.

    Args:
        images: uint8 `(height, width, 1 or 3)`, at least one.
        columns: defaults to the number that makes the grid nearest a square.
        side: inches that each image has at most, its margins included.
    """
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    lines = max(title.count("\n") + 1 for title in titles)
    figure = Figure(figsize=(side * columns, (side - 0.2 + 0.2 * lines) * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, title in zip(grid, images, titles, strict=False):
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=9, parse_math=False)
    if heading:
        figure.suptitle(heading, parse_math=False)
    return figure


def shorten(name: str, width: int = 24) -> str:
    """A name on one line of at most `width` characters."""
    name = printable(" ".join(name.split()))
    return textwrap.shorten(name, width, placeholder="...") or name[:width]

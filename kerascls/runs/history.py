"""A run's history.csv."""

import csv

from kerascls.errors import RunError
from kerascls.runs.run import Run

HISTORY_COLUMNS = ("epoch", "seconds", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


VALIDATION = ("val_loss", "val_accuracy")  # columns of history.csv that may be empty


def read_history(run: Run) -> list[dict[str, float | None]]:
    """Rows of history.csv as numbers; empty cells are None."""
    try:
        with (run.path / "history.csv").open(encoding="utf-8", newline="") as file:
            return [
                {key: float(row[key]) if row[key] else None for key in ("epoch", "loss", "accuracy", *VALIDATION)}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{run.path}/history.csv cannot be read: {error}") from None

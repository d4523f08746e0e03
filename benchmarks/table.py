"""Writes the table of docs/results/benchmarks.md, between two markers, from benchmarks/results.json alone."""

from typing import Any

REACHED_HEAD = """\
| seconds of training until the stated test accuracy | in epochs | seconds | seconds an epoch | times as long as ours |
| --- | --- | --- | --- | --- |"""
HEAD = """\
| whole schedule | epochs | accuracy | training, s | whole process, s | images/s | memory, MB | times as long as ours |
| --- | --- | --- | --- | --- | --- | --- | --- |"""
READING = """\
Medians of the turns. The last column is the ratio of the medians, with the lowest and highest ratio of single turns:
above 1, ours is the faster; below 1, the slower. Memory is a process's largest resident size."""
BEGIN, END = "<!-- python -m benchmarks --table -->", "<!-- end of the table -->"


def table(results: dict[str, Any]) -> str:
    """Markdown: the seconds until stated accuracies, then a row a side of every benchmark, what both mean, the
    conditions, and what was not run and why."""
    entries = results["entries"]
    if not entries:
        return "Nothing has been measured yet: `python -m benchmarks` does."
    first, rows, notes, missing = [], [], [], []
    for entry in entries.values():
        if "not_run" in entry:
            missing.append(f"- {entry['title']}: {entry['not_run']}")
            continue
        stated = entry["stated_accuracy"]
        if stated:
            first.append(f"| **{entry['title']}: {stated}** | | | | |")
        rows.append(f"| **{entry['title']}** | | | | | | | |")
        for side, found in entry["summary"].items():
            if "not_run" in found:
                missing.append(f"- {entry['title']}, {entry['sides'][side]}: {found['not_run']}")
                continue
            rows.append(_row(entry["sides"][side], found))
            if stated:
                first.append(_reached_row(entry["sides"][side], found["reached"]))
        turns = f"{len(entry['turns'])} turn{'s' * (len(entry['turns']) > 1)}"
        conditions = [*entry["conditions"], turns, f"{entry['date']}, load {entry['load']:.1f} before it"]
        if entry["ratio_of"] == "process_seconds":
            conditions.append("compared by the whole process")
        notes.append(f"- {entry['title']}: {'; '.join(conditions)}.")
    measured = [entry for entry in entries.values() if "not_run" not in entry]
    parts = [
        [REACHED_HEAD, *first] if first else [],
        [HEAD, *rows] if rows else [],
        [READING, *dict.fromkeys(entry["method"] for entry in measured)] if rows else [],
        list(dict.fromkeys(map(_machine, measured))),
        notes,
        ["Not run:", "", *missing] if missing else [],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _reached_row(name: str, found: dict[str, Any]) -> str:
    if found["seconds"] is None:
        tried = f"not reached in {found['tried_epochs']:g}"
        cells = [tried, f"over {_number(found['tried_seconds'])}", found["tried_seconds"] / found["tried_epochs"]]
    else:
        cells = [f"{found['epochs']:g}", _number(found["seconds"]), found["seconds"] / found["epochs"]]
        if found["reached_turns"] < found["turns"]:
            cells[0] += f" (reached in {found['reached_turns']} of {found['turns']} turns)"
    ratio = "over " * (found["seconds"] is None) + _number(found["ratio"]) if "ratio" in found else ""
    return "| " + " | ".join([name, *cells[:2], _number(cells[2]), ratio]) + " |"


def _row(name: str, found: dict[str, Any]) -> str:
    accuracy = "" if found["accuracy"] is None else f"{found['accuracy']:.4f}"
    ratio = found.get("ratio")
    last = f"{ratio['of_medians']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
    name += ", extrapolated" if found["extrapolated"] else ""
    cells = [name, _number(found.get("epochs"), 0), accuracy]
    cells += [_number(found[key]) for key in ("seconds", "process_seconds")]
    cells += [_number(found["images_per_second"], 0), _number(found["peak_mb"], 0), last]
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, places: int | None = None) -> str:
    """To about three figures; nothing where nobody measured it.

    >>> _number(1234.5), _number(12.34), _number(1.234), _number(None)
    ('1,234', '12.3', '1.23', '')
    """
    if value is None:
        return ""
    places = (0 if value >= 100 else 1 if value >= 10 else 2) if places is None else places
    return f"{value:,.{places}f}"


def _machine(entry: dict[str, Any]) -> str:
    machine, versions = entry["machine"], entry["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("tensorflow", "keras", "torch") if name in versions)
    return (
        f"On {machine['cores']} cores of {machine['cpu']} ({', '.join(machine['instructions'])}), "
        f"{machine['memory_gb']:g} GB; Python {versions['python']}, {packages}."
    )


def with_table(page: str, results: dict[str, Any]) -> str:
    """`page` with a new table between the two markers."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"The page must have the lines {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}"

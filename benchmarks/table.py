"""benchmarks/results.json to the table in README.md, between two markers; nothing is in it but what the file has."""

from typing import Any

HEAD = """\
| | accuracy | training, s | whole process, s | images/s | memory, MB | times as long as ours |
| --- | --- | --- | --- | --- | --- | --- |"""
READING = """\
Medians of the turns. The last column is the ratio of the medians, and the lowest and highest ratio of single turns:
above 1, ours is the faster; below 1, the slower. Memory is a process's largest resident size."""
BEGIN, END = "<!-- python -m benchmarks --table -->", "<!-- end of the table -->"


def table(results: dict[str, Any]) -> str:
    """Markdown: a row a side of every benchmark, then the conditions, then what was not run and why."""
    entries = results["entries"]
    if not entries:
        return "Nothing has been measured yet: `python -m benchmarks` does."
    rows, notes, missing = [], [], []
    for entry in entries.values():
        if "not_run" in entry:
            missing.append(f"- {entry['title']}: {entry['not_run']}")
            continue
        stated = entry["stated_accuracy"]
        rows.append(f"| **{entry['title']}**" + (f"; accuracy stated {stated}" if stated else "") + " | | | | | | |")
        for side, found in entry["summary"].items():
            if "not_run" in found:
                missing.append(f"- {entry['title']}, {entry['sides'][side]}: {found['not_run']}")
            else:
                rows.append(_row(entry["sides"][side], found, stated))
        turns = f"{len(entry['turns'])} turn{'s' * (len(entry['turns']) > 1)}"
        conditions = [*entry["conditions"], turns, f"{entry['date']}, load {entry['load']:.1f} before it"]
        if entry["ratio_of"] == "process_seconds":
            conditions.append("compared by the whole process")
        notes.append(f"- {entry['title']}: {'; '.join(conditions)}.")
    measured = [entry for entry in entries.values() if "not_run" not in entry]
    parts = [
        [HEAD, *rows] if rows else [],
        [READING, *dict.fromkeys(entry["method"] for entry in measured)] if rows else [],
        list(dict.fromkeys(map(_machine, measured))),
        notes,
        ["Not run:", "", *missing] if missing else [],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _row(name: str, found: dict[str, Any], stated: float | None) -> str:
    accuracy = "" if found["accuracy"] is None else f"{found['accuracy']:.4f}"
    if accuracy and stated:
        accuracy += ", reached" if found["accuracy"] >= stated else ", not reached"
    ratio = found.get("ratio")
    last = f"{ratio['of_medians']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
    name += ", extrapolated" if found["extrapolated"] else ""
    cells = [name, accuracy, *(_number(found[key]) for key in ("seconds", "process_seconds"))]
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


def with_table(readme: str, results: dict[str, Any]) -> str:
    """`readme` with what stands between the two markers made anew."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md must have the lines {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}"

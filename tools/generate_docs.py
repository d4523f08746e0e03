"""Fills the generated parts of the documentation: `python -m tools.generate_docs`. With --check, it names the pages
that are out of date, and exits 1 where there is one.

Between `<!-- generated: KIND NAME -->` and `<!-- end -->`, a page has the Markdown that the function of PARTS for that
kind returns for that name. Everything else in a page is written by hand.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from kerascls import errors
from kerascls.cli import cli
from kerascls.recipes import catalog
from kerascls.recipes.schema import SECTIONS

ROOT = Path(__file__).parent.parent
PART = re.compile(r"(<!-- generated: (\S+)((?: \S+)*) -->\n).*?(<!-- end -->)", re.DOTALL)
METAVARS = {"integer": "N", "integer range": "N", "float range": "X", "path": "PATH", "text": "TEXT"}
TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", list: "list"}


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A page with its generated parts as they should be."""
    return PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]](*found[3].split())}\n\n{found[4]}", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def between(low: float | None, high: Any = None, *, open_low: bool = False) -> str:
    """A range in words.

    >>> between(1), between(0, open_low=True), between(0, 65535)
    ('1 or more', 'above 0', '0 to 65,535')
    """
    least, most = (f"{end:,}" if isinstance(end, int) else f"{end}" for end in (low, high))
    if low is None:
        return "" if high is None else f"at most {most}"
    if high is None:
        return f"above {least}" if open_low else f"{least} or more"
    return f"above {least}, at most {most}" if open_low else f"{least} to {most}"


# Commands


def commands() -> str:
    names = cli.list_commands(None)
    rows = [(f"[`kerascls {name}`]({name}.md)", sentence(cli.get_command(None, name).help)) for name in names]
    return table(["command", "purpose"], rows)


def synopsis(name: str) -> str:
    """A command's usage, its help behind the first sentence, and its options."""
    command = cli.get_command(None, name)
    usage = " ".join(["kerascls", name, *command.collect_usage_pieces(click.Context(command))])
    about = inspect.cleandoc(command.help).split("\n\n")[1:]
    options = [one for one in command.params if isinstance(one, click.Option)]
    rows = [(f"`{spelling(one)}`", values(one), default(one), meaning(one)) for one in options]
    head = ["option", "values", "default", "meaning"]
    return "\n\n".join([f"```text\n{usage}\n```", *about, *([table(head, rows)] if rows else [])])


def spelling(option: click.Option) -> str:
    names = ", ".join(option.opts)
    if option.is_flag:
        return names
    return f"{names} {option.metavar or METAVARS.get(option.type.name, option.name.upper())}"


def values(option: click.Option) -> str:
    kind = option.type
    if hasattr(kind, "choices"):
        return ", ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        return between(kind.min, kind.max, open_low=kind.min_open)
    return ""


def default(option: click.Option) -> str:
    if option.show_default:
        return f"`{option.default}`"
    if option.required:
        return "required"
    written = re.search(r"\[default: (.*)\]$", option.help or "")
    return written[1] if written else ""


def meaning(option: click.Option) -> str:
    text = re.sub(r"\s*\[default: .*\]$", "", option.help or "")
    return text + (" Can be given several times." if option.multiple else "")


# Recipes


def recipe_keys(section: str) -> str:
    """The keys of one table of a recipe, from the schema."""
    rows = []
    for field in dataclasses.fields(SECTIONS[section]):
        if rule := field.metadata:
            rows.append((f"`{section}.{field.name}`", rule_values(rule), rule_default(field), rule["doc"]))
    return table(["key", "values", "default", "meaning"], rows)


def rule_values(rule: Any) -> str:
    if rule["choices"]:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in rule["choices"])
    kinds = " or ".join(TYPES[kind] for kind in rule["types"] if not (kind is int and float in rule["types"]))
    limits = between(
        rule["low"] if rule["above"] is None else rule["above"], rule["high"], open_low=rule["low"] is None
    )
    if rule["items"]:
        kinds, limits = f"list of {' or '.join(map(str, rule['items']))} whole numbers", f"each {limits}"
    return f"{kinds}, {limits}" if limits else kinds


def rule_default(field: Any) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{json.dumps(field.default_factory())}`"
    return "required" if field.default is dataclasses.MISSING else f"`{json.dumps(field.default)}`"


def models() -> str:
    """The networks that kerascls brings, with the keys that each adds to [model]."""
    rows = []
    for name, path in catalog.model_files().items():
        options = [f"`{key} = {json.dumps(value)}`" for key, value in catalog.build_options(path).items()]
        rows.append((f"`{name}`", catalog.first_sentence(path), ", ".join(options)))
    return table(["model.name", "network", "further keys of [model], with defaults"], rows)


def augmentations() -> str:
    parts = []
    for name, options in catalog.policy_options().items():
        text, arguments = taken_apart(catalog.policy_docs()[name])
        limits = catalog.policy_limits()[name]
        rows = [
            (f"`{key}`", policy_values(value, limits.get(key)), f"`{json.dumps(value)}`", arguments.get(key, ""))
            for key, value in options.items()
        ]
        parts.append(f"## {name}\n\n{text}\n\n{table(['option', 'values', 'default', 'meaning'], rows)}")
    return "\n\n".join(parts)


def policy_values(value: Any, limits: Any) -> str:
    if isinstance(limits, list):
        return ", ".join(f"`{json.dumps(choice)}`" for choice in limits)
    kind = TYPES[type(value)]
    if limits:
        high = f"the image's {limits[1]}" if isinstance(limits[1], str) else limits[1]
        return f"{kind}, {between(limits[0], high)}"
    return f"{kind}, 0 to 10,000" if type(value) in (int, float) else kind


# Errors and the Python API


def error_tree() -> str:
    """Every error, those that inherit from another behind it."""

    def below(kind: type, depth: int) -> Iterable[tuple[str, str, str, str]]:
        yield f"`{kind.__name__}`", f"`{kind.__base__.__name__}`", str(kind.exit_code), sentence(kind.__doc__)
        for one in kind.__subclasses__():
            yield from below(one, depth + 1)

    return table(["error", "is a", "exit code", "reason"], below(errors.KerasclsError, 0))


def api(name: str) -> str:
    """A public function or class: signature, docstring, and what else a class has."""
    thing = getattr(importlib.import_module("kerascls"), name)
    parts = [f"```py\nkerascls.{name}{signature(thing)}\n```" if inspect.isfunction(thing) else "", thing.__doc__]
    parts = [parts[0], markdown(parts[1])]
    for key, member in vars(thing).items() if inspect.isclass(thing) else ():
        documented = not key.startswith("_") and getattr(member, "__doc__", None)
        if documented and (isinstance(member, property) or inspect.isfunction(member)):
            shown = f"{name}.{key}" + ("" if isinstance(member, property) else signature(member))
            parts += [f"```py\n{shown}\n```", markdown(member.__doc__)]
    return "\n\n".join(part for part in parts if part)


def signature(function: Any) -> str:
    text = str(inspect.signature(function)).replace("(self, ", "(").replace("(self)", "()")
    text = re.sub(r"\b(collections\.abc|typing|pathlib|kerascls(\.\w+)+)\.(?=\w)", "", text)
    text = re.sub(r"<function .*? at 0x[0-9a-f]+>", "...", text)
    if len(text) < 90:
        return text
    inside, end = text[1:].rsplit(") -> ", 1)
    arguments = re.split(r", (?=\*,|[a-z_]+: )", inside)
    return "(\n" + "".join(f"    {one},\n" for one in arguments) + f") -> {end}"


def markdown(doc: str) -> str:
    """A docstring in Markdown: its sections as lists, its examples as code."""
    lines, inside, code = [], False, False
    for line in [*inspect.cleandoc(doc).splitlines(), ""]:
        if line.startswith(">>> ") and not code:
            lines.append("```pycon")
            code, inside = True, False
        elif code and not line:
            lines.append("```")
            code = False
        if head := re.fullmatch(r"(Args|Attributes|Returns|Raises):", line):
            lines += [f"**{head[1].replace('Args', 'Arguments')}**", ""]
            inside = True
        elif inside and (item := re.fullmatch(r"    ([\w, ]+): (.*)", line)):
            lines.append(f"- `{item[1].replace(', ', '`, `')}`: {item[2]}")
        elif inside and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line.strip() if inside else line)
    return "\n".join(lines).strip()


def taken_apart(doc: str) -> tuple[str, dict[str, str]]:
    """A docstring's text before its arguments, and what it says of each argument."""
    text, _, rest = inspect.cleandoc(doc).partition("\nArgs:\n")
    arguments: dict[str, str] = {}
    for names, words in re.findall(r"^    ([\w, ]+): (.*(?:\n        .*)*)", rest, re.MULTILINE):
        arguments |= dict.fromkeys(names.split(", "), " ".join(words.split()))
    return text.strip(), arguments


def sentence(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


PARTS = {
    "commands": commands,
    "synopsis": synopsis,
    "recipe-keys": recipe_keys,
    "models": models,
    "augmentations": augmentations,
    "errors": error_tree,
    "api": api,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    old = [page for page in pages() if filled(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")]
    for page in old:
        print(f"{'out of date' if check else 'written'}: {page.relative_to(ROOT)}")
        if not check:
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())

"""The class of all commands: examples first in the help, hints for other tools' options, a status line."""

from collections.abc import Collection, Sequence
from typing import Any

import click

from kerascls.system.status import shown


class Command(click.Command):
    """A command that says on a terminal what it is doing, and whose help begins with `examples`."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = examples

    def format_help(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("".join(f"$ {example}\n" for example in self.examples))
        formatter.write_paragraph()
        super().format_help(context, formatter)

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        typed = list(arguments)  # Click takes what it parses out of the list
        try:
            return super().parse_args(context, arguments)
        except click.NoSuchOption as error:
            known = {name for parameter in self.params for name in parameter.opts}
            near = [name for name in error.possibilities or () if name != "--help"]
            error.possibilities = _usual(error.option_name, typed, known) or near
            raise

    def invoke(self, context: click.Context) -> Any:
        with shown(self.name, wanted=not context.params.get("quiet")):
            return super().invoke(context)


def _usual(option: str, typed: Sequence[str], known: Collection[str]) -> list[str]:
    """What another tool's `option` is called here, with the value that was typed: the option of that name among the
    `known`, else a --set line; [] where there is none."""
    from kerascls.recipes.catalog import USUAL_KEYS

    key = USUAL_KEYS.get(option.lstrip("-").lower().replace("-", "_"))
    if key is None or "--set" not in known:
        return []
    words = [word.partition("=") for word in typed] + [("VALUE", "", "")]
    at, equals, value = next((i, equals, value) for i, (name, equals, value) in enumerate(words) if name == option)
    value = value if equals else "".join(words[at + 1])
    value = "VALUE" if value.startswith("-") else value
    own = f"--{key.partition('.')[2].replace('_', '-')}"
    return [f"{own} {value}" if own in known else f"--set {key}={value}"]

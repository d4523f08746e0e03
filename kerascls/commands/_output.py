"""What commands print: text that a terminal can show, and notices."""

import re

import click


def printable_text(text: str) -> str:
    """`text` without what a terminal could not show or would obey: a file name's bytes outside UTF-8, and escapes."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def announce(notice: str | None) -> None:
    if notice:
        click.echo(notice, err=True)

"""What the output goes to: is it a terminal, may it have colors; and tables for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

import click

from rollout.cli.options import Globals

if TYPE_CHECKING:
    from rollout.report.sinks import Style


def colors(stream: TextIO, said: Globals) -> bool:
    return not said.no_color and not os.environ.get("NO_COLOR") and _is_terminal(stream)


def style(said: Globals) -> Style:
    from rollout.report.sinks import Style

    return Style(said.json, said.quiet, said.verbose, colors(sys.stdout, said), _is_terminal(sys.stderr))


def table(rows: Iterable[Sequence[str]], indent: str = "") -> str:
    """Rows as columns, each as wide as its widest cell, the last one as it is."""
    listed = [tuple(row) for row in rows]
    if not listed:
        return ""
    widths = [max(len(click.unstyle(row[i])) for row in listed) for i in range(len(listed[0]))]
    return "\n".join(indent + _line(row, widths) for row in listed)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)]
    return "  ".join(cells).rstrip()


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"

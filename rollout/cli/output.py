"""What the looking verbs print: text for people or one JSON document for programs, and moments and ages in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from rollout.cli.options import Globals


def show(said: Globals, data: Any, text: Callable[[], str]) -> None:
    """`data` with --json, else what `text` makes of it."""
    click.echo(json.dumps(data, indent=2) if said.json else text())


def moment(wall: float) -> str:
    """Local time: `2026-11-23 14:05:09`."""
    return datetime.fromtimestamp(wall).astimezone().strftime("%Y-%m-%d %H:%M:%S")

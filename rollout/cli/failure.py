"""Errors are printed here and nowhere else: what, the details, what to do next."""

from __future__ import annotations

import json
import sys
import traceback

import click

from rollout.cli.options import Globals
from rollout.cli.terminal import colors
from rollout.errors import Bug, Interrupted, RolloutError, UsageError


def tell(error: BaseException, said: Globals) -> int:
    """Print the error and answer the exit code. A RolloutError never shows a traceback; anything else is a fault of
    rollout's own: one line, and the traceback with `-v`."""
    if isinstance(error, click.ClickException):
        error = _usage(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        error = Interrupted("interrupted; nothing was touched")
    if not isinstance(error, RolloutError):
        if said.verbose:
            traceback.print_exception(error)
        error = Bug(error)
    if said.json:
        _as_json(error)
    else:
        _as_text(error, said)
    return error.exit_code


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    hint = f"`{context.command_path} --help` shows how" if context is not None else ""
    return UsageError(error.format_message().rstrip("."), hint=hint)


def _as_text(error: RolloutError, said: Globals) -> None:
    color = colors(sys.stderr, said)
    head = click.style("error:", fg="red", bold=True) if color else "error:"
    details = [line for detail in error.details for line in detail.splitlines() if line not in error.message]
    lines = [f"{head} {error.message}", *(f"  {line}" for line in details)]
    lines += [f"  {note}" for note in getattr(error, "__notes__", ())]
    if error.hint:
        lines.append(f"{click.style('hint:', bold=True) if color else 'hint:'} {error.hint}")
    click.echo("\n".join(lines), err=True, color=color)


def _as_json(error: RolloutError) -> None:
    told = {
        "event": "error",
        "error": error.kind,
        "message": error.message,
        "details": list(error.details),
        "hint": error.hint,
        "exit_code": int(error.exit_code),
    }
    click.echo(json.dumps(told, separators=(",", ":")))

"""Errors are printed here and nowhere else: what, the details, what to do next."""

from __future__ import annotations

import errno
import json
import sys
import traceback
from contextlib import suppress

import click

from rollout.cli.options import Globals
from rollout.cli.terminal import colors
from rollout.errors import Bug, Interrupted, RolloutError, StateError, UsageError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def tell(error: BaseException, said: Globals) -> int:
    """Print the error and answer the exit code. A RolloutError never shows a traceback; anything else is a fault of
    rollout's own: one line, and the traceback with `-v`."""
    if isinstance(error, click.ClickException):
        error = _usage(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        error = Interrupted("interrupted; nothing was touched")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        hint = "make room; the next run continues from here"
        error = StateError(f"what was to be written, or said, has no room: {error.strerror}", hint=hint)
    if not isinstance(error, RolloutError):
        if said.verbose:
            traceback.print_exception(error)
        error = Bug(error)
    with suppress(OSError):  # nobody can be told: the exit code remains
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

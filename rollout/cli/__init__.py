"""The command line: `main` is `rollout`, `docker_plugin` is `docker rollout`. What is heavy is imported when needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click


def rollout_script() -> NoReturn:
    """The installed program `rollout`."""
    _leave_after(main)


def docker_rollout_script() -> NoReturn:
    """The installed program `docker-rollout`."""
    _leave_after(docker_plugin)


def _leave_after(command: Callable[[], int]) -> NoReturn:
    """Every file and process was closed by whoever opened it: the interpreter's own end would only spend 30 ms on
    freeing memory."""
    code = command()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1  # what was to be said was not: the reader has left, or the disk is full
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code."""
    from rollout.cli.program import program

    return run(program, sys.argv[1:] if argv is None else argv, "rollout")


def docker_plugin(argv: Sequence[str] | None = None) -> int:
    """Run as a Docker CLI plugin: `docker rollout …`."""
    from rollout.cli.plugin import plugin

    return plugin(sys.argv[1:] if argv is None else argv)


def run(command: click.Command, argv: Sequence[str], name: str) -> int:
    """The one place where errors end."""
    import click

    from rollout.cli.failure import tell
    from rollout.cli.options import Globals

    said = Globals(json="--json" in argv)  # before the line is understood, for errors in understanding it
    try:
        code = command.main(args=list(argv), prog_name=name, standalone_mode=False, obj=said)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as shown:
        click.echo(shown.format_message(), err=True)
        return 2
    except BrokenPipeError:
        return _reader_left()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the last line: nothing shows a traceback
        return tell(error, said)


def _reader_left() -> int:
    """`rollout history | head`: nobody reads any more. Nothing is to be said, not even by the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

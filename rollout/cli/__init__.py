"""The command line: `main` is `rollout`, `docker_plugin` is `docker rollout`. What is heavy is imported when needed."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # not typing's: loading that would be half of the time in which Ctrl-C shows a traceback
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    import click

INTERRUPTED = 130  # errors.ExitCode's, of which nothing may be loaded yet


def rollout_script() -> NoReturn:
    """The installed program `rollout`."""
    _leave_after(main)


def docker_rollout_script() -> NoReturn:
    """The installed program `docker-rollout`."""
    _leave_after(docker_plugin)


def _leave_after(command: Callable[[], int]) -> NoReturn:
    """Every file and process was closed by whoever opened it: the interpreter's own end would only spend 30 ms on
    freeing memory."""
    try:
        _fit_streams()
        code = command()
    except KeyboardInterrupt:  # while the program was being loaded: later ones end in `run`
        os.write(2, b"error: interrupted; nothing was touched\n")
        code = INTERRUPTED
    from contextlib import suppress

    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whoever could not say what mattered has said so by the code
            stream.flush()
    os._exit(code)


def _fit_streams() -> None:
    """Stand in for those that we were started without: a file that is opened later would have their number, and get
    what is said. What their encoding has no character for is shown by its number."""
    import io

    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
    from contextlib import suppress

    import click

    from rollout.cli.failure import tell
    from rollout.cli.options import Globals

    stdout, stderr = sys.stdout, sys.stderr
    # before the line is understood, for errors in understanding it
    said = Globals(json="--json" in argv, no_color="--no-color" in argv)
    try:
        code = command.main(args=list(argv), prog_name=name, standalone_mode=False, obj=said)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as shown:
        with suppress(OSError):
            click.echo(shown.format_message(), err=True)
        return 2
    except SystemExit:
        if sys.stdout is stdout:
            raise  # completion has ended
        sys.stdout, sys.stderr = stdout, stderr  # what Click does of a BrokenPipeError: wraps them, and exits with 1
        return _without_reader() if _reader_has_left() else tell(BrokenPipeError(), said)
    except BrokenPipeError as error:  # completion has ended, outside of what Click catches
        return _without_reader() if _reader_has_left() else tell(error, said)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the last line: nothing shows a traceback
        return tell(error, said)


def _reader_has_left() -> bool:
    import select

    watched = select.poll()
    for number in (1, 2):
        watched.register(number, 0)
    return bool(watched.poll(0))


def _without_reader() -> int:
    """`rollout history | head`: nothing more is to be said, not even by the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

"""The program, sent a signal at a chosen point of its own work: no timer, so every run is hit at the same place.

    python -m tests.faults.killed --at 3:begun -- deploy web      before the third step is journalled
    python -m tests.faults.killed --at 3:done -- deploy web       after the third step's end was
    python -m tests.faults.killed --at 7:change -- deploy web     before its seventh change to anything outside

The signal is SIGKILL unless `--signal` says otherwise: INT is a Ctrl-C at that point, STOP lets the test do something
to the world there and then send SIGCONT. With `--jump 3600` there is none: the wall clock is set an hour ahead there.

Steps are counted from 1 over the whole run: those of a recovery, of the deploy after it and of an undo alike.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rollout.cli import main
from rollout.journal import SqliteJournal

_FILE_CHANGES = frozenset({"os.rename", "os.symlink", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"})
_WRITES = os.O_WRONLY | os.O_RDWR


class Points:
    """Counts the points that are passed and does something at one of them. Armed once the first rollout begins."""

    def __init__(self, number: int, moment: str, act: Callable[[], None]) -> None:
        self.number, self.moment, self.act = number, moment, act
        self.steps = 0
        self.changes = itertools.count(1)  # counts right from several threads
        self.armed = False

    def reached(self, moment: str, count: int) -> None:
        if self.moment == moment and count == self.number:
            self.act()

    def change(self, event: str, args: tuple[Any, ...]) -> None:
        if self.armed and _changes(event, args):
            self.reached("change", next(self.changes))


def _changes(event: str, args: tuple[Any, ...]) -> bool:
    """What the interpreter reports before it does it: a request that changes something in the engine (or in the proxy,
    by a command in its container), a program that is started, a file that is renamed, linked, made or written."""
    if event == "http.client.send":
        return re.match(rb"(POST|DELETE|PUT) /", bytes(args[1])) is not None
    if event == "open":
        path, _, flags = args
        return isinstance(path, str) and bool(flags & _WRITES) and not path.startswith("/dev/")
    return event == "subprocess.Popen" or event in _FILE_CHANGES


def install(points: Points) -> None:
    """Put the points into the journal's class, for the life of this process."""
    begin, begun, done = SqliteJournal.begin, SqliteJournal.step_begun, SqliteJournal.step_done

    def armed(self: SqliteJournal, *args: Any, **kwargs: Any) -> Any:
        points.armed = True
        return begin(self, *args, **kwargs)

    def step_begun(self: SqliteJournal, rollout: int, index: int, step: str, detail: Mapping[str, Any]) -> None:
        points.armed = True
        points.steps += 1
        points.reached("begun", points.steps)
        begun(self, rollout, index, step, detail)

    def step_done(self: SqliteJournal, rollout: int, index: int, result: Mapping[str, Any]) -> None:
        done(self, rollout, index, result)
        points.reached("done", points.steps)

    replaced: dict[str, Callable[..., Any]] = {"begin": armed, "step_begun": step_begun, "step_done": step_done}
    for name, function in replaced.items():
        setattr(SqliteJournal, name, function)
    sys.addaudithook(points.change)


def run() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--at", required=True, help="N:begun, N:done or N:change; 0:begun is from the beginning")
    parser.add_argument("--signal", default="KILL", choices=["KILL", "STOP", "INT"])
    parser.add_argument("--jump", type=float, default=0.0, help="seconds by which the wall clock is set")
    parser.add_argument("argv", nargs="+")
    said = parser.parse_args()
    number, _, moment = said.at.partition(":")
    assert moment in ("begun", "done", "change"), said.at
    act = (
        partial(set_clock, said.jump)
        if said.jump
        else partial(os.kill, os.getpid(), signal.Signals[f"SIG{said.signal}"])
    )
    if number == "0":
        act()
    install(Points(int(number), moment, act))
    return main(said.argv)


def set_clock(seconds: float) -> None:
    """As an administrator or NTP does: what durations are measured with goes on as it was."""
    real = time.time
    time.time = lambda: real() + seconds


if __name__ == "__main__":
    sys.exit(run())

"""What every report can do, and which one fits where the output goes."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TextIO

from rollout.events import Event
from rollout.ports import Clock

LOADING = "reading the Compose project …"
ERASE = "\r\x1b[K"


@dataclass(frozen=True, slots=True)
class Style:
    """How much to say, and in which form. `color` is of the results, `live` of the progress; both need a terminal."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    color: bool = False
    live: bool = False


class Report(Protocol):
    """An `events.Sink` that shows what it is told. May be called from several threads at once."""

    def __call__(self, event: Event) -> None: ...

    def interrupting(self, text: str) -> None:
        """A signal came; called from its handler, so it must neither wait nor write through a buffer."""

    def close(self) -> None:
        """Nothing more comes: leave the terminal as it was found. May be called again."""


def report_for(style: Style, results: TextIO, progress: TextIO, clock: Clock) -> Report:
    """`results` gets what lasts (receipts), `progress` what goes on; with JSON everything is a result."""
    if style.json:
        from rollout.report.json import JsonReport

        return JsonReport(results)
    if style.live and not style.quiet:
        return LiveLater(style, results, progress, clock)
    from rollout.report.lines import LinesReport

    return LinesReport(style, results, progress, clock)


def at_once(text: str) -> None:
    """A line, from a signal's handler; what it raised there would end the rollout."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


class LiveLater:
    """The live view, whose library takes a while to import: until the first event there is a line that says so."""

    def __init__(self, style: Style, results: TextIO, progress: TextIO, clock: Clock) -> None:
        self._style, self._results, self._progress, self._clock = style, results, progress, clock
        self._report: Report | None = None
        self._lock = threading.Lock()
        self._write(LOADING)

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self._report is None:
                from rollout.report.live import LiveReport

                self._write(ERASE)
                self._report = LiveReport(self._style, self._results, self._progress, self._clock)
        self._report(event)

    def interrupting(self, text: str) -> None:
        if self._report is None:
            at_once(text)
        else:
            self._report.interrupting(text)

    def close(self) -> None:
        if self._report is not None:
            self._report.close()
        else:
            self._write(ERASE)

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._progress.write(text)
            self._progress.flush()

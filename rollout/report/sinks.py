"""What every report can do, and which one fits where the output goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TextIO

from rollout.events import Event
from rollout.ports import Clock


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
        from rollout.report.live import LiveReport

        return LiveReport(style, results, progress, clock)
    from rollout.report.lines import LinesReport

    return LinesReport(style, results, progress, clock)

"""One plain line an event, for a log, a pipe or cron: `14:05:09 web: drain 0f3a…: done in 118 ms`."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import datetime
from typing import TextIO

from rollout import events
from rollout.ports import Clock
from rollout.report.receipt import receipt_lines
from rollout.report.sinks import Style, at_once
from rollout.report.words import said

QUIET_SHOWS = (
    events.Warned, events.StepFailed, events.UndoStarted, events.Recovering, events.Held, events.Paused,
)  # fmt: skip
PROGRESS_PAUSE = 2.0  # seconds between two lines of progress; the newest counts, and a log is kept


class LinesReport:
    """A Report without a terminal. A reader that has gone away does not end the rollout."""

    def __init__(self, style: Style, results: TextIO, progress: TextIO, clock: Clock) -> None:
        self._style, self._results, self._progress, self._clock = style, results, progress, clock
        self._lock = threading.Lock()
        self._last_progress = ("", 0.0)
        self._reason = ""  # told already, by the step that failed

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            if isinstance(event, events.Finished):
                lines = receipt_lines(event.receipt, color=self._style.color, quiet=self._style.quiet)
                self._write(self._results, lines)
            elif isinstance(event, events.NothingToDo):
                self._write(self._results, [f"{event.service}: {said(event)}"])
            elif self._worth_a_line(event):
                self._write(self._progress, self._lines(event))

    def interrupting(self, text: str) -> None:
        at_once(text)

    def close(self) -> None:
        """Every line was written when it came."""

    def _worth_a_line(self, event: events.Event) -> bool:
        if self._style.quiet:
            return isinstance(event, QUIET_SHOWS)
        if isinstance(event, events.StepStarted):
            self._last_progress = ("", self._clock.now())
        if not isinstance(event, events.StepProgress):
            return True
        text, since = self._last_progress
        pause = 0.0 if self._style.verbose else PROGRESS_PAUSE
        if event.text == text or self._clock.now() - since < pause:
            return False
        self._last_progress = (event.text, self._clock.now())
        return True

    def _lines(self, event: events.Event) -> list[str]:
        # the local time zone: what the reader's clock, and the other lines of the same log, say
        at = datetime.fromtimestamp(self._clock.wall()).astimezone().strftime("%H:%M:%S")
        prefix = f"{at} {event.service}: " if event.service else f"{at} "
        if isinstance(event, events.StepFailed):
            self._reason = event.reason
        told = isinstance(event, events.UndoStarted) and event.reason == self._reason
        lines = ["undoing" if told else said(event)]
        if isinstance(event, events.RolloutStarted | events.UndoStarted) and self._style.verbose:
            lines += [f"  step {number}: {text}" for number, text in enumerate(event.steps, 1)]
        if isinstance(event, events.StepFailed):
            lines += [f"  {line}" for line in event.details]
        return [prefix + line for line in lines]

    def _write(self, stream: TextIO, lines: list[str]) -> None:
        with suppress(OSError):
            stream.write("".join(f"{line}\n" for line in lines))
            stream.flush()

"""What a live view shows, without drawing it: one row a step, in the states a person asks about."""

from __future__ import annotations

from dataclasses import dataclass, field

from rollout import events
from rollout.ports import Clock
from rollout.report.words import said

PROGRESS_LINES = 8


@dataclass(slots=True)
class Row:
    """A step. `state`: waiting | running | done | failed | heading. `progress`: the newest text by what it is about (a
    replica's name, or nothing)."""

    text: str
    state: str = "waiting"
    begun: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    progress: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        if self.state == "failed":
            return [self.reason]
        return list(self.progress.values())[-PROGRESS_LINES:] if self.state == "running" else []


class Screen:
    """Hears events, answers rows. A rollout's steps come first; those of its undo, below their own heading."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.title = ""
        self.interruption = ""
        self._rows: list[Row] = []
        self._first = 0  # row of the present plan's step 0

    def hear(self, event: events.Event) -> None:
        match event:
            case events.RolloutStarted():
                self._begin(f"{event.service}: {said(event)}", event.steps)
            case events.Recovering():
                self._begin(f"{event.service}: {said(event)}", ())
            case events.UndoStarted():
                self._rows = [row for row in self._rows if row.state != "waiting"]
                self._rows.append(Row("undoing", "heading"))
                self._plan(event.steps)
            case events.StepStarted():
                row = self._row(event.index, event.text)
                row.state, row.begun, row.text = "running", self._clock.now(), event.text
            case events.StepProgress():
                subject = event.text.split(": ", 1)[0] if ": " in event.text else ""
                self._row(event.index, event.step).progress[subject] = event.text
            case events.StepFinished():
                row = self._row(event.index, event.text)
                row.state, row.seconds = "done", event.seconds
            case events.StepFailed():
                row = self._row(event.index, event.step)
                row.state, row.reason, row.seconds = "failed", event.reason, self._clock.now() - row.begun

    def visible(self, height: int) -> list[Row]:
        """At most `height` rows around the one that runs; what is left out is counted."""
        rows = self._rows
        if len(rows) <= height:
            return list(rows)
        current = next((i for i, row in enumerate(rows) if row.state == "running"), len(rows) - 1)
        first = max(0, min(current - height // 2, len(rows) - height))
        shown = rows[first : first + height]
        before = [Row(f"{first} more above", "heading")] if first else []
        left = len(rows) - first - height
        return [*before, *shown, *([Row(f"{left} more to come", "heading")] if left else [])]

    def _begin(self, title: str, steps: tuple[str, ...]) -> None:
        self.title, self._rows = title, []
        self._plan(steps)

    def _plan(self, steps: tuple[str, ...]) -> None:
        self._first = len(self._rows)
        self._rows += [Row(text) for text in steps]

    def _row(self, index: int, text: str) -> Row:
        """A recovery does not announce its steps: their rows come with them."""
        while len(self._rows) <= self._first + index:
            self._rows.append(Row(text))
        return self._rows[self._first + index]

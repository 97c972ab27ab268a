"""The rollouts under way as the page shows them, step by step. What the live view of a terminal shows, for everyone."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from rollout.events import Event, Finished, NothingToDo, Recovering, RolloutStarted, Sink, Unfinished
from rollout.ports import Clock
from rollout.report.screen import Row, Screen

ROWS = 12
REMEMBERED = 500  # names of replicas


def telling(progress: Progress, bus: Sink) -> Sink:
    """Whoever performs rollouts tells both."""

    def tell(event: Event) -> None:
        progress(event)
        bus(event)

    return tell


class Progress:
    """A sink that follows each service's rollout. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._screens: dict[str, Screen] = {}
        self._names: dict[str, str] = {}  # short id -> name; plans know replicas by id, people by name

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, RolloutStarted | Recovering):
                self._screens.setdefault(event.service, Screen(self._clock))
            if isinstance(event, Finished | Unfinished | NothingToDo):
                self._screens.pop(event.service, None)
            elif event.service in self._screens:
                self._screens[event.service].hear(event)

    def of(self, service: str, names: Mapping[str, str]) -> dict[str, Any] | None:
        """`title` and `rows` (text, state, seconds, lines) of the service's rollout; None when none is under way.
        `names` of replicas by short id, those that are gone may be left out."""
        with self._lock:
            self._names.update(names)
            while len(self._names) > REMEMBERED:
                del self._names[next(iter(self._names))]
            screen = self._screens.get(service)
            if screen is None:
                return None
            return {"title": screen.title, "rows": [self._row(row) for row in screen.visible(ROWS)]}

    def _row(self, row: Row) -> dict[str, Any]:
        return {
            "text": self._named(row.text),
            "state": row.state,
            "lines": [self._named(line) for line in row.lines()],
            "seconds": self._clock.now() - row.begun if row.state == "running" else row.seconds,
        }

    def _named(self, text: str) -> str:
        for short_id, name in self._names.items():
            text = text.replace(short_id, name)
        return text

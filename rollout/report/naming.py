"""People know a replica by its name, plans by its id: this puts the names into what people read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from rollout import events
from rollout.errors import RolloutError
from rollout.model import Replica


class Naming:
    """A sink in front of a report. The names are looked up when a plan begins, when its replicas are there."""

    def __init__(self, sink: events.Sink, replicas: Callable[[str], Sequence[Replica]]) -> None:
        self._sink = sink
        self._replicas = replicas
        self._names: dict[str, str] = {}

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.RolloutStarted | events.UndoStarted | events.Recovering):
            with suppress(RolloutError):  # the rollout meets the same trouble, and tells it
                self._names |= {r.short_id: r.name for r in self._replicas(event.service)}
        self._sink(self._named(event))

    def _named(self, event: events.Event) -> events.Event:
        match event:
            case events.RolloutStarted() | events.UndoStarted():
                return replace(event, steps=tuple(map(self._text, event.steps)))
            case events.StepStarted() | events.StepProgress() | events.StepFinished() | events.Notice():
                return replace(event, text=self._text(event.text))
            case events.StepFailed():
                return replace(event, reason=self._text(event.reason))
        return event

    def _text(self, text: str) -> str:
        for short_id, name in self._names.items():
            text = text.replace(short_id, name)
        return text

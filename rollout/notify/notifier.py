"""The sink that turns a project's events into notifications."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from rollout.events import Event, Sink, Warned
from rollout.model import NotifySettings
from rollout.notify.mailbox import Mailbox
from rollout.notify.message import Message, message
from rollout.ports import Clock

PATIENCE = 10.0  # seconds a process that ends waits for what is under way


class Notifier:
    """A Sink. Never waits, never raises; what could not be delivered is one warning to `warn`."""

    def __init__(self, project: str, settings: Sequence[NotifySettings], clock: Clock, warn: Sink) -> None:
        self._project, self._clock, self._warn = project, clock, warn
        self._boxes = [Mailbox(one, clock, self._undelivered) for one in settings]

    def __call__(self, event: Event) -> None:
        if not self._boxes:
            return
        told = message(event, self._project, self._clock.wall(), uuid.uuid4().hex)
        for box in self._boxes if told is not None else ():
            if told is not None and told.outcome in box.settings.on:
                box.put(told)

    def close(self, patience: float = PATIENCE, given_up: Callable[[], bool] = lambda: False) -> None:
        """Before the process ends. `patience` is for all of them together."""
        until = self._clock.now() + patience
        for box in self._boxes:
            box.close(max(0.0, until - self._clock.now()), given_up)

    def _undelivered(self, settings: NotifySettings, message: Message, reason: str) -> None:
        from rollout.notify.delivery import where

        text = f"{where(settings)} was not told that rollout {message.rollout} is {message.outcome}: {reason}"
        self._warn(Warned(message.service, "not-notified", text))

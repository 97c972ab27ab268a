"""The part that keeps every pool equal to its ready replicas."""

from __future__ import annotations

import threading

from rollout.controller import sync_once
from rollout.errors import LockHeld, RolloutError
from rollout.events import Sink, Warned
from rollout.ports import Clock
from rollout.server.project import LiveProject

RESYNC = 10.0  # seconds between two looks at everything, whatever the engine says or does not say


class Membership:
    name = "membership"

    def __init__(self, project: LiveProject, clock: Clock, emit: Sink) -> None:
        self._project, self._clock, self._emit = project, clock, emit

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._project.refresh()
            wired = self._project.wired
            for settings in wired.project.services.values():
                try:
                    sync_once(wired.ports, settings, self._emit)
                except LockHeld:
                    continue
                except RolloutError as error:
                    self._emit(Warned(settings.name, "sync", error.message))
            wired.state.pass_done()
            stop.wait(RESYNC)

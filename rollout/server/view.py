"""The project as the API and the page read it: wired once, loaded anew when its files have changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rollout import actions
from rollout.errors import Unreachable, UsageError
from rollout.ports import Clock
from rollout.server.project import LiveProject
from rollout.server.readiness import Readiness
from rollout.wiring import Wired

PATIENCE = 15.0  # seconds a reader waits for the readers before it
FRESH = 0.3  # seconds for which one look serves all who ask


class View:
    """Safe from any thread: one reader at a time, since the journal's connection is one."""

    def __init__(self, project: LiveProject, readiness: Readiness, clock: Clock) -> None:
        """`project` is this view's own, and not entered yet."""
        self._project, self._readiness, self._clock = project, readiness, clock
        self._lock = threading.Lock()
        self._open: ExitStack | None = None
        self._status: tuple[float, dict[str, Any]] | None = None

    @contextmanager
    def looking(self) -> Iterator[Wired]:
        """The project with its ports for the length of the block. Raises what `wire` raises the first time."""
        if not self._lock.acquire(timeout=PATIENCE):
            raise Unreachable("the sidecar is busy", hint="try it again")
        try:
            if self._open is None:
                stack = ExitStack()
                stack.enter_context(self._project)
                self._open = stack
            elif self._project.refresh():
                self._status = None
            yield self._project.wired
        finally:
            self._lock.release()

    def status(self) -> dict[str, Any]:
        """`actions.status` of all services, at most FRESH seconds old, with what the membership knows of them."""
        with self.looking() as wired:
            if self._status is None or self._clock.now() - self._status[0] > FRESH:
                self._status = (self._clock.now(), self._judged(actions.status(wired)))
            return self._status[1]

    def _judged(self, status: dict[str, Any]) -> dict[str, Any]:
        for service in status["services"]:
            unproven = self._readiness.unproven(service["service"])
            for replica in service["replicas"]:
                # who is ready for the pool is for the rollout to say, as long as there is one
                checked = replica["pool"] == "in" or not service["unfinished"]
                replica["ready"] = replica["ready"] and checked and replica["id"] not in unproven
        return status

    def known(self, *services: str) -> None:
        """Raise UsageError for a name that is not a service of the project."""
        with self.looking() as wired:
            for name in services:
                if name not in wired.project.services:
                    there = ", ".join(wired.project.services)
                    raise NoSuchThing(f"there is no service {name!r} in this project", hint=f"there are: {there}")

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open.close()
            self._open = None


class NoSuchThing(UsageError):
    """What was asked for by name or number is not there."""

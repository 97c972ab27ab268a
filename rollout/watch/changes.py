"""Changed paths, gathered until it is quiet: an editor that saves in several steps, or a checkout, is one change."""

from __future__ import annotations

import threading

from rollout.ports import Clock

QUIET = 0.1  # seconds without a further change
LONGEST = 2.0  # seconds after the first change; something that never rests must not hide the rest


def rest(first: float, last: float, now: float) -> float:
    """Seconds until changes that came between `first` and `last` may be taken up; 0: now."""
    return max(0.0, min(last + QUIET, first + LONGEST) - now)


class Changes:
    """Safe from any thread: one adds, another takes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paths: set[str] = set()
        self._first = self._last = 0.0
        self._arrived = threading.Condition()

    def add(self, path: str) -> None:
        with self._arrived:
            self._last = self._clock.now()
            if not self._paths:
                self._first = self._last
            self._paths.add(path)
            self._arrived.notify_all()

    def take(self, timeout: float) -> frozenset[str]:
        """What has changed, once it is quiet. Waits up to `timeout` seconds for a first change; empty: none came."""
        with self._arrived:
            if not self._paths:
                self._arrived.wait(timeout)
            while self._paths and (left := rest(self._first, self._last, self._clock.now())) > 0:
                self._arrived.wait(left)
            taken = frozenset(self._paths)
            self._paths.clear()
            return taken

"""Events of all that goes on in the sidecar, numbered, to whoever listens: logs, the API's stream, notifications."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rollout.events import Event
from rollout.ports import Clock

KEPT = 1000  # events that a late subscriber can still be given
WAITING = 1000  # events a subscriber may be behind before it loses the oldest


@dataclass(frozen=True, slots=True)
class Numbered:
    """`number` counts from 1 without gaps; `at` is wall clock, seconds since the epoch."""

    number: int
    at: float
    event: Event


class Subscription:
    """What one listener has not heard yet. A gap in the numbers says that it was too slow and lost some."""

    def __init__(self, waiting: Iterable[Numbered] = (), woken: Callable[[], object] = bool) -> None:
        self._waiting: deque[Numbered] = deque(waiting, maxlen=WAITING)
        self._arrived = threading.Condition()
        self.closed = False
        self.woken = woken

    def take(self, timeout: float) -> list[Numbered]:
        """What has come since, oldest first; waits up to `timeout` seconds for the first. Empty: nothing came."""
        with self._arrived:
            if not self._waiting and not self.closed:
                self._arrived.wait(timeout)
            taken = list(self._waiting)
            self._waiting.clear()
            return taken

    def close(self) -> None:
        """Nothing more is waited for: `take` answers at once with what is there."""
        with self._arrived:
            self.closed = True
            self._arrived.notify_all()
        self.woken()

    def put(self, numbered: Numbered) -> None:
        with self._arrived:
            self._waiting.append(numbered)
            self._arrived.notify_all()
        self.woken()


class Bus:
    """A `Sink` with many ends. Publishing never waits for a listener. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: deque[Numbered] = deque(maxlen=KEPT)
        self._subscriptions: list[Subscription] = []
        self._last = 0

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._last += 1
            numbered = Numbered(self._last, self._clock.wall(), event)
            self._kept.append(numbered)
            for subscription in self._subscriptions:
                subscription.put(numbered)

    def wake(self) -> None:
        """Let whoever listens look again, for a change that is not an event."""
        with self._lock:
            for subscription in self._subscriptions:
                subscription.woken()

    @contextmanager
    def listening(self, after: int | None = None, woken: Callable[[], object] = bool) -> Iterator[Subscription]:
        """A subscription for the length of the block; `after`: first all kept events with a higher number. `woken` is
        called, from whatever thread publishes, when there is something to take; it must return at once."""
        with self._lock:
            late = [kept for kept in self._kept if after is not None and kept.number > after]
            subscription = Subscription(late, woken)
            self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.remove(subscription)

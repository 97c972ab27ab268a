"""Waiting for something that can be observed: look, pause a little, look again, until a deadline.

Not tenacity: that is for calls that failed and may go through; here nothing has failed. And it imports asyncio, which
would be a tenth of the time that a whole deploy adds to the engine's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from rollout.ports import Clock

T = TypeVar("T")

FIRST_PAUSE = 0.005  # a replica that is ready at once is seen at once (PROXIES 12)


FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0  # seconds until what failed is tried again; doubled each time


class DeadlinePassed(Exception):
    """The thing waited for did not come. Caught by the step that waited, which knows what to say."""


def wait_for(
    clock: Clock,
    look: Callable[[], T | None],
    *,
    timeout: float,
    first: float = FIRST_PAUSE,
    longest: float = 0.5,
) -> T:
    """Call `look` until it answers something else than None, and return that.

    Pauses start at `first` seconds and double up to `longest`. What `look` raises ends the wait at once.
    Raises DeadlinePassed after `timeout` seconds; `look` is called at least once, and once more at the deadline.
    """
    deadline, pause = clock.now() + timeout, first
    while (seen := look()) is None:
        left = deadline - clock.now()
        if left <= 0:
            raise DeadlinePassed
        clock.sleep(min(pause, left))
        pause = min(2 * pause, longest)
    return seen


class Backoff:
    """When to try again what could not be done, and may be by and by: less and less often. Due only once it has
    `failed`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """It was done, or something has changed: the pauses begin anew."""
        self._at, self._pause = math.inf, FIRST_RETRY

    def failed(self) -> None:
        self._at = self._clock.now() + self._pause
        self._pause = min(2 * self._pause, LONGEST_RETRY)

    def due(self) -> bool:
        return self._clock.now() >= self._at

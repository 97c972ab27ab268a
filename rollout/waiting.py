"""Waiting for something that can be observed: look, pause a little, look again, until a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rollout.ports import Clock

T = TypeVar("T")

FIRST_PAUSE = 0.005  # a replica that is ready at once is seen at once (PROXIES 12)


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
    # lazily: tenacity pulls in asyncio, and `rollout --help` waits for nothing
    from tenacity import RetryCallState, Retrying, retry_if_result, wait_exponential

    deadline = clock.now() + timeout
    grow = wait_exponential(multiplier=first, max=longest)

    def pause(state: RetryCallState) -> float:
        return max(0.0, min(grow(state), deadline - clock.now()))

    def too_late(_: RetryCallState) -> bool:
        return clock.now() >= deadline

    def give_up(_: RetryCallState) -> T:
        raise DeadlinePassed

    return Retrying(
        retry=retry_if_result(lambda seen: seen is None),
        wait=pause,
        stop=too_late,
        sleep=clock.sleep,
        retry_error_callback=give_up,
    )(look)  # type: ignore[return-value]  # None never leaves: retry_if_result

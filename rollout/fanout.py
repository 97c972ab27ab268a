"""Doing several independent things at once. Nothing outlives the call, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Call = Callable[[], Any]
FanOut = Callable[[Sequence[Call]], list[Any]]

WORKERS = 8  # the SDK keeps ten connections


def threads(calls: Sequence[Call]) -> list[Any]:
    """Results in the order of `calls`. Waits for all; then the first error is raised, with the others as its notes.

    The first is done by the caller's thread: a lease that a child process has to inherit is that thread's.
    """
    if len(calls) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(WORKERS, len(calls) - 1)) as pool:
        others = [pool.submit(call) for call in calls[1:]]
        own: Future[Any] = Future()
        try:
            own.set_result(calls[0]())
        except Exception as failed:  # noqa: BLE001  # raised below, when the others have ended
            own.set_exception(failed)
    futures = [own, *others]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]
    return [future.result() for future in futures]


def one_by_one(calls: Sequence[Call]) -> list[Any]:
    """The same without threads: for the simulation, where order must repeat."""
    return [call() for call in calls]

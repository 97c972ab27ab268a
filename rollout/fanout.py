"""Doing several independent things at once. Nothing outlives the call, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Call = Callable[[], Any]
FanOut = Callable[[Sequence[Call]], list[Any]]

WORKERS = 8  # the SDK keeps ten connections


def threads(calls: Sequence[Call]) -> list[Any]:
    """Results in the order of `calls`. Waits for all; then the first error is raised, with the others as its notes."""
    if len(calls) == 1:
        return [calls[0]()]
    with ThreadPoolExecutor(min(WORKERS, len(calls) or 1)) as pool:
        futures = [pool.submit(call) for call in calls]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]
    return [future.result() for future in futures]


def one_by_one(calls: Sequence[Call]) -> list[Any]:
    """The same without threads: for the simulation, where order must repeat."""
    return [call() for call in calls]

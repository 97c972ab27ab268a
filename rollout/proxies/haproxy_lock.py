"""One switch at a time: two services' files and reloads would otherwise overtake each other."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rollout.errors import StateError
from rollout.ports import Clock
from rollout.waiting import DeadlinePassed, wait_for

LOCK_TIMEOUT = 120.0  # longer than any reload of another service's switch


@contextlib.contextmanager
def exclusively(path: str, clock: Clock) -> Iterator[None]:
    """Hold the lock file for the length of the block; the kernel frees it with the process. Raises StateError."""
    try:
        lock = Path(path).open("ab")  # noqa: SIM115  # closed below; only the opening may fail here
    except OSError as error:
        raise StateError(f"the lock {path} cannot be opened: {error.strerror}") from error
    with lock:
        try:
            wait_for(clock, lambda: _taken(lock), timeout=LOCK_TIMEOUT, longest=0.02)
        except DeadlinePassed:
            raise StateError(f"another switch has held {path} for {LOCK_TIMEOUT:g} s") from None
        yield


def _taken(lock: IO[bytes]) -> bool | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return True

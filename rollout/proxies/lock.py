"""One change of the proxy at a time: two services' files and reloads would otherwise overtake each other."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rollout.errors import StateError
from rollout.ports import Clock
from rollout.waiting import DeadlinePassed, wait_for

STATE_HINT = "make room, run as a user who may write there, or set ROLLOUT_STATE_DIR"
LOCK_TIMEOUT = 120.0  # seconds; longer than any reload of another service's switch


@contextlib.contextmanager
def exclusively(path: str, clock: Clock) -> Iterator[IO[bytes]]:
    """Hold the lock file, made when it is not there, for the length of the block; the kernel frees it with the process.
    It can be read and written meanwhile. Raises StateError."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
        # not to append: pwrite(2) ignores the place it is given then
        lock = Path(path).open("r+b", buffering=0)  # noqa: SIM115  # closed below; only the opening may fail here
    except OSError as error:
        raise StateError(
            f"the lock {path} cannot be opened: {error.strerror}",
            hint=STATE_HINT,
        ) from error
    with lock:
        try:
            wait_for(clock, lambda: _taken(lock), timeout=LOCK_TIMEOUT, longest=0.02)
        except DeadlinePassed:
            raise StateError(
                f"another rollout has been changing the proxy for {LOCK_TIMEOUT:g} s: it holds {path}",
                hint="look at what it does with `rollout lock`, then run this again",
            ) from None
        yield lock


def _taken(lock: IO[bytes]) -> bool | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return True

"""The lease on a service: flock on a file of `.rollout/locks/`, freed by the kernel when its owner dies.

The record in the file is for people; the lock is the kernel's. The file is never unlinked (two could then hold "it"),
and is written only after the lock is held. A child that creates containers inherits the lock (`held_fds`), so that a
run which follows a killed one does not look at the world before that child is gone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollout.errors import LockHeld, StateError
from rollout.ports import SYNC, Clock
from rollout.waiting import DeadlinePassed, wait_for

GLANCE = 0.2  # seconds; `holder`, which only looks, has the lock for a moment
ORPHAN_WAIT = 60.0  # seconds; longer than the calls a dead owner's child may still be making
SYNC_WAIT = 60.0  # seconds; longer than any switch

_held = threading.local()  # a child of one thread must not keep the leases of another


def held_fds() -> tuple[int, ...]:
    """The leases of this thread, for `subprocess` (`pass_fds`): the child keeps them while it lives."""
    return tuple(_fds())


def _fds() -> set[int]:
    fds: set[int] = _held.__dict__.setdefault("fds", set())
    return fds


class FileLock:
    """`Lock` by files in `directory`, one per service."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    @contextmanager
    def hold(self, service: str, what: str, wait: float) -> Iterator[None]:
        fd = self._open(service)
        try:
            self._acquire(fd, service, wait)
            with self._signed(fd, what):
                yield
        finally:
            os.close(fd)

    @contextmanager
    def attempt(self, service: str, what: str) -> Iterator[bool]:
        fd = self._open(service)
        try:
            if not _try(fd):
                yield False
                return
            with self._signed(fd, what):
                yield True
        finally:
            os.close(fd)

    def holder(self, service: str) -> dict[str, object] | None:
        """Who holds the lease now, None when nobody does."""
        path = self._directory / f"{service}.lock"
        if not path.exists():
            return None
        fd = os.open(path, os.O_RDONLY)
        try:
            if _try(fd):
                return None
            return _record(fd)
        finally:
            os.close(fd)

    def _open(self, service: str) -> int:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            return os.open(self._directory / f"{service}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StateError(
                f"the lock of service {service} cannot be opened: {self._directory}: {error.strerror}",
                hint="run as a user who may write there, or set ROLLOUT_STATE_DIR",
            ) from error

    def _acquire(self, fd: int, service: str, wait: float) -> None:
        began = self._clock.now()

        def look() -> bool | None:
            if _try(fd):
                return True
            # asked each time: a sync may be followed by a rollout, which is not waited for
            if self._clock.now() - began >= max(wait, _patience(_record(fd))):
                raise DeadlinePassed
            return None

        try:
            wait_for(self._clock, look, timeout=max(wait, ORPHAN_WAIT, SYNC_WAIT), longest=0.1)
        except DeadlinePassed:
            record = _record(fd)
            since = self._clock.wall() - float(str(record.get("since", self._clock.wall())))
            raise LockHeld(
                f"service {service}: another rollout is under way: {record.get('what', 'unknown')} by pid "
                f"{record.get('pid', '?')} on {record.get('host', '?')}, for {since:.0f} s",
                hint="wait for it with --wait-lock 10m, or see `rollout lock`",
            ) from None

    @contextmanager
    def _signed(self, fd: int, what: str) -> Iterator[None]:
        self._sign(fd, what)
        _fds().add(fd)
        try:
            yield
        finally:
            _fds().discard(fd)

    def _sign(self, fd: int, what: str) -> None:
        record = {"pid": os.getpid(), "host": socket.gethostname(), "since": self._clock.wall(), "what": what}
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(record).encode(), 0)
        except OSError:
            pass  # a full disk: the record is for people only, the lock itself is held


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _record(fd: int) -> dict[str, object]:
    try:
        record = json.loads(os.pread(fd, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _patience(record: dict[str, object]) -> float:
    """Seconds that a holder is waited for in any case."""
    if not _alive(record):
        return ORPHAN_WAIT  # only a child of its still works: that ends by itself
    return SYNC_WAIT if record.get("what") == SYNC else GLANCE


def _alive(record: dict[str, object]) -> bool:
    """Whether the signed owner still runs; one on another host (a sidecar has its own pids) is taken to be alive."""
    if record.get("host") != socket.gethostname():
        return True
    return Path(f"/proc/{record.get('pid', 0)}").exists()

"""The lease on a service: flock on a file of `.rollout/locks/`, freed by the kernel when its owner dies.

The record in the file is for people; the lock is the kernel's. The file is never unlinked (two could then hold "it"),
and is written only after the lock is held. A child that creates containers inherits the lock (`held_fds`), so that a
run which follows a killed one does not look at the world before that child is gone.

The directory may be deleted while somebody has a lease. Another file of the same name would be free: so whoever has a
lease has a read lock on a file that stays as well (the Compose file, at a byte of the directory's own), and while
anybody has, nobody makes the directory. It is a lock of the open file (F_OFD_SETLK): those of flock(1), by which people
let one script run at a time, are others.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rollout.errors import LockHeld, StateError
from rollout.ports import SYNC, Clock
from rollout.waiting import DeadlinePassed, wait_for

GLANCE = 0.2  # seconds; `holder`, which only looks, has the lock for a moment
ORPHAN_WAIT = 60.0  # seconds; longer than the calls a dead owner's child may still be making
SYNC_WAIT = 60.0  # seconds; longer than any switch
RECORD = 1024  # bytes

_FLOCK = struct.Struct("hhqqi4x")  # fcntl(2)'s: type, whence, start, length, pid
_held = threading.local()  # a child of one thread must not keep the leases of another


def held_fds() -> tuple[int, ...]:
    """The leases of this thread, for `subprocess` (`pass_fds`): the child keeps them while it lives."""
    return tuple(_fds())


def _fds() -> set[int]:
    fds: set[int] = _held.__dict__.setdefault("fds", set())
    return fds


class FileLock:
    """`Lock` by files in `directory`, one per service. `anchor`: the file that stays, none when it is empty."""

    def __init__(self, directory: Path, clock: Clock, anchor: str = "") -> None:
        self._directory = directory
        self._clock = clock
        self._anchor = anchor

    @contextmanager
    def hold(self, service: str, what: str, wait: float) -> Iterator[None]:
        with closing(self._lease(service)) as lease:
            self._acquire(lease, wait)
            with self._signed(lease, what):
                yield

    @contextmanager
    def attempt(self, service: str, what: str) -> Iterator[bool]:
        with closing(self._lease(service)) as lease:
            if not lease.take():
                yield False
                return
            with self._signed(lease, what):
                yield True

    def holder(self, service: str) -> dict[str, object] | None:
        """Who holds the lease now, None when nobody does. Raises StateError."""
        path = self._directory / f"{service}.lock"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _closed(service, path, error) from error
        try:
            if _try(fd):
                return None
            return _record(fd)
        finally:
            os.close(fd)

    def _lease(self, service: str) -> _Lease:
        return _Lease(service, self._directory / f"{service}.lock", self._anchor)

    def _acquire(self, lease: _Lease, wait: float) -> None:
        began = self._clock.now()

        def look() -> bool | None:
            if lease.take():
                return True
            # asked each time: a sync may be followed by a rollout, which is not waited for
            if self._clock.now() - began >= max(wait, _patience(lease.record())):
                raise DeadlinePassed
            return None

        try:
            wait_for(self._clock, look, timeout=max(wait, ORPHAN_WAIT, SYNC_WAIT), longest=0.1)
        except DeadlinePassed:
            raise LockHeld(
                f"service {lease.service}: another rollout is under way: {self._told(lease)}",
                hint="wait for it with --wait-lock 10m, or see `rollout lock`",
            ) from None

    def _told(self, lease: _Lease) -> str:
        if lease.bare:
            return f"it began before {self._directory} was deleted"
        record = lease.record()
        since = self._clock.wall() - float(str(record.get("since", self._clock.wall())))
        who = f"pid {record.get('pid', '?')} on {record.get('host', '?')}"
        return f"{record.get('what', 'unknown')} by {who}, for {since:.0f} s"

    @contextmanager
    def _signed(self, lease: _Lease, what: str) -> Iterator[None]:
        lease.sign({"pid": os.getpid(), "host": socket.gethostname(), "since": self._clock.wall(), "what": what})
        mine = set(lease.fds)
        _fds().update(mine)
        try:
            yield
        finally:
            _fds().difference_update(mine)


class _Lease:
    """The lease on one service, had or wanted: open files, and the locks on them."""

    def __init__(self, service: str, path: Path, anchor: str) -> None:
        self.service = service
        self._path = path
        self._anchor: int | None = None
        self._byte = zlib.crc32(bytes(path.parent))  # projects may share their Compose file
        self._file: int | None = None
        with suppress(OSError):
            self._anchor = os.open(anchor, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def fds(self) -> tuple[int, ...]:
        return tuple(fd for fd in (self._file, self._anchor) if fd is not None)

    @property
    def bare(self) -> bool:
        """The file is not open: its directory is gone, and is somebody else's to make."""
        return self._file is None

    def take(self) -> bool:
        """Whether it is had now. Raises StateError."""
        try:
            self._file = self._opened() if self._file is None else self._file
        except OSError as error:
            raise _closed(self.service, self._path, error) from error
        if self._file is None or not _try(self._file):
            return False
        if not os.fstat(self._file).st_nlink:  # deleted while it was waited for: another may have its successor
            os.close(self._file)
            self._file = None
            return False
        return True

    def _opened(self) -> int | None:
        """The file; None when its directory is gone, and somebody has a lease from before."""
        if not self._path.parent.is_dir():
            if self._anchor is not None and _read_by_another(self._anchor, self._byte):
                return None
            self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._anchor is not None:
            _read_lock(self._anchor, fcntl.F_RDLCK, self._byte)
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def record(self) -> dict[str, object]:
        """What the holder has signed, as far as it can be read."""
        return {} if self._file is None else _record(self._file)

    def sign(self, record: Mapping[str, object]) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # a full disk: the record is for people only, the lock itself is held
            # in one piece, over the former: those who wait read it at any moment
            os.pwrite(self._file, json.dumps(record).encode().ljust(RECORD - 1) + b"\n", 0)

    def close(self) -> None:
        """Frees it, whoever has inherited it: what a host command has left in the background is not the rollout."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        if self._anchor is not None:
            _read_lock(self._anchor, fcntl.F_UNLCK, self._byte)
        for fd in self.fds:
            os.close(fd)


def _closed(service: str, path: Path, error: OSError) -> StateError:
    return StateError(
        f"the lock of service {service} cannot be opened: {path.parent}: {error.strerror}",
        hint="run as a user who may write there, or set ROLLOUT_STATE_DIR",
    )


def _read_lock(fd: int, kind: int, byte: int) -> None:
    with suppress(OSError):  # a file system without such locks: as without an anchor
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))


def _read_by_another(fd: int, byte: int) -> bool:
    """Whether somebody has the read lock by another open file. Asked of the kernel, which needs no right to write."""
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except OSError:
        return False
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


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
        record = json.loads(os.pread(fd, RECORD, 0) or b"{}")
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

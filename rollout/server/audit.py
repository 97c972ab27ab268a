"""Who asked the sidecar for what: one JSON object a line in `.rollout/audit.log`, only ever appended to."""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollout.errors import StateError
from rollout.ports import Clock
from rollout.server.operations import Asked

NAME = "audit.log"
QUIET = 60.0  # seconds in which a refusal is recorded once: who asks again and again must not push out the rest
LONGEST = 10_000_000  # bytes; then the file before the present one is given up


class Audit:
    """Safe from any thread and process. What is not written down is not done: `write` comes before the deed."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._path, self._clock = directory / NAME, clock
        self._lock = threading.Lock()
        self._refused: dict[str, tuple[float, int]] = {}  # what -> when it was recorded, how often it came since

    @property
    def kept(self) -> bool:
        """Whether a sidecar has begun this record."""
        return self._path.exists()

    def refused(self, who: str, what: str) -> None:
        """As `write`, at most once in QUIET seconds; `unrecorded` says how often it came since the line before."""
        with self._lock:
            at, missed = self._refused.get(what, (-math.inf, 0))
            quiet = self._clock.now() < at + QUIET
            self._refused[what] = (at, missed + 1) if quiet else (self._clock.now(), 0)
        if not quiet:
            self.write(who, what, **({"unrecorded": missed} if missed else {}))

    def write(self, who: str, what: str, **about: Any) -> None:
        """`who` asked for `what` (`deploy`, `login refused`); `about` is never secret. Raises StateError."""
        line = json.dumps({"at": round(self._clock.wall(), 3), "who": who, "what": what, **about}) + "\n"
        try:
            with self._lock:
                self._append(line.encode())
        except OSError as error:
            raise StateError(
                f"the audit record {self._path} cannot be written: {error.strerror or error}; nothing was begun",
                hint="is the disk full?",
            ) from error

    def begun(self, asked: Asked) -> None:
        """An operation, before it is begun. Raises StateError."""
        self.write(
            asked.who, asked.kind, services=list(asked.services), image=asked.image, to=asked.to, key=asked.key
        )  # fmt: skip

    def lines(self) -> Iterator[dict[str, Any]]:
        """Everything recorded, oldest first; a line torn by a crash is left out."""
        for path in (self._before, self._path):
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            for line in text.splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    continue

    @property
    def _before(self) -> Path:
        return self._path.with_name(f"{NAME}.1")

    def _append(self, line: bytes) -> None:
        while not self._appended(line):
            pass  # the file has just been put aside: the next one is written to

    def _appended(self, line: bytes) -> bool:
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # the command line records its wishes here as well
            if not self._is_of(fd):
                return False
            if os.fstat(fd).st_size > LONGEST:
                self._path.replace(self._before)
                return False
            _write_whole(fd, line)
            return True
        finally:
            os.close(fd)

    def _is_of(self, fd: int) -> bool:
        """Whether the record is this file still."""
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False


def _write_whole(fd: int, line: bytes) -> None:
    """At the end of the file, or nothing of it. Raises OSError."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":  # torn by a crash: what is glued to it could not be read either
        line = b"\n" + line
    written = os.write(fd, line)
    if written < len(line):  # as on a disk that is nearly full
        os.ftruncate(fd, size)
        raise OSError(f"only {written} of {len(line)} bytes found room")

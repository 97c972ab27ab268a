"""The sidecar's frame: how its parts end, and when it calls itself healthy."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest

from rollout.clock import SystemClock
from rollout.errors import LockHeld
from rollout.lock import FileLock
from rollout.server.daemon import LATE, LOCK, _alone, _run, why_not_healthy
from rollout.state import StateDirectory


class Waiting:
    """A part that does nothing until the end."""

    name = "waiting"

    def __init__(self) -> None:
        self.ended = False

    def run(self, stop: threading.Event) -> None:
        stop.wait(10)
        self.ended = True


class Failing:
    name = "failing"

    def run(self, stop: threading.Event) -> None:
        raise ZeroDivisionError


def test_all_parts_end_when_it_is_told_to_end() -> None:
    parts, ended = [Waiting(), Waiting()], SimpleQueue[BaseException | None]()
    ended.put(None)
    _run(parts, ended)
    assert [part.ended for part in parts] == [True, True]


def test_a_part_that_fails_ends_the_others_and_is_told() -> None:
    other = Waiting()
    with pytest.raises(ZeroDivisionError):
        _run([other, Failing()], SimpleQueue())
    assert other.ended


def test_one_sidecar_a_project(tmp_path: Path) -> None:
    state, clock = StateDirectory(tmp_path), SystemClock()
    with _alone(state, "shop", clock):
        with pytest.raises(LockHeld, match=f"pid {os.getpid()}") as refused, _alone(state, "shop", clock):
            pass
        assert refused.value.exit_code == 3
    with _alone(state, "shop", clock):
        pass


def test_healthy_is_one_that_has_lately_looked(tmp_path: Path) -> None:
    state, clock = StateDirectory(tmp_path), SystemClock()
    assert "no sidecar" in why_not_healthy(state, clock)
    state.pass_done()
    with FileLock(tmp_path, clock).attempt(LOCK, "serve"):
        passed = tmp_path / "serve.passed"
        os.utime(passed, (clock.wall() - 1, clock.wall() - 1))
        assert "not looked at the replicas yet" in why_not_healthy(state, clock), "a former sidecar did"
        os.utime(passed, (clock.wall(), clock.wall()))  # the kernel's own stamp may be milliseconds behind
        assert why_not_healthy(state, clock) == ""
        ahead = Ahead(LATE + 1)
        assert "last looked at the replicas 3" in why_not_healthy(state, ahead)
    assert "no sidecar" in why_not_healthy(state, clock)


class Ahead(SystemClock):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def wall(self) -> float:
        return super().wall() + self._seconds

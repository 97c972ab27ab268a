"""The sidecar's frame: how its parts end, and when it calls itself healthy."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import cast

import pytest

from rollout.clock import SystemClock
from rollout.compose import Options
from rollout.errors import LockHeld
from rollout.lock import FileLock
from rollout.model import Project, ProxySettings, ProxyType, Schedule, ServiceSettings
from rollout.server import daemon
from rollout.server.bus import Bus
from rollout.server.daemon import LATE, LOCK, Sidecar, _alone, _parts, _run, why_not_healthy
from rollout.server.operations import Asked
from rollout.server.project import LiveProject
from rollout.server.scheduling import Looking, Scheduling
from rollout.server.tally import Tally
from rollout.state import StateDirectory
from rollout.steps.run import Ports
from tests.unit.test_schedule import World, pass_time


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


def test_the_schedule_of_the_project_is_followed_by_the_sidecars_own_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ServiceSettings("web", 8000, image="reg:5000/web:1", schedule=Schedule(3600.0))
    world = World(settings, offers="sha256:new")
    shop = Project("shop", "/", ProxySettings(ProxyType.NGINX, "/x", service="edge"), {"web": settings}, "")
    project = SimpleNamespace(wired=SimpleNamespace(project=shop), options=None, adapt=None)

    @contextmanager
    def look() -> Iterator[Looking]:
        yield Looking(cast("Ports", world), world)

    monkeypatch.setattr(daemon, "looking", lambda *given: look)
    monkeypatch.setattr(daemon, "_answering", lambda *given: (world, Waiting()))
    sidecar = Sidecar(cast("Options", None), world.clock, Bus(world.clock), SimpleQueue())
    (part,) = [p for p in _parts(sidecar, cast("LiveProject", project), Tally()) if isinstance(p, Scheduling)]
    pass_time(world, part, 2 * 3600)
    assert Asked("deploy", ("web",), "schedule", pull="always") in world.asked


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

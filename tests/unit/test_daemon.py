"""The sidecar's frame: how its parts end, and when it calls itself healthy."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import cast

import pytest

from rollout.clock import SystemClock
from rollout.compose import Options
from rollout.errors import LockHeld
from rollout.events import Notice
from rollout.lock import FileLock
from rollout.model import Project, ProxySettings, ProxyType, Schedule, ServiceSettings
from rollout.server import daemon
from rollout.server.bus import Bus
from rollout.server.daemon import LATE, LOCK, Sidecar, _alone, _parts, _run, why_not_healthy
from rollout.server.logs import logging
from rollout.server.operations import Asked
from rollout.server.project import LiveProject
from rollout.server.scheduling import Looking, Scheduling
from rollout.server.tally import Tally
from rollout.state import StateDirectory
from rollout.steps.run import Ports
from tests.clocks import HandClock
from tests.unit.test_schedule import World, pass_time

SCRIPT = Path(__file__).parents[2] / "scripts/sidecar-healthy"


class Waiting:
    """A part that does nothing until the end."""

    name = "waiting"

    def __init__(self) -> None:
        self.ended = False

    def run(self, stop: threading.Event) -> None:
        self.ended = stop.wait(10)


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


@pytest.fixture
def healthy(tmp_path: Path) -> Iterator[Callable[[float], tuple[str, bool]]]:
    """What the daemon and the image's script say of a sidecar whose last look is so many seconds ago (not a number: it
    has looked at nothing yet): why it is not healthy, and whether it is."""
    state, clock = StateDirectory(tmp_path), HandClock(1.7e9)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "date").write_text(f"#!/bin/sh\necho {clock.wall():.0f}\n")
    (programs / "date").chmod(0o755)
    environ = {"PATH": f"{programs}:{os.environ['PATH']}", "ROLLOUT_STATE_DIR": str(tmp_path)}

    def judged(ago: float) -> tuple[str, bool]:
        if not math.isnan(ago):
            state.pass_done()
            os.utime(tmp_path / "serve.passed", (clock.wall() - ago,) * 2)
        script = subprocess.run(["sh", SCRIPT], env=environ, capture_output=True, check=False)
        return why_not_healthy(state, clock), script.returncode == 0

    later = HandClock(clock.wall() + 7200)  # it began before the clock was set back
    with FileLock(tmp_path, later).attempt(LOCK, "serve"):
        yield judged


@pytest.mark.parametrize(
    ("ago", "reason"),
    [
        (0, ""),
        (LATE, ""),
        (LATE + 1, "the sidecar last looked at the replicas 31 s ago"),
        (-1, ""),  # the kernel's stamp and the clock may differ by a little
        (-LATE, ""),
        (-LATE - 1, "the sidecar last looked at the replicas 31 s from now: the clock was set back"),
        (math.nan, "the sidecar has not looked at the replicas yet"),
    ],
)
def test_healthy_is_one_that_has_lately_looked(
    healthy: Callable[[float], tuple[str, bool]], ago: float, reason: str
) -> None:
    assert healthy(ago) == (reason, not reason)


def test_what_a_former_sidecar_has_looked_at_counts_for_nothing(
    healthy: Callable[[float], tuple[str, bool]], tmp_path: Path
) -> None:
    assert healthy(1) == ("", True)
    StateDirectory(tmp_path).forget_passes()
    assert healthy(math.nan) == ("the sidecar has not looked at the replicas yet", False)


def test_no_sidecar_is_not_healthy(tmp_path: Path) -> None:
    state, clock = StateDirectory(tmp_path), SystemClock()
    assert "no sidecar" in why_not_healthy(state, clock)
    with FileLock(tmp_path, clock).attempt(LOCK, "serve"):
        pass
    state.pass_done()
    assert "no sidecar" in why_not_healthy(state, clock)


FULL = """
import os, sys
from rollout.events import Notice
from rollout.clock import SystemClock
from rollout.server import logs
from rollout.server.bus import Bus
logs.LAST_WORDS = 0.1
bus = Bus(SystemClock())
with logs.logging(bus, sys.stdout, as_json=False):
    for number in range(900):
        bus(Notice("web", "x" * 1000))
os.write(2, b"the block has ended\\n")
"""


def test_a_log_that_nobody_reads_does_not_keep_the_sidecar_from_ending() -> None:
    environ = {
        name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
    }  # else nothing is locked
    process = subprocess.Popen(
        [sys.executable, "-c", FULL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    )
    with process:
        assert process.stderr is not None
        try:
            assert (process.wait(30), process.stderr.read()) == (0, b"the block has ended\n")
        finally:
            process.kill()


def test_what_was_said_is_in_the_log_when_the_sidecar_has_ended(tmp_path: Path) -> None:
    bus = Bus(HandClock())
    with (tmp_path / "log").open("w") as file, logging(bus, file, as_json=True):
        for number in range(900):
            bus(Notice("web", f"word {number}"))
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [f"word {number}" for number in range(900)]

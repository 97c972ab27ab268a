"""The lock's contract, over flock and over the simulation's; and what only the kernel can do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.clock import SystemClock
from rollout.errors import LockHeld
from rollout.lock import FileLock, held_fds
from rollout.ports import Lock
from tests.simulation.fakes import FakeLock

HOLDER = """
import sys, pathlib, subprocess
from rollout.clock import SystemClock
from rollout.lock import FileLock, held_fds
with FileLock(pathlib.Path(sys.argv[1]), SystemClock()).hold("web", "deploy of v7", 0):
    child = subprocess.Popen(["sleep", sys.argv[2]], pass_fds=held_fds(), stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["file", "fake"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> Lock:
    return FileLock(tmp_path, SystemClock()) if request.param == "file" else FakeLock()


def test_one_holder_at_a_time(lock: Lock) -> None:
    with lock.hold("web", "the first", 0), pytest.raises(LockHeld, match="the first"), lock.hold("web", "another", 0):
        raise AssertionError("two hold the lease")


def test_services_do_not_wait_for_each_other(lock: Lock) -> None:
    with lock.hold("web", "deploy", 0), lock.hold("api", "deploy", 0):
        pass


def test_it_is_free_again_afterwards_whatever_happened(lock: Lock) -> None:
    with pytest.raises(RuntimeError), lock.hold("web", "deploy", 0):
        raise RuntimeError
    with lock.hold("web", "deploy", 0):
        pass


def _holder(directory: Path, seconds: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), seconds],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_message_names_the_holder(tmp_path: Path) -> None:
    process, child = _holder(tmp_path, "60")
    lock = FileLock(tmp_path, SystemClock())
    with pytest.raises(LockHeld) as failure, lock.hold("web", "deploy", 0):
        pass
    os.kill(child, signal.SIGKILL)
    process.communicate("")
    assert f"deploy of v7 by pid {process.pid}" in failure.value.message
    assert failure.value.exit_code == 3


def test_waiting_gets_it_when_the_holder_ends(tmp_path: Path) -> None:
    process, child = _holder(tmp_path, "60")
    os.kill(child, signal.SIGKILL)
    process.communicate("")
    with FileLock(tmp_path, SystemClock()).hold("web", "deploy", 0):
        assert held_fds()
    assert not held_fds()


def test_a_killed_holder_frees_it_once_its_child_is_gone(tmp_path: Path) -> None:
    """The child may still be creating containers: the next run must not look at the world before it has ended."""
    process, child = _holder(tmp_path, "0.7")
    process.kill()
    process.communicate()
    with FileLock(tmp_path, SystemClock()).hold("web", "deploy", 0):
        assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()

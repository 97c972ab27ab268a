"""The lock's contract, over flock and over the simulation's; and what only the kernel can do."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from rollout.clock import SystemClock
from rollout.errors import LockHeld
from rollout.lock import GLANCE, FileLock, held_fds
from rollout.ports import SYNC, Lock
from tests.simulation.fakes import FakeLock

PF_EXITING = 4  # of the kernel's flags

HOLDER = """
import sys, pathlib, subprocess
from rollout.clock import SystemClock
from rollout.lock import FileLock, held_fds
with FileLock(pathlib.Path(sys.argv[1]), SystemClock(), sys.argv[3]).hold("web", "deploy of v7", 0):
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


def test_an_attempt_waits_for_nobody(lock: Lock) -> None:
    with lock.attempt("web", "sync") as first, lock.attempt("web", "sync") as second:
        assert (first, second) == (True, False)
    with lock.attempt("web", "sync") as again:
        assert again


def test_a_sync_is_waited_for(tmp_path: Path) -> None:
    """The sidecar's hold is a matter of moments: a deploy that meets it waits, and is not refused."""
    lock, began, ended = FileLock(tmp_path, SystemClock()), threading.Event(), threading.Event()

    def sync() -> None:
        with lock.hold("web", SYNC, 0):
            began.set()
            ended.wait(2 * GLANCE)

    holder = threading.Thread(target=sync)
    holder.start()
    assert began.wait(60)
    with lock.hold("web", "deploy", 0):
        pass
    ended.set()
    holder.join()


def test_what_follows_a_sync_is_not_waited_for(tmp_path: Path) -> None:
    lock, began, ended = FileLock(tmp_path, SystemClock()), threading.Event(), threading.Event()

    def sync_then_deploy() -> None:
        with lock.hold("web", SYNC, 0) as _:
            began.set()
            ended.wait(2 * GLANCE)
            (tmp_path / "web.lock").write_text('{"what": "deploy of v8"}')
            ended.wait(60)

    holder = threading.Thread(target=sync_then_deploy)
    holder.start()
    assert began.wait(60)
    try:
        with pytest.raises(LockHeld, match="deploy of v8"), lock.hold("web", "deploy", 0):
            raise AssertionError("it is held without a break")
    finally:
        ended.set()
        holder.join()


@pytest.fixture
def anchored(tmp_path: Path) -> tuple[Path, FileLock]:
    """A directory that is yet to be made, and a lock in it that outlives it."""
    compose_file = tmp_path / "compose.yaml"
    compose_file.touch()
    return tmp_path / "locks", FileLock(tmp_path / "locks", SystemClock(), str(compose_file))


def test_a_lease_outlives_its_deleted_directory(anchored: tuple[Path, FileLock]) -> None:
    directory, lock = anchored
    with lock.hold("web", "deploy of v7", 0):
        shutil.rmtree(directory)
        with pytest.raises(LockHeld, match=r"began before \S*locks was deleted"), lock.hold("web", "another", 0):
            raise AssertionError("two hold the lease")
        with lock.attempt("web", "sync") as mine:
            assert not mine
    with lock.hold("web", "deploy of v8", 0):
        assert directory.is_dir()


def test_services_begin_beside_each_other_where_nothing_is_deleted(anchored: tuple[Path, FileLock]) -> None:
    _, lock = anchored
    with lock.hold("web", "deploy", 0), lock.hold("api", "deploy", 0), lock.attempt("cache", "sync") as mine:
        assert mine


@pytest.mark.parametrize("there", [True, False])
def test_a_script_that_has_locked_the_compose_file_for_itself_may_run_it(
    anchored: tuple[Path, FileLock], *, there: bool
) -> None:
    """As with `flock compose.yaml rollout deploy`."""
    directory, lock = anchored
    if there:
        directory.mkdir()
    with directory.with_name("compose.yaml").open() as script:
        fcntl.flock(script, fcntl.LOCK_EX)
        with lock.hold("web", "deploy", 0), lock.attempt("api", "sync") as mine:
            assert mine


def test_projects_that_share_their_compose_file_do_not_wait_for_each_other(anchored: tuple[Path, FileLock]) -> None:
    directory, lock = anchored
    another = FileLock(directory.with_name("another"), SystemClock(), str(directory.with_name("compose.yaml")))
    with lock.hold("web", "deploy", 0), another.hold("web", "deploy", 0):
        pass


def test_a_compose_file_that_may_only_be_read_will_do(anchored: tuple[Path, FileLock]) -> None:
    directory, lock = anchored
    directory.with_name("compose.yaml").chmod(0o444)
    with lock.hold("web", "deploy", 0):
        shutil.rmtree(directory)
        with lock.attempt("web", "sync") as mine:
            assert not mine


def test_a_file_that_is_deleted_while_it_is_waited_for_is_no_lease(anchored: tuple[Path, FileLock]) -> None:
    directory, lock = anchored
    with ExitStack() as first:
        first.enter_context(lock.hold("web", "deploy of v7", 0))

        def replace_it() -> None:
            shutil.rmtree(directory)
            first.close()

        waiting = FileLock(directory, _Patience(replace_it), str(directory.with_name("compose.yaml")))
        with waiting.hold("web", "deploy of v8", 60), lock.attempt("web", "sync") as mine:
            assert not mine and (directory / "web.lock").exists()


def test_a_killed_holder_s_child_keeps_it_though_the_directory_is_deleted(anchored: tuple[Path, FileLock]) -> None:
    directory, lock = anchored
    process, child = _holder(directory, "60", str(directory.with_name("compose.yaml")))
    process.kill()
    process.communicate()
    shutil.rmtree(directory)
    with lock.attempt("web", "sync") as mine:
        assert not mine
    os.kill(child, signal.SIGKILL)
    with lock.hold("web", "deploy", 60):
        assert not _runs(child)


def test_a_child_keeps_the_leases_of_its_own_thread_only(tmp_path: Path) -> None:
    lock = FileLock(tmp_path, SystemClock())
    seen: list[tuple[int, ...]] = []
    with lock.hold("web", "deploy", 0):
        other = threading.Thread(target=lambda: seen.append(held_fds()))
        other.start()
        other.join()
        assert held_fds()
    assert seen == [()]


def _holder(directory: Path, seconds: str, anchor: str = "") -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), seconds, anchor],
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


def test_what_a_child_leaves_in_the_background_does_not_keep_it(anchored: tuple[Path, FileLock]) -> None:
    directory, lock = anchored
    with lock.hold("web", "deploy of v7", 0):
        left = subprocess.Popen(["sleep", "60"], pass_fds=held_fds())
    try:
        shutil.rmtree(directory)
        with lock.hold("web", "deploy of v8", 0):
            assert left.poll() is None
    finally:
        left.kill()
        left.wait()


def test_waiting_gets_it_when_the_holder_ends(tmp_path: Path) -> None:
    process, child = _holder(tmp_path, "60")
    os.kill(child, signal.SIGKILL)
    process.communicate("")
    with FileLock(tmp_path, SystemClock()).hold("web", "deploy", 0):
        assert held_fds()
    assert not held_fds()


class _Patience(SystemClock):
    """Real time, in which something is done as soon as somebody waits."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.waited = act, 0

    def sleep(self, seconds: float) -> None:
        self.waited += 1
        if self.waited == 1:
            self.act()
        super().sleep(seconds)


def test_a_killed_holder_frees_it_once_its_child_is_gone(tmp_path: Path) -> None:
    """The child may still be creating containers: the next run must not look at the world before it has ended."""
    process, child = _holder(tmp_path, "60")
    process.kill()
    process.communicate()
    assert _runs(child)
    clock = _Patience(lambda: os.kill(child, signal.SIGKILL))
    with FileLock(tmp_path, clock).hold("web", "deploy", 0):
        assert clock.waited and not _runs(child)


def _runs(pid: int) -> bool:
    """Not one that has let go of its files and is yet to be called dead: for that moment it looks like any other."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and not int(fields[6]) & PF_EXITING

"""Programs of this host, behind `ports.Host`: in a session of their own, so that all of it can be ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from rollout.errors import DeployFailed
from rollout.ports import Clock, ExecResult

LOOK = 0.05  # seconds between two looks whether it still may run
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
KEPT_LINES = 200


class HostPrograms:
    """`ports.Host` for one project. `keep_open` are files that a program inherits: a lock among them is held until it
    has ended, also when we are killed."""

    def __init__(
        self, project: str, directory: str, clock: Clock, keep_open: Callable[[], Sequence[int]] = tuple
    ) -> None:
        self._project, self._directory, self._clock, self._keep_open = project, directory, clock, keep_open

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        timeout: float,
        say: Callable[[str], None],
        given_up: Callable[[], bool],
    ) -> ExecResult:
        variables = {**os.environ, **environment, "ROLLOUT_PROJECT": self._project}
        try:
            started = subprocess.Popen(
                list(argv), cwd=self._directory, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True, encoding="utf-8", errors="replace",
                pass_fds=tuple(self._keep_open()),
            )  # fmt: skip
        except OSError as error:
            return ExecResult(127 if isinstance(error, FileNotFoundError) else 126, error.strerror or str(error))
        kept: deque[str] = deque(maxlen=KEPT_LINES)
        reader = threading.Thread(target=_read, args=(started, kept, say), name="hook", daemon=True)
        reader.start()
        try:
            in_time = self._watch(started, timeout, given_up)
        finally:
            _end(started)
            reader.join(GRACE)  # a grandchild that has left the session may hold the pipe
        if not in_time:
            raise DeployFailed(f"it took longer than {timeout:g} s and was stopped", details=tuple(kept))
        return ExecResult(started.returncode, "\n".join(kept))

    def _watch(self, started: subprocess.Popen[str], timeout: float, given_up: Callable[[], bool]) -> bool:
        """Until it ends, is given up, or has had its time; False for the last."""
        until = self._clock.now() + timeout
        while started.poll() is None and not given_up():
            if self._clock.now() >= until:
                return False
            self._clock.sleep(LOOK)
        return True


def _read(started: subprocess.Popen[str], kept: deque[str], say: Callable[[str], None]) -> None:
    assert started.stdout is not None
    with started.stdout as lines:
        for line in lines:
            kept.append(line.rstrip("\n"))
            say(line.rstrip("\n"))


def _end(started: subprocess.Popen[str]) -> None:
    """End what still runs of it: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(started.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(timeout=GRACE)
            break

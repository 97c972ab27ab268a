"""Programs of this host, behind `ports.Host`: in a session of their own, so that all of it can be ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from rollout.errors import DeployFailed
from rollout.ports import Clock, ExecResult

LOOK = 0.05  # seconds between two looks whether it still may run
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
KEPT_LINES = 200
CHUNK = 8192  # bytes
REST = 1 << 20  # bytes; the most that a pipe holds
LONGEST_LINE = 65536  # bytes; a longer one is told in parts


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
                stderr=subprocess.STDOUT, start_new_session=True, pass_fds=tuple(self._keep_open()),
            )  # fmt: skip
        except OSError as error:
            return ExecResult(127 if isinstance(error, FileNotFoundError) else 126, error.strerror or str(error))
        with closing(_Output(started, say)) as output:
            try:
                in_time = self._watch(started, output, timeout, given_up)
            finally:
                _end(started)
                output.read(REST)
        kept = tuple(output.kept)
        if not in_time:
            raise DeployFailed(f"it took longer than {timeout:g} s and was stopped", details=kept)
        return ExecResult(started.returncode, "\n".join(kept))

    def _watch(
        self, started: subprocess.Popen[bytes], output: _Output, timeout: float, given_up: Callable[[], bool]
    ) -> bool:
        """Until it ends, is given up, or has had its time; False for the last."""
        until = self._clock.now() + timeout
        while started.poll() is None and not given_up():
            if self._clock.now() >= until:
                return False
            if not output.read(CHUNK):
                self._clock.sleep(LOOK)
        return True


class _Output:
    """What a program prints, line by line. Its end is not waited for: what it has left in the background may hold the
    pipe for ever."""

    def __init__(self, started: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
        assert started.stdout is not None
        self._pipe, self._say = started.stdout, say
        self._begun = b""  # of a line
        self.kept: deque[str] = deque(maxlen=KEPT_LINES)
        os.set_blocking(self._pipe.fileno(), False)

    def read(self, limit: int) -> int:
        """Tell what is there now, about so many bytes at most: a program may print faster than it is told. How many."""
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while taken < limit and (chunk := os.read(self._pipe.fileno(), CHUNK)):
                taken += len(chunk)
                *lines, self._begun = (self._begun + chunk).split(b"\n")
                for line in lines:
                    self._tell(line)
                if len(self._begun) > LONGEST_LINE:
                    self._end_line()
        return taken

    def close(self) -> None:
        self._end_line()
        self._pipe.close()

    def _end_line(self) -> None:
        line, self._begun = self._begun, b""
        if line:
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        self.kept.append(text)
        self._say(text)


def _end(started: subprocess.Popen[bytes]) -> None:
    """End what still runs of it: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(started.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(timeout=GRACE)
            break

"""One run of Compose: its own process group, stdin closed, a time limit, nothing of it left when we are interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rollout.errors import ComposeError

GRACE = 3.0  # seconds Compose gets to end by itself before it is killed
KEPT_LINES = 200


_running: set[Process] = set()  # in a session of their own: a terminal's Ctrl-C does not reach them


def terminate_all() -> None:
    """Ask everything of Compose's that we started to end. For a signal handler: waits for nothing."""
    for process in tuple(_running):
        process.terminate()


@dataclass(frozen=True, slots=True)
class Output:
    code: int
    stdout: str
    stderr: str


class Process:
    """Compose under way. Started at once; `finish` gives it its input and waits, `kill` ends it with its children."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        cwd: str,
        *,
        with_input: bool = False,
        merge: bool = False,
        keep_open: Sequence[int] = (),
    ) -> None:
        """`merge` sends stderr where stdout goes, so that lines keep their order; `keep_open` are file descriptors that
        it inherits. Raises ComposeError."""
        self._what = _subcommand(argv)
        self._ended = threading.Event()
        try:
            self._popen = subprocess.Popen(
                list(argv), env=dict(environment), cwd=cwd, encoding="utf-8", errors="replace",
                stdin=subprocess.PIPE if with_input else subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge else subprocess.PIPE, start_new_session=True,
                pass_fds=tuple(keep_open),
            )  # fmt: skip
        except OSError as error:
            raise ComposeError(f"{argv[0]} cannot be run: {error.strerror}", hint="reinstall Docker Compose") from error
        _running.add(self)

    def finish(self, text: str | None, timeout: float) -> Output:
        """Send `text` (when it was started with input), wait up to `timeout` seconds. Raises ComposeError when it
        takes longer; whatever else ends the wait (an interruption) kills it first."""
        try:
            stdout, stderr = self._popen.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._too_long(timeout) from None
        except BaseException:
            self.kill()
            raise
        _running.discard(self)
        return Output(self._popen.returncode, stdout, stderr or "")

    def stream(self, text: str | None, timeout: float, on_line: Callable[[str], None]) -> Output:
        """Like `finish`, handing over each line as it comes; `stdout` holds the last of them."""
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            self._end()

        timer = threading.Timer(timeout, end)
        timer.daemon = True
        timer.start()
        kept: deque[str] = deque(maxlen=KEPT_LINES)
        try:
            self._feed(text)
            assert self._popen.stdout is not None
            for line in self._popen.stdout:
                if line.strip():
                    kept.append(line.rstrip())
                    on_line(line.rstrip())
            code = self._popen.wait()
        except BaseException:
            self.kill()
            raise
        finally:
            self._ended.set()
            timer.cancel()
            self._close()
        if timed_out.is_set():
            raise self._too_long(timeout)
        return Output(code, "\n".join(kept), "")

    def abandon(self) -> None:
        """From another thread: end it and its children while it is streamed. Waits for nothing."""
        threading.Thread(target=self._end, name="abandon", daemon=True).start()

    def _end(self) -> None:
        self.terminate()  # the pipe stays open: it is being read
        if not self._ended.wait(GRACE):
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """End it and its children: politely, then not. Nothing when it has ended."""
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()  # while it waits for its input, Compose does not hear a signal
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout=GRACE)
                break
        self._close()

    def _feed(self, text: str | None) -> None:
        if self._popen.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it ended early: its own words say why
            self._popen.stdin.write(text or "")
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()

    def terminate(self) -> None:
        """Ask it to end, without waiting: for one who leaves."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def _close(self) -> None:
        _running.discard(self)
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()

    def _too_long(self, timeout: float) -> ComposeError:
        return ComposeError(
            f"`docker compose {self._what}` took longer than {timeout:g} s and was stopped",
            hint="is the engine or the registry hanging? the same command by hand shows where",
        )


def _subcommand(argv: Sequence[str]) -> str:
    return next((a for a in argv[1:] if a in {"config", "up", "pull", "build", "run"}), "")

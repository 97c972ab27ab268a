"""The load as a child process, so that the test's own work never delays a client."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Self

from tests.load.mix import Mix
from tests.load.report import Report

ROOT = Path(__file__).resolve().parents[2]
ANSWER_TIMEOUT = 30.0


class LoadError(AssertionError):
    """The load process died, or did not reach in time what was waited for."""


class Load:
    """A context manager that runs a mix against a URL; the standard mix if none is given.

    Entering returns when the clients run. Leaving lets every client finish its current request, so stopping causes no
    anomaly. `host` replaces the Host header.
    """

    def __init__(self, url: str, mix: Mix | None = None, *, host: str = "") -> None:
        self.url, self.mix, self.host = url, mix or Mix.standard(), host
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._report: Report | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.load", self.url, "--mix", self.mix.to_json(), "--control"]
        if self.host:
            command += ["--host", self.host]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._answer("ready", ANSWER_TIMEOUT)
        except (LoadError, TimeoutError, KeyboardInterrupt):
            self._end()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.report()
        except LoadError:
            if error is None:
                raise
        finally:
            self._end()

    def wait_for(self, total: int, *, version: str = "", timeout: float = 60.0) -> None:
        """Return when `total` requests have been counted, or that many answers of one version. Raises LoadError."""
        self._ask({"wait": total, "version": version})
        try:
            self._answer("wait", timeout)
        except TimeoutError:
            wanted = f"{total} answers of version {version}" if version else f"{total} requests"
            raise LoadError(f"no {wanted} within {timeout:g} s: {self.progress()}") from None

    def progress(self) -> dict[str, Any]:
        """The counts at this moment: total, ok, failed, by_class, by_version."""
        self._ask({"progress": True})
        return self._answer("progress", ANSWER_TIMEOUT)

    def report(self) -> Report:
        """Stop, if it still runs, and tell what was seen. May be called again. Raises LoadError."""
        if self._report is None:
            self._ask({"stop": True})
            longest = max(self.mix.stream_seconds, self.mix.upload_seconds, self.mix.upgrade_seconds)
            answer = self._answer("stop", self.mix.timeout + longest + ANSWER_TIMEOUT)
            self._report = Report.from_json(answer["report"])
        return self._report

    def _end(self) -> None:
        """Leave neither a process nor an open pipe behind, whatever happened."""
        for pipe in self._pipes():
            pipe.close()
        assert self._process
        if self._report is None:
            self._process.kill()
        self._process.wait()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if not self._process or not self._process.stdin or not self._process.stdout:
            raise LoadError("the load is not running: use it as a context manager")
        return self._process.stdin, self._process.stdout

    def _ask(self, question: dict[str, object]) -> None:
        try:
            # Not through the buffered writer, which would try to flush once more into a broken pipe.
            os.write(self._pipes()[0].fileno(), json.dumps(question).encode() + b"\n")
        except (BrokenPipeError, ValueError):
            raise LoadError("the load process has ended; its own message is on stderr") from None

    def _answer(self, about: str, timeout: float) -> dict[str, Any]:
        """The child's next line about that question. Raises TimeoutError, LoadError."""
        until = time.monotonic() + timeout
        while True:
            answer: dict[str, Any] = json.loads(self._line(until))
            # A wait that was given up may be answered later, when nobody listens any more.
            if answer.pop("about") == about:
                return answer

    def _line(self, until: float) -> bytes:
        output = self._pipes()[1]
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError
                data = os.read(output.fileno(), 65536)
                if not data:
                    raise LoadError("the load process has ended; its own message is on stderr")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

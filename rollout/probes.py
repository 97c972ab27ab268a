"""Health probes: HTTP, TCP, or a command inside the replica, each with a limit on all of it together."""

from __future__ import annotations

import http.client
import os
import socket

from rollout.causes import caused_by, causes
from rollout.errors import EngineError
from rollout.model import HealthCheck, Replica
from rollout.ports import Clock, Engine

REASON_LIMIT = 120  # characters of a command's output that still are "a few words"

NOT_HTTP = "the answer is not HTTP"


class Probes:
    """`ports.Prober`. Safe to use from several threads: nothing is kept between two probes."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def probe(self, replica: Replica, address: str, check: HealthCheck, port: int) -> str | None:
        if check.path:
            return self._http(address, check.port or port, check)
        if check.command:
            return self._command(replica, check)
        if check.tcp or check.implied:
            return _tcp(address, check.port or port, check.timeout)
        return None  # Docker's HEALTHCHECK is all that was asked for

    def _http(self, address: str, port: int, check: HealthCheck) -> str | None:
        # lazily: it imports requests, some 80 ms
        import requests
        import urllib3.exceptions

        from rollout.probe_http import status

        headers = dict(check.headers)
        if check.host:
            headers["Host"] = check.host
        try:
            got = status(url(address, port, check.path), headers, check.timeout, self._clock)
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL) as error:
            return f"cannot be asked: {error}"
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return reason(error, check.timeout)
        except ValueError:
            return NOT_HTTP
        return None if any(low <= got <= high for low, high in check.expect) else f"HTTP {got}"

    def _command(self, replica: Replica, check: HealthCheck) -> str | None:
        begun = self._clock.now()
        try:
            result = self._engine.exec(replica.id, check.command, timeout=check.timeout)
        except EngineError as error:
            late = self._clock.now() - begun >= check.timeout
            return f"timed out after {check.timeout:g}s" if late else error.message
        if result.exit_code == 0:
            return None
        lines = result.output.strip().splitlines()
        return f"exit code {result.exit_code}" + (f": {lines[-1].strip()[:REASON_LIMIT]}" if lines else "")


def url(address: str, port: int, path: str) -> str:
    """Where to ask. `address` is an IP of either family."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/{path.removeprefix('/')}"


def _tcp(address: str, port: int, timeout: float) -> str | None:
    try:
        with socket.create_connection((address, port), timeout=timeout):
            return None
    except OSError as error:
        return reason(error, timeout)


def reason(error: BaseException, timeout: float) -> str:
    """Why a connection came to nothing, in a few words."""
    if caused_by(error, TimeoutError):
        return f"timed out after {timeout:g}s"
    if caused_by(error, http.client.RemoteDisconnected):
        return "closed without an answer"
    # requests' own exceptions are OSErrors too, without a number
    numbers = [cause.errno for cause in causes(error) if isinstance(cause, OSError) and cause.errno]
    if numbers:
        return os.strerror(numbers[0]).lower()
    if caused_by(error, http.client.HTTPException):
        return NOT_HTTP
    return str(error)[:REASON_LIMIT] or type(error).__name__

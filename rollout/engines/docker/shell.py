"""A shell kept open in a container: a command run in it takes some 5 ms, one that the engine starts 50 (PROXIES 2).

What is to be run comes to it as words, one a line, and is never read as shell code. An image without a shell has none.
"""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rollout.engines.docker import reading
from rollout.engines.docker.connection import Connection, Retry
from rollout.engines.docker.execution import FRAME
from rollout.errors import EngineError
from rollout.ports import Clock, ExecResult

# exec in a subshell: a name is a program's, never one of the shell's own commands
_LOOP = (
    'while IFS= read -r left; do set --; while [ "$left" -gt 0 ]; do IFS= read -r word || exit; set -- "$@" "$word"; '
    'left=$((left - 1)); done; (exec "$@") </dev/null 2>&1; printf "\\n%s %s\\n" "$0" "$?"; done'
)


class ShellLost(Exception):
    """There is no shell, or it has gone: the command was not run, or what became of it is not known."""


class Shells:
    """The shells in the proxy's container, one for each user; opened when first used, closed with the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], _Shell | None] = {}  # None: one could not be opened, or is not to be used
        connection.at_close(self.close)

    def run(self, container: str, argv: Sequence[str], user: str, timeout: float) -> ExecResult:
        """Run argv in the container's shell. Raises ShellLost; then the engine itself has to be asked."""
        if any("\n" in word for word in argv):
            raise ShellLost
        with self._lock:  # whoever comes meanwhile does not wait for a command of someone else
            shell = self._shell(container, user)
        return shell.run(argv, timeout)

    def warm_up(self, container: str, user: str = "") -> None:
        """Open the shell now. Never raises."""
        with self._lock, suppress(ShellLost):  # whoever runs a command meets it again
            self._shell(container, user)

    def close(self) -> None:
        with self._lock:
            for shell in self._open.values():
                if shell is not None:
                    shell.close()
            self._open.clear()

    def _shell(self, container: str, user: str) -> _Shell:
        key = (container, user)
        known = self._open.get(key)
        if known is None or known.closed:
            if key in self._open and known is None:
                raise ShellLost
            self._open[key] = None
            self._open[key] = known = _Shell.opened(self._connection, container, user)
        return known


class _Shell:
    """One shell. Commands run in it one after the other."""

    def __init__(self, response: Any, mark: str, clock: Clock) -> None:
        self._response = response
        self._clock = clock
        self._socket: socket.socket = response.raw._fp.fp.raw._sock
        self._mark = re.compile(rb"\n%s (\d+)\n\Z" % mark.encode())
        self._busy = threading.Lock()
        self.closed = False

    @classmethod
    def opened(cls, connection: Connection, container: str, user: str) -> _Shell:
        """Raises ShellLost where the engine is not on a local socket, or the container has no shell."""
        if not connection.client.base_url.startswith("http+docker"):
            raise ShellLost
        mark = secrets.token_hex(8)
        try:
            return cls(_started(connection, container, user, mark), mark, connection.clock)
        except (EngineError, AttributeError) as error:
            raise ShellLost from error

    def run(self, argv: Sequence[str], timeout: float) -> ExecResult:
        if not self._busy.acquire(blocking=False):
            raise ShellLost
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall("".join(f"{line}\n" for line in (len(argv), *argv)).encode(errors="surrogateescape"))
            return self._answer(self._clock.now() + timeout)
        except TimeoutError as error:
            self.close()
            raise EngineError(f"run {argv[0]}: timed out after {timeout:g}s") from error
        except OSError as error:
            self.close()
            raise ShellLost from error
        finally:
            self._busy.release()

    def close(self) -> None:
        self.closed = True
        self._socket.close()
        self._response.close()

    def _answer(self, deadline: float) -> ExecResult:
        output = bytearray()
        while not (ended := self._mark.search(output[-100:])):
            _, length = FRAME.unpack(self._exactly(FRAME.size, deadline))
            output += self._exactly(length, deadline)
        del output[len(output) - len(ended.group()) :]
        return ExecResult(int(ended.group(1)), output.decode(errors="replace"))

    def _exactly(self, size: int, deadline: float) -> bytes:
        got = bytearray()
        while len(got) < size:
            self._socket.settimeout(max(0.001, deadline - self._clock.now()))
            chunk = self._socket.recv(size - len(got))
            if not chunk:
                raise ConnectionResetError
            got += chunk
        return bytes(got)


def _started(connection: Connection, container: str, user: str, mark: str) -> Any:
    what = f"open a shell in {container[:12]}"

    def prepare(client: Any) -> dict[str, Any]:
        return reading.shaped(
            client.exec_create(container, ["sh", "-c", _LOOP, mark], stdin=True, user=user), {"Id": str}
        )

    prepared = connection.call(what, prepare, Retry.NEVER)
    client = connection.client
    url = f"{client.base_url}/v{client.api_version}/exec/{prepared['Id']}/start"
    upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}

    def start() -> Any:
        response = client.post(url, json={"Detach": False, "Tty": False}, headers=upgrade, stream=True, timeout=10)
        if response.status_code != 101:  # somebody between us and the engine passes nothing on
            response.close()
            raise ShellLost
        return response

    return connection.call(what, lambda _: start(), Retry.NEVER)

"""HAProxy's control sockets: the runtime socket of the serving worker, the master's, which also reaches old workers.

One command a connection: it is cheap (0.15 ms), and an answer can then only belong to its own question. Whatever comes
back that HAProxy would not say is ProxyUnreachable: a deploy must not act on it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

from rollout.errors import ProxyRejected, ProxyUnreachable
from rollout.ports import Clock
from rollout.proxies.haproxy_answers import Server, Worker, nonsense, parse_info, parse_servers
from rollout.waiting import DeadlinePassed, wait_for

ANSWER_LIMIT = 64 * 1024 * 1024  # bytes; all servers of 5000 backends are 3 MB
TIMEOUT = 5.0
WORKER_TIMEOUT = 0.5
MASTER_PATIENCE = 2.0
EVERY = "-1"  # in place of a backend's name
RELOAD_TIMEOUT = 60.0  # a port that is taken is retried by HAProxy for 2 s, large maps and certificates take their time

_WORKER = re.compile(r"(?P<pid>\d+)\s+worker\s", re.ASCII)
_MASTER = re.compile(r"(?P<pid>\d+)\s+master\s+(?P<reloads>\d+)(?:\s+\[failed:\s*(?P<failed>\d+)\])?", re.ASCII)


class _Gone(Exception):
    """The worker that was asked has ended."""


class Refused(Exception):
    """HAProxy understood the command and said no; the text is its own. Never leaves the HAProxy adapter."""


class ControlSocket:
    """`address` is the path of a UNIX socket or `tcp:HOST:PORT`. Raises ProxyUnreachable only."""

    def __init__(self, address: str, clock: Clock) -> None:
        self.address = address
        self._clock = clock

    def ask(self, command: str, timeout: float = TIMEOUT) -> str:
        """Send one command and return the whole answer. `timeout` (seconds) bounds all of it."""
        if not command.isascii() or not command.isprintable() or ";" in command:
            raise ProxyRejected(f"refusing to send {command!r} to HAProxy: it would be more than one command")
        deadline = self._clock.now() + timeout
        try:
            with self._connect(timeout) as connection:
                connection.sendall(command.encode("ascii") + b"\n")
                # the master keeps the connection open until it sees that nothing more will be asked
                connection.shutdown(socket.SHUT_WR)
                answer = self._read(connection, deadline)
        except TimeoutError as error:
            raise self._unreachable(f"did not answer {command!r} within {timeout:g} s") from error
        except OSError as error:
            raise self._unreachable(f"cannot be reached: {error.strerror or error}") from error
        if answer.startswith("Permission denied"):
            raise ProxyUnreachable(
                f"HAProxy's socket {self.address} does not allow {command!r}",
                hint="give it `level admin` in its `stats socket` line",
            )
        return answer

    def _connect(self, timeout: float) -> socket.socket:
        if self.address.startswith("tcp:"):
            host, _, port = self.address.removeprefix("tcp:").rpartition(":")
            return socket.create_connection((host.strip("[]"), int(port)), timeout)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(self.address)
        except BaseException:
            connection.close()
            raise
        return connection

    def _read(self, connection: socket.socket, deadline: float) -> str:
        received = bytearray()
        while True:
            left = deadline - self._clock.now()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            chunk = connection.recv(65536)
            if not chunk:
                return received.decode("utf-8", "replace")
            received += chunk
            if len(received) > ANSWER_LIMIT:
                raise self._unreachable("answers without end")

    def _unreachable(self, what: str) -> ProxyUnreachable:
        return ProxyUnreachable(
            f"HAProxy's socket {self.address} {what}",
            hint="is HAProxy running, and may this user write to the socket?",
        )


class Runtime:
    """The runtime socket: the servers of the worker that serves now."""

    def __init__(self, control: ControlSocket) -> None:
        self.address = control.address
        self._control = control

    def worker(self) -> Worker:
        return parse_info(self._control.ask("show info"))

    def servers(self, backend: str) -> dict[str, Server] | None:
        """The backend's servers by name; None when there is no such backend. Its cost does not grow with services."""
        return _servers(self._control.ask, backend)

    def run(self, command: str, says: str | None = "") -> None:
        """Run a command that must answer with `says` (empty: nothing; None: anything). Raises Refused."""
        answer = self._control.ask(command).strip()
        if says is None:
            return
        if answer != says if not says else says not in answer:
            raise Refused(answer or f"no answer to {command!r}")


class Silent(ProxyUnreachable):
    """One worker does not answer; it may be ending, hanging, or starting."""


class Master:
    """The master socket (`-S`): reload, and every worker, old ones included.

    A reload executes the master anew: for some milliseconds its socket is refused or reset, and a worker that ends is
    reported as alive, does not answer, or cannot be connected. What only reads is asked again until that is settled.
    """

    def __init__(self, control: ControlSocket, clock: Clock) -> None:
        self.address = control.address
        self._control = control
        self._clock = clock

    def workers(self) -> list[int]:
        """Pids of all live workers. A title says nothing: after a refused reload 3.2 calls the serving one old. One
        serves as long as the master answers: none at all is no answer, and proves no end of any."""
        lines = self._processes()
        found = [int(match["pid"]) for line in lines if (match := _WORKER.match(line))]
        if not found:
            raise nonsense("show proc", "\n".join(lines))
        return found

    def worker(self, pid: int) -> Worker | None:
        """That worker, None when it is gone. Raises Silent."""
        answer = self._of(pid, "show info")
        return None if answer is None else parse_info(answer)

    def servers(self, pid: int, backend: str | None) -> dict[str, Server] | None:
        """As `Runtime.servers`, as that worker knows them (`backend` None: of all); empty when it is gone. Raises
        Silent."""

        def ask(command: str) -> str:
            answer = self._of(pid, command)
            if answer is None:
                raise _Gone
            return answer

        try:
            return _servers(ask, backend or EVERY)
        except _Gone:
            return {}

    def sessions(self, pid: int) -> list[str]:
        """That worker's sessions as HAProxy prints them; none when it is gone. Raises Silent."""
        return (self._of(pid, "show sess") or "").splitlines()

    def close_session(self, pid: int, session: str) -> None:
        """Close one of them by its address; nothing when it has ended."""
        self._of(pid, f"shutdown session {session}")

    def _of(self, pid: int, command: str) -> str | None:
        def attempt() -> tuple[str | None] | None:
            try:
                answer = self._control.ask(f"@!{pid} {command}", WORKER_TIMEOUT)
            except ProxyUnreachable:
                answer = ""
            if answer and not answer.startswith(("Can't find the target PID", "Can't connect to the target CLI")):
                return (answer,)
            return (None,) if pid not in self.workers() else None

        try:
            return wait_for(self._clock, attempt, timeout=TIMEOUT, longest=0.05)[0]
        except DeadlinePassed:
            raise Silent(f"HAProxy's worker {pid} does not answer") from None

    def _processes(self) -> list[str]:
        def attempt() -> str | None:
            try:
                return self._control.ask("show proc")
            except ProxyUnreachable:
                return None

        try:
            answer = wait_for(self._clock, attempt, timeout=MASTER_PATIENCE, longest=0.05)
        except DeadlinePassed:
            answer = self._control.ask("show proc")
        if not answer.startswith("#<PID>") or not answer.endswith("\n\n"):  # cut off, it could hide an old worker
            raise nonsense("show proc", answer)
        return answer.splitlines()

    def reload(self) -> list[str]:
        """Load the configuration in new workers and wait for the verdict; HAProxy's log lines. Raises ProxyRejected."""
        before = self._reloads()
        try:
            answer = self._control.ask("reload", RELOAD_TIMEOUT)
        except ProxyUnreachable:  # before 2.7 the connection may be reset; if nothing was begun, that is seen below
            answer = ""
        if not answer.strip():  # before 2.7 it says nothing and works on
            return self._await_reload(before)
        verdict, _, log = answer.partition("\n--\n")
        lines = log.strip().splitlines()
        if verdict.strip() == "Success=1":
            return lines
        if verdict.strip() == "Success=0":
            raise ProxyRejected(
                "HAProxy refused the new configuration and serves on with the former one", details=lines
            )
        raise nonsense("reload", answer)

    def _await_reload(self, before: tuple[int, int]) -> list[str]:
        def finished() -> tuple[int, int] | None:
            try:
                now = self._reloads()
            except ProxyUnreachable:  # still loading: a port that is taken is tried for seconds
                return None
            return now if now != before else None

        try:
            _, failed = wait_for(self._clock, finished, timeout=RELOAD_TIMEOUT, longest=0.05)
        except DeadlinePassed:
            raise ProxyUnreachable("HAProxy's master does not answer after a reload") from None
        if failed:
            raise ProxyRejected("HAProxy refused the new configuration and serves on with the former one")
        return []

    def _reloads(self) -> tuple[int, int]:
        lines = self._processes()
        for line in lines:
            if found := _MASTER.match(line):
                return int(found["reloads"]), int(found["failed"] or 0)
        raise nonsense("show proc", "\n".join(lines))


def _servers(ask: Callable[[str], str], backend: str) -> dict[str, Server] | None:
    servers = parse_servers(ask(f"show stat {backend} 4 -1"))
    if servers != {}:
        return servers
    # no servers: or it was a frontend of the same name that answered, and the backend has to be asked by its number
    if "Can't find backend" in (state := ask(f"show servers state {backend}")):
        return None  # a frontend only
    for line in state.splitlines():
        if (words := line.split())[1:2] == [backend] and words[0].isdigit():
            return parse_servers(ask(f"show stat {words[0]} 4 -1"))
    return {}

"""The sidecar of this project, spoken to over its socket. With one, deploys, rollbacks and syncs are its; without one,
or where it does not let us in, the command line does the same itself."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from rollout import __version__
from rollout.errors import ExitCode, RolloutError
from rollout.events import Notice, Sink, from_json
from rollout.signals import Interruption

if TYPE_CHECKING:
    from rollout.cli.options import Globals
    from rollout.cli.session import Session
    from rollout.wiring import Wired

ANSWER = 30.0  # seconds an answer may take; events come with a heartbeat
GLANCE = 0.1  # seconds between two looks whether a signal came
HEADERS = {"User-Agent": f"rollout/{__version__}", "Host": "localhost", "Content-Type": "application/json"}
# what the sidecar says of the request itself is the answer; whatever else it says, we can do without it
FINAL = frozenset({"UsageError", "NoSuchThing", "SpecError", "LockHeld"})


class Absent(Exception):
    """No sidecar answers, or it does not want to: do it here."""


class Gone(Absent):
    """It went away while it was at work."""


class Reported(RolloutError):
    """An error as the sidecar told it; indistinguishable from one that was met here."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(str(told["message"]), hint=str(told["hint"]), details=[str(line) for line in told["details"]])
        self.exit_code = ExitCode(told["exit_code"])
        self._kind = str(told["error"])

    @property
    def kind(self) -> str:
        return self._kind


def delegate(
    running: Session, wired: Wired, address: str, body: Callable[[], Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Let the project's sidecar perform it; the operation once it has ended well. None: do it here. `body` is only
    called when there is one. Raises Reported."""
    sidecar, tell = Sidecar(wired.state.socket), running.teller(wired, notify=False)
    if not sidecar.answers():
        return None
    try:
        return sidecar.perform(address, body(), tell, running.interruption)
    except Gone:
        tell(Notice("", "the sidecar has gone away: going on without it"))
        return None
    except Absent:
        return None


def ask(said: Globals, address: str) -> dict[str, Any] | None:
    """What the sidecar of the project in this directory answers, without a look at the project's files. None: look
    yourself; also where flags or variables may mean another project."""
    from rollout.compose import Compose
    from rollout.state import StateDirectory

    meant = (*said.files, *said.env_files, *said.profiles, said.project_name, said.project_directory)
    if any(meant) or any(name.startswith("COMPOSE_") for name in os.environ):
        return None
    try:
        sidecar = Sidecar(StateDirectory.of(Compose().directory, os.environ).socket)
        return sidecar.get(address) if sidecar.answers() else None
    except (Absent, RolloutError):
        return None


class Sidecar:
    """Each method raises Absent, or Reported."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def answers(self) -> bool:
        try:
            with closing(self._connect()) as connection:
                connection.connect()
        except OSError:
            return False
        return True

    def get(self, address: str) -> dict[str, Any]:
        return self._ask("GET", address, None)

    def post(self, address: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", address, body)

    def perform(self, address: str, body: Mapping[str, Any], tell: Sink, interruption: Interruption) -> dict[str, Any]:
        """Begin an operation, tell its events, answer it once it has ended well. A signal asks the sidecar to end it.
        Absent: also when the sidecar has gone away meanwhile."""
        with interruption.guarded():
            operation = self.post(address, body)
            lines: SimpleQueue[bytes | None] = SimpleQueue()
            connection = self._connect()
            with closing(connection):
                reader = threading.Thread(target=_read, args=(connection, operation["id"], lines), daemon=True)
                reader.start()
                ended = self._follow(operation["id"], lines, tell, interruption)
        if ended["exit_code"]:
            raise Reported(ended)
        return ended

    def _follow(
        self, number: int, lines: SimpleQueue[bytes | None], tell: Sink, interruption: Interruption
    ) -> dict[str, Any]:
        asked = False
        kind = ""
        while True:
            if interruption() and not asked:
                with suppress(Absent):  # asked again soon: it goes on meanwhile, and so do we
                    self.post(f"/v1/operations/{number}/interrupt", {})
                    asked = True
            try:
                line = lines.get(timeout=GLANCE)
            except Empty:
                continue
            if line is None:
                raise Gone
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "end":
                found: dict[str, Any] = json.loads(value)
                return found
            elif name == "data" and (event := from_json(json.loads(value))) is not None:
                tell(event)

    def _ask(self, method: str, address: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            with closing(self._connect()) as connection:
                connection.request(method, address, json.dumps(body) if body is not None else None, HEADERS)
                answer = connection.getresponse()
                found: dict[str, Any] = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Absent from error
        if answer.status < 400:
            return found
        if found.get("error") in FINAL:
            raise Reported(found)
        raise Absent

    def _connect(self) -> http.client.HTTPConnection:
        return _Connection(self._path)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")  # a path of any length
        except OSError:
            sock.close()
            raise
        finally:
            os.close(directory)
        self.sock = sock


def _read(connection: http.client.HTTPConnection, number: int, lines: SimpleQueue[bytes | None]) -> None:
    """The lines of an operation's events, None at the end, in a thread: a signal must not wait for the next one."""
    try:
        connection.request("GET", f"/v1/operations/{number}/events", headers=HEADERS)
        for line in _lines(connection.getresponse()):
            lines.put(line)
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        pass  # closed under us, or gone: the end says all
    lines.put(None)


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := answer.readline():
        yield line

"""The sidecar's HTTP in this process, on real sockets: everything real but the project, which is a few values, and what
operations do, which each test says."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rollout.clock import SystemClock
from rollout.errors import UsageError
from rollout.events import Sink
from rollout.journal import SqliteJournal
from rollout.model import Counted, Pool, ProxyType, Revision, RevisionKey, WebhookSettings
from rollout.server.audit import Audit
from rollout.server.bus import Bus
from rollout.server.http import peer
from rollout.server.http.access import Access
from rollout.server.http.app import application
from rollout.server.http.limits import Limits, Rate
from rollout.server.http.serving import Http
from rollout.server.http.site import Site
from rollout.server.listening import Tcp, reached
from rollout.server.metrics import Metrics
from rollout.server.operations import Asked, ThreadOperations
from rollout.server.progress import Progress
from rollout.server.tally import Tally
from rollout.server.traffic import Traffic
from rollout.server.view import NoSuchThing, View
from rollout.wiring import Wired

TOKEN = "0123456789abcdef-the-token"
FREE = Limits(reads=Rate(10_000, 10_000), writes=Rate(10_000, 10_000), logins=Rate(10_000, 10_000))
SERVICES = ("web", "api")


def replica(service: str, number: int, revision: int, pool: str = "in") -> dict[str, Any]:
    return {
        "name": f"shop-{service}-{number}", "id": f"{number:02}" * 32, "state": "running", "health": "healthy",
        "ready": True, "revision": revision, "image": f"shop/{service}:{revision}",
        "address": f"10.0.0.{number}:8000", "pool": pool, "weight": int(pool == "in"),
    }  # fmt: skip


def service(name: str, revision: int = 2) -> dict[str, Any]:
    live = {"revision": revision, "image": f"shop/{name}:{revision}", "config_hash": "c0ffee", "image_id": "sha256:1"}
    first = 1 + 10 * SERVICES.index(name)
    return {
        "service": name, "live": live, "wanted": 2, "stale": [], "warm": None, "unfinished": None, "lock": None,
        "replicas": [replica(name, first, revision), replica(name, first + 1, revision)],
    }  # fmt: skip


class CountedProxy:
    """As much of a proxy as counting needs."""

    def mark(self, service: str) -> str:
        return "mark"

    def pool(self, service: str) -> Pool | None:
        return None

    def count_and_mark(self, service: str, marker: str) -> tuple[Counted, str]:
        return Counted(), "mark"

    def old_workers(self) -> int:
        return 1


class FixedView(View):
    """A project that is a few values and a real journal."""

    def __init__(self, journal: SqliteJournal, webhook: WebhookSettings | None) -> None:
        self.shown: dict[str, Any] = {
            "project": "shop",
            "proxy": {"type": "nginx", "where": "container shop-edge-1", "running": True},
            "services": [service(name) for name in SERVICES],
        }
        project = SimpleNamespace(
            name="shop", services=dict.fromkeys(SERVICES), webhook=webhook, proxy=SimpleNamespace(type=ProxyType.NGINX)
        )
        engine = SimpleNamespace(replicas=lambda service: [])
        ports = SimpleNamespace(journal=journal, proxy=CountedProxy(), engine=engine)
        lock = SimpleNamespace(holder=lambda service: {"pid": 1})
        self._wired = SimpleNamespace(project=project, ports=ports, journal=journal, proxy=ports.proxy, lock=lock)
        self._alone = threading.Lock()

    @contextmanager
    def looking(self) -> Iterator[Wired]:
        with self._alone:
            yield cast("Wired", self._wired)

    def status(self) -> dict[str, Any]:
        return self.shown

    def known(self, *services: str) -> None:
        for name in services:
            if name not in SERVICES:
                raise NoSuchThing(f"there is no service {name!r} in this project")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """The running thing. `performed` are the operations that were begun."""

    directory: Path
    site: Site
    journal: SqliteJournal
    address: tuple[str, int]
    performed: list[Asked] = field(default_factory=list)

    def unix(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, raw: bytes = b""
    ) -> Answer:
        """One request over the UNIX socket."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = connect(self.directory / "api.sock")
        return _asked(connection, method, path, body, headers, raw)

    def tcp(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, raw: bytes = b""
    ) -> Answer:
        return _asked(http.client.HTTPConnection(*self.address, timeout=20), method, path, body, headers, raw)

    def audited(self) -> list[dict[str, Any]]:
        return list(self.site.audit.lines())


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    with reached(path.parent) as directory:
        sock.connect(f"{directory}/{path.name}")
    return sock


def _asked(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object,
    headers: Mapping[str, str] | None,
    raw: bytes,
) -> Answer:
    sent = raw or (json.dumps(body).encode() if body is not None else None)
    kind = {"Content-Type": "application/json"} if sent is not None else {}
    with contextlib.closing(connection):
        connection.request(method, path, sent, {**kind, **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


@contextmanager
def serving(
    directory: Path,
    perform: Callable[[Asked, Sink], None] = lambda asked, emit: None,
    *,
    limits: Limits = FREE,
    webhook: WebhookSettings | None = None,
    tcp: Tcp | None = None,
) -> Iterator[Api]:
    """HTTP on `api.sock` in the directory and on a free port of loopback, until the end of the block. `perform` is
    what an operation does instead of wiring a project; it may raise."""
    with contextlib.ExitStack() as stack:
        if tcp is None:
            listen = f"127.0.0.1:{stack.enter_context(kept_port())}"
            tcp = Tcp(listen=listen, token_file=str(directory / "token"))
        yield stack.enter_context(_serving(directory, perform, limits, webhook, tcp))


@contextmanager
def _serving(
    directory: Path,
    perform: Callable[[Asked, Sink], None],
    limits: Limits,
    webhook: WebhookSettings | None,
    tcp: Tcp,
) -> Iterator[Api]:
    clock = SystemClock()
    bus = Bus(clock)
    journal = SqliteJournal(directory / "state.db", clock)
    remember(journal)
    view = FixedView(journal, webhook)
    performed: list[Asked] = []

    def wire(asked: Asked, emit: Sink) -> contextlib.AbstractContextManager[Wired]:
        performed.append(asked)
        perform(asked, emit)
        raise UsageError("this project is not real")

    (directory / "token").write_text(f"ci:{TOKEN}\n")
    audit = Audit(directory, clock)
    operations, traffic = ThreadOperations(wire, bus, clock, audit.begun), Traffic(view, clock)
    metrics = Metrics(view, traffic, Tally(reloads=3, refusals=1), clock)
    site = Site(view, operations, bus, Progress(clock), traffic, metrics, audit, clock, boot="b007")

    def settle() -> None:
        operations.join()
        site.closing.set()
        bus.wake()

    app = application(site, Access(tcp.tokens(), clock), limits)
    part = Http(app, directory / "api.sock", tcp, settle, bus, clock)
    with running(operations, part):
        _wait_for(tcp)
        yield Api(directory, site, journal, tcp.address(), performed)
    journal.close()


def _wait_for(tcp: Tcp) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(tcp.address(), timeout=5):
            return
        time.sleep(0.005)
    raise AssertionError("the sidecar's HTTP part does not listen")


@contextmanager
def running(*parts: Any) -> Iterator[None]:
    """The parts in threads; what one raises is raised at the end."""
    stop, errors = threading.Event(), []

    def run(part: Any) -> None:
        try:
            part.run(stop)
        except BaseException as error:  # noqa: BLE001  # raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(part,), name=part.name) for part in parts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not [t for t in threads if t.is_alive()]
    if errors:
        raise errors[0]


def remember(journal: SqliteJournal) -> None:
    """Two rollouts of web: one deployed, one under way."""
    for number in (1, 2):
        key = RevisionKey(f"hash-{number}", f"sha256:{number}")
        target: Revision = journal.revision("web", key, f"shop/web:{number}", "services: {}")
        record = journal.begin(
            what="deploy",
            strategy="rolling",
            target=target,
            old=(),
            previous=Pool("web"),
            marker="",
            forced=False,
        )
        if number == 1:
            journal.finish(record.id, "deployed", receipt(record.id))


def receipt(rollout: int) -> dict[str, Any]:
    return {
        "service": "web", "rollout": rollout, "what": "deploy", "outcome": "deployed", "strategy": "rolling",
        "revision": 1, "previous": None, "replicas": 2, "started_at": 1_700_000_000.0, "seconds": 4.5,
        "phases": {"start": 1.5, "drain": 0.5}, "requests": {"1": {"requests": 1000, "failed": 2}}, "uncounted": "",
        "cut": 3, "old": None, "new": {"cpu_seconds": 0.5, "memory_bytes": 1_000_000}, "reason": "",
    }  # fmt: skip


def hasty_once_it_has_answered(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A request's head has to come within so many seconds, but not the first one of all: a machine may be busy."""
    complete = peer.PeerProtocol.on_response_complete

    def completed(protocol: peer.PeerProtocol) -> None:
        monkeypatch.setattr(peer, "REQUEST", seconds)
        complete(protocol)

    monkeypatch.setattr(peer, "REQUEST", 60.0)
    monkeypatch.setattr(peer.PeerProtocol, "on_response_complete", completed)


@contextmanager
def kept_port() -> Iterator[int]:
    """A free port of loopback that nobody else is given in this block, while a server that reuses addresses can listen
    on it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


def with_token(headers: Mapping[str, str] | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}", **(headers or {})}

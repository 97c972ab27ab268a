"""Probes against real servers: each one is a socket in a thread that answers with exactly the bytes it was given."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from rollout.clock import SystemClock
from rollout.errors import EngineError
from rollout.model import HealthCheck, Replica, ReplicaState, RevisionKey
from rollout.ports import Engine, ExecResult
from rollout.probes import Probes, url

REPLICA = Replica("a" * 64, "shop-web-1", "web", 1, RevisionKey("h", "sha256:i"), ReplicaState.RUNNING)
TIMEOUT = 0.3  # where it must run out
AMPLE = 10.0  # where it must not
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"


class Commands:
    """The one method of an engine that a prober uses."""

    def __init__(self, answer: ExecResult | EngineError) -> None:
        self.answer = answer
        self.asked: list[tuple[str, tuple[str, ...], float]] = []

    def exec(self, container: str, argv: Sequence[str], *, user: str = "", timeout: float = 30.0) -> ExecResult:
        self.asked.append((container, tuple(argv), timeout))
        if isinstance(self.answer, EngineError):
            raise self.answer
        return self.answer


class Server:
    """Accepts one connection after the other and hands each to `serve` with the request that came in."""

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.over = threading.Event()


@contextmanager
def serving(serve: Callable[[socket.socket, Server], None]) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        server.requests.append(connection.recv(65536))
                        serve(connection, server)
                    except OSError:
                        pass  # the prober has gone away, which is its right

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answering(data: bytes) -> Callable[[socket.socket, Server], None]:
    return lambda connection, _: connection.sendall(data)


def trickling(data: bytes) -> Callable[[socket.socket, Server], None]:
    """One byte each 50 ms, so that no single read ever waits for long."""

    def serve(connection: socket.socket, server: Server) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            if server.over.wait(0.05):
                return

    return serve


def after(data: bytes, serve: Callable[[socket.socket, Server], None]) -> Callable[[socket.socket, Server], None]:
    def both(connection: socket.socket, server: Server) -> None:
        connection.sendall(data)
        serve(connection, server)

    return both


def silent(_: socket.socket, server: Server) -> None:
    server.over.wait(5)


def probe(port: int, check: HealthCheck, engine: object = None, address: str = "127.0.0.1") -> str | None:
    wanted: Engine = engine or Commands(ExecResult(0, ""))  # type: ignore[assignment]
    return Probes(wanted, SystemClock()).probe(REPLICA, address, check, port)


def http(serve: Callable[[socket.socket, Server], None], **settings: object) -> str | None:
    check = HealthCheck(path="/healthz", **{"timeout": AMPLE, **settings})  # type: ignore[arg-type]
    with serving(serve) as server:
        return probe(server.port, check)


@pytest.mark.parametrize("location", [b"/caf\xe9", b"http://[bad", b"//[::1", b"http://:99999999/", b"/elsewhere"])
def test_where_a_redirect_leads_is_not_looked_at(location: bytes) -> None:
    assert (
        http(answering(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")) == "HTTP 302"
    )


@pytest.mark.parametrize("size", [b"-5", b"zz", b""])
def test_a_chunk_of_no_size_is_no_http(size: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n\r\n"
    assert http(answering(answer)) == "the answer is not HTTP"


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as taken:  # by one that never listens: else it may be another test's by now
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_an_accepted_status_passes() -> None:
    assert http(answering(OK)) is None


@pytest.mark.parametrize(
    ("line", "expect", "reason"),
    [
        ("503 Service Unavailable", ((200, 299),), "HTTP 503"),
        ("404 Not Found", ((200, 299),), "HTTP 404"),
        ("204 No Content", ((200, 299),), None),
        ("300 Multiple Choices", ((200, 299),), "HTTP 300"),
        ("401 Unauthorized", ((200, 299), (401, 401)), None),
        ("200 OK", ((401, 401),), "HTTP 200"),
    ],
)
def test_status_against_what_is_expected(line: str, expect: tuple[tuple[int, int], ...], reason: str | None) -> None:
    assert http(answering(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n".encode()), expect=expect) == reason


def test_a_redirect_is_not_followed() -> None:
    with serving(answering(OK)) as elsewhere:
        moved = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{elsewhere.port}/\r\nContent-Length: 0\r\n\r\n"
        assert http(answering(moved.encode())) == "HTTP 302"
        assert http(answering(moved.encode()), expect=((302, 302),)) is None
        assert elsewhere.requests == []


def test_what_is_sent() -> None:
    check = HealthCheck(path="/health?deep=1", host="shop.example", headers=(("X-Probe", "rollout"),), timeout=AMPLE)
    with serving(answering(OK)) as server:
        assert probe(server.port, check) is None
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /health?deep=1 HTTP/1.1"
    assert {"Host: shop.example", "X-Probe: rollout", "Connection: close"} <= set(lines)
    assert sum(line.lower().startswith("host:") for line in lines) == 1


def test_the_check_s_own_port_wins(free_port: int) -> None:
    with serving(answering(OK)) as server:
        assert probe(free_port, HealthCheck(path="/", port=server.port, timeout=AMPLE)) is None


def test_proxies_and_credentials_of_the_environment_are_not_heeded(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert http(answering(OK)) is None


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        pytest.param(silent, "timed out after 0.3s", id="accepts, never answers"),
        pytest.param(trickling(b"HTTP/1.1 200 OK\r\n" * 9), "timed out after 0.3s", id="trickles its header"),
        pytest.param(after(HEAD, trickling(b"x" * 99)), "timed out after 0.3s", id="trickles its body"),
        pytest.param(after(HEAD + b"x", silent), "timed out after 0.3s", id="stops in its body"),
    ],
)
def test_answers_that_never_come(serve: Callable[[socket.socket, Server], None], reason: str) -> None:
    begun = time.monotonic()
    assert http(serve, timeout=TIMEOUT) == reason
    assert time.monotonic() - begun < TIMEOUT + 5


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        pytest.param(answering(b""), "closed without an answer", id="closes"),
        pytest.param(answering(b"220 mail.example ESMTP\r\n"), "the answer is not HTTP", id="speaks SMTP"),
    ],
)
def test_answers_that_are_none(serve: Callable[[socket.socket, Server], None], reason: str) -> None:
    assert http(serve) == reason


def test_a_connection_that_is_reset() -> None:
    def reset(connection: socket.socket, _: Server) -> None:
        # linger 0: close sends RST
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    assert http(reset) == "connection reset by peer"


def test_an_endless_body_is_not_read_to_its_end() -> None:
    def endless(connection: socket.socket, server: Server) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not server.over.is_set():
            connection.sendall(b"x" * 65536)

    assert http(endless) is None


@pytest.mark.parametrize("check", [HealthCheck(path="/"), HealthCheck(tcp=True), HealthCheck()])
def test_nobody_listens(check: HealthCheck, free_port: int) -> None:
    assert probe(free_port, check) == "connection refused"


@pytest.mark.parametrize("check", [HealthCheck(tcp=True), HealthCheck()], ids=["asked for", "implied"])
def test_tcp_passes_when_the_port_accepts(check: HealthCheck) -> None:
    with serving(silent) as server:
        assert probe(server.port, check) is None


def test_tcp_to_a_full_backlog_times_out() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):  # fills it
            check = HealthCheck(tcp=True, timeout=TIMEOUT)
            assert probe(listener.getsockname()[1], check) == "timed out after 0.3s"


def test_docker_s_own_check_is_not_the_prober_s_business(free_port: int) -> None:
    assert probe(free_port, HealthCheck(docker=True)) is None


@pytest.mark.parametrize("header", [("X-A", "b\r\nX-Evil: 1"), ("X-A\r\nX-Evil", "1"), ("X-A", "b\nX-Evil: 1")])
def test_a_line_break_in_a_header_is_never_sent(header: tuple[str, str]) -> None:
    with serving(answering(OK)) as server:
        reason = probe(server.port, HealthCheck(path="/", headers=(header,), timeout=AMPLE))
    assert reason is not None
    assert reason.startswith("cannot be asked")
    assert not any(b"\nX-Evil" in request for request in server.requests)


def test_a_line_break_in_the_host_or_the_path_is_never_sent() -> None:
    with serving(answering(OK)) as server:
        assert probe(server.port, HealthCheck(path="/", host="a\r\nX-Evil: 1", timeout=AMPLE)) is not None
        probe(server.port, HealthCheck(path="/ HTTP/1.1\r\nX-Evil: 1", timeout=AMPLE))
    assert not any(b"\nX-Evil" in request for request in server.requests)


def test_a_path_cannot_lead_to_another_host(free_port: int) -> None:
    with serving(answering(OK)) as server:
        assert probe(server.port, HealthCheck(path=f"@127.0.0.1:{free_port}/", timeout=AMPLE)) is None
        assert probe(server.port, HealthCheck(path=f"//127.0.0.1:{free_port}/", timeout=AMPLE)) is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [("10.0.0.2", "http://10.0.0.2:80/x"), ("fd00::2", "http://[fd00::2]:80/x")],
)
def test_urls_of_both_families(address: str, expected: str) -> None:
    assert url(address, 80, "/x") == expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ExecResult(0, "fine"), None),
        (ExecResult(1, "checking\nno database\n"), "exit code 1: no database"),
        (ExecResult(127, ""), "exit code 127"),
        (ExecResult(1, "x" * 500), "exit code 1: " + "x" * 120),
        (EngineError("container aaaa is not running"), "container aaaa is not running"),
    ],
)
def test_a_command_passes_when_it_exits_with_0(answer: ExecResult | EngineError, reason: str | None) -> None:
    engine = Commands(answer)
    assert probe(80, HealthCheck(command=("check", "it"), timeout=2.0), engine) == reason
    assert engine.asked == [(REPLICA.id, ("check", "it"), 2.0)]


class Ticking:
    """A clock on which each look takes a second."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        self.time += 1.0
        return self.time

    wall = now

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_a_command_that_took_its_whole_time_timed_out() -> None:
    engine: Engine = Commands(EngineError("whatever the engine says"))  # type: ignore[assignment]
    reason = Probes(engine, Ticking()).probe(REPLICA, "", HealthCheck(command=("sleep", "9"), timeout=1.0), 80)
    assert reason == "timed out after 1s"

"""How long a connection is kept, and how many: a client that is slow, or has gone, holds up nobody else."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout.events import Warned
from rollout.server.http import limits, peer
from tests.api.bench import TOKEN, Api, connect, hasty_once_it_has_answered, serving

ICON = b"GET /static/icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n"
SCRIPT = b"GET /static/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROJECT = f"GET /v1/project HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
LONG = "x" * 10_000_000
PART = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"

Place = Callable[[Api], socket.socket]


def tcp(api: Api) -> socket.socket:
    return socket.create_connection(api.address, timeout=30)


def unix(api: Api) -> socket.socket:
    return connect(api.directory / "api.sock")


def answered(client: socket.socket) -> None:
    """ICON's answer has come, and nothing after it."""
    heard = b""
    while not heard.endswith(b"</svg>\n"):
        more = client.recv(65536)
        assert more, f"it was closed after {heard!r}"
        heard += more


def to_its_end(client: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    heard = b""
    with client, contextlib.suppress(ConnectionResetError):
        while more := client.recv(65536):
            heard += more
    return heard


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "REQUEST", 0.5)
    monkeypatch.setattr(peer, "UNREAD", 0.5)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\n"])
@pytest.mark.parametrize("place", [tcp, unix])
def test_a_request_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place, start: bytes
) -> None:
    with serving(tmp_path) as api:
        first = place(api)
        first.sendall(start)
        assert to_its_end(first) == b""
        hasty_once_it_has_answered(monkeypatch, 0.5)
        client = place(api)
        client.sendall(ICON)
        answered(client)
        with contextlib.suppress(BrokenPipeError):  # it is over by now
            client.sendall(start)
        assert to_its_end(client) == b"", "nor the next one"


def test_a_body_that_nobody_wants_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty_once_it_has_answered(monkeypatch, 0.5)
    with serving(tmp_path) as api:
        client = tcp(api)
        client.sendall(PART % b"/v1/deploy")
        assert client.recv(13) == b"HTTP/1.1 401 "
        client.sendall(b" ")
        assert to_its_end(client)


@pytest.mark.parametrize("place", [tcp, unix])
@pytest.mark.parametrize("path", [b"/v1/webhook", b"/login"])
def test_a_body_has_to_be_complete_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place, path: bytes
) -> None:
    monkeypatch.setattr(limits, "BODY", 0.5)
    with serving(tmp_path) as api, place(api) as client:
        client.sendall(PART % path)
        for _ in range(2):  # also when it does come, by and by
            time.sleep(0.1)
            client.sendall(b" ")
        answer = b""
        while not answer.endswith(b"}"):
            more = client.recv(65536)
            assert more, f"it was closed after {answer!r}"
            answer += more
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"error":"TooSlow"' in answer


def test_a_client_that_goes_before_its_body_is_complete_is_no_bug(tmp_path: Path) -> None:
    with serving(tmp_path) as api, api.site.bus.listening() as heard:
        for path in (b"/v1/webhook", b"/login"):
            with tcp(api) as client:
                client.sendall(ICON)
                answered(client)
                client.sendall(PART % path)
                name = client.getsockname()
            until_gone(api, name)
        assert api.unix("GET", "/v1/services").status == 200
        assert list(heard.take(0)) == []


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("requests", [SCRIPT * 1000, PROJECT], ids=["many", "long"])
def test_who_reads_no_answer_is_not_waited_for(tmp_path: Path, requests: bytes) -> None:
    with serving(tmp_path) as api, socket.socket() as client:
        api.site.view.shown["project"] = LONG  # type: ignore[attr-defined]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(api.address)
        client.sendall(requests)
        assert client.recv(1)
        until_gone(api, client.getsockname())


def until_gone(api: Api, client: tuple[str, int]) -> None:
    """Until the sidecar holds no more the connection that this client made."""
    ours, theirs = (f":{port:04X}" for port in (api.address[1], client[1]))
    end = time.monotonic() + 30
    while any(
        line[1].endswith(ours) and line[2].endswith(theirs) and line[9] != "0"  # without inode: only the kernel's
        for line in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    ):
        assert time.monotonic() < end, "it is still there"
        time.sleep(0.05)


def test_an_answer_is_not_cut_however_slowly_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty_once_it_has_answered(monkeypatch, 0.5)
    monkeypatch.setattr(peer, "UNREAD", 1.5)
    with serving(tmp_path) as api, unix(api) as client:
        api.site.view.shown["project"] = LONG  # type: ignore[attr-defined]
        client.sendall(ICON + PROJECT)
        heard = 0
        for _ in range(16):
            heard += len(client.recv(1_000_000))
            time.sleep(0.25)
        assert heard + len(to_its_end(client)) > len(LONG)


def test_a_stream_is_kept_while_nothing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty_once_it_has_answered(monkeypatch, 0.5)
    with serving(tmp_path) as api, unix(api) as stream:
        stream.sendall(ICON + b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = b""
        while b": rollout" not in heard:
            more = stream.recv(65536)
            assert more, f"it was closed after {heard!r}"
            heard += more
        assert to_its_end(tcp(api)) == b"", "it came later and is over: so is the stream's own time"
        api.site.bus(Warned("", "later", "still heard"))
        while b"still heard" not in heard:
            more = stream.recv(65536)
            assert more, "it was closed"
            heard += more


def test_too_many_connections_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "CONNECTIONS", 3)
    with serving(tmp_path) as api, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(tcp(api))
        assert to_its_end(tcp(api)) == b""
        assert api.unix("GET", "/v1/services").status == 200, "each place has its own"

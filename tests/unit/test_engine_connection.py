"""The connection to the engine against stand-ins that listen on a real socket and misbehave in one exact way."""

from __future__ import annotations

import http.server
import inspect
import json
import os
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker.credentials.errors
import docker.errors
import pytest
import requests

from rollout.engines.docker.client import MEANINGS, translate
from rollout.engines.docker.connection import RETRY_FOR, Connection, EngineAnswer, Retry
from rollout.errors import EngineError, ExitCode

Handler = Callable[["Answers"], None]


class Answers(http.server.BaseHTTPRequestHandler):
    """Speaks HTTP/1.1; `/_ping` is answered well, everything else by the test's own `handler`."""

    protocol_version = "HTTP/1.1"
    server: Engine

    def address_string(self) -> str:
        return "client"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: Any, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path}")
        if self.path == "/_ping":
            self.answer(200, "OK", **self.server.ping)
        else:
            self.server.handler(self)

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815  # the base class looks for these names


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, handler: Handler, ping: dict[str, str]) -> None:
        super().__init__(str(path), Answers)
        self.handler, self.ping = handler, ping
        self.asked: list[str] = []

    def handle_error(self, *_: object) -> None:
        pass  # a reset by the test itself


class VirtualClock:
    """Time that passes only in `sleep`."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds


def well(answers: Answers) -> None:
    answers.answer(200, [])


def drop(answers: Answers) -> None:
    """Close without a word, as an engine does that is being restarted."""
    answers.close_connection = True
    answers.connection.shutdown(socket.SHUT_RDWR)


def in_turn(*handlers: Handler) -> Handler:
    """The first handler for the first request, and so on; the last one for ever."""
    left = list(handlers)
    return lambda answers: (left.pop(0) if len(left) > 1 else left[0])(answers)


@contextmanager
def engine(
    tmp_path: Path, handler: Handler = well, version: str | None = "1.41"
) -> Iterator[tuple[Engine, Connection, VirtualClock]]:
    clock = VirtualClock()
    path = tmp_path / "docker.sock"
    with Engine(path, handler, {"Api_Version": version} if version else {}) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        connection = Connection(clock, {"DOCKER_HOST": f"unix://{path}"})
        try:
            yield server, connection, clock
        finally:
            connection.close()
            server.shutdown()
            thread.join()


def containers(client: Any) -> Any:
    return client.containers()


def refusal(environ: dict[str, str]) -> EngineError:
    connection = Connection(VirtualClock(), environ)
    with pytest.raises(EngineError) as caught:
        connection.call("list", containers, Retry.ANY)
    connection.close()
    assert caught.value.exit_code is ExitCode.UNREACHABLE
    assert caught.value.hint
    return caught.value


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [docker.errors, docker.credentials.errors])
def test_every_exception_of_the_sdk_has_a_meaning(module: Any) -> None:
    own = {kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__}
    exceptions = {kind for kind in own if issubclass(kind, Exception)}
    named = {kind for kind, _ in MEANINGS}
    inherited = {docker.credentials.errors.CredentialsNotFound, docker.credentials.errors.InitializationError}
    assert exceptions
    assert exceptions - inherited <= named


def test_no_meaning_is_hidden_behind_a_more_general_one() -> None:
    kinds = [kind for kind, _ in MEANINGS]
    for i, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:i]), kind


@pytest.mark.parametrize(
    ("reason", "message", "hint"),
    [
        (FileNotFoundError(2, "No such file"), "no Docker engine listens at unix:///x", "systemctl start docker"),
        (PermissionError(13, "Permission denied"), "permission denied on the Docker engine's socket", "group docker"),
        (ConnectionRefusedError(111, "refused"), "refuses connections", "systemctl start docker"),
        (ssl.SSLError(1, "wrong version"), "no TLS connection", "DOCKER_CERT_PATH"),
        (socket.gaierror(-2, "unknown"), "has no address", "DOCKER_HOST"),
        (ConnectionResetError(104, "reset"), "was lost", "systemctl start docker"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_why_there_is_no_connection(reason: Exception, message: str, hint: str) -> None:
    error = translate(requests.exceptions.ConnectionError(reason), "list", where="unix:///x")
    assert message in error.message
    assert hint in error.hint


def test_no_socket(tmp_path: Path) -> None:
    error = refusal({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert error.message == f"no Docker engine listens at unix://{tmp_path}/none.sock"


def test_a_socket_nobody_listens_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "docker.sock"))
    assert "refuses connections" in refusal({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}).message


def test_an_engine_that_is_too_old(tmp_path: Path) -> None:
    with engine(tmp_path, version="1.40") as (_, connection, _), pytest.raises(EngineError) as caught:
        connection.call("list", containers)
    assert "too old: API 1.40, needed 1.41" in caught.value.message
    assert "20.10" in caught.value.hint


def test_something_that_is_no_engine(tmp_path: Path) -> None:
    with engine(tmp_path, version=None) as (_, connection, _), pytest.raises(EngineError, match="not a Docker engine"):
        connection.call("list", containers)


@pytest.mark.parametrize(
    ("offered", "spoken"), [("1.41", "1.41"), ("1.45", "1.45"), ("1.51", "1.51"), ("1.99", "1.51")]
)
def test_the_version_spoken_is_the_engine_s_but_none_untried(tmp_path: Path, offered: str, spoken: str) -> None:
    with engine(tmp_path, version=offered) as (server, connection, _):
        connection.call("list", containers)
        assert server.asked[0] == "GET /_ping"
        assert server.asked[1].startswith(f"GET /v{spoken}/containers/json")


def test_an_answer_keeps_the_engine_s_words(tmp_path: Path) -> None:
    def no(answers: Answers) -> None:
        answers.answer(409, {"message": "container is marked for removal"})

    with engine(tmp_path, no) as (_, connection, clock), pytest.raises(EngineAnswer) as caught:
        connection.call("stop it", containers, Retry.ANY)
    assert caught.value.status == 409
    assert caught.value.message == "the Docker engine could not stop it: container is marked for removal"
    assert clock.sleeps == []


# --- retries --------------------------------------------------------------------------------------------------


def broken(answers: Answers) -> None:
    answers.answer(500, {"message": "containerd is not there"})


@pytest.mark.parametrize(
    ("trouble", "retry", "repeated"),
    [
        (drop, Retry.ANY, True),
        (drop, Retry.LOST, True),
        (drop, Retry.NEVER, False),
        (broken, Retry.ANY, True),
        (broken, Retry.LOST, False),
        (broken, Retry.NEVER, False),
    ],
)
def test_what_is_repeated_for_what(tmp_path: Path, trouble: Handler, retry: Retry, repeated: bool) -> None:
    with engine(tmp_path, in_turn(well, trouble, trouble, well)) as (server, connection, clock):
        connection.call("list", containers)
        if repeated:
            assert connection.call("list", containers, retry) == []
            assert len(clock.sleeps) == 2
        else:
            with pytest.raises(EngineError):
                connection.call("list", containers, retry)
            assert clock.sleeps == []
        assert len(server.asked) == (5 if repeated else 3)  # the ping is one


@pytest.mark.parametrize("version", ["x", "1.x", "1.", "\u00b2"])
def test_a_version_that_is_none(tmp_path: Path, version: str) -> None:
    with (
        engine(tmp_path, version=version) as (_, connection, _clock),
        pytest.raises(EngineError, match="not a Docker engine"),
    ):
        connection.call("list", containers)


def nested(answers: Answers) -> None:
    answers.send_response(200)
    answers.send_header("Content-Length", "100000")
    answers.end_headers()
    answers.wfile.write(b"[" * 100_000)


@pytest.mark.parametrize(
    ("handler", "ask"),
    [
        (nested, containers),
        (lambda a: a.answer(200, {}, X_Docker_Container_Path_Stat="%%%"), lambda c: c.get_archive("x", "/f")),
        (lambda a: a.answer(200, {}, X_Docker_Container_Path_Stat="/w=="), lambda c: c.get_archive("x", "/f")),
    ],
    ids=["nested without end", "head that is no JSON", "head that is no text"],
)
def test_an_answer_that_the_sdk_cannot_decode(tmp_path: Path, handler: Handler, ask: Callable[[Any], Any]) -> None:
    with (
        engine(tmp_path, handler) as (_, connection, _clock),
        pytest.raises(EngineError, match="makes no sense"),
    ):
        connection.call("read", ask, Retry.NEVER)


@pytest.mark.parametrize(
    "ask", [lambda c: c.logs("x"), lambda c: c.get_archive("x", "/f")[1]["mode"]], ids=["logs", "archive"]
)
def test_an_answer_that_lacks_what_the_sdk_takes_for_granted(tmp_path: Path, ask: Callable[[Any], Any]) -> None:
    """`logs` looks first whether there is a terminal; an archive's head says what the file is."""
    with (
        engine(tmp_path, lambda a: a.answer(200, {"nonsense": [None, 42]})) as (_, connection, _clock),
        pytest.raises(EngineError, match="makes no sense"),
    ):
        connection.call("read", ask, Retry.NEVER)


def test_repeating_ends(tmp_path: Path) -> None:
    with engine(tmp_path, in_turn(well, drop)) as (_, connection, clock):
        connection.call("list", containers)
        with pytest.raises(EngineError, match="was lost") as caught:
            connection.call("list", containers, Retry.ANY)
        assert caught.value.transient
        assert RETRY_FOR <= clock.time < RETRY_FOR + 2


def test_an_engine_that_was_there_is_waited_for(tmp_path: Path) -> None:
    """As in a restart of dockerd: the socket is gone for a while, then there again."""
    path = tmp_path / "docker.sock"
    with engine(tmp_path) as (_, connection, clock):
        connection.call("list", containers)
        connection.client.close()  # no idle connection is left to a listener that is gone
        away = tmp_path / "away"
        path.rename(away)
        pause = clock.sleep

        def back_after_a_while(seconds: float) -> None:
            pause(seconds)
            if clock.time > 1 and away.exists():
                away.rename(path)

        clock.sleep = back_after_a_while  # type: ignore[method-assign]
        assert connection.call("start", containers, Retry.LOST) == []
        assert 1 < clock.time < 3


# --- where the engine is --------------------------------------------------------------------------------------


def test_the_context_of_the_cli_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    host = f"unix://{tmp_path}/docker.sock"
    command = ["docker", "context", "create", "elsewhere", "--docker", f"host={host}"]
    subprocess.run(command, check=True, capture_output=True)
    with engine(tmp_path) as (server, _, clock):
        named = Connection(clock, {"DOCKER_CONTEXT": "elsewhere"})
        named.call("list", containers)
        named.close()
        (tmp_path / "config.json").write_text('{"currentContext": "elsewhere"}')
        current = Connection(clock, {})
        current.call("list", containers)
        current.close()
        assert server.asked.count("GET /_ping") == 2


def test_a_context_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert "context nowhere does not exist" in refusal({"DOCKER_CONTEXT": "nowhere"}).message


def test_certificates_that_are_missing(tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    assert "DOCKER_CERT_PATH" in refusal(environ).hint


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA and one certificate of it, for the engine and the client alike: ca.pem, cert.pem, key.pem."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for arguments in (
        [*new, "-subj", "/CN=ca", "-keyout", "ca-key.pem", "-out", "ca.pem"],
        [*new, "-subj", "/CN=engine", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
         "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-keyout", "key.pem", "-out", "cert.pem"],
    ):  # fmt: skip
        subprocess.run(arguments, cwd=folder, check=True, capture_output=True)
    return folder


class TlsEngine(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    handler = staticmethod(well)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[str] = []
        self.ping = {"Api_Version": "1.41"}

    def handle_error(self, *_: object) -> None:
        pass  # a client that did not like the certificate


@contextmanager
def tls_engine(certificates: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with TlsEngine(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_the_web_s_settings_do_not_reach_a_tls_engine(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "others.pem"
    others.write_text((certificates / "cert.pem").read_text())  # a bundle without the engine's CA
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(others))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with tls_engine(certificates) as port:
        environ = {
            "DOCKER_HOST": f"tcp://127.0.0.1:{port}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(certificates),
        }
        connection = Connection(VirtualClock(), environ)
        assert connection.call("list", containers) == []
        connection.close()


def test_a_certificate_of_another_ca(certificates: Path, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text((certificates / name).read_text())
    (tmp_path / "ca.pem").write_text((certificates / "cert.pem").read_text())
    with tls_engine(certificates) as port:
        environ = {
            "DOCKER_HOST": f"tcp://127.0.0.1:{port}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(tmp_path),
        }
        error = refusal(environ)
    assert "no TLS connection" in error.message
    assert "DOCKER_CERT_PATH" in error.hint


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert os.environ["DOCKER_HOST"] in refusal(dict(os.environ)).message

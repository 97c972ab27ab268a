"""The test application behaves as its settings say; with it, the load client is quiet where nothing is wrong."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.load import Load, LoadError, Mix

APP = Path(__file__).parents[1] / "load" / "app.py"


class Running:
    """The application as a process, after the line that says it listens."""

    def __init__(self, settings: dict[str, str]) -> None:
        # Nothing of the environment of the tests: what is not set must be off.
        self.process = subprocess.Popen(
            [sys.executable, str(APP)],
            env={"PORT": "0", "PATH": os.environ["PATH"], **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        listening = self.line()
        self.port, self.listens_since = int(listening["port"]), float(listening["at"])
        self.url = f"http://127.0.0.1:{self.port}"

    def line(self) -> dict[str, Any]:
        assert self.process.stdout
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def call(self, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            conn.request("POST" if body else "GET", path, body)
            response = conn.getresponse()
            return response.status, json.loads(response.read())
        finally:
            conn.close()

    @contextmanager
    def halted(self) -> Iterator[None]:
        """What comes in this block finds it all at once, as soon as it goes on."""
        os.kill(self.process.pid, signal.SIGSTOP)
        yield
        os.kill(self.process.pid, signal.SIGCONT)

    def until(self, **expected: int) -> None:
        """Return when /stats says so."""
        deadline = time.monotonic() + 10
        while not expected.items() <= (stats := self.call("/stats")[1]).items():
            assert time.monotonic() < deadline, f"expected {expected}, found {stats}"

    def term(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGTERM)
        return self.line()


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Running] = []

    def starting(**settings: str) -> Running:
        running.append(Running(settings))
        return running[-1]

    yield starting
    for app in running:
        app.process.kill()
        app.process.communicate()


def ask(sock: socket.socket, path: str) -> None:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: app\r\n\r\n".encode())


# Dying


def test_exit_at_once_tells_what_it_cut(start: Start, tmp_path: Path) -> None:
    app = start(TERM_LOG=str(tmp_path / "term"), VERSION="3")
    assert app.call("/work")[0] == 200
    with app.connect() as working, app.connect() as idle, app.connect() as upgraded:
        ask(working, "/work?ms=60000")
        ask(upgraded, "/upgrade")
        assert b" 101 " in upgraded.recv(1000)
        app.until(in_flight=2)
        line = app.term()
        assert idle.recv(1) == b""
    assert app.process.wait(10) == 0
    expected = {"event": "sigterm", "in_flight": 2, "begun": 3, "ended": 1, "version": "3"}
    assert expected.items() <= line.items()
    assert json.loads((tmp_path / "term").read_text()) == line


def test_probes_are_not_in_flight(start: Start) -> None:
    app = start()
    app.call("/healthz")
    app.call("/stats")
    assert {"in_flight": 0, "begun": 0, "ended": 0}.items() <= app.term().items()


def test_a_request_that_was_sent_but_not_read_is_in_flight(start: Start) -> None:
    app = start()
    with app.connect() as kept, app.connect() as fresh, app.connect() as probing:
        ask(kept, "/work")
        kept.recv(1000)
        os.kill(app.process.pid, signal.SIGSTOP)
        ask(kept, "/work")
        ask(fresh, "/work")
        ask(probing, "/healthz")
        with app.connect() as queued:
            ask(queued, "/work")
            app.process.send_signal(signal.SIGTERM)
            os.kill(app.process.pid, signal.SIGCONT)
            line = app.line()
    # The application may read a request before it sees the signal; no more than begun is ever ended.
    assert line["begun"] == 4
    assert line["in_flight"] == 4 - line["ended"]


def test_ignore_serves_on(start: Start) -> None:
    app = start(ON_TERM="ignore")
    assert app.term()["event"] == "sigterm"
    assert app.call("/work")[0] == 200
    assert app.term()["begun"] == 1
    assert app.process.poll() is None


def test_graceful_finishes_what_is_in_flight_and_takes_nothing_new(start: Start) -> None:
    app = start(ON_TERM="graceful")
    with app.connect() as working, app.connect() as idle:
        working.sendall(b"POST /upload HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhello")
        app.until(in_flight=1)
        assert app.term()["in_flight"] == 1
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            app.connect()
        working.sendall(b"world")
        answer = b""
        while data := working.recv(1000):
            answer += data
    assert b" 200 OK\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["length"] == 10
    assert app.process.wait(10) == 0


def test_delay_serves_until_its_time_is_over(start: Start) -> None:
    serving = start(ON_TERM="delay:600")
    serving.term()
    assert serving.call("/work")[0] == 200
    ending = start(ON_TERM="delay:0.3")
    at = ending.term()["at"]
    assert ending.line()["event"] == "exit"
    assert time.monotonic() - at >= 0.3
    assert ending.process.wait(10) == 0


def test_exit_after(start: Start) -> None:
    app = start(EXIT_AFTER="0.1")
    assert app.line()["status"] == 1
    assert app.process.wait(10) == 1


# Starting


def test_it_boots_within_50_ms_of_its_own(start: Start) -> None:
    def cpu(arguments: list[str]) -> float:
        """The processor time of a Python that starts and ends; the least of some, since others use this machine."""
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL);"
            "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
        )
        command = [sys.executable, "-c", code, sys.executable, *arguments]
        return min(float(subprocess.run(command, env=env, capture_output=True, check=True).stdout) for _ in range(5))

    env = {"CRASH_AT_START": "1", "PATH": os.environ["PATH"]}
    assert cpu([str(APP)]) - cpu(["-c", ""]) <= 0.05


def test_boot_delay(start: Start) -> None:
    before = time.monotonic()
    app = start(BOOT_DELAY="0.3")
    assert time.monotonic() - before >= 0.3
    assert app.call("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("settings", "status", "message"),
    [
        ({"CRASH_AT_START": "1"}, 1, "cannot start"),
        ({"CRASH_AT_START": "no database"}, 1, "no database"),
        ({"ON_TERM": "maybe"}, 2, "ON_TERM=maybe"),
        ({"HEALTH": "maybe"}, 2, "HEALTH=maybe"),
    ],
)
def test_it_does_not_start(settings: dict[str, str], status: int, message: str) -> None:
    command = [sys.executable, str(APP)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, message in done.stderr) == (status, True)


# Answering


def test_work_answers_for_the_body_it_got(start: Start) -> None:
    app = start(VERSION="3")
    status, answer = app.call("/work?ms=1&id=77", b"hello")
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert (status, answer) == (200, {"version": "3", "id": "77", "length": 5, "sha256": digest})


def test_a_chunked_request_body(start: Start) -> None:
    app = start()
    conn = http.client.HTTPConnection("127.0.0.1", app.port, timeout=10)
    conn.request(
        "POST", "/upload", iter([b"hel", b"lo"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert json.loads(conn.getresponse().read())["length"] == 5
    conn.close()


@pytest.mark.parametrize(
    ("health", "statuses"), [("ok", [200, 200]), ("fail", [503, 503]), ("flap", [200, 503, 200, 503])]
)
def test_health(start: Start, health: str, statuses: list[int]) -> None:
    app = start(HEALTH=health)
    assert [app.call("/healthz")[0] for _ in statuses] == statuses
    assert app.call("/work")[0] == 200


def test_health_that_fails_later(start: Start) -> None:
    assert start(HEALTH="fail-after:600").call("/healthz")[0] == 200
    app = start(HEALTH="fail-after:0.5")
    asked = time.monotonic()
    while (status := app.call("/healthz")[0]) == 200:
        assert asked - app.listens_since <= 0.5
        asked = time.monotonic()
    assert status == 503
    assert time.monotonic() - app.listens_since > 0.5


def test_sick_work_behind_a_healthy_probe(start: Start) -> None:
    app = start(WORK_STATUS="500")
    assert (app.call("/healthz")[0], app.call("/work")[0], app.call("/stream")[0]) == (200, 500, 500)


def test_accept_only_never_answers(start: Start) -> None:
    app = start(ACCEPT_ONLY="1")
    with app.connect() as sock:
        ask(sock, "/healthz")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_idle_connections_are_closed(start: Start) -> None:
    app = start(KEEPALIVE="0.2")
    with app.halted():  # a connection that is idle before its first request would be closed as well
        sock = app.connect()
        ask(sock, "/work")
        before = time.monotonic()
    with sock:
        answer = sock.recv(1000)
        assert b" 200 OK\r\n" in answer and b"Connection: close" not in answer
        assert sock.recv(1) == b""
        assert time.monotonic() - before >= 0.2


def test_close_early_is_not_announced(start: Start) -> None:
    app = start(CLOSE_EARLY="2")
    with app.connect() as sock:
        for _ in range(2):
            ask(sock, "/work")
            answer = sock.recv(1000)
            assert b" 200 OK\r\n" in answer and b"Connection: close" not in answer
        assert sock.recv(1) == b""


def test_requests_are_logged_with_begin_and_end(start: Start, tmp_path: Path) -> None:
    app = start(LOG_REQUESTS=str(tmp_path / "log"))
    before = time.monotonic()
    app.call("/work?ms=50", b"x")
    app.until(ended=1)
    begin, end = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert (begin["event"], begin["what"], end["event"], end["what"]) == ("begin", "POST /work", "end", "200")
    assert before <= begin["at"] <= end["at"] - 0.05


# The load client against an application with nothing wrong


SHORT = Mix(
    get=2,
    post=2,
    think=10,
    think_seconds=0.2,
    fresh=1,
    preconnected=2,
    preconnected_seconds=0.1,
    uploads=2,
    upload_seconds=0.1,
    streams=2,
    stream_seconds=0.2,
    upgrades=2,
    upgrade_seconds=0.2,
    arrivals=50,
    rtt=0.01,
    handler_ms=(0, 5),
)
KINDS = {"get", "post", "think", "fresh", "preconnected", "upload", "stream", "upgrade", "arrival"}


@pytest.mark.parametrize("keepalive", ["5", "0"], ids=["kept alive", "closed after each"])
def test_every_kind_of_client_succeeds(start: Start, keepalive: str) -> None:
    app = start(VERSION="3", KEEPALIVE=keepalive)
    with Load(app.url, SHORT) as load:
        load.wait_for(300)
        load.wait_for(200, version="3")
        assert load.progress()["failed"] == 0
    report = load.report()
    assert (report.failed, report.failures, report.by_class) == (0, [], {}), report.describe()
    assert report.ok == report.total >= 300
    assert report.by_kind.keys() == KINDS
    assert report.by_version == {"3": report.total}
    assert 0.01 <= report.p50 <= report.p95 <= report.p99 <= report.max < 10


def test_stopping_causes_no_anomaly_and_forgets_no_request(start: Start) -> None:
    app = start()
    total = 0
    for requests in (0, 1, 20, 50):
        with Load(app.url, SHORT) as load:
            load.wait_for(requests)
        assert load.report().failed == 0, load.report().describe()
        total += load.report().total
        app.until(in_flight=0, begun=total, ended=total)


def test_an_application_that_dies_is_seen(start: Start) -> None:
    app = start(VERSION="3")
    # no upgrades: the application counts one until it has seen its end, and its client may have had it already
    with Load(app.url, replace(SHORT, upgrades=0, stream_seconds=60.0)) as load:
        load.wait_for(100)
        cut = app.term()["in_flight"]
        assert app.process.wait(10) == 0
        load.wait_for(load.progress()["total"] + 100)
    report = load.report()
    assert report.by_class["refused"] > 0
    assert report.failed - report.by_class["refused"] >= cut >= SHORT.streams, report.describe()
    assert {"3", ""} >= {failure.version for failure in report.failures}


def test_what_is_waited_for_in_vain_is_an_error(start: Start) -> None:
    app = start()
    with Load(app.url, SHORT) as load:
        with pytest.raises(LoadError, match="no 1000000 requests within"):
            load.wait_for(1_000_000, timeout=0.1)
        load.wait_for(10)
    assert load.report().failed == 0


def test_a_load_that_cannot_start_is_an_error() -> None:
    with pytest.raises(LoadError, match="has ended"), Load("ftp://127.0.0.1"):
        pass


def test_an_error_in_the_test_is_not_hidden_by_the_load(start: Start) -> None:
    app = start()
    with pytest.raises(ZeroDivisionError), Load(app.url, SHORT) as load:
        load.wait_for(1 // 0)
    assert load.report().failed == 0


@pytest.mark.parametrize(("status", "code"), [("200", 0), ("503", 1)])
def test_the_command_line(start: Start, status: str, code: int) -> None:
    app = start(WORK_STATUS=status)
    command = [sys.executable, "-m", "tests.load", app.url, "--mix", '{"post": 1}', "--duration", "0.3"]

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], cwd=APP.parents[2], capture_output=True, text=True, timeout=30, check=False
        )

    told = run()
    assert (told.returncode, told.stderr) == (code, "")
    assert "requests in" in told.stdout
    assert ("http_503" in told.stdout) == bool(code)
    found = json.loads(run("--json").stdout)
    assert found["by_class"].keys() == ({"http_503"} if code else set())

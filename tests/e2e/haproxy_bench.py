"""A real HAProxy in a container, two real apps behind it, and clients on raw sockets. Nothing retries."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from rollout.clock import SystemClock
from rollout.engines.docker import Connection, ContainerProcess
from rollout.model import Pool, ProxySettings, ProxyType, Upstream
from rollout.ports import ProxyProcess
from rollout.proxies.haproxy import HAProxy

VERSIONS = ("2.6", "3.0", "3.2")
CONFIG = """\
global
  nbthread 2
  stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout tunnel 1h
  timeout http-keep-alive 60s
  option idle-close-on-response
frontend web
  bind :80
  use_backend %[req.hdr(host),word(1,:)]
"""
T = TypeVar("T")


def docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def eventually(look: Callable[[], T | None], seconds: float = 30.0) -> T:
    deadline = time.monotonic() + seconds
    while (seen := look()) is None:
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)
    return seen


@dataclass
class Edge:
    """One HAProxy and what is needed to look at it."""

    version: str
    directory: Path
    name: str
    process: ProxyProcess

    @property
    def ip(self) -> str:
        """As it is now: while it restarts, its address may have been given to a container of another test."""
        return next(iter(self.process.networks().values()))

    def adapter(self, templates: str = "") -> HAProxy:
        config = str(self.directory / "rollout.d")
        settings = ProxySettings(ProxyType.HAPROXY, config, container=self.name, templates=templates)
        return HAProxy(settings, self.process, SystemClock(), str(self.directory / "lock"))

    def file(self, service: str) -> Path:
        return self.directory / "rollout.d" / f"{service}.cfg"

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "rollout.d").iterdir())

    def ask(self, command: str, name: str = "admin") -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.directory / "run" / f"{name}.sock"))
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def answer(self, service: str) -> str:
        """Which app answers one request on a connection of its own: its version, or the status when it is not 200."""
        with self.client(service) as client:
            client.send("GET", "/work?ms=0")
            return client.answer()

    def client(self, service: str) -> Client:
        return Client(self.ip, service)


class Client:
    """A raw HTTP/1.1 client on one connection, opened now."""

    def __init__(self, ip: str, host: str, port: int = 80) -> None:
        self.host = host
        self.connection = socket.create_connection((ip, port), timeout=20)
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, method: str, path: str, length: int = 0) -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {length}\r\n\r\n"
        self.connection.sendall(head.encode())

    def answer(self) -> str:
        """The answering app's version; the status when it is not 200; what happened when there is none."""
        status, headers, _ = self._response()
        return headers["x-version"] if status == "200" else status

    def body(self) -> bytes:
        return self._response()[2]

    def _response(self) -> tuple[str, dict[str, str], bytes]:
        head, _, body = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        status = lines[0].split()[1] if lines[0] else "closed"
        self.received = body
        if headers.get("transfer-encoding") == "chunked":
            self._until(b"0\r\n\r\n")
        else:
            while len(self.received) < int(headers.get("content-length", 0)):
                self._more()
        body, self.received = self.received, b""
        return status, headers, body

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            if not self._more():
                break
        return self.received

    def _more(self) -> bool:
        chunk = self.connection.recv(65536)
        self.received += chunk
        return bool(chunk)


@contextlib.contextmanager
def running_edge(
    version: str,
    directory: Path,
    config: str = CONFIG,
    *,
    initial: Sequence[Pool] = (),
    sockets: Sequence[str] = ("admin", "master"),
) -> Iterator[Edge]:
    name = f"rollout-hap-{uuid.uuid4().hex[:8]}"
    for inner in ("run", "rollout.d"):
        (directory / inner).mkdir(parents=True)
    (directory / "main").mkdir()
    (directory / "main" / "haproxy.cfg").write_text(config)
    mounts = {
        "/run/haproxy": str(directory / "run"),
        "/etc/haproxy/rollout.d": str(directory / "rollout.d"),
        "/etc/haproxy": str(directory / "main"),
    }
    volumes = [word for inside, here in mounts.items() for word in ("-v", f"{here}:{inside}")]
    connection = Connection(SystemClock())
    edge = Edge(version, directory, name, ContainerProcess(connection, "", container=name))
    edge.adapter().write_initial(initial)
    docker("run", "-d", "--name", name, *volumes, f"rollout-test/haproxy:{version}")
    try:
        eventually(lambda: all(_answers(edge, name) for name in sockets) or None)
        yield edge
    finally:
        connection.close()
        docker("rm", "-f", "-v", name)


def _answers(edge: Edge, name: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(edge.ask("show version", name))
    return False


@contextlib.contextmanager
def running_apps(*names: str) -> Iterator[dict[str, Upstream]]:
    """Apps that say their name as their version."""
    prefix = f"rollout-hap-app-{uuid.uuid4().hex[:8]}"
    started = []
    try:
        for name in names:
            docker("run", "-d", "--name", f"{prefix}-{name}", "-e", f"VERSION={name}", "rollout-test/app:1")
            started.append(f"{prefix}-{name}")
        apps = {}
        for name, container in zip(names, started, strict=True):
            ip = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container)
            apps[name] = Upstream(f"{name}-{container[-20:-4]}", ip, 8000)
            eventually(lambda ip=ip: _listens(ip))  # type: ignore[misc]
        yield apps
    finally:
        for container in started:
            docker("rm", "-f", "-v", container)


def _listens(ip: str) -> bool | None:
    try:
        socket.create_connection((ip, 8000), timeout=1).close()
    except OSError:
        return None
    return True

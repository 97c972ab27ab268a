"""A real nginx in a container, real apps behind it, and clients on raw sockets. Nothing retries."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from rollout.clock import SystemClock
from rollout.engines.docker import Connection, ContainerProcess
from rollout.model import Pool, PoolOptions, ProxySettings, ProxyType, Upstream
from rollout.ports import ProxyProcess
from rollout.proxies.nginx import Nginx

OLD, NEW = "1.26", "1.30"  # below and above the version that can keep client connections through a reload
VERSIONS = (OLD, NEW)
DEFAULTS = PoolOptions()
CONFIG = """\
worker_processes 2;
events {{ worker_connections 1024; }}
http {{
    include /etc/nginx/rollout.d/*.conf;
    access_log /dev/stdout rollout;
    proxy_connect_timeout 2s;
    {http}
    server {{
        listen 80 default_server;
        {server}
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection $rollout_connection;
            proxy_set_header Upgrade $http_upgrade;
            proxy_pass http://web;
        }}
    }}
    server {{
        listen 80;
        server_name other;
        location / {{ proxy_pass http://other; }}
    }}
}}
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


def address_of(name: str) -> str:
    return docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)


@dataclass
class App:
    """One replica of the test application."""

    name: str
    ip: str
    port: int = 8000

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.name, self.ip, self.port)


@dataclass
class Edge:
    """One nginx, the adapter that changes it, and what is needed to look at it."""

    directory: Path
    name: str
    network: str
    process: ProxyProcess
    settings: ProxySettings
    apps: list[App] = field(default_factory=list)

    @property
    def ip(self) -> str:
        return address_of(self.name)

    @property
    def rendered(self) -> Path:
        return self.directory / "rollout.d"

    def adapter(self, process: ProxyProcess | None = None) -> Nginx:
        """An adapter as another process would make it: with nothing remembered."""
        return Nginx(
            self.settings, process or self.process, SystemClock(), str(self.directory / "state" / "proxy.lock")
        )

    def configure(self, http: str = "", server: str = "") -> None:
        (self.directory / "nginx.conf").write_text(CONFIG.format(http=http, server=server))

    def start(self) -> None:
        docker("start", self.name)

    def app(self, version: int = 1) -> App:
        name = f"{self.name}-app{len(self.apps) + 1}"
        docker("run", "-d", "--name", name, "--network", self.network, f"rollout-test/app:{version}")
        app = App(name, address_of(name))
        self.apps.append(app)
        eventually(lambda: answers(app.ip, 8000))
        return app

    def get(self, path: str = "/", host: str = "web") -> bytes:
        with contextlib.closing(self.connect()) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return everything(client)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.ip, 80), timeout=60)

    def tree(self) -> dict[str, bytes | str]:
        """Everything in rollout's directory: contents of files, targets of links, and that a folder is there."""
        found: dict[str, bytes | str] = {}
        for path in sorted(self.rendered.rglob("*")):
            name = str(path.relative_to(self.rendered))
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            else:
                found[name] = path.read_bytes() if path.is_file() else "folder"
        return found

    def own(self) -> set[int]:
        """The pids of nginx's master and workers: of nothing that was run beside them, and of none that has ended."""
        return {process.pid for process in self.process.processes() if process.title.startswith("nginx: ")}

    def settled(self) -> set[int]:
        """`own`, once no worker of an earlier reload is left to end."""
        eventually(lambda: not any("shutting down" in title for title in self.titles()) or None)
        return self.own()

    def titles(self) -> list[str]:
        return [process.title for process in self.process.processes()]


def answers(ip: str, port: int) -> bool | None:
    with contextlib.suppress(OSError), contextlib.closing(socket.create_connection((ip, port), timeout=1)):
        return True
    return None


def everything(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def pool(*apps: App, service: str = "web", options: PoolOptions = DEFAULTS) -> Pool:
    return Pool(service, tuple(app.upstream for app in apps), options)


class Bench:
    """nginx of one version with its own network; removed with all that was made in it."""

    def __init__(self, directory: Path, version: str, *command: str) -> None:
        self._command = command
        self._directory = directory
        self._version = version

    def __enter__(self) -> Self:
        name = f"nginx-bench-{uuid.uuid4().hex[:8]}"
        docker("network", "create", name)
        directory = self._directory
        (directory / "rollout.d").mkdir()
        settings = ProxySettings(ProxyType.NGINX, str(directory / "rollout.d"), container=name)
        self._connection = Connection(SystemClock())
        process = ContainerProcess(self._connection, "", container=name)
        self.edge = Edge(directory, name, name, process, settings)
        self.edge.configure()
        docker(
            "create", "--name", name, "--network", name, "-v", f"{directory}/nginx.conf:/etc/nginx/nginx.conf:ro",
            "-v", f"{directory}/rollout.d:/etc/nginx/rollout.d", f"rollout-test/nginx:{self._version}", *self._command,
        )  # fmt: skip
        self.edge.adapter().write_initial([Pool("web"), Pool("other")], seen="/etc/nginx/rollout.d")
        return self

    def __exit__(self, *_: object) -> None:
        names = [self.edge.name, *(app.name for app in self.edge.apps)]
        subprocess.run(["docker", "rm", "-f", "-v", *names], capture_output=True, check=True)
        docker("network", "rm", self.edge.network)
        self._connection.close()


@contextlib.contextmanager
def bench(directory: Path, version: str) -> Iterator[Edge]:
    with Bench(directory, version) as running:
        running.edge.start()
        eventually(lambda: answers(running.edge.ip, 80))
        yield running.edge

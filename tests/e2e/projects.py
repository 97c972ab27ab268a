"""Real Compose projects for the end-to-end tests: a proxy, the test application, and the real `rollout` program.

    with running(Edge("nginx", "1.26"), directory) as shop:     # rendered, started, deployed once
        shop.tag("2")
        done = shop.rollout("deploy", "web")

Everything is observed from outside: with the docker program, on the disk, and in what the application wrote down.
Leaving the block asserts that nothing was left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.e2e import in_force
from tests.load import Load, Mix

T = TypeVar("T")
PROGRAM = str(Path(sys.executable).with_name("rollout"))
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
STEP_PAUSE = 0.005

NGINX = """\
worker_processes 2;
events {{ worker_connections 4096; }}
http {{
    {keepalive}
    client_header_timeout 10s;
    proxy_connect_timeout 2s;
    include /etc/nginx/rollout.d/*.conf;
    access_log /dev/stdout rollout;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    proxy_http_version 1.1;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header Upgrade $http_upgrade;
{servers}
}}
"""
NGINX_SERVER = "    server {{ {listen} server_name {name}; location / {{ proxy_pass http://{name}; }} }}"

HAPROXY = """\
global
    nbthread 2
    stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-request 20s
    timeout http-keep-alive 10s
    timeout tunnel 1h
    option idle-close-on-response
frontend public
    {bind}
    use_backend %[req.hdr(host),lower,word(1,:)]
"""


@dataclass(frozen=True, slots=True)
class Edge:
    """Which proxy, and with which answer to the requests that a reload would lose."""

    type: str
    version: str

    @property
    def keepalive(self) -> str:
        """nginx 1.27.4 and later keep idle connections through a reload, longer than the load's clients ever idle."""
        if tuple(map(int, self.version.split("."))) < (1, 27):
            return "keepalive_timeout 0;"
        return "keepalive_timeout 15s; keepalive_min_timeout 4s;"

    @property
    def listen(self) -> str:
        """Where it is asked: nginx's `listen` and what belongs to it, or HAProxy's `bind`."""
        return "listen 80;" if self.type == "nginx" else "bind :80"

    def __str__(self) -> str:
        return f"{self.type}-{self.version}"


EDGES = (Edge("nginx", "1.26"), Edge("nginx", "1.30"), Edge("haproxy", "3.0"))


@dataclass(frozen=True, slots=True)
class Done:
    """One call of the program that has ended."""

    code: int
    out: str
    err: str
    seconds: float

    def __str__(self) -> str:
        return f"exit {self.code} after {self.seconds:.2f} s\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Container:
    id: str
    name: str
    image: str  # id
    state: str
    health: str
    started: str  # when, as the engine writes it; changes with every start
    number: int
    config_hash: str
    addresses: Mapping[str, str]

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a failed deploy must leave exactly as it was."""

    config: Mapping[str, bytes]
    containers: frozenset[Container]
    tags: frozenset[str]
    state_files: frozenset[str]

    def in_force(self) -> Snapshot:
        """The same, whatever the generation of nginx's files in force is called: an undo of a switch writes another."""
        link = next((name for name in self.config if name.endswith("rollout.d/current")), "")
        folder = f"{link.removesuffix('current')}{self.config[link].decode()}/" if link else ""
        files = {
            n.replace(folder, "current/"): c
            for n, c in self.config.items()
            if not link or "/gen-" not in n or n.startswith(folder)
        }
        return replace(self, config={name: content for name, content in files.items() if name != link})


def docker(*argv: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or not check, f"docker {' '.join(argv)}: {done.stderr}"
    return done.stdout.strip()


def eventually(look: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """What `look` answers as soon as it is neither None nor False."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(STEP_PAUSE)
    return seen


def free_ports(count: int) -> list[int]:
    """None of those that the kernel gives to whoever asks for any: they are still free when they are used."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = 10000 + secrets.randbelow(lowest - 10000)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
        return ports


def echoes(client: socket.socket) -> bool:
    """Whether the other end of an upgraded connection is still there."""
    try:
        client.sendall(b"still")
        return client.recv(5) == b"still"
    except OSError:
        return False


def _threads(pid: int) -> str:
    """For a failure: what each thread waits in, and which signals wait for it."""
    lines = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            said = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            kept = " ".join(f"{name} {said[name]}" for name in ("Name", "State", "SigPnd", "ShdPnd", "SigBlk"))
            lines.append(f"thread {task.name}: {kept} in {(task / 'wchan').read_text()}")
    return "\n".join(lines)


class Running:
    """The program under way, with `--json`: its events as they come."""

    def __init__(self, argv: list[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.events: list[dict[str, Any]] = []
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self._lines: list[str] = []
        self._errors: list[str] = []
        self._news = threading.Condition()
        self._readers = [threading.Thread(target=self._read_events), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def wait_for(self, what: str, seconds: float = 60.0, **fields: object) -> dict[str, Any]:
        """The first event of that kind with those fields; fails when the program ends without it."""

        def found() -> dict[str, Any] | None:
            for event in self.events:
                if event["event"] == what and all(event.get(k) == v for k, v in fields.items()):
                    return event
            return None

        deadline = time.monotonic() + seconds
        with self._news:
            while (event := found()) is None:
                assert self._readers[0].is_alive(), f"it ended without {what} {fields}:\n{self._said()}"
                left = deadline - time.monotonic()
                assert left > 0, f"no {what} {fields} within {seconds:g} s:\n{self._said()}"
                self._news.wait(min(left, 0.2))
        return event

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = 90.0) -> Done:
        """Wait for its end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            threads = _threads(self.process.pid)
            self.process.kill()
            raise AssertionError(f"it did not end within {seconds:g} s:\n{threads}\n{self._said()}") from None
        took = time.monotonic() - self.begun
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        return Done(self.process.returncode, "".join(self._lines), "".join(self._errors), took)

    def _said(self) -> str:
        return "".join([*self._lines, *self._errors])

    def _read_events(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                if line.startswith("{"):
                    self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._errors.append(line)


@dataclass
class Shop:
    """A Compose project in a directory of its own: `edge`, the proxy, and the services it serves."""

    edge: Edge
    directory: Path
    name: str = field(default_factory=lambda: f"rollout-e2e-{uuid.uuid4().hex[:8]}")
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    proxy: dict[str, Any] = field(default_factory=dict)
    notify: list[dict[str, Any]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)  # the user's exported variables
    history: list[Done] = field(default_factory=list)
    program: tuple[str, ...] = (PROGRAM,)  # what is run for `rollout`

    def __post_init__(self) -> None:
        for folder in ("edge/rollout.d", "run", "term"):
            (self.directory / folder).mkdir(parents=True)
        (self.directory / "term").chmod(0o777)
        self.services.setdefault("edge", self._edge_service())
        self.tag("1")

    # --- what the user writes ---------------------------------------------------------------------------------

    def service(self, name: str, **changes: Any) -> None:
        """Add a service, or change one: dictionaries are merged, None removes. Writes the Compose file."""
        merge(self.services.setdefault(name, app_service(self.edge)), changes)
        self.write()

    def write(self) -> None:
        names = [name for name in self.services if name != "edge" and "x-rollout" in self.services[name]]
        self._write_proxy_config(names)
        proxy = {"type": self.edge.type, "service": "edge", "config": "./edge/rollout.d", **self.proxy}
        project = {"proxy": proxy, **({"notify": self.notify} if self.notify else {})}
        content: dict[str, Any] = {"name": self.name, "x-rollout": project, "services": self.services}
        if self.networks:
            content["networks"] = self.networks
        (self.directory / "compose.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def tag(self, tag: str) -> None:
        """The application's version, by the variable that the Compose file's image names."""
        (self.directory / ".env").write_text(f"TAG={tag}\n")

    # --- programs ---------------------------------------------------------------------------------------------

    def rollout(self, *argv: str, code: int | None = 0, timeout: float = 120.0) -> Done:
        """Run the program to its end, which must be `code` (None: any)."""
        began = time.monotonic()
        ran = subprocess.run(
            [*self.program, *argv], cwd=self.directory, env=self.environment(), capture_output=True, text=True,
            check=False, timeout=timeout,
        )  # fmt: skip
        done = Done(ran.returncode, ran.stdout, ran.stderr, time.monotonic() - began)
        self.history.append(done)
        assert code is None or done.code == code, f"rollout {' '.join(argv)}: {done}\n{self.describe()}"
        return done

    def spawn(self, *argv: str) -> Running:
        """Start the program with `--json`; the caller waits for its end."""
        return Running([*self.program, *argv, "--json"], self.directory, self.environment())

    def compose(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", "compose", "--ansi", "never", "--progress", "plain", *argv], cwd=self.directory,
            env=self.environment(), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"compose {' '.join(argv)}: {done.stderr}\n{self.describe()}"
        return done

    def up(self, *services: str) -> None:
        """Start it as a user would the first time: configuration the proxy can start with, then plain Compose."""
        self.rollout("render")
        self.compose("up", "-d", *services)
        self.wait_for_edge()

    def wait_for_edge(self) -> None:
        if self.edge.type == "haproxy":
            eventually(self._haproxy_answers, "HAProxy at its socket")
        eventually(lambda: any("worker" in line or "haproxy" in line for line in self.edge_processes()), "the proxy")

    def _haproxy_answers(self) -> bool:
        """Its socket alone proves nothing: a former one leaves it behind."""
        with contextlib.suppress(OSError):
            return bool(in_force.asked(self.directory / "run/admin.sock", "show info"))
        return False

    def restart_edge(self) -> None:
        """Killed, and started by its operator. Unless somebody was quicker, it has the address it had."""
        edge = self.running("edge")[0]
        docker("kill", edge.id)
        docker("start", edge.id)
        self.wait_for_edge()
        eventually(lambda: self.answers() in ("1", "2", "3"), "an answer of the restarted proxy")

    def down(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.compose("down", "--volumes", "--timeout", "0", check=False)

    # --- what is there ----------------------------------------------------------------------------------------

    def containers(self, service: str = "web") -> list[Container]:
        """All containers of the service, in every state, by number."""
        return containers(self.name, service)

    def running(self, service: str = "web") -> list[Container]:
        return [c for c in self.containers(service) if c.running]

    def url(self) -> str:
        return f"http://{self.address('edge')}"

    def address(self, service: str) -> str:
        return next(iter(self.running(service)[0].addresses.values()))

    def load(self, mix: Mix | None = None, service: str = "web") -> Load:
        return Load(self.url(), mix or Mix.light(), host=service)

    def answers(self, service: str = "web") -> str:
        """The version that answers one request; the status when it is not 200."""
        argv = ["curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code} %header{x-version}"]
        argv += ["-H", f"Host: {service}", f"{self.url()}/work"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        status, _, version = done.stdout.partition(" ")
        return version if status == "200" else status

    def term_lines(self) -> list[dict[str, Any]]:
        """What each stopped replica wrote when SIGTERM reached it."""
        log = self.directory / "term/log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def pool(self, service: str = "web") -> set[str]:
        """The addresses in the proxy's configuration on disk."""
        folder = self.directory / "edge/rollout.d"
        file = folder / "current" / f"{service}.conf" if self.edge.type == "nginx" else folder / f"{service}.cfg"
        return set(re.findall(r"^\s*server\s+(?:\S+\s+)?(\d+\.\d+\.\d+\.\d+:\d+)", file.read_text(), re.MULTILINE))

    def in_force(self, service: str = "web") -> set[str]:
        """The addresses that the running proxy sends to."""
        if self.edge.type == "haproxy":
            return in_force.of_haproxy(self.directory / "run/admin.sock", service)
        return in_force.of_nginx(self.running("edge")[0].id, self.address("edge"), service, len(self.pool(service)))

    def keep_tags(self) -> set[str]:
        listed = docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
        return {tag for tag in listed if tag.startswith(f"rollout-keep/{self.name}/")}

    def snapshot(self) -> Snapshot:
        found = frozenset(c for name in self.services for c in self.containers(name))
        return Snapshot(tree(self.directory / "edge"), found, frozenset(self.keep_tags()), self.state_files())

    def state_files(self) -> frozenset[str]:
        """What is in `.rollout`, sqlite's own side files left out."""
        folder = self.directory / ".rollout"
        found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        return frozenset(name for name in found if not name.startswith("state.db"))

    def edge_processes(self) -> list[str]:
        edge = self.running("edge")
        return docker("top", edge[0].id, "-o", "pid,args", check=False).splitlines()[1:] if edge else []

    def settled(self, service: str = "web", *, replicas: int = 2) -> None:
        """Only the wanted replicas are there, they are the pool, and nothing is left of earlier ones anywhere."""
        found = self.containers(service)
        assert [c.state for c in found] == ["running"] * replicas, self.describe()
        assert self.pool(service) == {f"{next(iter(c.addresses.values()))}:8000" for c in found}, self.describe()
        loaded = self.in_force(service)
        assert loaded == self.pool(service), f"the proxy sends to {loaded}\n{self.describe()}"
        assert self.leftover_files() == set(), self.describe()

    def leftover_files(self) -> set[str]:
        """Files of the proxy's directory and of the state that no finished run should leave."""
        names = {str(path.relative_to(self.directory)) for path in (self.directory / "edge").rglob("*")}
        expected = r"edge/(nginx\.conf|haproxy\.cfg|rollout\.d)|edge/rollout\.d/(\w+\.cfg|rollout\.conf|current)"
        generation = r"edge/rollout\.d/(gen-\d+|current)(/[\w-]+\.conf)?"
        odd = {n for n in names if not re.fullmatch(expected, n) and not re.fullmatch(generation, n)}
        generations = {n for n in names if re.fullmatch(r"edge/rollout\.d/gen-\d+", n)}
        kept = r"\.gitignore|project|proxy\.lock|locks/\w+\.lock|serve\.(lock|passed)|audit\.log"
        state = {n for n in self.state_files() if not re.fullmatch(kept, n)}
        return odd | state | (generations if len(generations) > 2 else set())

    def old_workers(self) -> list[str]:
        """Processes of the proxy that belong to a former configuration."""
        if self.edge.type == "nginx":
            return [line for line in self.edge_processes() if "shutting down" in line]
        return self.edge_processes()[2:]  # beside the master and its one worker

    def describe(self) -> str:
        """For a failure: what is there, what was said, the proxy's log."""
        lines = [f"--- {self.name} ({self.edge}) in {self.directory}"]
        for service in self.services:
            lines += [
                f"{service}: {c.name} {c.id[:12]} {c.state} {c.health} {c.addresses}" for c in self.containers(service)
            ]
        with contextlib.suppress(OSError):
            lines.append(f"pool: {sorted(self.pool())}")
        lines += [f"proxy: {line}" for line in self.edge_processes()]
        for done in self.history[-2:]:
            lines.append(f"rollout said: {done}")
        edge = containers(self.name, "edge")
        if edge:
            log = subprocess.run(
                ["docker", "logs", "--tail", "400", edge[0].id], capture_output=True, text=True, check=False
            )
            text = [
                line for line in (log.stdout + log.stderr).splitlines() if '" 200 ' not in line and '" 101 ' not in line
            ]
            lines += ["--- the proxy's log, without what went well", *text[-40:]]
        return "\n".join(lines)

    # --- within -----------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if k not in {"TAG", "VERSION", "SERVICE", "COMPOSE_PROJECT_NAME"}}
        return {**ours, "NO_COLOR": "1", **self.env}

    def _edge_service(self) -> dict[str, Any]:
        volumes = ["./edge/rollout.d:/etc/nginx/rollout.d", "./edge/nginx.conf:/etc/nginx/nginx.conf:ro"]
        if self.edge.type == "haproxy":
            volumes = ["./edge/rollout.d:/etc/haproxy/rollout.d", "./edge/haproxy.cfg:/etc/haproxy/haproxy.cfg:ro"]
            volumes.append("./run:/run/haproxy")
        return {"image": f"rollout-test/{self.edge.type}:{self.edge.version}", "volumes": volumes, "init": False}

    def _write_proxy_config(self, names: list[str]) -> None:
        if self.edge.type == "haproxy":
            file, text = "haproxy.cfg", HAPROXY.replace("{bind}", self.edge.listen)
        else:
            servers = "\n".join(NGINX_SERVER.format(name=name, listen=self.edge.listen) for name in names)
            file, text = "nginx.conf", NGINX.format(keepalive=self.edge.keepalive, servers=servers)
        path = self.directory / "edge" / file
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def app_service(edge: Edge) -> dict[str, Any]:
    """The test application with two replicas, which exits at once on SIGTERM and says what was in flight then."""
    return {
        "image": "rollout-test/app:${TAG}",
        "environment": {"TERM_LOG": "/term/log"},
        "volumes": ["./term:/term"],
        "stop_grace_period": "5s",
        "deploy": {"replicas": 2, "update_config": {"parallelism": 2}},
        "x-rollout": {"port": 8000, "health": {"path": "/healthz", "interval": "100ms"}, "drain_timeout": "30s"},
    }


def merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def containers(project: str, service: str = "") -> list[Container]:
    filters = ["--filter", f"label={PROJECT}={project}"]
    if service:
        filters += ["--filter", f"label={SERVICE}={service}"]
    ids = docker("ps", "-aq", "--no-trunc", *filters).split()
    seen = json.loads(docker("inspect", *ids, check=False) or "[]") if ids else []
    return sorted((_container(raw) for raw in seen), key=lambda c: (c.number, c.id))


def _container(raw: Mapping[str, Any]) -> Container:
    labels = raw["Config"]["Labels"]
    networks = raw["NetworkSettings"]["Networks"]
    return Container(
        id=raw["Id"],
        name=raw["Name"].lstrip("/"),
        image=raw["Image"],
        state=raw["State"]["Status"],
        health=(raw["State"].get("Health") or {}).get("Status", ""),
        started=raw["State"]["StartedAt"],
        number=int(labels.get("com.docker.compose.container-number", 0)),
        config_hash=labels.get("com.docker.compose.config-hash", ""),
        addresses=Addresses((name, net["IPAddress"]) for name, net in sorted(networks.items()) if net["IPAddress"]),
    )


class Addresses(dict[str, str]):
    """Hashable, for sets of containers."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below it with its bytes, links with where they lead."""
    return {
        str(path.relative_to(folder)): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def digest(content: Mapping[str, bytes]) -> str:
    return hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()


@contextlib.contextmanager
def project(edge: Edge, directory: Path, **web: Any) -> Iterator[Shop]:
    """A project with one service `web`, not started. At the end it is removed, and nothing of it may be left."""
    shop = Shop(edge, directory)
    shop.service("web", **web)
    try:
        yield shop
    finally:
        shop.down()
        kept = shop.keep_tags()
        for tag in kept:
            docker("rmi", tag, check=False)
        left = [c.name for c in containers(shop.name)]
        if left:
            docker("rm", "-f", "-v", *left)
    networks = docker("network", "ls", "-q", "--filter", f"label={PROJECT}={shop.name}")
    assert (left, networks) == ([], ""), "left behind after `compose down`"


@contextlib.contextmanager
def running(edge: Edge, directory: Path, **web: Any) -> Iterator[Shop]:
    """A project that was started with plain Compose and then deployed once, so that rollout knows its revision."""
    with project(edge, directory, **web) as shop:
        shop.up()
        shop.rollout("deploy")
        yield shop


@contextlib.contextmanager
def serving(shop: Shop, *argv: str) -> Iterator[Running]:
    """The sidecar at work, and ended by one signal, well."""
    sidecar = shop.spawn("serve", *argv)
    try:
        healthy(shop)
        yield sidecar
    finally:
        if sidecar.process.poll() is None:
            sidecar.signal(signal.SIGTERM)
        done = sidecar.end()
        print(done.out)
    assert done.code == 0, done
    assert shop.rollout("serve", "--healthy", code=1).out == "no sidecar of this project runs\n"


def healthy(shop: Shop) -> None:
    """Wait until the sidecar is at work."""
    eventually(lambda: shop.rollout("serve", "--healthy", code=None).code == 0, "a healthy sidecar")


def addresses(found: list[Container]) -> set[str]:
    return {f"{address}:8000" for c in found for address in c.addresses.values()}


# what asking a proxy ends with that is not up yet, or goes down just now
NOBODY_THERE = (OSError, http.client.HTTPException, IndexError, StopIteration, subprocess.SubprocessError)


def in_pool(shop: Shop, replicas: int = 2, *, seconds: float = 20.0) -> None:
    """The pool is that many running replicas, and no other, within so many seconds."""

    def settled() -> bool:
        running = shop.running()
        if len(running) != replicas or shop.pool() != addresses(running):
            return False
        with contextlib.suppress(*NOBODY_THERE):
            return shop.in_force() == shop.pool()
        return False

    eventually(settled, f"a pool of {replicas}", seconds)

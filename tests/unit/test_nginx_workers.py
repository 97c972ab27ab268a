"""What a look at the sockets proves, and what it does not."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rollout.errors import ProxyUnreachable
from rollout.model import Upstream
from rollout.ports import ExecResult, Process
from rollout.proxies.nginx_config import LoadedConfig
from rollout.proxies.nginx_drain import Drain
from rollout.proxies.nginx_log import counted
from rollout.proxies.nginx_reload import Reload, refusal
from rollout.proxies.nginx_workers import (
    END,
    GENERATIONS,
    LOOK,
    Socket,
    Sockets,
    Token,
    Workers,
    clients_of,
    cut_with,
    pids_only,
    read_sockets,
    remaining,
    surplus,
    unfinished,
    workers,
)
from tests.clocks import HandClock

OLD, PEER, OTHER = ("10.0.0.5", 8000), ("10.0.0.6", 8000), ("10.0.0.7", 9000)


def client(inode: int) -> Socket:
    return Socket(("10.0.0.2", 80), ("10.0.0.1", 40000 + inode), "01", inode)


def to(remote: tuple[str, int], inode: int) -> Socket:
    return Socket(("10.0.0.2", 50000 + inode), remote, "01", inode)


def look(*workers_sockets: list[Socket], later: list[Socket] | None = None) -> Sockets:
    every = {s.inode: s for held in workers_sockets for s in held}
    second = every if later is None else {s.inode: s for s in later}
    held = {pid: {s.inode for s in sockets} for pid, sockets in enumerate(workers_sockets)}
    return Sockets(every, second, {80}, (32768, 60999), held, own=frozenset(held))


@pytest.mark.parametrize(
    ("sockets", "done", "connections"),
    [
        ([client(1), to(OTHER, 2)], True, 0),
        ([], True, 0),
        ([client(1)], False, 1),
        ([client(1), to(OLD, 2)], False, 1),
        ([client(1), client(3), to(OTHER, 2)], False, 1),
        ([client(1), to(PEER, 2)], False, 0),
        ([client(1), to(("10.0.0.9", 53), 2)], False, 1),
        ([to(OTHER, 2)], False, 0),
    ],
)
def test_done_is_every_client_joined_to_another_service(sockets: list[Socket], done: bool, connections: int) -> None:
    seen = remaining(look(sockets), [OLD], [PEER])
    assert seen is not None
    assert (seen.done, seen.connections) == (done, connections)


def test_one_worker_that_is_not_done_is_enough() -> None:
    seen = remaining(look([client(1), to(OTHER, 2)], [client(3)]), [OLD], [])
    assert seen is not None
    assert not seen.done


def test_an_upstream_that_changes_during_the_look_does_not_count_twice() -> None:
    both = [client(1), client(2), to(OTHER, 3), to(OTHER, 4)]
    seen = remaining(look(both, later=[client(1), client(2), to(OTHER, 4)]), [OLD], [])
    assert seen is not None
    assert not seen.done


@pytest.mark.parametrize(
    ("sockets", "unpaired", "left"),
    [
        ([client(1), to(OTHER, 2)], False, False),
        ([client(1), to(OTHER, 2)], True, True),
        ([client(1)], False, True),
        ([client(1), client(3), to(OTHER, 2)], False, True),
        ([client(1), to(PEER, 2)], False, True),
        ([client(1), to(("10.0.0.9", 53), 2)], False, True),
        ([to(OTHER, 2)], True, True),
        ([], True, True),
        ([], False, False),
    ],
)
def test_unfinished_is_a_worker_whose_client_may_bring_a_request(
    sockets: list[Socket], unpaired: bool, left: bool
) -> None:
    """Clients of a `unix:` listener and those over QUIC are in no table of TCP."""
    seen = look([], sockets)
    seen.own = frozenset({1})
    assert unfinished(seen, [OLD], [PEER], unpaired) == ([1] if left else [])


def test_what_is_cut_are_connections_one_at_least_with_each_worker() -> None:
    seen = look([client(1), to(OTHER, 2), client(3)], [client(5), to(OLD, 6)], [], [client(7), to(OTHER, 8)])
    assert cut_with(seen, [0], [OLD]) == 3, "two that end with the worker, one that ends with the replica"
    assert cut_with(seen, [0, 1], [OLD]) == 3, "none of them twice"
    assert cut_with(seen, [2], []) == 1, "something holds it that is in no table"
    assert cut_with(seen, [], []) == 0


def test_nothing_is_proven_by_what_cannot_be_read() -> None:
    assert remaining(Sockets(held=None), [OLD], []) is None
    assert remaining(Sockets(), [OLD], []) is None


def test_a_client_of_a_port_that_is_no_longer_listened_on_is_a_client() -> None:
    gone = Socket(("10.0.0.2", 81), ("10.0.0.1", 40000), "01", 1)
    seen = remaining(look([gone, to(OTHER, 2)]), [OLD], [])
    assert seen is not None
    assert seen.done


def test_reading_the_tables_and_the_links() -> None:
    row = "   0: 0200000A:{} 0500000A:{} {} 0:0 00:0 0 33 0 {} 1"
    lines = [
        "table first",
        "  sl  local_address rem_address   st tx_queue",
        row.format("0050", "9C41", "01", 11),
        row.format("C350", "1F40", "01", 12),
        "   0: 00000000:0050 00000000:0000 0A 0:0 00:0 0 0 0 9 1",
        "range 32768\t60999",
        "worker 7 1 4711",
        "lr-x------ 1 www www 64 Nov 23 15:00 3 -> socket:[11]",
        "lr-x------ 1 www www 64 Nov 23 15:00 4 -> socket:[12]",
        "lr-x------ 1 www www 64 Nov 23 15:00 5 -> anon_inode:[eventpoll]",
        "table second",
        "   1: 0000000000000000FFFF00000200000A:0050 0000000000000000FFFF00000100000A:9C41 01 0:0 00:0 0 33 0 11 1",
        "end",
    ]
    seen = read_sockets(lines)
    assert seen.held == {7: {11, 12}}
    assert seen.started == {7: 4711}
    assert seen.listening == {80}
    assert seen.first[12].remote == ("10.0.0.5", 8000)
    assert seen.second[11].remote == ("10.0.0.1", 40001)
    assert read_sockets([*lines[:-1], "denied", "end"]).held is None


def row(remote: str, inode: int, local: str = "0200000A:0050") -> str:
    return f"  0: {local} {remote} 01 0:0 00:0 0 33 0 {inode} 1"


class Machine:
    """A /proc of our own making, and the scripts run against it. Masters 1 (ours) and 50."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.tools = folder / "proc", folder / "tools"
        self.tools.mkdir()
        for name in ("tcp", "tcp6", "ip_local_port_range"):
            path = self.proc / ("sys/net/ipv4" if name.startswith("ip") else "net") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("32768\t60999\n" if name.startswith("ip") else "")
        for pid in (1, 50):
            self.process(pid, 0, "nginx: master process nginx")

    def process(self, pid: int, parent: int, title: str, *sockets: int) -> None:
        folder = self.proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "cmdline").write_text(f"{title}\0")
        (folder / "stat").write_text(f"{pid} (ng) inx) S {parent} {' 0' * 17} {100 * pid} 0\n")
        for number, inode in enumerate(sockets):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def ending(self, pid: int, parent: int, *sockets: int) -> None:
        self.process(pid, parent, "nginx: worker process is shutting down", *sockets)

    def ls(self, script: str) -> None:
        """What `ls` does here; `really` is the true one."""
        path = self.tools / "ls"
        path.write_text(f'#!/bin/sh\nreally() {{ /bin/ls "$@"; }}\n{script}\n')
        path.chmod(0o755)

    def run(self, script: str, *argv: str) -> list[str]:
        script = script.replace("/proc", str(self.proc))
        path = f"{self.tools}:/usr/bin:/bin"
        done = subprocess.run(
            ["sh", "-c", script, *argv], capture_output=True, text=True, check=True, env={"PATH": path}
        )
        return done.stdout.splitlines()

    def look(self, *masters: int) -> Sockets:
        return read_sockets(self.run(LOOK), masters)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_look_tells_what_each_worker_holds_and_whose_it_is(machine: Machine) -> None:
    (machine.proc / "net/tcp").write_text(row("0100000A:9C41", 11) + "\n")
    machine.ending(7, 1, 11, 99)
    machine.process(8, 1, "nginx: worker process", 12)
    seen = machine.look(1)
    assert (seen.held, seen.started, set(seen.own)) == ({7: {11, 99}}, {7: 700}, {7})
    assert seen.first[11] == seen.second[11] == Socket(("10.0.0.2", 80), ("10.0.0.1", 40001), "01", 11)


def test_a_socket_that_goes_while_it_is_listed_is_no_ban_on_reading(machine: Machine) -> None:
    """GNU's ls exits with 1 then."""
    machine.ending(7, 1, 11)
    machine.ls('really "$@"; exit 1')
    assert machine.look(1).held == {7: {11}}


def test_a_worker_whose_sockets_are_not_shown_cannot_be_read_but_is_known(machine: Machine) -> None:
    machine.ending(7, 1, 11)
    machine.ls('really "$@" | sed "s/ -> .*//"; exit 1')
    seen = machine.look(1)
    assert seen.held is None
    assert seen.own == {7}


@pytest.mark.parametrize(
    ("masters", "held", "own"),
    [
        ((1,), {7, 9}, {7}),  # as where it looks: on the host, or in the host's pid namespace
        ((4001, 4050), {7, 8, 9}, {7, 8}),  # elsewhere; both are ours
        ((4001,), {7, 8, 9}, set()),  # elsewhere: whose is whose cannot be told
        ((), {7, 8, 9}, set()),
    ],
)
def test_workers_of_another_nginx_are_left_alone(
    machine: Machine, masters: tuple[int, ...], held: set[int], own: set[int]
) -> None:
    machine.ending(7, 1)
    machine.ending(8, 50)
    machine.ending(9, 2)  # its master has died
    machine.ls('really "$@"; echo "0 -> socket:[11]"')
    seen = machine.look(*masters)
    assert (set(seen.held or ()), set(seen.own)) == (held, own)
    assert set(surplus(seen, 3, [])) == set(unfinished(seen, [OLD], [], unpaired=True)) == own


def test_where_no_master_may_be_seen_a_workers_parent_tells_whose_it_is(machine: Machine) -> None:
    """On a host with `hidepid` the workers' account does not see what is root's."""
    machine.ending(7, 1)
    machine.ending(8, 50)
    seen = read_sockets([line for line in machine.run(LOOK) if not line.startswith("master")], [1])
    assert seen.own == frozenset({7})


def test_what_cannot_be_read_of_another_nginx_matters_not(machine: Machine) -> None:
    machine.ending(7, 1, 11)
    machine.ending(8, 50)
    assert machine.look(1).held == {7: {11}}
    assert machine.look(50).held is None


def test_every_part_of_a_look_proves_nothing(machine: Machine) -> None:
    (machine.proc / "net/tcp").write_text(row("0100000A:9C41", 11) + "\n")
    machine.ending(7, 1, 99)
    machine.ending(8, 1, 11, 98)
    lines = machine.run(LOOK)
    assert remaining(read_sockets(lines, [1]), [OLD], []) is not None
    for end in range(len(lines)):
        seen = read_sockets(lines[:end], [1])
        assert (remaining(seen, [OLD], []), seen.own) == (None, frozenset()), lines[:end]


def test_only_a_worker_that_shuts_down_is_ended_whoever_has_its_pid_by_now(machine: Machine) -> None:
    machine.ending(7, 1)
    machine.ending(8, 50)
    machine.process(9, 1, "nginx: worker process")
    script = 'kill() { echo "$@"; }\n' + END
    assert machine.run(script, "TERM", "7", "9", "10") == ["-s TERM 7"]
    assert machine.run(script, "TERM") == []


def test_titles_tell_generations_apart() -> None:
    titles = ["nginx: master process nginx", "nginx: worker process", "nginx: worker process is shutting down",
              "nginx: cache manager process"]  # fmt: skip
    seen = workers(Process(pid, title) for pid, title in enumerate(titles))
    assert seen == Workers(frozenset({1}), frozenset({2}), frozenset({0}))


def test_a_token_survives_as_text() -> None:
    token = Token("id", (1, 2), "http2")
    assert Token.of(token.text()) == token
    assert Token.of("nonsense") is None


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("http { server { listen 80; } }", True),
        ("http { keepalive_min_timeout 0; }", True),
        ("http { keepalive_min_timeout 5s; }", False),
        ("http { server { listen 443 ssl http2; } }", False),
        ("http { server { http2 on; } }", False),
        ("http { server { http2 off; location / { auth_request off; } } }", True),
        ("http { server { location / { mirror /m; } } }", False),
        ("http { server { listen unix:/run/x; } }", False),
        ("http { server { location / { proxy_ignore_client_abort on; } } }", False),
        ("http { server { location / { fastcgi_ignore_client_abort off; } } }", True),
        ("http { server { location / { access_by_lua_file x.lua; } } }", False),
        ("http { server { location / { auth_request /a; } } }", False),
        ("http { server { location / { slice 1m; } } }", False),
        ("http { server { location / { add_before_body /b; } } }", False),
        ("http { server { location / { add_after_body /b; } } }", False),
        ("http { server { location / { health_check; } } }", False),
        ("http { server { location / { js_content main.hello; } } }", False),
        ("http { server { location / { perl main::hello; } } }", False),
        ("http { server { location / { ssi on; } } }", False),
        ("http { server { location / { ssi off; } } }", True),
        ("http { server { location / { proxy_cache_background_update on; } } }", False),
        ("http { server { http3 on; } }", False),
        ("http { server { listen 443 quic; } }", False),
        ("http { server { ssl_stapling on; } }", False),
        ("http { server { ssl_ocsp on; } }", False),
        ("http { server { ssl_ocsp leaf; } }", False),
        ("http { server { location / { fastcgi_cache_background_update on; } } }", False),
        ("http { server { http2 On; } }", False),
        ("http { server { location / { ssi ON; } } }", False),
        ("http { server { listen UNIX:/run/x; } }", False),
        ("http { server { location / { proxy_cache c; } } }", False),
        ("http { server { location / { proxy_cache off; } } }", True),
        ("http { server { location / { proxy_cache_valid 1m; } } open_file_cache max=9; }", True),
        ("http { server { location / { fastcgi_cache $zone; } } }", False),
        ("http { server { location / { uwsgi_cache c; } } }", False),
        ("http { server { location / { scgi_cache c; } } }", False),
        ("http { server { location / { proxy_store on; } } }", False),
        ("http { server { location / { proxy_store off; } } }", True),
        ("http { server { location / { scgi_store /data$uri; } } }", False),
        ("http { server { location / { post_action @log; } } }", False),
        ("http { server { location / { echo_location /a; } } }", False),
        ("http { server { location / { srcache_fetch GET /a; } } }", False),
        ("http { otel_exporter { endpoint otel:4317; } }", False),
        ("load_module modules/ngx_otel_module.so;", False),
        ("load_module ngx_own_module.so;", False),
        (
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so; load_module 'modules/ngx_http_geoip2_module.so';",
            True,
        ),
    ],
)
def test_when_sockets_prove_something(text: str, pairs: bool) -> None:
    assert (pids_only(LoadedConfig("/n", {"/n": text})) == "") is pairs


NAMED = "location @web { proxy_pass http://web; }"
STATIC = "location = /50x.html { root /srv; }"
SHOP, WEB = "location /shop { proxy_pass http://shop; }", "location / { proxy_pass http://web; }"


@pytest.mark.parametrize(
    ("server", "pairs"),
    [
        # nginx's own answers about an upstream
        (f"{SHOP} error_page 502 504 = @web; {NAMED}", False),
        (f"{SHOP} {WEB} error_page 500 502 /50x.html; {STATIC}", True),
        (f"{SHOP} {WEB} error_page 500 502 =200 /50x.html?from=$uri; {STATIC}", True),
        (f"{SHOP} {WEB} error_page 500 502 /50x.html;", False),
        (f"{SHOP} {WEB} error_page 500 502 /50x.html; location =/50x.html {{ root /srv; }}", True),
        (f"{SHOP} error_page 500 502 /50x.html;", True),
        (f"{SHOP} {WEB} location /errors/ {{ root /srv; }} error_page 502 /errors/502.html;", True),
        (f"{SHOP} {WEB} location /errors/ {{ root /srv; }} error_page 502 /errors/;", False),
        (f"{SHOP} {WEB} location /errors/ {{ root /srv; }} error_page 502 /errors/$status.html;", False),
        (f"{SHOP} {WEB} error_page 502 $fallback;", False),
        (f"{SHOP} {WEB} error_page 502 https://status.example$request_uri;", True),
        (f"{SHOP} {WEB} error_page 502 $scheme://status.example/;", True),
        (f"{SHOP} location ~ \\.html$ {{ proxy_pass http://web; }} error_page 502 /50x.html;", False),
        (f"{SHOP} location ~* \\.HTML$ {{ proxy_pass http://web; }} error_page 502 /50x.html;", False),
        (f"{SHOP} location ~ \\.(php|asp)$ {{ fastcgi_pass web:9000; }} error_page 502 /50x.html;", True),
        (f"{SHOP} location ~ [^/]\\.php(/|$) {{ fastcgi_pass web:9000; }} error_page 502 /50x.html;", True),
        (f"{SHOP} location ~ '(?>x{{2}})' {{ fastcgi_pass web:9000; }} error_page 502 /50x.html;", False),
        (f"{SHOP} location ~ '(' {{ fastcgi_pass web:9000; }} error_page 502 /50x.html;", False),
        (f"{SHOP} location ^~ /50x {{ root /srv; }} location ~ x {{ grpc_pass web; }} error_page 502 /50x;", True),
        (f"{SHOP} location / {{ proxy_pass http://web; {STATIC} }} error_page 502 /50x.html;", True),
        (f"{SHOP} {WEB} location = /50x.html {{ if ($a) {{ proxy_pass http://web; }} }} error_page 502 /50x.html;",
         False),
        (f"{SHOP} location = /50x {{ try_files $uri @web; }} error_page 502 /50x; {NAMED}", False),
        (f"{SHOP} {WEB} location = /50x.html {{ try_files $uri =404; }} error_page 502 /50x.html;", True),
        (f"{SHOP} {WEB} location = /50x.html {{ try_files $uri /50x.html; }} error_page 502 /50x.html;", True),
        (f"{SHOP} {WEB} {STATIC} rewrite ^/old/ /new/ last; error_page 502 /50x.html;", True),
        (f"{SHOP} {WEB} {STATIC} rewrite html$ / last; error_page 502 /50x.html;", False),
        (f"{SHOP} {WEB} {STATIC} if ($a) {{ rewrite ^ https://b.example; }} error_page 502 /50x.html;", True),
        (f"{SHOP} {WEB} {STATIC} if ($a) {{ rewrite ^ /b redirect; }} error_page 502 /50x.html;", True),
        (f"{SHOP} {WEB} {STATIC} location /a {{ root /srv; error_page 502 /b; }} error_page 502 /50x.html;", False),
        (f"{SHOP} error_page 502 /a; location /a {{ error_page 502 /b; grpc_pass grpc://web; }}", False),
        (f"{SHOP} error_page 502 /nowhere; try_files $uri @web; {NAMED}", False),
        # one that has one upstream sends on to no other
        (f"error_page 502 /50x.html; {WEB} location /a {{ proxy_pass http://web/b; }}", True),
        ("error_page 502 /50x.html; location / { proxy_pass http://$pick; }", False),
        # statuses that nginx gives only before it asks an upstream, unless they are an upstream's
        (f"{SHOP} location / {{ root /srv; error_page 301 401 403 404 405 429 = @web; }} {NAMED}", True),
        (f"{SHOP} error_page 404 = @web; {NAMED} proxy_intercept_errors On;", False),
        (f"{SHOP} error_page 404 = @web; {NAMED} proxy_intercept_errors off;", True),
        (f"{SHOP} error_page 502 /50x.html; error_page 404 = @web; {NAMED} {STATIC}", True),
        (f"{SHOP} error_page 502 /50x.html; error_page 404 = @web; {NAMED} {STATIC} recursive_error_pages on;", False),
        (f"{SHOP} error_page 404 = @web; {NAMED} proxy_next_upstream http_404;", False),
        (f"{SHOP} error_page 404 = @web; {NAMED} location /f {{ internal; }}", False),
        # where X-Accel-Redirect leads on purpose
        (f"{SHOP} location /files/ {{ internal; root /srv; }} {WEB}", True),
        (f"{SHOP} location /files/ {{ internal; proxy_pass http://web; }}", False),
        (f"{SHOP} location /files/ {{ internal; location ~ x {{ proxy_pass http://web; }} }}", False),
        (f"{SHOP} location /files/ {{ internal; rewrite ^/files/(.*) /$1 last; }} {WEB}", False),
        (f"{SHOP} location /files/ {{ internal; try_files $uri =404; }} {WEB}", True),
        # it stays where it is
        (f"{SHOP} {WEB} error_page 502 @m; location @m {{ root /srv; rewrite ^ /m.html break; }}", True),
        (f"{SHOP} {WEB} error_page 502 @m; location @m {{ root /srv; rewrite ^ /m.html last; }}", False),
        (f"{SHOP} {WEB} error_page 502 /m; location = /m {{ root /srv; }} rewrite ^/m$ /shop break;", False),
    ],
)  # fmt: skip
def test_pairs_prove_nothing_where_a_request_may_be_sent_on_from_one_upstream_to_another(
    server: str, pairs: bool
) -> None:
    assert (pids_only(LoadedConfig("/n", {"/n": f"http {{ server {{ {server} }} }}"})) == "") is pairs


def test_an_internal_location_of_one_server_says_nothing_of_another() -> None:
    here = f"server {{ {SHOP} error_page 404 = @web; {NAMED} }}"
    inner = "location = /404.html { internal; root /srv; }"
    assert pids_only(LoadedConfig("/n", {"/n": f"http {{ {here} server {{ {inner} }} }}"})) == ""
    assert pids_only(LoadedConfig("/n", {"/n": f"http {{ {here} proxy_intercept_errors on; }}"})) != ""


def test_error_pages_of_all_servers_are_looked_for_in_each() -> None:
    text = "http {{ error_page 502 /50x.html; include /s; server {{ {} }} }}"
    for second, pairs in ((STATIC, True), (SHOP + WEB, False)):
        config = LoadedConfig("/n", {"/n": text.format(second), "/s": f"server {{ {SHOP} {STATIC} {WEB} }}"})
        assert pids_only(config) == ("" if pairs else "error_page 502 /50x.html (/n:1)")


def test_of_a_program_in_the_configuration_only_the_beginning_is_told() -> None:
    told = pids_only(LoadedConfig("/n", {"/n": f"http {{ access_by_lua '{'x' * 5000}'; }}"}))
    assert told.startswith("access_by_lua xxx")
    assert len(told) < 100


class Reloaded:
    """nginx's processes as they are at each look, the last for good; `ours` begins the pids of our generation, one of
    which is enough for an answer with its digest. Its log is empty."""

    def __init__(self, ours: str, *looks: str) -> None:
        self.ours, self.looks, self.at = f"+{ours}", list(looks), 0
        self.clock = HandClock()

    def processes(self) -> list[Process]:
        text = self.looks[min(self.at, len(self.looks) - 1)]
        self.at += 1
        kind = {"+": "nginx: worker process", "-": "nginx: worker process is shutting down"}
        return [Process(1, "nginx: master process"), *(Process(int(one[1:]), kind[one[0]]) for one in text.split())]

    def reload(self, seen: Sequence[Process]) -> None:
        assert seen

    def output(self, since: float) -> list[str]:
        return []

    def describe(self) -> str:
        return "nginx"

    def exec(self, argv: Sequence[str], *, user: str = "") -> ExecResult:
        return ExecResult(1, "")  # no shell: sockets cannot be read

    def digest(self) -> str:
        return "new" if self.ours in self.looks[min(self.at, len(self.looks)) - 1] else "former"

    def load(self, size: int = 1000) -> Workers:
        reload = Reload(self, self, self.clock, self.digest)  # type: ignore[arg-type]  # all that it asks of them
        return reload.load(reload.workers(), "new", size, lambda: "former")


def test_a_reload_is_live_once_no_earlier_worker_serves() -> None:
    now = Reloaded("2", "+10 +11 -7", "+10 +11 +20 +21", "-10 +11 +20 +21", "-10 -11 +20 +21").load()
    assert (set(now.serving), set(now.ending)) == ({20, 21}, {10, 11})


@pytest.mark.parametrize(("size", "seconds"), [(1000, 4.5), (10_000_000, 14.0)])
def test_a_slow_machine_is_waited_for_and_longer_for_more_to_read(size: int, seconds: float) -> None:
    slow = Reloaded("2", *["+10"] * int(seconds / 0.03), "-10 +20")
    assert slow.load(size).serving == {20}
    assert slow.clock.time == pytest.approx(seconds, rel=0.1)


def test_a_reload_by_somebody_else_just_before_is_waited_for_as_well() -> None:
    """Its workers were not there when we looked, and have the configuration from before; they serve beside ours."""
    ours = Reloaded(
        "3", "+10 +11", "-10 -11 +20 +21", "-10 -11 +20 +21 +30 +31", "-10 -11 -20 +21 +30 +31", "-20 -21 +30 +31"
    )
    now = ours.load()
    assert (set(now.serving), set(now.ending)) == ({30, 31}, {20, 21}), "they are waited for, and drained"


def test_a_reload_by_somebody_else_with_fewer_workers_is_waited_for_as_well() -> None:
    """Both new generations together are no more than there were before: who came later tells them apart."""
    ours = Reloaded("3", "+10 +11 +12 +13", "-10 +20 +21", "-10 +20 +21 +30 +31", "-20 +21 +30 +31", "-20 -21 +30 +31")
    now = ours.load()
    assert (set(now.serving), set(now.ending)) == ({30, 31}, {20, 21})
    assert ours.clock.time < 0.5, "as soon as the others end"


def test_more_workers_than_before_are_one_generation_once_they_stay() -> None:
    edited = Reloaded("2", "+10", "-10 +20 +21 +22")
    now = edited.load()
    assert now.serving == {20, 21, 22} and 0.5 <= edited.clock.time < 1.0


@pytest.mark.parametrize("upstreams", [[], [Upstream("web-a", "10.0.0.2", 80)]])
def test_a_list_without_workers_is_no_end_of_the_old_ones(upstreams: list[Upstream]) -> None:
    drain = Drain(Reloaded("3", ""), HandClock(), lambda: LoadedConfig("/n.conf", {}, (1, 26, 3)))  # type: ignore[arg-type]
    assert not drain.in_flight(Token("edge", (10, 11)), None, upstreams).drained


def test_at_the_drain_limit_a_list_without_workers_is_no_leave_to_stop() -> None:
    """Whether a request would be cut is not known, nor how many: the receipt must not say none."""
    drain = Drain(Reloaded("3", ""), HandClock(), lambda: LoadedConfig("/n.conf", {}, (1, 26, 3)))  # type: ignore[arg-type]
    with pytest.raises(ProxyUnreachable, match="no worker of nginx is seen"):
        drain.cut(Token("edge", (10, 11)), None, [])


def test_a_taken_port_is_a_refusal_only_once_nginx_gave_up() -> None:
    trying = "2026/11/23 15:00:00 [emerg] 1#1: bind() to 0.0.0.0:81 failed (98: Address already in use)"
    gave_up = "2026/11/23 15:00:02 [emerg] 1#1: still could not bind()"
    assert refusal([trying, trying]) == []
    assert refusal([trying, trying, gave_up]) == [
        "[emerg] bind() to 0.0.0.0:81 failed (98: Address already in use)",
        "[emerg] still could not bind()",
    ]
    assert refusal(['2026/11/23 15:00:00 [emerg] 1#1: unknown directive "x"']) == ['[emerg] unknown directive "x"']
    assert refusal(["2026/11/23 15:00:00 [error] 1#1: connect() failed"]) == []


def test_counting_blames_each_upstream_for_its_own() -> None:
    def line(status: int, addresses: str, agent: str = "x") -> str:
        head = f'1.2.3.4 - - [23/Nov/2026:15:00:00 +0000] "GET / HTTP/1.1" {status} 5 "-" "{agent}"'
        return f'{head} rollout="{addresses}" "200" 0.010'

    lines = [
        line(200, "10.0.0.5:80"),
        line(502, "10.0.0.5:80"),
        line(200, "10.0.0.5:80, 10.0.0.6:80"),
        line(404, "[fd00::1]:80"),
        line(200, "-"),
        line(200, "10.0.0.5:80", agent="rollout=\\x226.6.6.6:1\\x22 \\x22200\\x22 0.1"),
        "[emerg] something else",
    ]
    seen = {address: (c.requests, c.failed) for address, c in counted(lines).by_address.items()}
    assert seen == {"10.0.0.5:80": (4, 2), "10.0.0.6:80": (1, 0), "[fd00::1]:80": (1, 0)}


@pytest.mark.parametrize(("serving", "ending", "many"), [(2, 16, 0), (2, 17, 1), (1, 20, 12), (0, 9, 1)])
def test_old_workers_pile_up_only_so_far(serving: int, ending: int, many: int) -> None:
    assert GENERATIONS == 8
    assert Workers(frozenset(range(serving)), frozenset(range(100, 100 + ending))).surplus == many


def test_those_that_shut_down_for_longest_are_the_surplus() -> None:
    seen = look([client(1), to(OTHER, 2)], [client(3), client(5), to(OTHER, 4)], [client(7)])
    seen.started = {0: 900, 1: 100, 2: 500}  # pids are given out again: only the time tells
    assert surplus(seen, 2, []) == [1, 2]
    assert surplus(seen, 2, [1]) == [2], "one ends anyway"
    assert surplus(seen, 1, [0]) == []
    assert clients_of(seen, [1, 2]) == 3

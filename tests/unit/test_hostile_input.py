"""Input by people and programs that mean harm, or are broken: refused in our words, or read as what it says.

Never a traceback, never a configuration of another structure than the names mean, never a shell.
"""

from __future__ import annotations

import ast
import copy
import functools
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rollout
from rollout.cli import main
from rollout.engines.docker import Connection, DockerEngine, reading
from rollout.engines.docker.container import ContainerProcess
from rollout.errors import EngineError, ProxyUnreachable, RolloutError
from rollout.model import Pool, PoolOptions, ProxySettings, ProxyType, Replica, Upstream
from rollout.ports import Process
from rollout.proxies import haproxy_answers, haproxy_counters, haproxy_files, nginx_config, nginx_log, nginx_workers
from rollout.proxies.haproxy_candidate import Candidates
from rollout.proxies.haproxy_config import ConfigDirectory, decode, server_lines, structure
from rollout.proxies.local import HostProcess
from rollout.proxies.nginx_render import STATUS, Renderer, digest_of, pool_of
from rollout.proxies.nginx_status import StatusListener, trusted
from rollout.proxies.render import Templates
from rollout.spec import read_project
from tests.clocks import HandClock
from tests.seeded import whatever_was_imported

hostile = settings(deadline=None, derandomize=True, database=None, max_examples=400)


@pytest.fixture(scope="module", autouse=True)
def same_examples_in_any_order_of_tests() -> Iterator[None]:
    with whatever_was_imported():
        yield


BAITS = (
    "web;", "web { }", "a\nserver evil 6.6.6.6:80", "a\r\nb", "a b", "a#b", '"', "'", "\\", "$(id)", "`id`", "${HOME}",
    "{{ 7*7 }}", "{% raise %}", "../../etc/passwd", ".", "..", ".hidden", "-rf", "--", "a\x00b", "\u2028", "٣", "é", "",
    "9" * 5000, "x" * 300, "10.0.0.1;", "10.0.0.1 backup", "fe80::1%eth0", "::1", "0x7f.1", "rollout-status", "unix:/x",
)  # fmt: skip
texts = st.one_of(st.sampled_from(BAITS), st.text(max_size=12), st.from_regex(r"[a-zA-Z0-9._-]{1,12}", fullmatch=True))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), texts,
    st.sampled_from(("30s", "1e9h", "99999999999999999999h", "0s", "200", "8000")),
)  # fmt: skip
yaml_like = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.one_of(texts, st.integers()), inner, max_size=3),
    max_leaves=6,
)

# --- the configuration -----------------------------------------------------------------------------------------

PROXY_KEYS = ("type", "config", "service", "container", "host", "templates", "status_port", "socket", "master_socket",
              "pid_file", "binary", "main_config", "zzz")  # fmt: skip
HEALTH_KEYS = ("path", "tcp", "command", "port", "host", "headers", "expect", "interval", "timeout",
               "healthy_threshold", "start_period", "min_healthy_time", "healthy_deadline", "zzz")  # fmt: skip
SERVICE_KEYS = ("port", "strategy", "health", "drain_timeout", "keep_warm", "keep", "progress_deadline", "hosts",
                "balance", "keepalive", "keepalive_timeout", "zzz")  # fmt: skip
UPDATE_KEYS = ("parallelism", "delay", "order", "failure_action", "monitor", "max_failure_ratio")
WEB = ("services", "web")
PLACES: tuple[tuple[str, ...], ...] = (
    ("x-rollout",), ("x-rollout", "proxy"), (*WEB, "x-rollout"), (*WEB, "x-rollout", "health"),
    *(("x-rollout", "proxy", key) for key in PROXY_KEYS), *((*WEB, "x-rollout", key) for key in SERVICE_KEYS),
    *((*WEB, "x-rollout", "health", key) for key in HEALTH_KEYS),
    *((*WEB, "deploy", "update_config", key) for key in UPDATE_KEYS), (*WEB, "stop_grace_period"),
    *((*WEB, "healthcheck", key) for key in ("interval", "timeout", "retries", "start_period", "test")),
)  # fmt: skip


def document() -> dict[str, Any]:
    return {
        "name": "shop",
        "x-rollout": {"proxy": {"type": "nginx", "service": "edge", "config": "."}},
        "services": {
            "edge": {"image": "nginx:1.30", "networks": {"default": None}},
            "web": {
                "image": "shop/web:1",
                "networks": {"default": None},
                "deploy": {"replicas": 2, "update_config": {"parallelism": 1}},
                "healthcheck": {"interval": "5s"},
                "x-rollout": {"port": 8000, "health": {"path": "/healthz"}},
            },
        },
    }


def refused_in_our_words(error: RolloutError) -> None:
    assert error.exit_code == 2 and error.message
    assert not any("\n" in line for line in error.details), "a fault is told in one line"


def put(target: Any, place: tuple[str, ...], value: Any) -> None:
    for key in place[:-1]:
        target = target.get(key) if isinstance(target, dict) else None
    if isinstance(target, dict):
        target[place[-1]] = value


@hostile
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), yaml_like), min_size=1, max_size=3))
@example(changes=[((*WEB, "x-rollout", "drain_timeout"), "9" * 400 + "h")])
def test_any_configuration_is_read_or_refused(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    raw = document()
    for place, value in changes:
        put(raw, place, copy.deepcopy(value))
    try:
        project = read_project(raw, "/tmp", "")
    except RolloutError as error:
        refused_in_our_words(error)
        return
    for service in project.services.values():
        pool = Pool(service.name, (Upstream("web-1", "10.0.0.5", service.port),), service.pool)
        means_what_it_says_to_nginx(pool)


@hostile
@given(name=texts, image=texts, hosts=st.lists(texts, max_size=3), path=texts, header=st.dictionaries(texts, texts))
def test_names_headers_and_paths_are_taken_as_they_are_or_refused(
    name: str, image: str, hosts: list[str], path: str, header: dict[str, str]
) -> None:
    raw = document()
    web = raw["services"].pop("web")
    web["image"] = image
    web["x-rollout"] |= {"hosts": hosts, "health": {"path": path, "headers": header}}
    raw["services"][name] = web
    try:
        settings_ = read_project(raw, "/tmp", "").services[name]
    except RolloutError as error:
        refused_in_our_words(error)
        return
    assert settings_.health.path == path and dict(settings_.health.headers) == header
    request = "".join([path, *header, *header.values()])
    request.encode("latin-1")  # as it is sent
    assert not {"\r", "\n", "\x00"} & set(request), "a line break would be another header"
    means_what_it_says_to_nginx(Pool(name, (), settings_.pool))


# --- what is rendered ------------------------------------------------------------------------------------------

names = st.one_of(texts, st.from_regex(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}", fullmatch=True))
addresses = st.one_of(texts, st.ip_addresses().map(str))
upstreams = st.builds(
    Upstream, name=names, host=addresses, port=st.integers(-1, 70000), weight=st.integers(0, 300)
) | st.builds(Upstream, name=st.from_regex(r"web-[0-9a-f]{12}", fullmatch=True), host=st.ip_addresses().map(str),
              port=st.integers(1, 65535), weight=st.integers(1, 256))  # fmt: skip
options = st.builds(
    PoolOptions,
    keepalive=st.integers(-1, 100),
    keepalive_timeout=st.floats(-1, 1e7),
    hosts=st.lists(names, max_size=2).map(tuple),
    balance=st.one_of(texts, st.sampled_from(("roundrobin", "leastconn", "random"))),
) | st.builds(PoolOptions, keepalive=st.integers(0, 64), balance=st.sampled_from(("roundrobin", "random")))  # fmt: skip
pools = st.builds(Pool, service=names, upstreams=st.lists(upstreams, max_size=3).map(tuple), options=options)

Shape = tuple[Any, ...]


def shape(directives: tuple[nginx_config.Directive, ...]) -> list[Shape]:
    return [(d.name, d.args, None if d.block is None else shape(d.block)) for d in directives]


def expected_upstream(pool: Pool) -> list[Shape]:
    lines: list[Shape] = []
    balance = {"leastconn": ("least_conn", (), None), "random": ("random", ("two", "least_conn"), None)}
    lines += [balance[pool.options.balance]] if pool.options.balance in balance else []
    for u in pool.upstreams:
        weight = (f"weight={u.weight}",) if u.weight != 1 else ()
        lines.append(("server", (u.address, *weight, "max_fails=0"), None))
    if not pool.upstreams:
        lines.append(("server", ("127.0.0.1:8099", "max_fails=0"), None))
    if pool.options.keepalive:
        lines.append(("keepalive", (str(pool.options.keepalive),), None))
    return lines


def rendered_by_nginx(pool: Pool) -> bytes | None:
    """None when it was refused."""
    renderer = Renderer(_templates("nginx"), 8099)
    try:
        made = renderer.generation({}, [pool], "8099", trusted({}))
    except RolloutError:
        return None
    assert set(made) == {f"{pool.service}.conf", STATUS}
    return made[f"{pool.service}.conf"]


def means_what_it_says_to_nginx(pool: Pool) -> bool:
    content = rendered_by_nginx(pool)
    if content is None:
        return False
    found = shape(nginx_config.parse(content.decode()))
    hosts = pool.options.hosts
    assert [(name, args) for name, args, _ in found] == [
        ("upstream", (pool.service,)),
        *([("server", ())] if hosts else []),
    ]
    assert found[0][2][:-1] == expected_upstream(pool)
    assert found[0][2][-1][0] == "keepalive_timeout" and found[0][2][-1][1][0].rstrip("ms").isdigit()
    if hosts:
        inner = found[1][2]
        assert inner[:2] == [("listen", ("80",), None), ("server_name", hosts, None)]
        assert [name for name, _, _ in inner[2:]] == ["location"]
        assert inner[2][2][0] == ("proxy_pass", (f"http://{pool.service}",), None)
    assert pool_of(content) == pool
    return True


def means_what_it_says_to_haproxy(pool: Pool) -> bool:
    candidates = Candidates(
        ProxySettings(ProxyType.HAPROXY, "/nowhere", service="edge"), HostProcess("x", "/nowhere"), ConfigDirectory("/")
    )
    try:
        text = candidates.render(pool)
    except RolloutError:
        return False
    lines = [line.words for line in haproxy_files.parse_config("web.cfg", text)]
    head = [("backend", pool.service), ("balance", pool.options.balance)]
    assert lines[:4] == [*head, ("retries", "10"), ("option", "redispatch", "1")]
    assert [line[:5] for line in lines[4:]] == [
        ("server", u.name, u.address, "weight", str(u.weight)) for u in pool.upstreams
    ]
    assert all(len(line) == 9 for line in lines[4:])
    assert decode(text) == pool
    assert {n: (s.address, s.weight) for n, s in server_lines(text).items()} == {
        u.name: (u.address, u.weight) for u in pool.upstreams
    }
    assert structure(text) == tuple(lines[:4])
    return True


@functools.cache
def _templates(proxy: str) -> Templates:
    return Templates(proxy)


@hostile
@given(pool=pools)
def test_a_pool_is_rendered_to_what_its_names_mean_or_not_at_all(pool: Pool) -> None:
    means_what_it_says_to_nginx(pool)
    means_what_it_says_to_haproxy(pool)


@pytest.mark.parametrize("bait", BAITS)
def test_no_bait_reaches_a_configuration_as_more_than_a_name(bait: str) -> None:
    """Each place of a pool, everything else being good. Refused, or one plain word."""
    good = Upstream("web-1", "10.0.0.5", 8000)
    for pool in (
        Pool(bait, (good,)),
        Pool("web", (Upstream(bait, "10.0.0.5", 8000),)),
        Pool("web", (Upstream("web-1", bait, 8000),)),
        Pool("web", (good,), PoolOptions(hosts=(bait,))),
        Pool("web", (good,), PoolOptions(balance=bait)),
    ):
        taken = means_what_it_says_to_nginx(pool), means_what_it_says_to_haproxy(pool)
        assert not any(taken) or not set(bait) & set(" \t\r\n;{}\"'\\$`#\x00/")


# --- what programs answer --------------------------------------------------------------------------------------

garbage = st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
proc_words = st.sampled_from(
    ("table", "first", "worker", "denied", "range", "0:", "0100007F:1F90", "0A", "01", "socket:[12]", "zz", "-1", "é:é",
     "99999999999999999999:", "12", "0100007F", ":", "0A0A0A:FFFFF")
)  # fmt: skip
proc_lines = st.lists(st.lists(proc_words | texts, max_size=12).map(" ".join), max_size=12)
nginx_text = st.lists(
    st.sampled_from(("upstream", "web", "{", "}", ";", '"', "'", "\\", "#", "\n", "# configuration file /a:\n",
                     "{" * 3000,
                     "nginx version: nginx/1.30.0\n", "nginx version: x/" + "9" * 5000, "content_by_lua_block", "--[["))
    | texts, max_size=25,
).map(" ".join)  # fmt: skip


def tolerated(read: Callable[[], object]) -> None:
    """It answers, or raises one of ours."""
    with suppress(RolloutError):
        read()


@hostile
@given(text=nginx_text | garbage)
@example(text="a { " * 5000)
@example(text="nginx version: nginx/" + "9" * 5000)
def test_whatever_nginx_prints_is_read(text: str) -> None:
    tolerated(lambda: nginx_config.parse(text))
    tolerated(lambda: nginx_config.version_of(text))
    tolerated(lambda: nginx_config.seconds(text))
    tolerated(lambda: list(dumped.walk()) if (dumped := nginx_config.read_dump(text)) else None)
    tolerated(lambda: nginx_log.counted(text.splitlines()))
    tolerated(lambda: (digest_of({STATUS: text.encode()}), pool_of(text.encode())))
    tolerated(lambda: nginx_workers.Token.of(text))
    tolerated(lambda: nginx_workers.workers([Process(1, text)]))


@hostile
@given(lines=proc_lines | garbage.map(str.splitlines))
def test_whatever_a_look_at_the_sockets_answers_is_read_or_proves_nothing(lines: list[str]) -> None:
    seen = nginx_workers.read_sockets(lines)
    found = nginx_workers.remaining(seen, [("10.0.0.5", 80)], [])
    assert found is None or found.connections >= 0
    nginx_workers.unfinished(seen, [("10.0.0.5", 80)], [], unpaired=False)


stat_text = st.lists(
    st.sampled_from(("# pxname,svname,", "qcur,scur,stot", "web,web-1,0,0", "\n", ",", '"', "9" * 5000,
                     "No such proxy", "\n\n"))
    | texts, max_size=20,
).map("".join)  # fmt: skip


@hostile
@given(text=stat_text | garbage)
@example(text="Pid: " + "9" * 5000 + "\nStopping: 0\nVersion: 3")
@example(text="# pxname,svname,\n" + "a," * 200000 + "\n\n")
def test_whatever_haproxy_answers_is_read(text: str) -> None:
    tolerated(lambda: haproxy_answers.parse_info(text))
    tolerated(lambda: haproxy_answers.parse_servers(text))
    tolerated(lambda: haproxy_answers.parse_servers(f"# pxname,svname,addr,status\n{text}\n\n"))
    worker = haproxy_answers.Worker(1, 1, False, "3.0")
    tolerated(lambda: haproxy_counters.since(text, worker, [], {}))
    tolerated(lambda: (decode(text), decode("# rollout: " + text), server_lines(text), structure(text)))
    tolerated(lambda: haproxy_files.parse_config("a.cfg", text))
    tolerated(lambda: haproxy_files.parse_command_line(text.split()))


json_like = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
LISTED: dict[str, Any] = {
    "Id": "5f" * 32, "Names": ["/shop-web-2"], "State": "running", "Status": "Up 2 seconds", "ImageID": "sha256:1",
    "Labels": {reading.SERVICE: "web", reading.NUMBER: "2", reading.CONFIG_HASH: "abc"},
    "Image": "shop/web:1", "Created": 1700000000, "NetworkSettings": {"Networks": {"a": {"IPAddress": "10.0.0.2"}}},
}  # fmt: skip
INSPECTED: dict[str, Any] = {
    "Id": "5f" * 32, "Name": "/shop-web-2", "Image": "sha256:1", "Created": "2023-11-14T22:13:20Z", "RestartCount": 0,
    "Path": "/app", "Args": ["-x"], "HostConfig": {"Tmpfs": None, "NetworkMode": "shop_default"},
    "Mounts": [{"Source": "/shop/conf", "Destination": "/etc/conf", "RW": False}],
    "State": {"Status": "running", "StartedAt": "2023-11-14T22:13:20Z", "ExitCode": 0, "Pid": 12, "Running": True,
              "Restarting": False,
              "Health": {"Status": "healthy", "Log": [{"ExitCode": 0, "Output": "ok"}]}},
    "Config": {"Labels": {reading.SERVICE: "web", reading.PROJECT: "shop"}, "Image": "shop/web:1", "StopTimeout": 3},
    "NetworkSettings": {"Networks": {"a": {"IPAddress": "10.0.0.2"}}},
}  # fmt: skip
SAMPLE: dict[str, Any] = {
    "memory_stats": {"usage": 9, "stats": {"inactive_file": 3}}, "cpu_stats": {"cpu_usage": {"total_usage": 5}},
}  # fmt: skip


# one of each kind that JSON has, as Python reads it
KINDS: list[Any] = [None, True, -1, 1.5, float("nan"), 10**400, "", "x", [], [3], [[]], {}, {"a": 3}]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from places(inner, (*at, key))


def with_changes(good: dict[str, Any], changes: list[tuple[tuple[Any, ...], Any]]) -> Any:
    """`good` with these values at these places."""
    result: Any = {"": copy.deepcopy(good)}
    for place, value in changes:
        target = result
        with suppress(IndexError, KeyError, TypeError):  # an earlier change has put something else on the way
            for key in ("", *place)[:-1]:
                target = target[key]
            target[("", *place)[-1]] = copy.deepcopy(value)
    return result[""]


def spoiled(good: dict[str, Any]) -> st.SearchStrategy[Any]:
    """`good` with anything at one or two of its places."""
    found = st.sampled_from(list(places(good)))
    changes = st.lists(st.tuples(found, json_like), min_size=1, max_size=2)
    return changes.map(lambda chosen: with_changes(good, chosen))


@hostile
@given(listed=spoiled(LISTED), inspected=spoiled(INSPECTED))
def test_whatever_the_engine_answers_is_read_or_makes_no_sense(listed: Any, inspected: Any) -> None:
    with suppress(EngineError):
        _typed(reading.listed(reading.container_list([listed])[0]))
    with suppress(EngineError):
        _typed(reading.inspected(reading.inspection(inspected)))
    tolerated(lambda: reading.mounts(reading.inspection(inspected)))
    tolerated(lambda: reading.addresses(reading.inspection(inspected)))


TOP: dict[str, Any] = {"Titles": ["PID", "CMD"], "Processes": [["7", "nginx: master process"]]}


class Client:
    """Of the engine: it answers these, to whatever is asked of them."""

    base_url = "http+docker://engine"

    def __init__(self, listed: Any, inspected: Any, top: Any, sample: Any = None) -> None:
        self.containers = lambda **_: [listed]
        self.inspect_container = lambda _: inspected
        self.top = lambda *_, **__: top
        self.stats = lambda *_, **__: sample
        self.stop = self.remove_container = lambda *_, **__: None
        self.logs = lambda *_, **__: b""


@hostile
@given(listed=spoiled(LISTED), inspected=spoiled(INSPECTED), top=spoiled(TOP))
def test_whatever_is_said_of_the_proxy_is_read_or_makes_no_sense(listed: Any, inspected: Any, top: Any) -> None:
    asked: list[Callable[[ContainerProcess], Any]] = [
        ContainerProcess.identity, ContainerProcess.argv, ContainerProcess.processes, ContainerProcess.networks,
        lambda process: process.mount("/shop/conf"), lambda process: process.host_path("/etc/conf/x"),
    ]  # fmt: skip
    for ask in asked:
        for entry, seen, processes in ((listed, INSPECTED, TOP), (LISTED, inspected, TOP), (LISTED, INSPECTED, top)):
            connection = Connection(HandClock(), {})  # waits for nothing
            connection._client = Client(entry, seen, processes)  # type: ignore[assignment]  # no other way in
            with suppress(EngineError, ProxyUnreachable):
                ask(ContainerProcess(connection, "shop", service="edge"))


@pytest.mark.parametrize(
    "ask",
    [
        lambda engine: engine.inspect(INSPECTED["Id"]), lambda engine: engine.stop(INSPECTED["Id"], None),
        lambda engine: engine.usage(INSPECTED["Id"]), lambda engine: engine.remove(INSPECTED["Id"]),
        lambda engine: engine.replicas("web"), lambda engine: engine.jobs("web"),
    ],
    ids=["inspect", "stop", "usage", "remove", "replicas", "jobs"],
)  # fmt: skip
def test_any_other_kind_at_any_place_of_an_answer_makes_no_sense(ask: Callable[[DockerEngine], Any]) -> None:
    def asked(listed: Any, inspected: Any, sample: Any) -> None:
        connection = Connection(HandClock(), {})
        connection._client = Client(listed, inspected, TOP, sample)  # type: ignore[assignment]  # no other way in
        with suppress(EngineError):
            ask(DockerEngine("shop", lambda *_: None, HandClock(), connection=connection))

    for kind in KINDS:
        for place in places(LISTED):
            asked(with_changes(LISTED, [(place, kind)]), INSPECTED, SAMPLE)
        for place in places(INSPECTED):
            asked(LISTED, with_changes(INSPECTED, [(place, kind)]), SAMPLE)
        for place in places(SAMPLE):
            asked(LISTED, INSPECTED, with_changes(SAMPLE, [(place, kind)]))


def _typed(replica: Replica) -> None:
    """What got through is what the core takes it for."""
    key = replica.key
    words = (replica.id, replica.name, replica.service, replica.image, key.config_hash, key.image_id)
    assert all(isinstance(word, str) for word in (*words, *replica.addresses.values()))


@contextmanager
def answering(data: bytes) -> Iterator[int]:
    """A port of this host on which every connection gets these bytes and is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            while True:
                client, _ = server.accept()
                with client:
                    if done.is_set():
                        return
                    client.recv(4096)
                    client.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x00" * 64, b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=\xff\r\n\r\n\xff\xfe", b"HTTP/1.1 200 \xff\r\nA" * 200,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: //\xff:99999999/\r\n\r\n",
    ],
)  # fmt: skip
def test_whatever_listens_on_the_status_port_is_not_mistaken_for_nginx(data: bytes) -> None:
    with answering(data) as port:
        answer = StatusListener(port).digest({"net": "127.0.0.1"})
    assert answer in ("", "\xff\xfe", "\ufffd\ufffd")


# --- never a shell ---------------------------------------------------------------------------------------------

SOURCES = sorted(Path(rollout.__file__).parent.rglob("*.py"))
SHELLS = {"sh", "/bin/sh", "bash", "/bin/bash"}
BY_SHELL = {"system", "popen", "getoutput", "getstatusoutput"}
# the user's own `health.command: a line of shell`, run inside the user's own container
ASKED_FOR = {("spec/values.py", "value")}


def test_no_source_hands_anything_but_a_constant_to_a_shell() -> None:
    seen = set()
    for path in SOURCES:
        where = path.relative_to(Path(rollout.__file__).parent).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                raise AssertionError(f"{where}:{node.value.lineno}: shell=")
            if isinstance(node, ast.Attribute) and node.attr in BY_SHELL:
                assert not (isinstance(node.value, ast.Name) and node.value.id in ("os", "subprocess")), where
            if isinstance(node, (ast.List, ast.Tuple)):
                seen |= _given_to_a_shell(node, where)
    assert {place for place in seen if place not in ASKED_FOR} == set()
    assert seen >= ASKED_FOR, "the exception is still one"


def _given_to_a_shell(node: ast.List | ast.Tuple, where: str) -> set[tuple[str, str]]:
    first = [e.value if isinstance(e, ast.Constant) else None for e in node.elts[:2]]
    if len(node.elts) < 3 or first[0] not in SHELLS or first[1] != "-c":
        return set()
    script = node.elts[2]
    constant = isinstance(script, ast.Constant) or (isinstance(script, ast.Name) and script.id.isupper())
    return set() if constant else {(where, ast.unparse(script))}


def test_a_host_proxy_is_called_without_a_shell(tmp_path: Path) -> None:
    bait = f"$(touch {tmp_path}/made) `touch {tmp_path}/made`; touch {tmp_path}/made\n*"
    process = HostProcess("nginx", str(tmp_path / "pid"))
    done = process.exec([sys.executable, "-c", "import sys; sys.stdout.write(sys.argv[1])", bait])
    assert (done.exit_code, done.output) == (0, bait)
    assert not (tmp_path / "made").exists()


def test_compose_is_called_without_a_shell(tmp_path: Path) -> None:
    from rollout.compose.process import Process as Compose

    bait = f"web$(touch {tmp_path}/made);`touch {tmp_path}/made`"
    argv = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "config", bait]
    done = Compose(argv, {}, str(tmp_path)).finish(None, 20.0)
    assert done.stdout.strip() == repr(["config", bait])
    assert not (tmp_path / "made").exists()


def test_every_program_is_started_from_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `subprocess` gets at run time from a command line full of baits."""
    started: list[Any] = []
    real = subprocess.Popen.__init__

    def watch(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        started.append((args, options.get("shell", False)))
        real(self, args, *rest, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", watch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    assert main(["-p", "a;b", "--profile", "$(id)", "plan", "web;touch x"]) in (2, 4)
    assert all(isinstance(args, list) and not shell for args, shell in started)
    assert not (tmp_path / "x").exists()

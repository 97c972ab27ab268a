"""The HAProxy adapter against real HAProxies: what it promises must hold after every command, not only at the end."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.errors import ProxyRejected, ProxyUnreachable, SpecError, StateError
from rollout.model import InFlight, Pool, PoolOptions, ServiceSettings, Switched, Upstream
from rollout.proxies.haproxy import HAProxy
from rollout.proxies.haproxy_socket import ControlSocket
from tests.e2e.haproxy_bench import CONFIG, VERSIONS, Client, Edge, docker, eventually, running_apps, running_edge
from tests.e2e.projects import echoes

pytestmark = pytest.mark.e2e
_numbers = itertools.count(1)


# without SO_REUSEPORT on both sides a port is taken
THIEF = "global\n noreuseport\ndefaults\n timeout client 1s\nfrontend thief\n bind :8404\n"


class Killed(BaseException):
    """The controller is killed here: nothing of it runs any more, no clean-up either."""


@pytest.fixture(scope="module")
def apps() -> Iterator[dict[str, Upstream]]:
    with running_apps("a", "b") as running:
        yield running


@pytest.fixture(scope="module", params=VERSIONS)
def edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with running_edge(request.param, tmp_path_factory.mktemp("edge")) as running:
        yield running


@pytest.fixture
def a(apps: dict[str, Upstream]) -> Upstream:
    return apps["a"]


@pytest.fixture
def b(apps: dict[str, Upstream]) -> Upstream:
    return apps["b"]


@pytest.fixture
def service(edge: Edge, a: Upstream) -> Iterator[str]:
    """A service of its own for every test, served by `a`; its file is gone afterwards."""
    name = f"s{next(_numbers)}"
    edge.adapter().switch(Pool(name, (a,)))
    yield name
    edge.file(name).unlink(missing_ok=True)


def drained(proxy: HAProxy, switched: Switched | None, *old: Upstream) -> InFlight | None:
    now = proxy.in_flight(switched, old)
    return now if now.drained else None


def in_flight_of(app: Upstream) -> int:
    """Requests the app itself has begun and not ended."""
    with Client(app.host, "x", app.port) as client:
        client.send("GET", "/stats")
        stats = json.loads(client.body())
    return int(stats["begun"]) - int(stats["ended"])


# --- switching ----------------------------------------------------------------------------------------------------


def test_the_first_switch_of_a_service_reloads_and_later_ones_do_not(edge: Edge, a: Upstream, b: Upstream) -> None:
    proxy, name = edge.adapter(), f"s{next(_numbers)}"
    first = proxy.switch(Pool(name, (a,)))
    assert first.reloaded
    assert first.previous.upstreams == ()
    assert edge.answer(name) == "a"
    second = proxy.switch(Pool(name, (b,)))
    assert not second.reloaded
    assert second.previous == Pool(name, (a,))
    assert {edge.answer(name) for _ in range(8)} == {"b"}
    assert proxy.pool(name) == edge.adapter().pool(name) == Pool(name, (b,))
    edge.file(name).unlink()


def test_an_equal_switch_changes_nothing(edge: Edge, service: str, a: Upstream) -> None:
    before = edge.file(service).stat()
    switched = edge.adapter().switch(Pool(service, (a,)))
    assert not switched.reloaded
    assert edge.file(service).stat() == before


def test_several_services_and_one_that_is_refused(edge: Edge, a: Upstream, b: Upstream, tmp_path: Path) -> None:
    names = [f"s{next(_numbers)}" for _ in range(3)]
    broken = f'{{% if service == "{names[1]}" %}}\nno such line\n{{% endif %}}\n'
    server = "{% for u in upstreams %}\n server {{ u.name }} {{ u.address }}\n{% endfor %}\n"
    proxy = with_template(edge, tmp_path, "backend {{ service }}\n" + broken + server)
    outcomes = proxy.switch_all([Pool(name, (a,)) for name in names])
    assert [type(o) for o in outcomes] == [Switched, ProxyRejected, Switched]
    assert [edge.answer(name) for name in (names[0], names[2])] == ["a", "a"]
    assert not edge.file(names[1]).exists()
    for name in names:
        edge.file(name).unlink(missing_ok=True)


def test_the_fingerprint_is_of_the_servers_in_rotation(edge: Edge, service: str, a: Upstream, b: Upstream) -> None:
    proxy = edge.adapter()
    before = proxy.fingerprints([service])[service]
    assert edge.adapter().fingerprints([service])[service] == before
    proxy._reach().runtime.run(f"set server {service}/{a.name} state maint")
    assert proxy.fingerprints([service])[service] != before
    proxy.switch_all([Pool(service, (a,))])
    assert proxy.fingerprints([service])[service] == before
    proxy.switch(Pool(service, (a, b)))
    assert proxy.fingerprints([service])[service] != before


def test_weights_are_live_without_a_reload(edge: Edge, service: str, a: Upstream, b: Upstream) -> None:
    proxy = edge.adapter()
    proxy.switch(Pool(service, (replace(a, weight=9), b)))
    switched = proxy.switch(Pool(service, (replace(a, weight=3), replace(b, weight=1))))
    assert not switched.reloaded
    answers = [edge.answer(service) for _ in range(40)]
    assert answers.count("b") == pytest.approx(10, abs=2)  # round robin counts per thread


def test_an_empty_pool_answers_503_and_fills_again(edge: Edge, service: str, a: Upstream) -> None:
    proxy = edge.adapter()
    assert not proxy.switch(Pool(service, ())).reloaded
    assert edge.answer(service) == "503"
    assert not proxy.switch(Pool(service, (a,))).reloaded
    assert edge.answer(service) == "a"


def test_a_replica_that_came_back_at_another_address(edge: Edge, service: str, a: Upstream, b: Upstream) -> None:
    edge.adapter().switch(Pool(service, (replace(a, host=b.host),)))
    assert edge.answer(service) == "b"


def test_another_balance_is_a_reload_and_leaves_the_other_services_alone(
    edge: Edge, service: str, a: Upstream, b: Upstream
) -> None:
    proxy, other = edge.adapter(), f"s{next(_numbers)}"
    proxy.switch(Pool(other, (a,)))
    proxy.switch(Pool(other, (b,)))
    bytes_of_other = edge.file(other).read_bytes()
    assert proxy.switch(Pool(service, (a,), PoolOptions(balance="leastconn"))).reloaded
    assert edge.file(other).read_bytes() == bytes_of_other
    assert (edge.answer(service), edge.answer(other)) == ("a", "b")
    edge.file(other).unlink()


def test_a_restart_and_a_foreign_reload_serve_the_same(edge: Edge, service: str, b: Upstream) -> None:
    proxy = edge.adapter()
    proxy.switch(Pool(service, (b,)))
    edge.ask("reload", "master")
    eventually(lambda: serves(edge, service, "b"))
    docker("restart", "-t", "1", edge.name)
    eventually(lambda: serves(edge, service, "b"))
    assert not proxy.switch(Pool(service, (b,))).reloaded
    assert proxy.in_flight(None, [b]).drained is False  # it is in the pool


def serves(edge: Edge, service: str, wanted: str) -> bool | None:
    try:
        return edge.answer(service) == wanted or None
    except OSError:  # between two processes
        return None


def test_nothing_is_left_in_the_directory(edge: Edge, service: str, a: Upstream, b: Upstream) -> None:
    proxy = edge.adapter()
    proxy.prepare(Pool(service, (b,)))
    proxy.switch(Pool(service, (b,)))
    assert [name for name in edge.files() if not name.endswith(".cfg") or name.startswith(".")] == []


# --- draining -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def upgraded(edge: Edge, service: str) -> Iterator[Client]:
    """An exchange without an end, until the test closes it."""
    with edge.client(service) as client:
        head = f"GET /upgrade HTTP/1.1\r\nHost: {service}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        client.connection.sendall(head.encode())
        answered = b""
        while b"\r\n\r\n" not in answered:
            answered += client.connection.recv(1) or pytest.fail("closed without an answer")
        assert b" 101 " in answered
        yield client


def test_drained_means_that_the_old_replica_has_nothing_and_gets_nothing(
    edge: Edge, service: str, a: Upstream, b: Upstream
) -> None:
    proxy = edge.adapter()
    with edge.client(service) as upload, edge.client(service) as idle:
        upload.send("POST", "/upload", length=4000)
        upload.connection.sendall(b"x" * 2000)
        idle.send("GET", "/work?ms=0")
        assert idle.answer() == "a"
        with upgraded(edge, service) as stream, edge.client(service) as preconnected:
            eventually(lambda: in_flight_of(a) == 2 or None)
            switched = proxy.switch(Pool(service, (b,)))
            busy = proxy.in_flight(switched, [a])
            assert (busy.drained, busy.connections) == (False, 2)
            preconnected.send("POST", "/work?ms=0")
            idle.send("POST", "/work?ms=0")
            assert (preconnected.answer(), idle.answer()) == ("b", "b")
            assert echoes(stream.connection)
        eventually(lambda: in_flight_of(a) == 1 or None)
        assert not proxy.in_flight(switched, [a]).drained
        upload.connection.sendall(b"x" * 2000)
        assert upload.answer() == "a"
        eventually(lambda: drained(proxy, switched, a))
        assert in_flight_of(a) == 0
    # HAProxy keeps the server until its pooled connections are closed; the app would have closed them by its end
    eventually(lambda: forgotten(edge, proxy, service, a))


def forgotten(edge: Edge, proxy: HAProxy, service: str, old: Upstream) -> bool | None:
    proxy.forget(service, [old])
    return old.name not in edge.ask(f"show servers state {service}") or None


def test_the_stream_is_what_is_waited_for(edge: Edge, service: str, a: Upstream, b: Upstream) -> None:
    proxy = edge.adapter()
    with upgraded(edge, service) as stream:
        assert in_flight_of(a) == 1
        switched = proxy.switch(Pool(service, (b,)))
        for _ in range(20):
            assert not proxy.in_flight(switched, [a]).drained
            assert echoes(stream.connection)
    eventually(lambda: drained(proxy, switched, a))
    eventually(lambda: in_flight_of(a) == 0 or None)


def test_an_idle_client_of_an_old_worker_can_still_reach_the_old_replica(
    edge: Edge, service: str, a: Upstream, b: Upstream
) -> None:
    proxy = edge.adapter()
    with edge.client(service) as idle:
        idle.send("GET", "/work?ms=0")
        assert idle.answer() == "a"
        proxy.switch(
            Pool(service, (a,), PoolOptions(balance="leastconn"))
        )  # a reload: the idle client is the old one's
        switched = proxy.switch(Pool(service, (b,), PoolOptions(balance="leastconn")))
        assert not switched.reloaded
        assert not proxy.in_flight(switched, [a]).drained
        assert not proxy.in_flight(None, [a]).drained
        idle.send("POST", "/work?ms=0")
        assert idle.answer() == "a"  # that is why
        eventually(lambda: drained(proxy, switched, a))
        eventually(lambda: drained(proxy, None, a))


def test_an_old_worker_that_already_left_the_replica_does_not_hold_the_drain(
    edge: Edge, service: str, a: Upstream, b: Upstream
) -> None:
    proxy = edge.adapter()
    switched = proxy.switch(Pool(service, (b,)))
    with upgraded(edge, service) as held:
        assert in_flight_of(b) == 1
        before = eventually(lambda: worker_pids(edge) or None)
        edge.ask("reload", "master")
        eventually(lambda: worker_pids(edge) - before or None)
        eventually(lambda: drained(proxy, switched, a))
        assert worker_pids(edge) & before
        assert echoes(held.connection)


def worker_pids(edge: Edge) -> set[str]:
    try:
        return {line.split()[0] for line in edge.ask("show proc", "master").splitlines() if " worker " in line}
    except OSError:  # 2.6 executes itself anew
        return set()


def test_past_the_drain_limit_only_what_goes_to_the_old_replica_is_cut(
    edge: Edge, service: str, a: Upstream, b: Upstream
) -> None:
    """Once in the serving worker, and once in one that a reload has made an old one, with an idle client."""
    proxy = edge.adapter()
    proxy.switch(Pool(service, (a, b)))
    for balance in ("roundrobin", "leastconn"):
        options = PoolOptions(balance=balance)
        with contextlib.ExitStack() as clients:
            streams = [clients.enter_context(edge.client(service)) for _ in range(4)]
            for stream in streams:
                stream.send("GET", "/stream?seconds=30&chunks=300")
            idle = clients.enter_context(edge.client(service))
            idle.send("GET", "/work?ms=0")
            idle.answer()
            eventually(lambda: in_flight_of(a) + in_flight_of(b) == 4 or None)
            on_a = in_flight_of(a)
            assert 0 < on_a < 4
            switched = proxy.switch(Pool(service, (b,), options))
            assert switched.reloaded == (balance == "leastconn")
            cut = proxy.cut(switched, [a])
            # an old worker that could still begin a request to it takes its other streams with it
            assert cut == (4 if switched.reloaded else on_a)
            eventually(lambda switched=switched: drained(proxy, switched, a))  # type: ignore[misc]
            eventually(lambda: in_flight_of(a) == 0 or None)
            if not switched.reloaded:
                assert in_flight_of(b) == 4 - on_a
            assert proxy.cut(None, [a]) == 0
            assert edge.answer(service) == "b"
        eventually(lambda: in_flight_of(b) == 0 or None)
        proxy.switch(Pool(service, (a, b)))


# --- failing ------------------------------------------------------------------------------------------------------


class Interrupting:
    """Lets so many commands through, then raises in place of the next one; `after`: when HAProxy has done it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: int, error: BaseException, after: bool) -> None:
        self.hit = False
        ask = ControlSocket.ask

        def counting(control: ControlSocket, command: str, timeout: float = 5.0) -> str:
            nonlocal allowed
            allowed -= 1
            if allowed == -1:
                self.hit = True
                if after:
                    ask(control, command, timeout)
                raise error
            return ask(control, command, timeout)

        monkeypatch.setattr(ControlSocket, "ask", counting)


@pytest.mark.parametrize("after", [False, True], ids=["before-it", "after-it"])
@pytest.mark.parametrize("way", ["on", "back"])
def test_a_kill_at_any_command_converges(
    edge: Edge, service: str, a: Upstream, b: Upstream, after: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Pool(service, (a,)), Pool(service, (replace(a, weight=2), b))
    for k in itertools.count():
        edge.adapter().switch(old)
        with monkeypatch.context() as patch:
            interrupting = Interrupting(patch, k, Killed(), after)
            with contextlib.suppress(Killed):
                edge.adapter().switch(new)
        assert edge.answer(service) in ("a", "b")
        goal = new if way == "on" else old
        edge.adapter().switch(goal)
        assert edge.adapter().pool(service) == goal
        assert {edge.answer(service) for _ in range(8)} == ({"a", "b"} if way == "on" else {"a"})
        if not interrupting.hit:
            break
    assert k >= 5


@pytest.mark.parametrize("after", [False, True], ids=["before-it", "after-it"])
def test_an_error_at_any_command_changes_nothing(
    edge: Edge, service: str, a: Upstream, b: Upstream, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Pool(service, (a,)), Pool(service, (b,))
    for k in itertools.count():
        edge.adapter().switch(old)
        before = edge.file(service).read_bytes()
        with monkeypatch.context() as patch:
            interrupting = Interrupting(patch, k, ProxyUnreachable("it went away"), after)
            try:
                edge.adapter().switch(new)
            except ProxyUnreachable:
                assert edge.file(service).read_bytes() == before
                assert {edge.answer(service) for _ in range(8)} == {"a"}
        if not interrupting.hit:
            break
    assert k >= 5


def test_a_kill_in_the_middle_of_a_reload_is_seen_through_by_the_next_switch(
    edge: Edge, service: str, a: Upstream, b: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = itertools.cycle([(b, "leastconn"), (a, "roundrobin")])
    for k, (app, balance) in enumerate(ways):
        new = Pool(service, (app,), PoolOptions(balance=balance))
        with monkeypatch.context() as patch:
            interrupting = Interrupting(patch, k, Killed(), after=False)
            with contextlib.suppress(Killed):
                edge.adapter().switch(new)
        edge.adapter().switch(new)
        assert {edge.answer(service) for _ in range(4)} == {"b" if app == b else "a"}
        assert balance in edge.ask(f"show stat {service} 2 -1")
        assert [name for name in edge.files() if name.startswith(".")] == []
        if not interrupting.hit:
            break
    assert k >= 3


def test_a_full_disk_is_told_and_the_old_pool_serves_on(edge: Edge, service: str, a: Upstream, b: Upstream) -> None:
    proxy = edge.adapter()
    proxy.prepare(Pool(service, (b,)))
    before, limits = edge.file(service).read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(StateError):
            proxy.switch(Pool(service, (b,)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert edge.file(service).read_bytes() == before
    assert {edge.answer(service) for _ in range(8)} == {"a"}
    assert b.name not in edge.ask(f"show servers state {service}")


def test_what_haproxy_refuses_to_parse_is_not_loaded(
    edge: Edge, service: str, a: Upstream, b: Upstream, tmp_path: Path
) -> None:
    proxy = with_template(edge, tmp_path, "backend {{ service }}\n    balence roundrobin\n")
    before = edge.file(service).read_bytes()
    with pytest.raises(ProxyRejected) as caught:
        proxy.prepare(Pool(service, (b,)))
    assert any("balence" in line and f"{service}.cfg" in line for line in caught.value.details)
    with pytest.raises(ProxyRejected):
        proxy.switch(Pool(service, (b,)))
    assert edge.file(service).read_bytes() == before
    assert edge.answer(service) == "a"


@pytest.mark.parametrize(
    ("bind", "words"), [(":8404", "which another program has already"), ("203.0.113.9:8405", "refused")]
)
def test_a_configuration_that_cannot_be_bound_is_taken_back(
    edge: Edge, service: str, a: Upstream, b: Upstream, tmp_path: Path, bind: str, words: str
) -> None:
    """`haproxy -c` says it is fine. A port that is taken is seen before the reload, an address not ours by it."""
    (edge.directory / "main" / "thief.txt").write_text(THIEF)
    docker("exec", "-d", edge.name, "haproxy", "-db", "-f", "/etc/haproxy/thief.txt")
    eventually(lambda: listens(edge.ip, 8404))
    template = (
        "backend {{ service }}\n balance roundrobin\n{% for u in upstreams %}\n server {{ u.name }} {{ u.address }}\n"
    )
    proxy = with_template(edge, tmp_path, template + "{% endfor %}\nfrontend {{ service }}-extra\n bind " + bind + "\n")
    before = edge.file(service).read_bytes()
    with pytest.raises(ProxyRejected, match=words):
        proxy.switch(Pool(service, (b,)))
    assert edge.file(service).read_bytes() == before
    assert edge.answer(service) == "a"
    assert not edge.adapter().switch(Pool(service, (b,))).reloaded
    assert edge.answer(service) == "b"
    docker("restart", "-t", "1", edge.name)
    eventually(lambda: serves(edge, service, "b"))


def listens(ip: str, port: int) -> bool | None:
    try:
        socket.create_connection((ip, port), timeout=1).close()
    except OSError:
        return None
    return True


def with_template(edge: Edge, tmp_path: Path, text: str) -> HAProxy:
    (tmp_path / "haproxy").mkdir()
    (tmp_path / "haproxy" / "backend.cfg.j2").write_text(text)
    return edge.adapter(templates=str(tmp_path))


def test_a_backend_that_takes_no_dynamic_servers_is_reloaded(
    edge: Edge, service: str, a: Upstream, b: Upstream, tmp_path: Path
) -> None:
    template = (
        "backend {{ service }}\n balance source\n{% for u in upstreams %}\n server {{ u.name }} {{ u.address }}\n"
    )
    proxy = with_template(edge, tmp_path, template + "{% endfor %}")
    proxy.switch(Pool(service, (a,)))
    assert proxy.switch(Pool(service, (b,))).reloaded
    assert edge.answer(service) == "b"


def test_a_container_that_is_not_running_is_unreachable(apps: dict[str, Upstream], tmp_path: Path) -> None:
    with running_edge(VERSIONS[-1], tmp_path / "edge") as edge:
        proxy = edge.adapter()
        proxy.switch(Pool("web", (apps["a"],)))
        docker("stop", "-t", "1", edge.name)
        for call in (
            lambda: proxy.switch(Pool("web", (apps["b"],))),
            lambda: edge.adapter().switch(Pool("web", (apps["b"],))),
            lambda: proxy.in_flight(None, [apps["a"]]),
        ):
            with pytest.raises(ProxyUnreachable):
                call()
        assert proxy.pool("web") == Pool("web", (apps["a"],))
        assert proxy.count("web", "{}").missing


def test_initial_files_let_haproxy_start(apps: dict[str, Upstream], tmp_path: Path) -> None:
    config = CONFIG.replace("use_backend %[req.hdr(host),word(1,:)]", "default_backend web")
    with running_edge(VERSIONS[-1], tmp_path / "edge", config, initial=[Pool("web", (apps["a"],))]) as edge:
        assert edge.answer("web") == "a"
        assert not edge.adapter().switch(Pool("web", (apps["b"],))).reloaded
        assert edge.answer("web") == "b"


def test_a_proxy_without_sockets_is_told_which_lines_to_add(apps: dict[str, Upstream], tmp_path: Path) -> None:
    config = "\n".join(line for line in CONFIG.splitlines() if "stats socket" not in line) + "\n"
    with running_edge(VERSIONS[-1], tmp_path / "edge", config, sockets=("master",)) as edge:
        with pytest.raises(SpecError, match="nothing was touched") as caught:
            edge.adapter().switch(Pool("web", (apps["a"],)))
        assert "stats socket /var/run/haproxy/admin.sock mode 660 level admin" in caught.value.details[0]
        assert "haproxy-stats-socket" in [finding.code for finding in edge.adapter().findings()]


# --- counting, and the rest of the port ----------------------------------------------------------------------------


def test_counts_are_per_upstream_and_survive_the_deletion_of_its_server(
    edge: Edge, service: str, a: Upstream, b: Upstream
) -> None:
    proxy = edge.adapter()
    edge.answer(service)
    marker = proxy.mark(service)
    for _ in range(3):
        edge.answer(service)
    with edge.client(service) as failing:
        failing.send("GET", "/no-such-page")
        assert failing.answer() == "404"
    dead = replace(b, name="dead", port=9)
    proxy.switch(Pool(service, (dead, b)))
    assert [edge.answer(service) for _ in range(4)] == ["b"] * 4, "what cannot be sent to one goes to the next"
    proxy.switch(Pool(service, (dead,)))
    assert edge.answer(service) == "503"
    proxy.switch(Pool(service, (b,)))
    eventually(lambda: drained(proxy, None, a))
    proxy.forget(service, [a])
    counted = proxy.count(service, marker)
    assert counted.missing == ""
    assert counted.by_address[a.address].requests == 4
    assert counted.by_address[a.address].failed == 0
    assert counted.by_address[b.address].requests == 4
    assert counted.by_address[b.address].failed == 0
    assert counted.by_address[dead.address].failed == 1
    edge.ask("reload", "master")
    eventually(lambda: proxy.count(service, marker).missing or None)


def test_from_mark_to_mark_each_request_is_counted_once(edge: Edge, service: str) -> None:
    proxy, asked, counted = edge.adapter(), 300, 0
    marker = proxy.mark(service)

    def ask() -> None:
        for _ in range(asked):
            edge.answer(service)

    asking = threading.Thread(target=ask)
    asking.start()
    while asking.is_alive():
        found, marker = proxy.count_and_mark(service, marker)
        counted += sum(c.requests for c in found.by_address.values())
    found, marker = proxy.count_and_mark(service, marker)
    assert counted + sum(c.requests for c in found.by_address.values()) == asked
    assert not any(c.requests for c in proxy.count(service, marker).by_address.values())


def test_the_network_is_one_that_both_are_on(edge: Edge) -> None:
    proxy = edge.adapter()
    assert proxy.network(ServiceSettings("web", 8000, networks=("shop_default", "bridge"))) == "bridge"
    with pytest.raises(SpecError) as caught:
        proxy.network(ServiceSettings("web", 8000, networks=("shop_default",)))
    assert "shop_default" in caught.value.details[0]
    assert "bridge" in caught.value.details[0]


def test_a_clean_configuration_has_no_findings(edge: Edge) -> None:
    file = edge.directory / "main/haproxy.cfg"
    file.write_text(CONFIG.replace("http-keep-alive 60s", "http-keep-alive 10s"))
    try:
        assert edge.adapter().findings() == []
    finally:
        file.write_text(CONFIG)
    assert [finding.code for finding in edge.adapter().findings()] == ["haproxy-keep-alive"]


def test_services_that_switch_at_once_do_not_lose_each_other(
    edge: Edge, service: str, a: Upstream, b: Upstream
) -> None:
    other = f"s{next(_numbers)}"
    edge.adapter().switch(Pool(other, (a,)))
    failures: list[Exception] = []

    def many(name: str) -> None:
        proxy = edge.adapter()
        try:
            for balance in ("leastconn", "roundrobin", "random"):
                proxy.switch(Pool(name, (a,), PoolOptions(balance=balance)))
                proxy.switch(Pool(name, (b,), PoolOptions(balance=balance)))
        except Exception as error:  # noqa: BLE001  # told by the assertion below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=many, args=(name,)) for name in (service, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (edge.answer(service), edge.answer(other)) == ("b", "b")
    edge.file(other).unlink()

"""The nginx adapter against real nginx: what it promises of a switch, of a refusal, of a crash and of a drain."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import ProxyRejected, ProxyUnreachable, SpecError, StateError
from rollout.model import InFlight, Pool, PoolOptions, Relief, ServiceSettings, Switched
from rollout.ports import Process
from rollout.proxies.nginx import Nginx
from rollout.proxies.nginx_workers import GENERATIONS, workers
from tests.e2e.nginx_bench import (
    NEW,
    OLD,
    VERSIONS,
    App,
    Bench,
    Edge,
    answers,
    bench,
    docker,
    eventually,
    everything,
    pool,
)
from tests.e2e.projects import echoes

pytestmark = pytest.mark.e2e

KEPT = "keepalive_timeout 15s; keepalive_min_timeout 8s;"
# half an upload is with the replica for as long as the test likes; and once answered, its connection is closed at once
PASSED_ON = "proxy_request_buffering off; lingering_close off;"


@pytest.fixture(params=VERSIONS)
def edge(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Edge]:
    with bench(tmp_path, request.param) as running:
        yield running


@pytest.fixture
def old_edge(tmp_path: Path) -> Iterator[Edge]:
    with bench(tmp_path, OLD) as running:
        yield running


class Around:
    """A proxy process of which one method is another: what happens at that moment in a test."""

    def __init__(self, process: Any, **instead: Callable[..., Any]) -> None:
        self._process = process
        self._instead = instead

    def __getattr__(self, name: str) -> Any:
        return self._instead.get(name) or getattr(self._process, name)


class Killed(BaseException):
    """SIGKILL, as near as it gets within one process: nothing that runs afterwards is allowed to matter."""


def version(answer: bytes) -> str:
    head = answer.partition(b"\r\n\r\n")[0].decode()
    return next((line.split()[1] for line in head.split("\r\n") if line.lower().startswith("x-version:")), "none")


def served_by(edge: Edge, host: str = "web") -> str:
    return version(edge.get("/work?ms=0", host))


def drained(adapter: Nginx, switched: Switched | None, *gone: App) -> InFlight:
    def look() -> InFlight | None:
        seen = adapter.in_flight(switched, [app.upstream for app in gone])
        return seen if seen.drained else None

    return eventually(look)


def stays(adapter: Nginx, switched: Switched, *gone: App, seconds: float = 0.8) -> InFlight:
    """Not drained, however often one looks, for a while that is long against a reload."""
    deadline = time.monotonic() + seconds
    while True:
        seen = adapter.in_flight(switched, [app.upstream for app in gone])
        assert not seen.drained, seen
        if time.monotonic() > deadline:
            return seen


def templates(edge: Edge, upstream: str) -> Nginx:
    """An adapter with the user's own upstream template."""
    (edge.directory / "templates/nginx").mkdir(parents=True, exist_ok=True)
    (edge.directory / "templates/nginx/upstream.conf.j2").write_text(upstream)
    edge.settings = replace(edge.settings, templates=str(edge.directory / "templates"))
    return edge.adapter()


PLAIN = "upstream {{ service }} { {% for u in upstreams %}server {{ u.address }};{% endfor %} }\n"


# --- a switch --------------------------------------------------------------------------------------------------


def test_a_switch_moves_the_traffic_and_nothing_of_the_others(edge: Edge) -> None:
    adapter, one, two = edge.adapter(), edge.app(1), edge.app(2)
    adapter.switch(pool(one, service="other"))
    untouched = (edge.rendered / "current/other.conf").read_bytes()
    adapter.switch(pool(one))
    switched = adapter.switch(pool(two))
    assert switched.reloaded
    assert switched.previous == pool(one)
    assert [served_by(edge) for _ in range(20)] == ["2"] * 20
    assert served_by(edge, "other") == "1"
    assert (edge.rendered / "current/other.conf").read_bytes() == untouched
    assert edge.adapter().pool("web") == pool(two)
    assert drained(adapter, switched, one) == InFlight(True)


def test_several_services_are_one_reload(edge: Edge) -> None:
    adapter, one, two = edge.adapter(), edge.app(1), edge.app(2)
    first = adapter.switch_all([pool(one), pool(two, service="other")])
    assert [s.reloaded for s in first if isinstance(s, Switched)] == [True, True]
    assert (served_by(edge), served_by(edge, "other")) == ("1", "2")
    assert len(list(edge.rendered.glob("gen-*"))) <= 2
    workers = edge.settled()
    again = adapter.switch_all([pool(one), pool(two, service="other")])
    assert [s.reloaded for s in again if isinstance(s, Switched)] == [False, False]
    assert edge.own() == workers


def test_a_service_that_nginx_refuses_takes_nothing_from_the_others(old_edge: Edge) -> None:
    edge, one = old_edge, old_edge.app(1)
    bad = '{% if service == "bad" %}no_such_directive on;{% endif %}\n' + PLAIN
    adapter = templates(edge, bad)
    pools = [pool(one, service=name) for name in ("web", "bad", "other", "more")]
    outcomes = adapter.switch_all(pools)
    assert [isinstance(o, Switched) for o in outcomes] == [True, False, True, True]
    assert isinstance(outcomes[1], ProxyRejected)
    assert any("no_such_directive" in line for line in outcomes[1].details)
    assert (served_by(edge), served_by(edge, "other")) == ("1", "1")
    assert [adapter.pool(name) is not None for name in ("web", "bad", "other", "more")] == [True, False, True, True]


def test_a_configuration_that_is_broken_already_is_not_looked_for_in_the_pools(old_edge: Edge) -> None:
    """The user's own file is at fault: all are refused by two tests, not by one for each."""
    edge, one = old_edge, old_edge.app(1)
    adapter = edge.adapter()
    adapter.switch(pool(one))
    (edge.directory / "nginx.conf").write_text((edge.directory / "nginx.conf").read_text() + "\nno_such_directive;\n")
    tested: list[str] = []
    real = adapter._program.test

    def test(main: str) -> list[str]:
        tested.append(main)
        return real(main)

    adapter._program.test = test  # type: ignore[method-assign]  # counted
    adapter._program.forget()
    outcomes = adapter.switch_all([pool(one, service=f"s{number}") for number in range(16)])
    assert {type(o) for o in outcomes} == {ProxyRejected}
    assert len(tested) == 2
    assert served_by(edge) == "1"


def test_its_fingerprint_changes_only_when_something_else_may_be_live(old_edge: Edge) -> None:
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    adapter = edge.adapter()
    adapter.switch(pool(one))
    before, identity = adapter.fingerprints(["web", "other"]), adapter.identity()
    assert set(before) == {"web", "other"}
    adapter.switch(pool(two))
    assert edge.adapter().fingerprints(["web", "other"]) == before
    with adapter._ledger.hold():
        adapter._ledger.update(pending=identity)
    assert adapter.fingerprints(["web"])["web"] != before["web"]
    (outcome,) = adapter.switch_all([pool(two)])
    assert isinstance(outcome, Switched)
    assert adapter.fingerprints(["web", "other"]) == before
    docker("restart", "-t", "0", edge.name)
    assert adapter.identity() != identity
    assert adapter.fingerprints(["web"])["web"] != before["web"]


def test_no_answer_comes_from_the_former_pool_once_a_switch_is_over(edge: Edge) -> None:
    adapter, one, two = edge.adapter(), edge.app(1), edge.app(2)
    for app, other in ((one, two), (two, one)) * 3:
        adapter.switch(pool(app))
        expected = "1" if app is one else "2"
        assert {served_by(edge) for _ in range(30)} == {expected}, other


def test_what_is_live_is_not_loaded_again(edge: Edge) -> None:
    adapter, one = edge.adapter(), edge.app(1)
    adapter.switch(pool(one))
    before, tree = edge.settled(), edge.tree()
    switched = edge.adapter().switch(pool(one))
    assert not switched.reloaded
    assert switched.previous == switched.current == pool(one)
    assert edge.own() == before
    assert edge.tree() == tree


def test_preparing_changes_nothing_and_is_not_done_twice(old_edge: Edge) -> None:
    edge, execs = old_edge, []

    def execute(argv: Any, **more: Any) -> Any:
        execs.append(argv)
        return edge.process.exec(argv, **more)

    adapter, one = edge.adapter(Around(edge.process, exec=execute)), edge.app(1)
    tree = edge.tree()
    adapter.prepare(pool(one))
    assert edge.tree() == tree
    assert "503" in edge.get().decode()
    tested = len(execs)
    adapter.switch(pool(one))
    assert len(execs) == tested
    assert served_by(edge) == "1"


def test_a_pool_without_upstreams_answers_503_with_retry_after(edge: Edge) -> None:
    adapter, one = edge.adapter(), edge.app(1)
    adapter.switch(pool(one))
    adapter.switch(Pool("web"))
    head = edge.get().partition(b"\r\n\r\n")[0]
    assert b" 503 " in head
    assert b"\r\nRetry-After: 1" in head


def test_only_two_generations_and_nothing_else_are_left(old_edge: Edge) -> None:
    adapter, one, two = old_edge.adapter(), old_edge.app(1), old_edge.app(2)
    for app in (one, two, one, two):
        adapter.switch(pool(app))
    generations = sorted(p.name for p in old_edge.rendered.iterdir())
    assert len(generations) == 4
    assert generations[0] == "current"
    assert generations[3] == "rollout.conf"
    assert sorted(p.name for p in (old_edge.rendered / "current").iterdir()) == [
        "other.conf", "rollout-status.conf", "web.conf",
    ]  # fmt: skip


def test_a_switch_that_finds_its_pool_live_clears_what_a_killed_one_left(old_edge: Edge) -> None:
    """Killed while it was clearing up, the generation that it had begun to remove stands half empty."""
    adapter, one, two = old_edge.adapter(), old_edge.app(1), old_edge.app(2)
    for app in (one, two, one):
        adapter.switch(pool(app))
    tree = old_edge.tree()
    (old_edge.rendered / "gen-000001").mkdir()
    (old_edge.rendered / ".current.new").symlink_to("gen-000001")
    assert not old_edge.adapter().switch(pool(one)).reloaded
    assert old_edge.tree() == tree


def test_a_whole_virtual_host_passes_websockets(old_edge: Edge) -> None:
    adapter, one = old_edge.adapter(), old_edge.app(1)
    adapter.switch(pool(one, service="shop", options=PoolOptions(hosts=("shop.example", "*.shop.example"))))
    assert served_by(old_edge, "www.shop.example") == "1"
    with upgraded(old_edge, "shop.example") as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"


def test_two_rollouts_of_two_services_at_the_same_time_both_take_hold(old_edge: Edge) -> None:
    one, two = old_edge.app(1), old_edge.app(2)
    web, other = pool(one), pool(two, service="other")
    done: list[bool] = []
    threads = [
        threading.Thread(target=lambda p=p: done.append(old_edge.adapter().switch(p).reloaded)) for p in (web, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True, True]
    assert (served_by(old_edge), served_by(old_edge, "other")) == ("1", "2")


# --- a configuration that is still to come, or elsewhere ----------------------------------------------------------


def test_the_first_upstream_of_a_service_that_nginx_already_names(old_edge: Edge) -> None:
    """nginx.conf on disk does not load before the switch: there is no upstream `api` yet."""
    edge, one = old_edge, old_edge.app(1)
    edge.configure(http="server { listen 80; server_name api; location / { proxy_pass http://api; } }")
    assert [f.code for f in edge.adapter().findings() if f.severity == "error"] == ["nginx-config"]
    edge.adapter().switch(pool(one, service="api"))
    assert served_by(edge, "api") == "1"


def test_an_nginx_that_includes_the_directory_but_has_nothing_of_ours_yet(tmp_path: Path) -> None:
    with Bench(tmp_path, OLD) as made:
        edge = made.edge
        for path in edge.rendered.iterdir():
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path)
        (edge.directory / "nginx.conf").write_text(
            "events {} http { include rollout.d/*.conf; server { listen 80; location / { return 204; } } }"
        )
        edge.start()
        eventually(lambda: True if any("worker" in title for title in edge.titles()) else None)
        one = edge.app(1)
        with pytest.raises(ProxyRejected):
            templates(edge, "nonsense;").switch(pool(one))
        assert edge.tree() == {}
        templates(edge, PLAIN).switch(pool(one, options=PoolOptions(hosts=("web",))))
        assert served_by(edge) == "1"


def test_relative_includes_globs_and_certificates_are_tested_where_they_are(old_edge: Edge) -> None:
    edge, one = old_edge, old_edge.app(1)
    inside = {
        "/etc/nginx/nginx.conf.d/site.conf": "include ./parts/[l]ist*.conf;\ninclude rollout.d/r*.conf;",
        "/etc/nginx/parts/list one.conf": "server { listen 80; include ../nginx/parts/proxy.inc; }",
        "/etc/nginx/parts/proxy.inc": "location / { auth_basic off; proxy_pass http://web; }",
    }
    for path, text in inside.items():
        docker("exec", edge.name, "sh", "-c", 'mkdir -p "$(dirname "$0")"; printf %s "$1" > "$0"', path, text)
    (edge.directory / "nginx.conf").write_text(
        'user www-data; events {} http { # a comment with "include x;"\n types { } include "mime.types";'
        " include nginx.conf.d/*.conf; }"
    )
    edge.adapter().switch(pool(one))
    assert served_by(edge) == "1"
    with pytest.raises(ProxyRejected) as refused:
        templates(edge, "no_such_directive on;").switch(Pool("web"))
    assert "no_such_directive" in "\n".join(refused.value.details)
    assert served_by(edge) == "1"


@pytest.mark.parametrize(
    "command", ["sleep 0; nginx -g 'daemon off;'; true", "exec nginx -c /etc/nginx/nginx.conf -g 'daemon off;'"]
)
def test_an_nginx_that_a_shell_started_is_reloaded_too(tmp_path: Path, command: str) -> None:
    with Bench(tmp_path, OLD, "sh", "-c", command) as made:
        made.edge.start()
        eventually(lambda: answers(made.edge.ip, 80))
        assert made.edge.adapter().switch(pool(made.edge.app(1))).reloaded
        assert served_by(made.edge) == "1"


SUPERVISOR = """#!/bin/sh
trap 'echo told; kill $child; nginx -g "daemon off;" & child=$!' HUP
nginx -g "daemon off;" & child=$!
while :; do wait $child; done
"""


def test_a_supervisor_is_not_told_what_nginx_is_to_do(tmp_path: Path) -> None:
    """The entry point hands over to a program whose title is not what the container was started with."""
    script = 'printf %s "$0" > /supervisor && chmod +x /supervisor && exec "$@"'
    with Bench(tmp_path, OLD, "sh", "-c", script, SUPERVISOR, "/supervisor") as made:
        made.edge.start()
        eventually(lambda: answers(made.edge.ip, 80))
        assert made.edge.adapter().switch(pool(made.edge.app(1))).reloaded
        assert served_by(made.edge) == "1"
        assert "told" not in made.edge.process.output(0)


def test_a_shell_script_that_ends_in_nginx_s_name_is_no_program(tmp_path: Path) -> None:
    with Bench(tmp_path, OLD, "sh", "-c", "cd / && exec /usr/sbin/nginx") as made:
        config = made.edge.directory / "nginx.conf"
        config.write_text("daemon off;\n" + config.read_text())
        made.edge.start()
        eventually(lambda: answers(made.edge.ip, 80))
        assert made.edge.adapter().switch(pool(made.edge.app(1))).reloaded


def test_what_nginx_said_before_is_not_what_it_says_to_a_reload(old_edge: Edge) -> None:
    """To the millisecond: a reload may come right after one that was refused."""
    process, line = old_edge.process, "2026/11/20 12:00:00 [emerg] 1#1: unknown directive"
    docker("exec", old_edge.name, "sh", "-c", f"echo '{line}' >/proc/1/fd/2")
    eventually(lambda: True if line in process.output(0) else None)
    assert line not in process.output(time.time())


# --- a refusal changes nothing ---------------------------------------------------------------------------------

BROKEN = {
    "syntax error of the template": "upstream {{ service }} { {% for u in %} }",
    "undefined name": "upstream {{ service }} { server {{ nonsense.address }}; }",
    "unknown directive": "upstream {{ service }} { server 127.0.0.1:1; no_such_directive on; }",
    "unbalanced": "upstream {{ service }} { server 127.0.0.1:1;",
    "missing file": "include /nowhere/at/all.conf;",
    "no upstream": "# nothing",
}


def test_a_bad_template_changes_no_byte_and_no_worker(old_edge: Edge) -> None:
    edge, one = old_edge, old_edge.app(1)
    edge.adapter().switch(pool(one))
    tree, workers = edge.tree(), edge.settled()
    for what, text in BROKEN.items():
        adapter = templates(edge, text)
        for change in (adapter.prepare, adapter.switch):
            with pytest.raises(ProxyRejected) as refused:
                change(Pool("web"))
            assert edge.tree() == tree, what
            assert refused.value.details or "upstream.conf.j2" in refused.value.message, what
    assert edge.own() == workers
    assert served_by(edge) == "1"


def test_a_reload_that_nginx_refuses_restores_what_was(edge: Edge) -> None:
    """A port that another process has: nginx's own test passes, the reload fails after 2.5 s."""
    one, two = edge.app(1), edge.app(2)
    edge.adapter().switch(pool(one))
    name = f"{edge.name}-app3"
    script = "import socket, time; s = socket.create_server(('', 81)); print('bound', flush=True); time.sleep(600)"
    docker(
        "run",
        "-d",
        "--name",
        name,
        "--network",
        f"container:{edge.name}",
        "rollout-test/python",
        "python3",
        "-c",
        script,
    )
    edge.apps.append(App(name, ""))
    eventually(lambda: docker("logs", name) or None)
    tree = edge.tree()
    adapter = templates(edge, PLAIN + "server { listen 81; }\n")
    with pytest.raises(ProxyRejected) as refused:
        adapter.switch(pool(two))
    assert "still could not bind()" in "\n".join(refused.value.details)
    assert not re.search(r"\d{4}/\d\d/\d\d", "\n".join(refused.value.details)), "without nginx's times"
    assert edge.tree() == tree
    assert edge.adapter().holds(pool(one))
    assert served_by(edge) == "1"
    edge.settings = replace(edge.settings, templates="")
    assert not edge.adapter().switch(pool(one)).reloaded
    assert edge.adapter().switch(pool(two)).reloaded
    assert served_by(edge) == "2"


def test_a_directory_that_cannot_be_written_changes_nothing(old_edge: Edge) -> None:
    import resource

    adapter, one = old_edge.adapter(), old_edge.app(1)
    adapter.switch(pool(one))
    tree = old_edge.tree()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))  # a file that grows beyond it: the disk is full
    try:
        with pytest.raises(StateError):
            adapter.switch(pool(one, options=PoolOptions(keepalive=7)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert old_edge.tree() == tree
    assert adapter.switch(pool(one)).reloaded is False


# --- crashes and restarts --------------------------------------------------------------------------------------


def test_an_nginx_restarted_while_a_candidate_is_tested_loads_what_was(old_edge: Edge) -> None:
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    edge.adapter().switch(pool(one))
    seen: list[str] = []

    def execute(argv: Any, **more: Any) -> Any:
        if "-t" in argv:
            docker("restart", "-t", "0", edge.name)
            eventually(lambda: answers(edge.ip, 80))
            seen.append(served_by(edge))
        return edge.process.exec(argv, **more)

    adapter = edge.adapter(Around(edge.process, exec=execute))
    templates(edge, "nonsense;")
    with pytest.raises(ProxyRejected):
        edge.adapter(Around(edge.process, exec=execute)).prepare(pool(two))
    assert seen == ["1"]
    adapter.switch(pool(two))
    assert seen == ["1", "1"]
    assert served_by(edge) == "2"


def test_an_nginx_restarted_instead_of_reloaded_is_confirmed_all_the_same(old_edge: Edge) -> None:
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    edge.adapter().switch(pool(one))
    restart = Around(edge.process, signal=lambda name: docker("restart", "-t", "0", edge.name))
    adapter = edge.adapter(restart)
    switched = adapter.switch(pool(two))
    assert served_by(edge) == "2"
    assert drained(adapter, switched, one).drained


@pytest.mark.parametrize("told", [False, True], ids=["before the signal", "after the signal"])
def test_a_crash_between_publishing_and_confirming_is_finished_by_the_next_run(old_edge: Edge, told: bool) -> None:
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    edge.adapter().switch(pool(one))

    def signal(name: str) -> None:
        if told:
            edge.process.signal(name)
        raise Killed

    with pytest.raises(Killed):
        edge.adapter(Around(edge.process, signal=signal)).switch(pool(two))
    after = edge.adapter()
    assert after.pool("web") == pool(two)
    assert not after.in_flight(None, [one.upstream]).drained
    switched = after.switch(pool(two))
    assert switched.reloaded
    assert {served_by(edge) for _ in range(20)} == {"2"}
    assert drained(after, switched, one).drained
    assert edge.adapter().switch(pool(two)).reloaded is False
    assert len([name for name in edge.tree() if name.startswith("gen-") and "/" not in name]) == 2


def test_an_nginx_that_is_killed_in_the_reload_comes_back_with_what_was(old_edge: Edge) -> None:
    """What it would have loaded was never seen live: a restart must not be what puts it in force."""
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    edge.adapter().switch(pool(one))
    killed = Around(edge.process, signal=lambda name: docker("kill", edge.name))
    with pytest.raises(ProxyUnreachable):
        edge.adapter(killed).switch(pool(two))
    assert edge.adapter().pool("web") == pool(one)
    docker("start", edge.name)
    eventually(lambda: answers(edge.ip, 80))
    assert served_by(edge) == "1"
    assert edge.adapter().switch(pool(two)).reloaded
    assert served_by(edge) == "2"


def test_a_crash_leaves_the_last_seen_live_as_what_a_refusal_restores(old_edge: Edge) -> None:
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    edge.adapter().switch(pool(one))

    def signal(name: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        edge.adapter(Around(edge.process, signal=signal)).switch(pool(two))
    with pytest.raises(ProxyRejected):
        templates(edge, "nonsense;").switch(Pool("web"))
    assert templates(edge, PLAIN).switch(pool(one)).reloaded
    assert served_by(edge) == "1"


# --- drains ----------------------------------------------------------------------------------------------------


def test_a_client_that_connected_before_holds_the_drain_until_it_is_served(edge: Edge) -> None:
    edge.configure(http=PASSED_ON)
    adapter, one, two = edge.adapter(), edge.app(1), edge.app(2)
    adapter.switch(pool(one))
    with contextlib.closing(edge.connect()) as client:
        edge.get()  # the connection before it has been accepted, then
        switched = adapter.switch(pool(two))
        assert stays(adapter, switched, one).connections == 1
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\no")
        eventually(lambda: True if in_flight(one) else None)
        stays(adapter, switched, one, seconds=0.1)
        client.sendall(b"k")
        assert version(everything(client)) == "1"
        drained(adapter, switched, one)


def test_a_reload_by_somebody_else_just_before_holds_the_drain(old_edge: Edge) -> None:
    """Between our look at the workers and our own reload: workers that nobody has seen know the old pool."""
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    edge.configure(http=PASSED_ON)
    edge.adapter().switch(pool(one))
    with contextlib.ExitStack() as stack:
        clients: list[socket.socket] = []

        def processes() -> list[Process]:
            seen = edge.process.processes()
            if not clients:
                edge.process.signal("HUP")
                eventually(lambda: workers(edge.process.processes()).serving.isdisjoint(workers(seen).all) or None)
                clients.append(stack.enter_context(contextlib.closing(edge.connect())))
                clients[0].sendall(b"POST /upload HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\no")
                eventually(lambda: True if in_flight(one) else None)
            return seen

        switched = edge.adapter(Around(edge.process, processes=processes)).switch(pool(two))
        adapter = edge.adapter()
        stays(adapter, switched, one)
        clients[0].sendall(b"k")
        assert version(everything(clients[0])) == "1"
        drained(adapter, switched, one)


def test_a_slow_upload_holds_the_drain_until_it_is_answered(edge: Edge) -> None:
    adapter, one, two = edge.adapter(), edge.app(1), edge.app(2)
    adapter.switch(pool(one))
    with contextlib.closing(edge.connect()) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\n12345")
        edge.get()
        switched = adapter.switch(pool(two))
        assert stays(adapter, switched, one).connections == 1
        client.sendall(b"67890")
        answer = everything(client)
        assert version(answer) == "1"
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["length"] == 10
        drained(adapter, switched, one)


@contextlib.contextmanager
def upgraded(edge: Edge, host: str) -> Iterator[socket.socket]:
    with contextlib.closing(edge.connect()) as client:
        client.sendall(
            f"GET /upgrade HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1) or pytest.fail("closed without an answer")
        assert b" 101 " in head
        yield client


def test_another_services_websocket_does_not_hold_the_drain(edge: Edge) -> None:
    adapter, one, two = edge.adapter(), edge.app(1), edge.app(2)
    adapter.switch(pool(one))
    adapter.switch(pool(two, service="shop", options=PoolOptions(hosts=("shop",))))
    with upgraded(edge, "shop") as client, contextlib.closing(edge.connect()) as waiting:
        edge.get()
        switched = adapter.switch(pool(two))
        assert stays(adapter, switched, one).connections == 1  # the client that waits; the WebSocket is not cut
        waiting.close()
        drained(adapter, switched, one)
        assert any("shutting down" in title for title in edge.titles())
        client.sendall(b"still")
        assert client.recv(5) == b"still"


def test_its_own_websocket_holds_the_drain_and_is_counted(old_edge: Edge) -> None:
    adapter, one, two = old_edge.adapter(), old_edge.app(1), old_edge.app(2)
    adapter.switch(pool(one))
    with upgraded(old_edge, "web"):
        switched = adapter.switch(pool(two))
        # the other old workers, which have no client, end by themselves
        eventually(lambda: "1 old worker, 1 conn" in adapter.in_flight(switched, [one.upstream]).detail or None)
        assert stays(adapter, switched, one).connections == 1
    drained(adapter, switched, one)


def test_past_the_drain_limit_a_joined_connection_is_left_to_end_with_its_replica(old_edge: Edge) -> None:
    adapter, one, two = old_edge.adapter(), old_edge.app(1), old_edge.app(2)
    adapter.switch(pool(one))
    adapter.switch(pool(two, service="shop", options=PoolOptions(hosts=("shop",))))
    with upgraded(old_edge, "web"), upgraded(old_edge, "shop") as other:
        switched = adapter.switch(pool(two))
        stays(adapter, switched, one)
        assert adapter.cut(switched, [one.upstream]) == 1
        other.sendall(b"still")
        assert other.recv(5) == b"still"


def test_old_workers_that_pile_up_are_ended_oldest_first_and_not_before_their_time(old_edge: Edge) -> None:
    """Whoever reloads: no deploy with a drain of its own is needed."""
    adapter, one, two = old_edge.adapter(), old_edge.app(1), old_edge.app(2)
    adapter.switch(pool(one))
    serving = len([title for title in old_edge.titles() if title == "nginx: worker process"])
    bound, more = GENERATIONS * serving, 2
    with contextlib.ExitStack() as held:
        clients = []
        for number in range(bound + more):  # each holds one worker of its generation
            clients.append(held.enter_context(upgraded(old_edge, "web")))
            adapter.switch(pool(one) if number % 2 else pool(one, two))
        eventually(lambda: adapter.old_workers() == bound + more or None)
        assert adapter.relieve(0.5) == Relief(), "they have only just been seen"
        assert adapter.relieve(600) == Relief()
        ended = eventually(lambda: found if (found := adapter.relieve(0.5)).workers else None)
        assert ended == Relief(more, more)
        assert adapter.relieve(0.5) == Relief(), "no more than what is too much"
        assert [echoes(client) for client in clients] == [False] * more + [True] * bound, "the oldest"


@pytest.mark.parametrize("tools", [True, False])
def test_past_the_drain_limit_no_worker_is_left_that_could_begin_a_request(old_edge: Edge, tools: bool) -> None:
    adapter, one, two = old_edge.adapter(), old_edge.app(1), old_edge.app(2)
    adapter.switch(pool(one))
    if not tools:
        docker("exec", old_edge.name, "sh", "-c", "chmod a-x /bin/ls")
    with contextlib.closing(old_edge.connect()) as client:
        old_edge.get()
        switched = adapter.switch(pool(two))
        stays(adapter, switched, one)
        assert adapter.cut(switched, [one.upstream]) == 1
        assert everything(client) == b""
        eventually(lambda: None if any("shutting down" in title for title in old_edge.titles()) else True)
    drained(adapter, switched, one)
    assert version(old_edge.get()) == "2"


def test_a_request_to_a_replica_that_stays_may_still_be_tried_on_the_old_one(old_edge: Edge) -> None:
    """old pool {one, two}, new pool {two}: when `two` breaks the connection, the old worker goes on to `one`."""
    # it may hear nothing of the end: the replica's network goes with it
    old_edge.configure(http="proxy_read_timeout 15s;")
    adapter, one, two = old_edge.adapter(), old_edge.app(1), old_edge.app(2)
    adapter.switch(pool(one, two))
    with contextlib.ExitStack() as stack:
        clients = []
        while not (in_flight(one) == 0 and in_flight(two) == 1):
            if in_flight(one) == 0:  # each worker takes turns of its own
                clients = [stack.enter_context(contextlib.closing(old_edge.connect()))]
                clients[0].sendall(b"GET /work?ms=8000 HTTP/1.1\r\nHost: web\r\n\r\n")
                eventually(lambda: True if in_flight(one) or in_flight(two) else None)
            else:
                clients.pop().close()
                eventually(lambda: True if not in_flight(one) else None)
        switched = adapter.switch(pool(two))
        stays(adapter, switched, one, seconds=0.5)
        docker("kill", two.name)
        assert version(everything(clients[0])) == "1"
        drained(adapter, switched, one)


def in_flight(app: App) -> int:
    with contextlib.closing(socket.create_connection((app.ip, 8000))) as client:
        client.sendall(b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
        return int(json.loads(one_answer(client)[1])["in_flight"])


def test_a_kept_connection_brings_another_request_to_the_old_replica(tmp_path: Path) -> None:
    """keepalive_min_timeout: a client joined to another service's upstream comes back with a request to ours."""
    with Bench(tmp_path, NEW) as made:
        edge = made.edge
        edge.configure(http=KEPT)
        edge.start()
        adapter, one, two = edge.adapter(), edge.app(1), edge.app(2)
        adapter.switch(pool(two, service="shop", options=PoolOptions(hosts=("shop",))))
        adapter.switch(pool(one))
        with contextlib.closing(edge.connect()) as client:
            client.sendall(b"GET /stream?seconds=8&chunks=80 HTTP/1.1\r\nHost: shop\r\n\r\n")
            stream = client.recv(1)
            switched = adapter.switch(pool(two))
            stays(adapter, switched, one)
            while not stream.endswith(b"\r\n0\r\n\r\n"):
                stream += client.recv(65536) or pytest.fail("cut")
            client.sendall(b"POST /work?ms=0 HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nok")
            assert version(everything(client)) == "1"
            drained(adapter, switched, one)


def one_answer(client: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one answer on a connection that is kept."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1) or pytest.fail("closed without an answer")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body)) or pytest.fail("closed within the answer")
    return head, body


def test_without_tools_in_the_image_only_the_end_of_the_workers_counts(old_edge: Edge) -> None:
    def execute(argv: Any, **more: Any) -> Any:
        result = old_edge.process.exec(argv, **more)
        return replace(result, exit_code=127, output="sh: not found") if argv[0] == "sh" else result

    adapter, one, two = old_edge.adapter(Around(old_edge.process, exec=execute)), old_edge.app(1), old_edge.app(2)
    adapter.switch(pool(one))
    adapter.switch(pool(two, service="shop", options=PoolOptions(hosts=("shop",))))
    with upgraded(old_edge, "shop"):
        switched = adapter.switch(pool(two))
        eventually(lambda: adapter.in_flight(switched, [one.upstream]).detail == "1 old worker" or None)
        assert stays(adapter, switched, one).detail == "1 old worker"
    drained(adapter, switched, one)


def test_after_a_restart_no_worker_knows_the_old_ones(old_edge: Edge) -> None:
    adapter, one, two = old_edge.adapter(), old_edge.app(1), old_edge.app(2)
    adapter.switch(pool(one))
    with contextlib.closing(old_edge.connect()):
        old_edge.get()
        switched = adapter.switch(pool(two))
        stays(adapter, switched, one, seconds=0.2)
        docker("restart", "-t", "0", old_edge.name)
        assert adapter.in_flight(switched, [one.upstream]).drained


# --- counting, looking, complaining ----------------------------------------------------------------------------


def test_requests_are_counted_by_upstream(edge: Edge) -> None:
    adapter, one, two = edge.adapter(), edge.app(1), edge.app(2)
    adapter.switch(pool(one))
    edge.get("/work?ms=0")
    eventually(lambda: True if any(one.ip in line for line in edge.process.output(0)) else None)  # it is in the log
    marker = adapter.mark("web")
    for _ in range(5):
        edge.get("/work?ms=0")
    adapter.switch(pool(two))
    for _ in range(3):
        edge.get("/work?ms=0")
    adapter.switch(pool(App(two.name, two.ip, port=1)))
    assert b" 502 " in edge.get("/work?ms=0")
    fresh = edge.adapter()

    def look() -> dict[str, tuple[int, int]] | None:
        counted = fresh.count("web", marker)
        assert counted.missing == ""
        seen = {address: (c.requests, c.failed) for address, c in counted.by_address.items()}
        return seen if sum(r for r, _ in seen.values()) >= 9 else None

    assert eventually(look) == {f"{one.ip}:8000": (5, 0), f"{two.ip}:8000": (3, 0), f"{two.ip}:1": (1, 1)}


def test_from_mark_to_mark_each_request_is_counted_once(edge: Edge) -> None:
    adapter, one = edge.adapter(), edge.app(1)
    adapter.switch(pool(one))
    marker, counted, asked = adapter.mark("web"), 0, 300

    def ask() -> None:
        for _ in range(asked):
            edge.get("/work?ms=0")

    def look() -> bool:
        nonlocal marker, counted
        found, marker = adapter.count_and_mark("web", marker)
        counted += sum(c.requests for c in found.by_address.values())
        return counted >= asked

    asking = threading.Thread(target=ask)
    asking.start()
    while asking.is_alive():
        look()
    asking.join()
    eventually(lambda: look() or None)
    look()
    assert counted == asked


def test_without_the_log_format_the_line_to_add_is_named(old_edge: Edge) -> None:
    (old_edge.directory / "nginx.conf").write_text("events {} http { include /etc/nginx/rollout.d/*.conf; }")
    counted = old_edge.adapter().count("web", old_edge.adapter().mark("web"))
    assert "access_log /dev/stdout rollout;" in counted.missing
    assert not counted.by_address


def test_a_configuration_without_our_include_is_refused_with_the_line_to_add(old_edge: Edge) -> None:
    (old_edge.directory / "nginx.conf").write_text("events {} http { # include /etc/nginx/rollout.d/*.conf;\n }")
    tree = old_edge.tree()
    with pytest.raises(SpecError) as refused:
        old_edge.adapter().switch(pool(old_edge.app(1)))
    assert "include /etc/nginx/rollout.d/*.conf;" in refused.value.details[0]
    assert old_edge.tree() == tree
    assert [f.code for f in old_edge.adapter().findings() if f.severity == "error"] == ["nginx-include"]


def test_a_directory_that_nginx_does_not_see_is_refused(old_edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    old_edge.settings = replace(old_edge.settings, config=str(tmp_path / "elsewhere"))
    with pytest.raises(SpecError) as refused:
        old_edge.adapter().prepare(Pool("web"))
    assert f"{tmp_path}/elsewhere:/etc/nginx/rollout.d" in refused.value.details[0]
    old_edge.settings = replace(old_edge.settings, config=str(tmp_path / "nowhere"))
    with pytest.raises(SpecError) as refused:
        old_edge.adapter().prepare(Pool("web"))
    assert "mkdir" in refused.value.details[0]


def test_the_network_is_one_that_both_are_on(old_edge: Edge) -> None:
    adapter = old_edge.adapter()
    assert adapter.network(ServiceSettings("web", 8000, networks=("front", old_edge.network))) == old_edge.network
    with pytest.raises(SpecError) as refused:
        adapter.network(ServiceSettings("web", 8000, networks=("front", "back")))
    assert old_edge.network in refused.value.details[0]
    assert "back, front" in refused.value.details[0]


def test_findings_of_a_lossless_configuration_are_none(tmp_path: Path) -> None:
    with Bench(tmp_path, NEW) as made:
        made.edge.configure(http="keepalive_timeout 15s; keepalive_min_timeout 15s;")
        made.edge.start()
        eventually(lambda: True if any("worker" in title for title in made.edge.titles()) else None)
        assert made.edge.adapter().findings() == []


# --- what pairs of sockets do not show ---------------------------------------------------------------------------


def test_an_error_page_takes_a_request_from_another_service_to_the_old_replica(old_edge: Edge) -> None:
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    edge.configure(
        http="server { listen 80; server_name shop;"
        " location / { proxy_pass http://other; proxy_read_timeout 8s; error_page 504 = @web; }"
        " location @web { rewrite ^ /work?ms=0? break; proxy_pass http://web; } }"
    )
    adapter = edge.adapter()
    adapter.switch(pool(two, service="other"))
    adapter.switch(pool(one))
    with contextlib.closing(edge.connect()) as client:
        client.sendall(b"GET /work?ms=60000 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        eventually(lambda: True if in_flight(two) else None)
        switched = adapter.switch(pool(two))
        assert "error_page 504" in stays(adapter, switched, one).detail
        assert version(everything(client)) == "1"
        drained(adapter, switched, one)


def test_past_the_drain_limit_clients_that_are_in_no_table_are_cut_too(
    old_edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, one, two = old_edge, old_edge.app(1), old_edge.app(2)
    edge.configure(server="listen unix:/etc/nginx/rollout.d/s;")
    adapter = edge.adapter()
    adapter.switch(pool(one))
    monkeypatch.chdir(edge.rendered)  # a socket's path is short
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(30)
        client.connect("s")
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\no")
        edge.get()
        switched = adapter.switch(pool(two))
        stays(adapter, switched, one)
        eventually(lambda: "1 old worker," in adapter.in_flight(switched, [one.upstream]).detail or None)
        assert adapter.cut(switched, [one.upstream]) == 1
        eventually(lambda: None if any("shutting down" in title for title in edge.titles()) else True)
        assert everything(client) == b""


def test_the_workers_of_another_nginx_in_the_same_pid_namespace_are_left_alone(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    with Bench(tmp_path / "ours", OLD) as made, bench(tmp_path / "theirs", OLD) as theirs:
        edge, folder = made.edge, made.edge.directory
        docker("rm", edge.name)
        docker(
            "create", "--pid", "host", "--name", edge.name, "--network", edge.network,
            "-v", f"{folder}/nginx.conf:/etc/nginx/nginx.conf:ro", "-v", f"{folder}/rollout.d:/etc/nginx/rollout.d",
            f"rollout-test/nginx:{OLD}",
        )  # fmt: skip
        edge.configure(http="ssi on;")  # nothing is told from pairs
        edge.start()
        eventually(lambda: answers(edge.ip, 80))
        one, two, foreign = edge.app(1), edge.app(2), theirs.app(1)
        theirs.adapter().switch(pool(foreign))
        adapter = edge.adapter()
        adapter.switch(pool(one))
        with upgraded(theirs, "web") as held, contextlib.closing(edge.connect()) as client:
            theirs.adapter().switch(pool(foreign, service="other"))
            client.sendall(b"POST /upload HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\no")
            edge.get()
            switched = adapter.switch(pool(two))
            stays(adapter, switched, one)
            eventually(lambda: "1 old worker," in adapter.in_flight(switched, [one.upstream]).detail or None)
            assert adapter.cut(switched, [one.upstream]) == 1
            assert everything(client) == b""
            drained(adapter, switched, one)
            assert any("shutting down" in title for title in theirs.titles())
            assert echoes(held)

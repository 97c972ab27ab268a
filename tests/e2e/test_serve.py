"""`rollout serve`: the pools follow the replicas, whatever people and crashes do to them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.deaths import NOBODY_ASKED, UNANSWERED, Deaths
from tests.e2e.projects import Container, Edge, Running, Shop, docker, eventually, healthy, in_pool, project, serving
from tests.faults.middle import spawn
from tests.load import Load, Mix

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

EDGES = (Edge("nginx", "1.30"), Edge("haproxy", "3.0"))
MIX = Mix.light()
SIGKILLS = 4  # in HAPPENINGS: these leave the application no time to say
UNREAD = 2  # how many requests had reached its sockets and were not read
SECRET = "planted-where-no-log-may-have-it"
# seconds from the death of one until the pool is written without it, on a busy machine. One that was not seen to die
# left with the next look at everything, after 8.5 to 9.9 s.
LEAVES = 6.0
SWITCHED = "3:done"  # of a deploy of both at once: started, checked, switched


def started(shop: Shop) -> None:
    """The first start of a project: the sidecar first, then everything else with plain Compose."""
    shop.compose("up", "-d")
    shop.wait_for_edge()
    in_pool(shop)


def stop_and_start(shop: Shop, one: Container, deaths: Deaths) -> None:
    with deaths.now():
        docker("stop", one.id)
    left_soon(shop, one)
    docker("start", one.id)


def kill_and_start(shop: Shop, one: Container, deaths: Deaths) -> None:
    with deaths.now():
        docker("kill", one.id)
    left_soon(shop, one)
    docker("start", one.id)


def left_soon(shop: Shop, one: Container) -> None:
    """By what the engine and the disk say of when it was: the test itself may be late to look."""
    in_pool(shop, 1)
    folder = shop.directory / "edge/rollout.d"
    pool = folder / "current" if shop.edge.type == "nginx" else folder / "web.cfg"
    died = datetime.fromisoformat(docker("inspect", "-f", "{{.State.FinishedAt}}", one.id))
    assert pool.lstat().st_mtime - died.timestamp() < LEAVES, shop.describe()


def restart(_: Shop, one: Container, deaths: Deaths) -> None:
    with deaths.now():
        docker("restart", one.id)


def crash_and_crash_again(shop: Shop, one: Container, deaths: Deaths) -> None:
    """Its own restart policy brings it back each time."""
    for _ in range(3):
        pid = eventually(lambda: pid_of(one), "its process")
        with deaths.now():
            os.kill(pid, signal.SIGKILL)
            eventually(partial(has_another, one, pid), "its death")


def pid_of(one: Container) -> int:
    """0 while it does not run."""
    return int(docker("inspect", "-f", "{{.State.Pid}}", one.id))


def has_another(one: Container, pid: int) -> bool:
    return pid_of(one) != pid


def scale_up_and_down(shop: Shop, _: Container, deaths: Deaths) -> None:
    shop.compose("up", "-d", "--scale", "web=5", "web")
    in_pool(shop, 5)
    with deaths.now():
        shop.compose("up", "-d", "--scale", "web=2", "web")


HAPPENINGS: tuple[Callable[[Shop, Container, Deaths], None], ...] = (
    restart, stop_and_start, kill_and_start, crash_and_crash_again, scale_up_and_down,
)  # fmt: skip


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_only_what_was_inside_a_dead_replica_is_lost(edge: Edge, short_directory: Path) -> None:
    logged = {"environment": {"LOG_REQUESTS": "/term/requests"}, "restart": "always"}
    with project(edge, short_directory / "p", **logged) as shop, serving(shop):
        started(shop)
        deaths = Deaths(MIX)
        with shop.load(MIX) as load:
            load.wait_for(50)
            for happen in HAPPENINGS:
                before = load.progress()["failed"]
                happen(shop, shop.running()[-1], deaths)
                in_pool(shop)
                answered(load, 30)
                print(f"{edge} {happen.__name__}: {load.progress()['failed'] - before} failed")
            report = load.report()
        inside = inside_the_dead(shop)
        print(f"{edge}: {inside} requests were inside a replica when it died\n{report.describe()}")
        unexplained = [f for f in report.failures if not deaths.explain(f)]
        assert unexplained == [], f"{report.describe()}\n{shop.describe()}"
        assert not NOBODY_ASKED & set(report.by_class), report.describe()
        assert report.failed <= inside + SIGKILLS * UNREAD, report.describe()
        shop.settled()


def answered(load: Load, more: int) -> None:
    load.wait_for(load.progress()["total"] + more)


def inside_the_dead(shop: Shop) -> int:
    """Requests that a replica had begun and never ended, and those that it said at SIGTERM had reached its sockets."""
    log = (shop.directory / "term/requests").read_text().splitlines()
    begun, ended = (sum(f'"event":"{what}"' in line for line in log) for what in ("begin", "end"))
    unread = sum(line["in_flight"] for line in shop.term_lines())
    return max(begun - ended, 0) + int(unread)


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_when_all_are_restarted_only_their_absence_is_felt(edge: Edge, short_directory: Path) -> None:
    """`docker compose restart` restarts all of a service at once: nobody can answer until one is back."""
    with project(edge, short_directory / "p") as shop, serving(shop) as sidecar:
        started(shop)
        with shop.load(Mix(get=2, post=2, fresh=2)) as load:
            load.wait_for(50)
            absence = Deaths(MIX, grace=UNANSWERED)
            with absence.now():
                shop.compose("restart", "-t", "1", "web")
                eventually(lambda: shop.answers() == "1", "an answer")
            in_pool(shop)
            answered(load, 50)
            report = load.report()
        print(f"{edge}: {report.describe()}")
        assert [f for f in report.failures if not absence.explain(f)] == [], report.describe()
        # what it said of the restart, if it saw nobody there, it has taken back: the same is not told twice
        eventually(lambda: told(sidecar, DOUBT) == told(sidecar, BACK), "its word that one is back")
        before = told(sidecar, DOUBT)
        docker("stop", *(c.id for c in shop.running()))
        eventually(lambda: told(sidecar, DOUBT) > before, "its doubt")
        assert shop.pool(), "never an empty pool because of a doubt"
        docker("start", *(c.id for c in shop.containers()))
        in_pool(shop)
        eventually(lambda: shop.answers() == "1", "an answer")


DOUBT = {"event": "warned", "code": "nothing-ready", "service": "web"}
BACK = {"event": "notice", "text": "a replica is ready again", "service": "web"}


def told(sidecar: Running, what: Mapping[str, str]) -> int:
    """How often."""
    return sum(what.items() <= event.items() for event in tuple(sidecar.events))


@contextlib.contextmanager
def without_its_socket(shop: Shop) -> Iterator[None]:
    """A command line that finds no sidecar works by itself."""
    socket = shop.directory / ".rollout/api.sock"
    aside = socket.rename(socket.with_suffix(".aside"))
    yield
    aside.rename(socket)


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_a_restarted_proxy_a_changed_file_and_a_dead_run(edge: Edge, short_directory: Path) -> None:
    secret = {"environment": {"DB_PASSWORD": SECRET}}
    with project(edge, short_directory / "p", **secret) as shop, serving(shop) as sidecar:
        refused = shop.rollout("serve", code=3)
        assert f"has a sidecar already: pid {sidecar.process.pid}" in refused.err
        started(shop)
        shop.rollout("deploy", "web")

        shop.compose("stop", "-t", "0", "edge")
        docker("kill", shop.running()[0].id)
        shop.compose("start", "edge")
        shop.wait_for_edge()
        in_pool(shop, 1)
        docker("start", *(c.id for c in shop.containers()))
        in_pool(shop)
        eventually(lambda: shop.answers() == "1", "an answer")

        good = (shop.directory / "compose.yaml").read_text()
        (shop.directory / "compose.yaml").write_text("services: {")
        sidecar.wait_for("warned", code="project-refused")
        docker("restart", "-t", "0", shop.running()[0].id)
        in_pool(shop)
        (shop.directory / "compose.yaml").write_text(good)
        sidecar.wait_for("notice", text="the project's files have changed and were read again")

        with shop.load() as load:
            load.wait_for(50)
            shop.tag("2")
            with without_its_socket(shop):
                assert spawn(shop, SWITCHED, "KILL", "deploy", "web").end().code == -signal.SIGKILL
                (shop.directory / "compose.yaml").write_text("services: {")  # what is followed is finished all the same
            sidecar.wait_for("finished", service="web", outcome="deployed")
            (shop.directory / "compose.yaml").write_text(good)
            eventually(lambda: {c.state for c in shop.containers()} == {"running"}, "the old replicas' end")
            in_pool(shop)
            answered(load, 50)
            report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
        assert shop.answers() == "2"
        shop.settled()
        sidecar.signal(signal.SIGTERM)
        assert SECRET not in sidecar.end().said


def test_the_first_signal_lets_a_deploy_end_and_the_second_does_not_wait(short_directory: Path) -> None:
    """What the second leaves half done, the command that had asked for it finishes by itself."""
    waits = ["sh", "-c", "until test -e /term/go; do sleep 0.05; done"]
    held_up = {"x-rollout": {"hooks": {"pre_stop": {"command": waits, "timeout": "60s"}}}}
    with project(EDGES[0], short_directory / "p", **held_up) as shop:
        sidecar = shop.spawn("serve")
        healthy(shop)
        started(shop)
        with shop.load(MIX) as load:
            shop.tag("2")
            asked = shop.spawn("deploy", "web")
            asked.wait_for("step_started", step="pre_stop")
            sidecar.signal(signal.SIGTERM)
            assert "under way" in shop.rollout("status").out
            assert sidecar.process.poll() is None, "it did not let the deploy end"
            sidecar.signal(signal.SIGTERM)
            left = sidecar.end(10.0)
            assert left.code == 130 and left.err.count("interrupted") == 1, left
            asked.wait_for("notice", text="the sidecar has gone away: going on without it")
            (shop.directory / "term/go").touch()
            assert asked.end().code == 0
            assert shop.answers() == "2"
            answered(load, 50)
            report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
        shop.settled()

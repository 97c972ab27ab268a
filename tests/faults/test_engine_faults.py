"""The engine misbehaves, one call at a time and all at once: a deploy goes through, or it is taken back and says why.

Either way it ends in bounded time, the next run converges, no request is lost, and nothing is left behind.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.server.membership import RESYNC
from tests.e2e.projects import Edge, containers, docker, healthy, in_pool, project
from tests.faults.engine_proxy import Call, EngineProxy, Fault
from tests.faults.spoilt import BLIND, HAPROXY, IMPATIENT, NGINX, Kind, Occurrence, Stand, Storm, stand

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

ID = r"/containers/[0-9a-f]{64}"
LIST, INSPECT = Kind("list", "GET", "/containers/json"), Kind("inspect", "GET", f"{ID}/json")
START, STOP = Kind("start", "POST", f"{ID}/start"), Kind("stop", "POST", f"{ID}/stop")
REMOVE, KILL = Kind("remove", "DELETE", ID), Kind("kill", "POST", f"{ID}/kill")
EXEC, RUN = Kind("prepare a command", "POST", f"{ID}/exec"), Kind("run a command", "POST", r"/exec/\w+/start")
EXIT_CODE = Kind("exit code", "GET", r"/exec/\w+/json")
LOGS, ARCHIVE = Kind("logs", "GET", f"{ID}/logs"), Kind("archive", "GET", f"{ID}/archive")
IMAGE, IMAGES = Kind("image", "GET", r"/images/.+/json"), Kind("images", "GET", "/images/json")
TAG, PING = Kind("tag", "POST", "/images/.+/tag"), Kind("ping", "GET", "/_ping")
CREATE = Kind("compose creates", "POST", "/containers/create", by_compose=True)
COMPOSE_LISTS = Kind("compose lists", "GET", "/containers/json", by_compose=True)

# How often one deploy of two replicas makes the call, at least: one of them is spoilt, a seed says which.
OFTEN = {LIST: 6, INSPECT: 10, START: 2, STOP: 2, REMOVE: 2, CREATE: 2, LOGS: 2}
TOP, STATS = Kind("top", "GET", f"{ID}/top"), Kind("stats", "GET", f"{ID}/stats")
BY_THE_BLIND = (TOP, STATS)  # on the engine's own host both are read from the control groups instead
COMMON = (PING, LIST, INSPECT, IMAGE, CREATE, COMPOSE_LISTS, START, EXEC, RUN, STOP, REMOVE, TAG, IMAGES)
CASES = [
    *((NGINX, kind) for kind in (*COMMON, EXIT_CODE, KILL, LOGS, *BY_THE_BLIND)),
    *((HAPROXY, kind) for kind in (*COMMON, ARCHIVE, STATS)),
]
FAULTS = [fault for fault in Fault if fault not in (Fault.SILENT, Fault.REFUSE)]


@pytest.fixture(scope="module", params=(NGINX, HAPROXY), ids=str)
def edge(request: pytest.FixtureRequest) -> Edge:
    found: Edge = request.param
    return found


@pytest.fixture
def one(edge: Edge, short_directory: Path) -> Iterator[Stand]:
    with stand(edge, short_directory) as made:
        yield made


def number(edge: Edge, kind: Kind, fault: Fault) -> int:
    return random.Random(f"{edge} {kind} {fault.value}").randint(1, OFTEN.get(kind, 1))


@pytest.mark.parametrize(("edge", "kind"), CASES, ids=str, scope="function")
def test_one_call_goes_wrong(edge: Edge, kind: Kind, short_directory: Path) -> None:
    with stand(edge, short_directory) as one:
        one.shop.program = BLIND if kind in BY_THE_BLIND else IMPATIENT
        for fault in FAULTS:
            which = number(edge, kind, fault)
            one.deploy(f"{kind.name} {which}: {fault.value}", Occurrence(kind, fault, which))
        print("\n".join(one.outcomes))


DAILY = ((CREATE, Fault.LOST), (START, Fault.LOST), (INSPECT, Fault.SHAPE), (STOP, Fault.ERROR), (REMOVE, Fault.HANG))


@pytest.mark.daily
def test_calls_that_go_wrong_where_most_is_at_stake(one: Stand) -> None:
    """A few of the cases above, for every day."""
    for kind, fault in DAILY:
        one.deploy(f"{kind.name}: {fault.value}", Occurrence(kind, fault, OFTEN[kind]))
    print("\n".join(one.outcomes))


@pytest.mark.parametrize("kind", [LIST, INSPECT, START, STOP, REMOVE, EXEC, CREATE], ids=str)
@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.HANG], ids=lambda fault: fault.value)
def test_a_call_goes_wrong_from_then_on(one: Stand, kind: Kind, fault: Fault) -> None:
    """Nothing can be undone through an engine that does not do it: then the next run does, whatever was left."""
    often = Occurrence(kind, fault, OFTEN.get(kind, 1), for_ever=True)
    one.deploy(f"every {kind.name}: {fault.value}", often, may_stay=True)
    print("\n".join(one.outcomes))


@pytest.mark.parametrize(
    "fault",
    [pytest.param(Fault.SILENT, marks=pytest.mark.daily), Fault.HANG, Fault.LOST],
    ids=lambda fault: fault.value,
)
def test_the_sidecar_follows_without_the_engines_events(fault: Fault, short_directory: Path) -> None:
    """They are a hint and no more: it looks at everything every ten seconds, and ends as soon as it is told to."""
    spoilt = EngineProxy(short_directory / "engine.sock", lambda call: fault if call.path == "/events" else None)
    with spoilt as proxy, project(NGINX, short_directory / "p") as shop:
        shop.env["DOCKER_HOST"] = proxy.url
        sidecar = shop.spawn("serve")
        healthy(shop)
        shop.compose("up", "-d")
        shop.wait_for_edge()
        in_pool(shop, seconds=4 * RESYNC)
        one = shop.running()[0]
        docker("kill", one.id)
        in_pool(shop, 1, seconds=4 * RESYNC)
        docker("start", one.id)
        in_pool(shop, seconds=4 * RESYNC)
        sidecar.signal(signal.SIGTERM)
        done = sidecar.end()
        assert done.code == 0, done
        assert proxy.spoilt, "it has asked for events"


@pytest.mark.parametrize("seed", range(6))
def test_any_call_may_go_wrong(one: Stand, seed: int) -> None:
    """Two in a hundred, among them those of the undo: it may remain undone, but the next run finds its way."""
    for turn in range(3):
        one.deploy(f"storm {seed}.{turn}", Storm(10 * seed + turn, 0.02), must_meet=False, may_stay=True)
    print("\n".join(one.outcomes))


def test_a_new_container_vanishes_before_it_is_inspected(one: Stand) -> None:
    known = {c.id for c in containers(one.shop.name)}
    gone = set[str]()

    def vanish(call: Call) -> None:
        container = call.path.split("/")[2] if INSPECT.covers(call) else ""
        if container and not gone and container not in known:
            gone.add(container)
            docker("rm", "-f", container)

    done = one.deploy("a new container vanishes", vanish, must_meet=False)
    assert gone
    assert done.code in {1, 4}, done
    assert "gone" in done.err or "removed by somebody else" in done.err, done


def test_an_old_container_vanishes_before_it_is_stopped(one: Stand) -> None:
    gone = set[str]()

    def vanish(call: Call) -> None:
        if STOP.covers(call) and not gone:
            gone.add(call.path.split("/")[2])
            docker("rm", "-f", *gone)

    done = one.deploy("an old container vanishes", vanish, must_meet=False)
    assert gone
    assert done.code == 0, done

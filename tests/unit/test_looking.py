"""What `rollout status`, the API and the page are told of a service, against the world as it is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Self

from rollout.controller import Candidate
from rollout.model import Health, Pool, ProxyType, ReplicaState, Upstream
from rollout.server.metrics import in_sync, ready_count, weights
from rollout.server.readiness import Readiness
from rollout.server.view import View
from tests.simulation.fakes import FakeClock, ports
from tests.simulation.scenario import V1, V2, Scenario, settings
from tests.simulation.world import NETWORK, SERVICE, World


class Loaded:
    """A project that is read."""

    def __init__(self, wired: Any) -> None:
        self.wired = wired

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def refresh(self) -> bool:
        return False


class Looking:
    """A service with two replicas, both in the pool, as a sidecar shows it."""

    def __init__(self) -> None:
        self.scenario = Scenario(settings())
        self.scenario.deploy(V1)
        self.readiness = Readiness()

    @property
    def replicas(self) -> list[Any]:
        return list(self.scenario.world.containers.values())

    def pool(self, *upstreams: Upstream) -> None:
        self.scenario.world.disk[SERVICE] = Pool(SERVICE, upstreams, self.scenario.settings.pool)

    def shown(self) -> dict[str, Any]:
        scenario = self.scenario
        wired = SimpleNamespace(
            ports=ports(scenario.world, scenario.journal, lambda _: V1),
            project=SimpleNamespace(
                name="shop", services={SERVICE: scenario.settings}, proxy=SimpleNamespace(type=ProxyType.NGINX)
            ),
            process=SimpleNamespace(identity=lambda: "it", describe=lambda: "a fake"),
            lock=SimpleNamespace(holder=lambda _: None),
        )
        view = View(Loaded(wired), self.readiness, FakeClock(World()))  # type: ignore[arg-type]
        one: dict[str, Any] = view.status()["services"][0]
        return one


def test_a_pool_that_is_the_ready_replicas() -> None:
    one = Looking().shown()
    assert (ready_count(one), in_sync(one), one["stale"]) == (2, True, [])
    assert weights(one) == {one["live"]["revision"]: 1.0}


def test_what_has_not_passed_its_probe_is_not_ready_though_the_engine_has_no_objection() -> None:
    looking = Looking()
    first = looking.replicas[0].replica
    candidate = Candidate(looking.scenario.settings, NETWORK, first, Upstream("web-x", "10.0.0.9", 8000))
    looking.readiness.heard([SERVICE], [candidate])
    one = looking.shown()
    assert [replica["ready"] for replica in one["replicas"]] == [False, True]
    assert (ready_count(one), in_sync(one)) == (1, False)
    looking.readiness.heard(["another"], [])
    assert ready_count(looking.shown()) == 1
    looking.readiness.heard([SERVICE], [])
    assert ready_count(looking.shown()) == 2


def beside(one: dict[str, Any]) -> list[dict[str, Any]]:
    """Replicas that run beside the pool."""
    return [replica for replica in one["replicas"] if replica["pool"] == "out" and replica["state"] == "running"]


def test_who_has_yet_to_pass_a_rollout_s_check_is_not_ready() -> None:
    def killed_at(call: int) -> dict[str, Any]:
        looking = Looking()
        assert not looking.scenario.survive(V2, call)
        return looking.shown()

    one = next(one for one in map(killed_at, range(1, 100)) if one["unfinished"] and len(beside(one)) == 1)
    assert [r["ready"] for r in beside(one)] == [False]
    assert (ready_count(one), one["stale"]) == (2, [])


def test_an_ill_or_stopped_replica_is_not_ready() -> None:
    looking = Looking()
    first, second = looking.replicas
    first.replica = replace(first.replica, health=Health.STARTING)
    second.replica = replace(second.replica, state=ReplicaState.EXITED)
    assert ready_count(looking.shown()) == 0


def test_a_pool_that_names_a_removed_container_is_not_in_sync() -> None:
    looking = Looking()
    first, second = looking.replicas
    pool = looking.scenario.world.loaded[SERVICE]
    looking.scenario.world.containers.pop(second.replica.id)
    looking.scenario.settings = replace(looking.scenario.settings, replicas=1)
    one = looking.shown()
    assert one["stale"] == [u.address for u in pool.upstreams if u.host != first.ip]
    assert (ready_count(one), in_sync(one)) == (1, False)
    assert weights(one) == {0: 0.5, one["live"]["revision"]: 0.5}


def test_a_pool_that_names_a_replica_s_former_address_is_not_in_sync() -> None:
    looking = Looking()
    first, second = looking.scenario.world.loaded[SERVICE].upstreams
    looking.pool(first, replace(second, host="10.0.0.99"))
    one = looking.shown()
    assert one["stale"] == ["10.0.0.99:8000"] and not in_sync(one)
    assert "10.0.0.99" not in [replica["address"].partition(":")[0] for replica in one["replicas"]]

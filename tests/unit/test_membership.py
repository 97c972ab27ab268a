"""What membership decides: who belongs, who is ready, when the last pool stays; how soon a replica is let in again."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.clock import SystemClock
from rollout.controller import Candidate, Decision, Seen, decide, only_more
from rollout.errors import EngineError, ProxyUnreachable
from rollout.events import Event, Notice, Warned
from rollout.membership import belonging
from rollout.model import (
    Health,
    HealthCheck,
    Pool,
    ProxySettings,
    ProxyType,
    Relief,
    Replica,
    ReplicaState,
    Revision,
    RevisionKey,
    Upstream,
)
from rollout.ports import Warm
from rollout.server.hints import PATIENCE, hints
from rollout.server.membership import AT_ONCE, ONE_MORE, Membership, Pace
from rollout.server.news import News
from rollout.server.proving import Proving, steady_for
from rollout.server.readiness import Readiness
from tests.simulation.fakes import FakeClock, ports
from tests.simulation.scenario import V1, Scenario, settings
from tests.simulation.world import NETWORK, World

OLD, NEW = RevisionKey("old", "sha256:old"), RevisionKey("new", "sha256:new")
ADDRESSES = {letter: f"10.0.0.{number}" for number, letter in enumerate("abcdef", 2)}


def replica(letter: str, key: RevisionKey = OLD, **changes: Any) -> Replica:
    addresses = {NETWORK: ADDRESSES[letter]}
    made = Replica(letter * 64, f"shop-web-{letter}", "web", 1, key, ReplicaState.RUNNING, addresses=addresses)
    return replace(made, **changes)


def upstream(letter: str, host: str = "") -> Upstream:
    return Upstream(f"web-{letter * 12}", host or ADDRESSES[letter], 8000)


def pool(*letters: str) -> Pool:
    return Pool("web", tuple(map(upstream, letters)), settings().pool)


def live(key: RevisionKey) -> Revision:
    return Revision("web", 1, key, "shop/web:1", "", 0.0)


def decided(*replicas: Replica, known: Pool | None, proven: bool = False, **more: Any) -> Decision:
    seen = Seen(settings(), NETWORK, replicas, known, None, live(OLD), **more)
    return decide(seen, lambda _: proven)


def letters(replicas: list[Replica]) -> str:
    return "".join(r.id[0] for r in replicas)


# --- who belongs ------------------------------------------------------------------------------------------------


def test_the_live_revision_and_what_is_routed_belong() -> None:
    found = [replica("a"), replica("b", NEW), replica("c", NEW), replica("d", state=ReplicaState.EXITED)]
    assert letters(belonging(found, pool("b"), None, live(OLD))) == "ab"


def test_before_the_first_deploy_the_revision_of_what_is_routed_belongs() -> None:
    """`docker compose up --scale` adds more of the same; a container of another version is not ours to judge."""
    assert letters(belonging([replica("a"), replica("b"), replica("c", NEW)], pool("a"), None, None)) == "ab"


def test_with_nothing_known_all_belong() -> None:
    assert letters(belonging([replica("a"), replica("b", NEW)], None, None, None)) == "ab"


def test_when_nothing_is_left_of_the_live_revision_what_there_is_belongs() -> None:
    """`docker compose up -d` has recreated everything: else the pool would name the dead for ever."""
    assert letters(belonging([replica("c", NEW), replica("d", NEW)], pool("a"), None, live(OLD))) == "cd"


def test_what_has_replaced_the_live_revision_is_followed_from_then_on() -> None:
    """`docker compose up -d` of another version, then `--scale`, then a replica that died and came back elsewhere."""
    found = [replica("c", NEW), replica("d", NEW), replica("e", NEW)]
    assert letters(belonging(found, pool("c"), None, live(OLD))) == "cde"
    assert letters(belonging(found, pool("c"), None, live(NEW))) == "cde"
    warm = Warm("web", 1, (replica("a").id,), until=1e12)
    assert letters(belonging([replica("a"), *found], pool("c"), warm, live(OLD))) == "cde", "warm ones do not serve"


def test_a_stopped_replica_of_the_live_revision_keeps_others_out() -> None:
    found = [replica("a", state=ReplicaState.EXITED), replica("c", NEW)]
    assert belonging(found, pool("a"), None, live(OLD)) == []


def test_without_a_known_revision_the_dead_keep_nobody_out() -> None:
    """The journal was lost, and the pool's file names replicas that have all died: what runs may serve."""
    found = [replica("a", state=ReplicaState.EXITED), replica("c", NEW)]
    assert letters(belonging(found, pool("a"), None, None)) == "c"


def test_warm_replicas_rest() -> None:
    warm = Warm("web", 1, (replica("a").id,), until=1e12)
    assert letters(belonging([replica("a"), replica("b")], pool("b"), warm, live(OLD))) == "b"


# --- who is ready -----------------------------------------------------------------------------------------------


def test_a_replica_in_the_pool_stays_without_a_proof() -> None:
    assert decided(replica("a"), replica("b"), known=pool("a", "b")) == Decision(pool("a", "b"), ())


def test_one_that_died_leaves_at_once() -> None:
    dead = replica("b", state=ReplicaState.EXITED, addresses={})
    assert decided(replica("a"), dead, known=pool("a", "b")) == Decision(pool("a"), ())


@pytest.mark.parametrize("health", [Health.STARTING, Health.NONE, Health.HEALTHY])
def test_only_dockers_verdict_takes_one_out(health: Health) -> None:
    assert decided(replica("a", health=health), known=pool("a")).pool == pool("a")
    ill = replica("b", health=Health.UNHEALTHY)
    assert decided(replica("a"), ill, known=pool("a", "b"), proven=True) == Decision(pool("a"), ())


def test_at_another_address_it_has_to_prove_itself() -> None:
    moved = replica("b", addresses={NETWORK: "10.0.0.99"})
    decision = decided(replica("a"), moved, known=pool("a", "b"))
    assert decision.pool == pool("a")
    assert [c.upstream for c in decision.unproven] == [upstream("b", "10.0.0.99")]
    proven = decided(replica("a"), moved, known=pool("a", "b"), proven=True).pool
    assert proven is not None
    assert proven.upstreams == (upstream("a"), upstream("b", "10.0.0.99"))


def test_back_at_its_own_address_too() -> None:
    again = frozenset({replica("b").id})
    assert decided(replica("a"), replica("b"), known=pool("a", "b"), restarted=again).pool == pool("a")


def test_never_an_empty_pool_because_of_a_doubt() -> None:
    dead = [replica(letter, state=ReplicaState.EXITED, addresses={}) for letter in "ab"]
    assert decided(*dead, known=pool("a", "b")).pool is None
    assert decided(known=pool("a", "b")).pool is None
    assert decided(replica("a", health=Health.UNHEALTHY), known=pool("a")).pool is None


def test_the_settings_of_the_compose_file_are_the_pools() -> None:
    other = replace(pool("a"), options=replace(pool("a").options, keepalive=7))
    assert decided(replica("a"), known=other).pool == pool("a")


def test_only_what_comes_can_wait() -> None:
    assert only_more(pool("a"), pool("a", "b"))
    for before, after in ((pool("a"), pool("b")), (pool("a", "b"), pool("a")), (pool("a"), pool("a"))):
        assert not only_more(before, after)
    for nothing in (None, pool()):
        assert not only_more(nothing, pool("a")), "requests wait for it"


# --- proving ----------------------------------------------------------------------------------------------------


class Prober:
    """Answers what it is told to, and waits while it is told to."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.free = threading.Event()
        self.free.set()
        self.probed: list[str] = []

    def probe(self, replica: Replica, address: str, check: HealthCheck, port: int) -> str | None:
        self.free.wait(10)
        self.probed.append(replica.name)
        return self.reason


class Bench:
    """Proving over a virtual clock; `tick` lets the probes that are due come to their end."""

    def __init__(self, **health: Any) -> None:
        self.world = World()
        self.prober, self.told = Prober(), News()
        self.ended = threading.Semaphore(0)
        self.proving = Proving(self.prober, FakeClock(self.world), self._tell)
        self.candidate = self.of("a", **health)
        self.services: list[str] = []

    def of(self, letter: str, **health: Any) -> Candidate:
        check = replace(settings().health, **health)
        return Candidate(settings(health=check), NETWORK, replica(letter), upstream(letter))

    def _tell(self, service: str) -> None:
        self.services.append(service)
        self.ended.release()

    def tick(self, seconds: float = 0.0, probes: int = 1) -> bool:
        self.world.now += seconds
        self.proving.due()
        for _ in range(probes):
            assert self.ended.acquire(timeout=10)
        return self.proven()

    def proven(self) -> bool:
        return self.proving.proven(self.candidate)

    def enter(self) -> None:
        """It is in the pool: no candidate any more."""
        self.proving.want([], ["web"])


@pytest.fixture
def bench() -> Any:
    made = Bench(healthy_threshold=2)
    yield made
    made.proving.close()


def test_as_many_probes_in_a_row_as_the_settings_say(bench: Bench) -> None:
    bench.proving.want([bench.candidate], ["web"])
    assert bench.tick()
    assert len(bench.prober.probed) == 2
    assert bench.services == ["web"]


def test_a_failed_probe_is_repeated_sooner_first_than_later(bench: Bench) -> None:
    bench.prober.reason = "connection refused"
    bench.proving.want([bench.candidate], ["web"])
    assert not bench.tick()
    pauses = []
    for _ in range(40):
        pause = bench.proving.due()
        assert pause is not None
        pauses.append(pause)
        bench.tick(pause)
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.01
    assert pauses[-1] == pytest.approx(bench.candidate.settings.health.interval)
    bench.prober.reason = None
    assert bench.tick(1.0)


def test_a_proof_is_for_one_stay_outside(bench: Bench) -> None:
    bench.proving.want([bench.candidate], ["web"])
    bench.tick()
    bench.enter()
    bench.prober.reason = "connection refused"
    bench.proving.want([bench.candidate], ["web"])
    assert not bench.tick()


def test_what_is_said_of_one_service_is_nothing_about_another(bench: Bench) -> None:
    bench.proving.want([bench.candidate], ["web"])
    bench.tick()
    bench.proving.want([], ["api"])
    assert bench.proven()


def test_a_replica_that_hangs_holds_nobody_up(bench: Bench) -> None:
    bench.prober.free.clear()
    bench.proving.want([bench.candidate], ["web"])
    bench.proving.due()
    bench.proving.want([bench.candidate, bench.of("b")], ["web"])
    assert not bench.proven()
    bench.prober.free.set()
    assert bench.tick(probes=2)


def test_one_that_keeps_dying_has_to_stay_ready_for_longer(bench: Bench) -> None:
    for wait in (0.0, 0.0, 1.0, 2.0, 4.0):
        bench.proving.want([bench.candidate], ["web"])
        assert bench.tick() is (wait == 0.0)
        waited = 0.0
        while waited < wait:
            assert not bench.proven()
            step = bench.proving.due()
            assert step is not None
            assert step > 0
            bench.tick(step)
            waited += step
        assert bench.proven()
        assert waited == pytest.approx(wait)
        bench.enter()
    assert steady_for(40, 0.0) == 60.0
    assert steady_for(2, 7.0) == 7.0


def test_it_has_to_stay_ready_for_as_long_as_the_settings_say() -> None:
    bench = Bench(min_healthy_time=2.0)
    try:
        bench.proving.want([bench.candidate], ["web"])
        assert [bench.tick(0.5) for _ in range(5)] == [False] * 4 + [True]
    finally:
        bench.proving.close()


def test_a_proof_that_waits_is_kept_fresh(bench: Bench) -> None:
    """Its pool cannot be changed, for an hour perhaps; meanwhile it has been started anew at the same address."""
    bench.proving.want([bench.candidate], ["web"])
    assert bench.tick()
    interval = bench.candidate.settings.health.interval
    assert bench.tick(interval), "nothing begins from zero while it is ready"
    bench.prober.reason = "connection refused"
    assert not bench.tick(interval)
    bench.prober.reason = None
    assert bench.tick(interval)
    assert bench.services == ["web", "", "", "web"], "told when something has changed for the pool"


def test_one_that_waits_outside_has_not_died_in_a_pool(bench: Bench) -> None:
    bench.proving.want([bench.candidate], ["web"])
    interval = bench.candidate.settings.health.interval
    for _ in range(6):
        bench.prober.reason = None
        assert bench.tick(interval), "at once, however often it was ready before"
        bench.prober.reason = "connection refused"
        assert not bench.tick(interval)


def test_what_a_probe_raises_is_not_lost(bench: Bench) -> None:
    def broken(*_: Any) -> str | None:
        raise ZeroDivisionError

    bench.prober.probe = broken  # type: ignore[assignment,method-assign]  # a defect
    bench.proving.want([bench.candidate], ["web"])
    bench.tick()
    with pytest.raises(ZeroDivisionError):
        bench.proving.due()


# --- news and pace ----------------------------------------------------------------------------------------------


def test_an_engine_that_never_answers_for_its_events_holds_up_no_end() -> None:
    asked, answered = threading.Event(), threading.Event()

    class Silent:
        def watch(self, container: str) -> Any:
            asked.set()
            answered.wait(60)
            raise EngineError("it has gone")

    ended = threading.Event()

    def listen() -> None:
        with hints(Silent(), ProxySettings(ProxyType.NGINX, "/c", service="edge"), News()):  # type: ignore[arg-type]
            asked.wait(10)
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        assert ended.wait(10 + 4 * PATIENCE)
    finally:
        answered.set()


def test_news_are_taken_once_and_only_for_services_that_there_are() -> None:
    news = News()
    for service in ("web", "web", "gone", ""):
        news.tell(service)
    news.wait(60)
    assert news.there()
    assert news.take({"web", "api"}) == {"web"}
    assert news.take({"web", "api"}) == set()
    assert not news.there()
    news.tell_all()
    assert news.take({"web", "api"}) == {"web", "api"}


def test_a_storm_of_changes_costs_few_reloads() -> None:
    """A hundred replicas bounce within 15 seconds, and each wants a reload."""
    world = World()
    pace, reloads = Pace(FakeClock(world)), 0
    end = world.now + 15.0
    assert pace.wait() == 0.0
    while world.now < end:
        if pace.wait() == 0.0:
            pace.reloaded()
            reloads += 1
        world.now += 0.15
    assert AT_ONCE <= reloads <= AT_ONCE + 15.0 / ONE_MORE + 1
    world.now += AT_ONCE * ONE_MORE
    for _ in range(AT_ONCE):
        assert pace.wait() == 0.0
        pace.reloaded()
    assert 0.0 < pace.wait() <= ONE_MORE


# --- the part ---------------------------------------------------------------------------------------------------


def test_a_proxy_that_is_away_ends_nothing() -> None:
    """At the project's first start it waits for the sidecar's health, so the sidecar is healthy without it."""
    scenario = Scenario(settings())
    real = ports(scenario.world, scenario.journal, lambda _: V1)
    away, told, passes = threading.Event(), SimpleQueue[Event](), SimpleQueue[None]()
    away.set()

    class Proxy:
        def identity(self) -> str:
            if away.is_set():
                raise ProxyUnreachable("the proxy's container is not there")
            return "it"

        def __getattr__(self, name: str) -> Any:
            return getattr(real.proxy, name)

    class Silent:
        def watch(self, container: str) -> Any:
            raise EngineError("no events")

        def __getattr__(self, name: str) -> Any:
            return getattr(real.engine, name)

    made = replace(real, proxy=Proxy(), engine=Silent())  # type: ignore[arg-type]
    wired = SimpleNamespace(
        project=SimpleNamespace(services={"web": scenario.settings}, proxy=ProxySettings(ProxyType.NGINX, "/c")),
        ports=made,
        proxy=SimpleNamespace(relieve=lambda limit: SimpleNamespace(workers=0, connections=0)),
        state=SimpleNamespace(pass_done=lambda: passes.put(None)),
    )
    project = SimpleNamespace(wired=wired, options=None, adapt=None, take_up=bool, changed=bool)
    stop = threading.Event()
    part = Membership(project, SystemClock(), told.put, Readiness())  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as thread:
        end = thread.submit(part.run, stop)
        try:
            gone = told.get(timeout=10)
            passes.get(timeout=10)
            away.clear()
            back = told.get(timeout=20)
        finally:
            stop.set()
            end.result(10)
    assert isinstance(gone, Warned) and gone.code == "not-followed" and "is not there" in gone.text
    assert isinstance(back, Notice) and back.text == "the replicas are followed again"


def test_old_workers_have_as_long_as_the_service_with_the_most_patience_gives_them() -> None:
    scenario = Scenario(settings(drain_timeout=2.0))
    services = {"web": scenario.settings, "api": settings(name="api", drain_timeout=30.0)}
    stop, limits = threading.Event(), list[float]()

    def relieve(limit: float) -> Relief:
        limits.append(limit)
        stop.set()
        return Relief()

    wired = SimpleNamespace(
        project=SimpleNamespace(services=services, proxy=ProxySettings(ProxyType.NGINX, "/c")),
        ports=ports(scenario.world, scenario.journal, lambda _: V1),
        proxy=SimpleNamespace(relieve=relieve),
        state=SimpleNamespace(pass_done=lambda: None),
    )
    project = SimpleNamespace(wired=wired, options=None, adapt=None, take_up=bool, changed=bool)
    Membership(project, SystemClock(), lambda event: None, Readiness()).run(stop)  # type: ignore[arg-type]
    assert limits == [30.0]


def test_the_log_is_one_line_an_event() -> None:
    from rollout.server.bus import Numbered
    from rollout.server.logs import line

    event = Numbered(1, 1.5, Warned("web", "nothing-ready", 'a "quoted"\nsecond line'))
    plain, as_json = line(event, as_json=False), line(event, as_json=True)
    assert plain.startswith("at=1970-01-01T00:00:01.500Z level=warning event=warned service=web text=")
    assert "\n" not in plain + as_json
    assert json.loads(as_json)["text"] == 'a "quoted"\nsecond line'

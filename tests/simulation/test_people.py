"""What the histories (`test_histories.py`) found, each as the shortest story that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from rollout.controller import sync_once
from rollout.deploy import Request, deploy
from rollout.errors import DeployFailed, Interrupted, NotUndone, ProxyUnreachable, StateError
from rollout.events import Event, Notice, RolloutStarted, StepStarted
from rollout.model import (
    FailureAction,
    HealthCheck,
    Order,
    Pool,
    RevisionKey,
    ServiceSettings,
    Strategy,
    UpdateConfig,
    Upstream,
)
from rollout.plan import Start
from rollout.steps.run import Ports
from rollout.targets import choose_revision
from tests.simulation.fakes import Breakage, FakeProxy, MemoryJournal, ports
from tests.simulation.history import History
from tests.simulation.others import Others
from tests.simulation.scenario import V1, V2, V3, Scenario, settings
from tests.simulation.test_deploys import every_way
from tests.simulation.world import SERVICE, Crash, name_of


def _killed_when_created(scenario: Scenario, target: RevisionKey = V2) -> None:
    scenario.world.on_add = _crash
    with pytest.raises(Crash):
        scenario.deploy(target)
    scenario.world.on_add = lambda: None


def _crash() -> None:
    raise Crash("a container was made")


def test_a_journal_that_cannot_be_read_just_after_the_beginning_leaves_no_rollout_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenario = Scenario(settings())
    before = scenario.fingerprint()

    def refuse(service: str) -> None:
        monkeypatch.undo()
        raise StateError("disk I/O error")

    scenario.events = _When("begun", lambda: monkeypatch.setattr(scenario.journal, "warm", refuse))
    with pytest.raises(StateError):
        scenario.deploy(V2)
    assert scenario.journal.unfinished(SERVICE) is None and scenario.fingerprint() == before


@pytest.mark.parametrize("order", range(2))
def test_one_that_dies_ends_the_check_of_all(order: int) -> None:
    """The others would have a minute to wait, for nothing."""
    way = settings(replicas=2, update=UpdateConfig(parallelism=0), health=HealthCheck(path="/", min_healthy_time=60.0))
    scenario = Scenario(way, order)
    old, began = set(scenario.world.containers), scenario.clock.now()
    scenario.world.deaths_expected = True

    def kill_one() -> None:
        new = [c for i, c in scenario.world.containers.items() if i not in old]
        Others(scenario.world).stop(new[order % 2])

    scenario.events = _When("check", kill_one)
    with pytest.raises(DeployFailed, match="exited with code"):
        scenario.deploy(V2)
    if order % 2 == 0:  # here they are waited for one after the other: the first to be looked at is the one
        assert scenario.clock.now() - began < 30.0
    assert set(scenario.world.containers) == old


def test_what_cannot_be_made_again_is_said_in_so_many_words() -> None:
    """Plain Compose had made them, and somebody removes them in the middle of a deploy that fails."""
    scenario = Scenario(settings())
    scenario.world.deaths_expected = True
    scenario.world.images[V2.image_id].healthy = False
    old = list(scenario.world.containers.values())

    def remove_all() -> None:
        for container in old:
            Others(scenario.world).remove(container)

    scenario.events = _When("check", remove_all)
    with pytest.raises(NotUndone, match="their configuration was never stored"):
        scenario.deploy(V2)


@pytest.mark.parametrize("gone", [1, 2])
def test_a_killed_run_makes_again_what_served_and_nothing_older(gone: int) -> None:
    """V2 was deployed last, then plain Compose made V3 of it, whose configuration was never stored."""
    scenario = Scenario(settings())
    scenario.deploy(V2)
    scenario.world.deaths_expected = True
    Others(scenario.world).up(SERVICE, V3, 2)
    scenario.world.advance(1.0)
    scenario.sync()
    _killed_when_created(scenario, V1)
    for container in [c for c in scenario.world.containers.values() if c.replica.key == V3][:gone]:
        Others(scenario.world).remove(container)
    scenario.sync()
    left = {c.replica.key for c in scenario.world.containers.values()}
    assert V2 not in left and (gone == 2 or left == {V1, V3}), scenario.picture()
    scenario.deploy(V1)
    scenario.assert_settled(V1)


class Tagged:
    """A service whose image is always `shop:latest`, as of one that is built; Compose takes what that is by then."""

    def __init__(self, way: ServiceSettings) -> None:
        self.scenario = Scenario(way)
        self.world = self.scenario.world

    def made_from(self, key: RevisionKey, config: str | None) -> RevisionKey:
        if config is not None and ", image " in config:
            return RevisionKey("by id", config.rpartition(" ")[2])
        return RevisionKey(key.config_hash, self.world.tags["shop:latest"])

    def _ports(self, key: RevisionKey) -> Ports:
        return ports(self.world, self.scenario.journal, lambda config: self.made_from(key, config))

    def deploy(self, key: RevisionKey, crash_at: int | None = None) -> None:
        self.world.tags["shop:latest"] = key.image_id
        self.world.calls, self.world.crash_at = 0, crash_at
        request = Request("shop", key, "shop:latest", f"config of {key.config_hash}")
        try:
            deploy(self._ports(key), self.scenario.settings, request, self.scenario.events.append, lambda: False)
        finally:
            self.world.crash_at = None

    def sync(self, key: RevisionKey) -> None:
        sync_once(self._ports(key), self.scenario.settings, self.scenario.events.append)

    def images(self) -> set[str]:
        return {c.replica.key.image_id for c in self.world.containers.values()}


def test_old_containers_are_made_again_from_their_image_where_the_tag_has_moved_on() -> None:
    """One name, so the old container is removed before the new one is made; and that more than once."""
    service = Tagged(settings(strategy=Strategy.RECREATE, replicas=1, remove_first=True))
    service.deploy(V2)
    service.world.images[V3.image_id].healthy = False
    for _ in range(2):
        with pytest.raises(DeployFailed, match="is not ready"):
            service.deploy(V3)
        assert service.images() == {V2.image_id}
        (container,) = service.world.containers.values()
        assert container.ip in {u.host for u in service.world.loaded[SERVICE].upstreams}


def test_a_killed_run_is_not_finished_with_another_image() -> None:
    ended_well = 0
    for call in range(20, 400):
        service = Tagged(settings(strategy=Strategy.ROLLING))
        try:
            service.deploy(V2, crash_at=call)
            break
        except Crash:
            service.world.tags["shop:latest"] = V3.image_id
            service.sync(V3)
        assert service.images() in ({V1.image_id}, {V2.image_id}), f"killed at call {call}"
        ended_well += service.images() == {V2.image_id}
    assert ended_well


def test_a_proxy_that_does_not_answer_keeps_no_candidates_of_a_dead_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of them had traffic: to take them away needs no proxy."""
    scenario = Scenario(settings())
    _killed_when_created(scenario)

    def silent(proxy: FakeProxy, pool: Pool) -> bool:
        raise ProxyUnreachable("its socket does not answer")

    monkeypatch.setattr(FakeProxy, "holds", silent)
    with pytest.raises(ProxyUnreachable):  # the pool cannot be looked after, which comes later
        scenario.sync()
    scenario.assert_settled(V1)


def test_a_rollback_to_what_was_never_stored_starts_nothing() -> None:
    """Its warm replicas were enough when it was asked for, and are not by the time it begins."""
    scenario = Scenario(settings())
    scenario.deploy(V2)
    before = scenario.fingerprint()
    request = Request("shop", V1, V1.image_id, "", "rollback", from_files=False)
    fresh = ports(scenario.world, scenario.journal, lambda _: V1)
    with pytest.raises(DeployFailed, match="revision 2 was not made by rollout, its configuration is not known"):
        deploy(fresh, scenario.settings, request, scenario.events.append, lambda: False)
    assert scenario.fingerprint() == before


def test_a_rollback_that_waits_goes_back_from_what_is_live_when_its_turn_comes() -> None:
    """Asked for while another deploy is under way: what that one has replaced is where it goes back to."""
    scenario = Scenario(settings())
    scenario.deploy(V2)
    fresh = ports(scenario.world, scenario.journal, lambda config: V2 if config == "config of hash-2" else V1)

    def chosen() -> Request:
        found = choose_revision(scenario.journal, SERVICE, None, scenario.journal.live(SERVICE))
        return Request("shop", found.key, found.image, found.config, "rollback", from_files=False)

    asked = chosen()
    assert asked.key == V1
    scenario.deploy(V3)
    receipt = deploy(fresh, scenario.settings, asked, scenario.events.append, lambda: False, chosen)
    assert receipt is not None
    scenario.assert_settled(V2)


@every_way
def test_old_containers_that_a_person_removed_do_not_block_for_ever(way: ServiceSettings) -> None:
    """Their configuration was never stored, so nothing can bring them back; the next deploy goes on without."""
    scenario = Scenario(way)
    _killed_when_created(scenario)
    scenario.world.deaths_expected = True
    for container in list(scenario.world.containers.values()):
        Others(scenario.world).remove(container)
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_an_undo_that_fails_for_good_is_given_up() -> None:
    """The old version is ill itself: the deploy that mends it must not wait for it to become ready again."""
    scenario = Scenario(settings(replicas=1, update=UpdateConfig(monitor=5.0)))
    scenario.world.deaths_expected = True
    scenario.world.images[V2.image_id].exits_after = 2.0
    old = next(iter(scenario.world.containers.values()))
    old.image.exits_after, old.image.startable = scenario.world.now - old.started + 1.0, False
    with pytest.raises(NotUndone):
        scenario.deploy(V2)
    scenario.deploy(V3)
    scenario.assert_settled(V3)


def test_what_may_come_back_is_waited_for() -> None:
    scenario = Scenario(settings())
    _killed_when_created(scenario)
    before = scenario.journal.unfinished(SERVICE)
    scenario.world.disk_full = True
    scenario.world.deaths_expected = True
    Others(scenario.world).stop(next(iter(scenario.world.containers.values())))
    with pytest.raises(NotUndone):
        scenario.deploy(V3)
    after = scenario.journal.unfinished(SERVICE)
    assert before is not None and after is not None and after.id == before.id


class _Away(Breakage):
    """One port that fails at every call while it is armed."""

    def __init__(self, port: str) -> None:
        super().__init__()
        self._port = port

    def strike(self, port: str, name: str, when: str) -> None:
        if self.armed == when and port == self._port and name not in self.NEVER_RAISE:
            raise self.ERRORS[port](name)


@pytest.mark.parametrize("port", ["proxy", "engine"])
def test_what_is_away_in_the_middle_of_a_recovery_is_waited_for(port: str) -> None:
    """Killed, or restarted, just when the undo would switch: the rollout is not given up, and the next run has it."""
    scenario = Scenario(settings(), breakage=_Away(port))
    _killed_when_created(scenario)
    before = scenario.journal.unfinished(SERVICE)
    scenario.world.deaths_expected = True
    Others(scenario.world).stop(next(iter(scenario.world.containers.values())))
    scenario.events = _When("switch", lambda: setattr(scenario.breakage, "armed", "before"))
    with pytest.raises(NotUndone):
        scenario.deploy(V3)
    after = scenario.journal.unfinished(SERVICE)
    assert before is not None and after is not None and after.id == before.id
    scenario.breakage.armed = ""
    scenario.deploy(V3)
    scenario.assert_settled(V3)


def test_a_paused_replica_is_drained_before_it_is_stopped() -> None:
    scenario = Scenario(settings())
    scenario.world.drains_forever = True
    Others(scenario.world).pause(next(iter(scenario.world.containers.values())))
    scenario.deploy(V1)  # it alone is replaced: nothing else's drain covers it
    scenario.assert_settled(V1)


def test_stop_first_never_stops_the_last_that_serves() -> None:
    scenario = Scenario(settings(replicas=3, update=UpdateConfig(order=Order.STOP_FIRST)))
    scenario.world.deaths_expected = True
    for container in list(scenario.world.containers.values())[1:]:
        Others(scenario.world).stop(container)
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_stop_first_keeps_nothing_warm_and_leaves_nothing() -> None:
    scenario = Scenario(settings(keep_warm=60.0, update=UpdateConfig(order=Order.STOP_FIRST)))
    for _ in range(2):
        scenario.world.add(V2, running=True)  # a person was quicker: nothing is left to start
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_recreate_takes_surplus_replicas_out_too() -> None:
    scenario = Scenario(settings(strategy=Strategy.RECREATE))
    for _ in range(3):
        scenario.world.add(V2, running=True)
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_what_cannot_be_kept_warm_is_stopped() -> None:
    """Nothing was in the pool, so there is no revision to go back to."""
    scenario = Scenario(settings(keep_warm=60.0))
    scenario.world.disk.clear()
    scenario.world.loaded.clear()
    scenario.world.images[V1.image_id] = replace(scenario.world.images[V1.image_id], healthy=False)
    for container in scenario.world.containers.values():
        container.image.healthy = False
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_a_replica_of_the_target_that_a_person_started_is_checked_first() -> None:
    scenario = Scenario(settings())
    scenario.world.images[V2.image_id].boot = 2.0
    for _ in range(2):
        scenario.world.add(V2, running=True)
    scenario.deploy(V2)  # the world would not have one take traffic that still boots
    scenario.assert_settled(V2)
    starts = [e for e in scenario.events if getattr(e, "step", "") == Start.kind]
    assert not starts


def test_killed_in_its_undo_it_goes_back_and_not_forward() -> None:
    """The new version turned out to be ill after the switch: nothing may bring it back into the pool."""
    way = settings(update=UpdateConfig(monitor=5.0))
    scenario = Scenario(way)
    old = set(scenario.world.containers)
    scenario.world.deaths_expected = True
    scenario.world.images[V2.image_id].exits_after = 2.0
    before = scenario.world.calls
    with pytest.raises(DeployFailed):
        scenario.deploy(V2)
    calls = scenario.world.calls - before
    again = Scenario(way)
    again.world.deaths_expected = True
    again.world.images[V2.image_id].exits_after = 2.0
    with pytest.raises(Crash):
        again.deploy(V2, crash_at=calls - 12)
    record = again.journal.unfinished(SERVICE)
    assert record is not None and record.state == "undoing"
    again.world.images[V2.image_id].exits_after = None
    again.deploy(V1)
    assert set(again.world.containers) == old
    again.assert_settled(V1)


def test_files_from_before_send_nothing_to_what_was_drained() -> None:
    """The proxy is restarted with a backup of its files, just when the old replicas are to be stopped."""
    scenario = Scenario(settings(update=UpdateConfig(parallelism=0)))
    former = scenario.world.disk[SERVICE]

    class Restored(list[Event]):
        def append(self, event: Event) -> None:
            super().append(event)
            if isinstance(event, StepStarted) and event.step == "drain":
                scenario.world.disk[SERVICE] = scenario.world.loaded[SERVICE] = former

    scenario.events = Restored()
    scenario.deploy(V2)
    scenario.assert_settled(V2)
    assert any("put back" in event.text for event in scenario.events if isinstance(event, Notice))


class _When(list[Event]):
    """Events, at the first `step` of which (of a kind, or that the rollout has begun) something else happens."""

    def __init__(self, kind: str, act: Callable[[], None]) -> None:
        super().__init__()
        self._kind, self._act = kind, act

    def append(self, event: Event) -> None:
        super().append(event)
        begun = isinstance(event, RolloutStarted) and self._kind == "begun"
        if begun or (isinstance(event, StepStarted) and event.step == self._kind):
            self._kind = ""
            self._act()


def test_a_dead_replica_that_is_started_again_is_drained_before_it_goes() -> None:
    """Its old address is still known to an old worker of the proxy, and it has got the same one again."""
    scenario = Scenario(settings(), running=3)
    scenario.world.deaths_expected = scenario.world.drains_forever = True
    others, (first, dead, _) = Others(scenario.world), scenario.world.containers.values()
    others.stop(first)  # the new replica gets its address
    others.stop(dead)
    scenario.events = _When("remove", lambda: others.start(dead))
    scenario.deploy(V1)
    assert dead.replica.id in scenario.world.stops, "it was not running, so nothing was shown"
    scenario.assert_settled(V1)


@pytest.mark.parametrize("boot", [0.05, 60.0])
@pytest.mark.parametrize("at", range(1, 26))
def test_whenever_a_replica_dies_it_joins_again_only_after_a_probe(at: int, boot: float) -> None:
    """It dies at any call before the plan is made, and is back, at another address, as the rollout begins. A plan that
    removes it does not find it in the pool then, even if it is ready again."""
    scenario = Scenario(settings())
    scenario.world.deaths_expected = True
    others, first = Others(scenario.world), next(iter(scenario.world.containers.values()))

    def die() -> None:
        if scenario.world.calls == at:
            others.lose_address(first)
            first.image.boot = boot

    scenario.world.on_tick = die
    scenario.events = _When("begun", lambda: others.start(first))
    scenario.deploy(V2)  # the world would not have one take traffic that still boots
    scenario.assert_settled(V2)


def test_what_a_paused_rollout_has_made_joins_when_that_goes_on() -> None:
    """It is of the same version as what serves (`--force`), was ill, and has become ready meanwhile."""
    scenario = Scenario(settings(update=UpdateConfig(failure_action=FailureAction.PAUSE)))
    image = scenario.world.images[V1.image_id]
    image.healthy = False
    with pytest.raises(NotUndone):
        scenario.deploy(V1, force=True)
    for container in scenario.world.containers.values():
        container.image.healthy = True
    serving = scenario.world.loaded[SERVICE]
    scenario.sync()
    assert scenario.world.loaded[SERVICE] == serving
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_what_takes_traffic_is_drained_in_every_undo() -> None:
    """A person has put the new replica into the pool before the rollout's own first switch."""
    scenario = Scenario(settings())
    scenario.world.drains_forever = True

    def put_in() -> None:
        pool = scenario.world.disk[SERVICE]
        new = [c for c in scenario.world.containers.values() if c.replica.key == V2 and c.ip]
        ups = (*pool.upstreams, *(Upstream(name_of(c), c.ip, 8000) for c in new))
        scenario.world.advance(1.0)
        scenario.world.disk[SERVICE] = scenario.world.loaded[SERVICE] = replace(pool, upstreams=ups)
        scenario.interrupted = True

    scenario.events = _When("check", put_in)
    with pytest.raises(Interrupted):
        scenario.deploy(V2)
    scenario.interrupted = False
    scenario.assert_settled(V1)


def test_where_there_is_nothing_to_go_back_to_the_new_version_is_not_taken_away() -> None:
    """The engine fails after the switch, and all old replicas were removed before the rollout began."""
    way = settings(update=UpdateConfig(monitor=5.0))
    scenario = Scenario(way)
    scenario.world.deaths_expected = True
    for container in list(scenario.world.containers.values()):
        Others(scenario.world).remove(container)
    scenario.events = _When("monitor", lambda: setattr(scenario.breakage, "armed", "before"))
    with pytest.raises(NotUndone, match="revision 1 serves, but the rest"):
        scenario.deploy(V2)
    assert scenario.world.loaded[SERVICE].upstreams
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_the_pool_is_not_emptied_where_only_old_replicas_are_left_and_named_again() -> None:
    """Somebody starts the old one again and restores the proxy's files, and the new one has died."""
    scenario = Scenario(settings(replicas=1))
    world, others = scenario.world, Others(scenario.world)
    world.deaths_expected = True
    (old,) = world.containers.values()

    def put_back() -> None:
        for container in world.containers.values():
            if container is not old:
                others.stop(container)
        others.start(old)
        pool = world.disk[SERVICE]
        world.disk[SERVICE] = replace(pool, upstreams=(Upstream(name_of(old), old.ip, scenario.settings.port),))

    scenario.events = _When("remove", put_back)
    with pytest.raises(NotUndone, match="no other is there to serve"):
        scenario.deploy(V2)
    assert world.loaded[SERVICE].upstreams and world.disk[SERVICE].upstreams
    scenario.deploy(V2)
    scenario.assert_settled(V2)


@pytest.mark.parametrize("everything", [True, False], ids=["nginx", "haproxy"])
def test_a_stranger_where_the_list_still_has_a_replica_is_not_let_in(everything: bool) -> None:
    """All were recreated by plain Compose, the new one died, and another project's container took its address."""
    h = History(reload_loads_all=everything, healthchecks=False, seed=1)
    h.change("web", V2, {"replicas": 1})
    h.other("compose up", "web", 0)
    (one,) = h.others.of("web")
    running, address = one.replica, one.ip
    h.others.lose_address(one)
    h.world.outdate(running)
    h.run("web", V2, "deploy", [], force=False)  # the world would not have a stranger take traffic
    assert address in h.world.foreign and address not in {u.host for u in h.world.loaded["web"].upstreams}
    h.calm_deploy("web", V2)


def test_a_pool_that_was_written_and_never_loaded_makes_nobody_ready() -> None:
    """Killed between the two; by the time the next run comes, who would have come into the pool is ill."""
    shown = 0
    for at in range(1, 500):
        scenario = Scenario(settings())
        with suppress(Crash):
            scenario.deploy(V2, crash_at=at)
            break
        written, loaded = scenario.world.disk[SERVICE], scenario.world.loaded[SERVICE]
        for container in scenario.world.containers.values():
            if name_of(container) in written.names - loaded.names:
                container.image, shown = replace(container.image, healthy=False), shown + 1
        scenario.deploy(V3)  # the world would not have one take traffic that is ill
        scenario.assert_settled(V3)
    assert shown, "no kill was between the two"


def test_what_could_not_be_written_down_as_over_is_not_undone_over_a_later_deploy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenario = Scenario(settings())
    _killed_when_created(scenario)
    finish, failures = MemoryJournal.finish, iter([StateError("the journal cannot be written: disk I/O error")])

    def fail_once(journal: MemoryJournal, rollout: int, state: str, receipt: Mapping[str, Any]) -> None:
        for error in failures:
            raise error
        finish(journal, rollout, state, receipt)

    monkeypatch.setattr(MemoryJournal, "finish", fail_once)
    with pytest.raises(StateError, match="rollout 1 is over, but that could not be written down"):
        scenario.deploy(V3)
    assert {c.replica.key for c in scenario.world.containers.values()} == {V1}
    scenario.deploy(V3)
    assert scenario.deploy(V3) is None
    scenario.assert_settled(V3)

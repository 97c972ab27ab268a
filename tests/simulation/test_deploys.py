"""Deploys in the virtual world: what must come out when nothing crashes, and when the new version is bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rollout.errors import DeployFailed, EngineError, NotUndone, ProxyRejected
from rollout.events import Finished, NothingToDo, StepFailed, StepProgress
from rollout.model import (
    Counted,
    Counters,
    FailureAction,
    Health,
    Hook,
    Hooks,
    Order,
    Pool,
    Promotion,
    Replica,
    ReplicaState,
    RevisionKey,
    ServiceSettings,
    Strategy,
    UpdateConfig,
    Usage,
)
from tests.simulation.fakes import FakeEngine, FakeProber, FakeProxy
from tests.simulation.scenario import V1, V2, V3, Scenario, settings
from tests.simulation.world import SERVICE, Image

HOOKS = Hooks(
    pre_deploy=Hook(("migrate",), timeout=60.0), post_switch=Hook(("smoke",)), pre_stop=Hook(("leave",), fails=False)
)
WAYS = {
    "rolling": settings(),
    "rolling, all at once": settings(replicas=3, update=UpdateConfig(parallelism=0)),
    "rolling, 3 by 2": settings(replicas=3, update=UpdateConfig(parallelism=2)),
    "rolling, one replica": settings(replicas=1),
    "rolling, kept warm": settings(keep_warm=60.0),
    "rolling, monitored": settings(update=UpdateConfig(monitor=2.0)),
    "rolling, stop-first": settings(replicas=3, update=UpdateConfig(order=Order.STOP_FIRST)),
    "blue-green": settings(strategy=Strategy.BLUE_GREEN),
    "blue-green, promoted by hand": settings(strategy=Strategy.BLUE_GREEN, promotion=Promotion.MANUAL),
    "blue-green, kept warm": settings(strategy=Strategy.BLUE_GREEN, keep_warm=60.0),
    "rolling, with hooks": settings(hooks=HOOKS),
    "recreate": settings(strategy=Strategy.RECREATE),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


@every_way
@pytest.mark.parametrize("seed", range(5))
def test_a_deploy_ends_at_the_declared_replicas(way: ServiceSettings, seed: int) -> None:
    scenario = Scenario(way, seed)
    receipt = scenario.deploy(V2)
    assert receipt is not None and receipt.outcome == "deployed"
    scenario.assert_settled(V2, warm=way.replicas if way.keep_warm else 0)


@every_way
def test_what_cannot_be_measured_is_not_in_the_receipt_and_no_more(
    way: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(self: FakeEngine, replica_id: str) -> None:
        asked.append(replica_id)
        raise EngineError("no statistics today")

    monkeypatch.setattr(FakeEngine, "usage", refuse)
    scenario = Scenario(way)
    receipt = scenario.deploy(V2)
    assert asked and receipt is not None and receipt.outcome == "deployed"
    scenario.assert_settled(V2, warm=way.replicas if way.keep_warm else 0)


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 4), (1, 3), (4, 1)])
def test_the_count_changes_within_the_deploy(before: int, after: int) -> None:
    scenario = Scenario(settings(replicas=after), running=before)
    scenario.deploy(V2)
    scenario.assert_settled(V2)


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 4)])
def test_the_count_alone_changes_without_replacing(before: int, after: int) -> None:
    scenario = Scenario(settings(replicas=after), running=before)
    old = set(scenario.world.containers)
    scenario.deploy(V1)
    scenario.assert_settled(V1)
    assert len(old & set(scenario.world.containers)) == min(before, after)


@every_way
def test_a_first_deploy_starts_from_nothing(way: ServiceSettings) -> None:
    scenario = Scenario(way, running=0)
    scenario.deploy(V2)
    scenario.assert_settled(V2)


@every_way
def test_a_second_deploy_of_the_same_has_nothing_to_do(way: ServiceSettings) -> None:
    scenario = Scenario(way)
    scenario.deploy(V2)
    before, events = scenario.fingerprint(), len(scenario.events)
    assert scenario.deploy(V2) is None
    assert isinstance(scenario.events[-1], NothingToDo) and len(scenario.events) == events + 1
    assert scenario.fingerprint() == before


@every_way
def test_force_replaces_every_container(way: ServiceSettings) -> None:
    scenario = Scenario(way)
    old = set(scenario.world.containers)
    scenario.deploy(V1, force=True)
    live = {i for i, c in scenario.world.containers.items() if scenario.world.may_send_to(c.ip)}
    assert len(live) == way.replicas and not live & old


@every_way
def test_leftovers_are_not_counted_and_go(way: ServiceSettings) -> None:
    scenario = Scenario(way)
    scenario.world.add(V3)
    crashed = scenario.world.add(V1, running=True)
    scenario.world.halt(crashed, exit_code=137)
    scenario.deploy(V2)
    scenario.assert_settled(V2, warm=way.replicas if way.keep_warm else 0)


@every_way
@pytest.mark.parametrize("bad", ["never healthy", "exits at once", "rejected by the proxy"])
def test_a_failed_deploy_changes_nothing(way: ServiceSettings, bad: str) -> None:
    scenario = Scenario(way)
    before = scenario.fingerprint()
    image = scenario.world.images[V2.image_id]
    image.healthy = bad != "never healthy"
    image.exits_after = 0.0 if bad == "exits at once" else None
    scenario.world.reject_pools = bad == "rejected by the proxy"
    if bad == "rejected by the proxy" and way.strategy is Strategy.RECREATE:
        scenario.world.maintenance_allowed = True
    with pytest.raises((DeployFailed, ProxyRejected)) as failure:
        scenario.deploy(V2)
    assert failure.value.exit_code == 1
    scenario.world.reject_pools = False
    if _starts_first(way):
        assert scenario.fingerprint() == before
    else:  # stopped and started again: the same containers, perhaps at other addresses
        assert set(scenario.world.containers) == set(before[0])  # type: ignore[index]
    scenario.assert_settled(V1)


@pytest.mark.parametrize("name", ["recreate", "rolling, with hooks"])
def test_what_the_proxy_would_refuse_is_met_before_anything_is_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance it would take: that is another part of the template."""

    def refuse(proxy: FakeProxy, pool: Pool) -> None:
        if pool.upstreams:
            raise ProxyRejected("the config was refused")

    monkeypatch.setattr(FakeProxy, "prepare", refuse)
    scenario = Scenario(WAYS[name])
    before = scenario.fingerprint()
    with pytest.raises(ProxyRejected):
        scenario.deploy(V2)
    assert not scenario.world.stops and not scenario.world.ran
    assert scenario.fingerprint() == before


def test_a_failure_in_a_later_batch_brings_the_same_containers_back() -> None:
    scenario = Scenario(settings(replicas=3))
    old = set(scenario.world.containers)
    scenario.world.on_add = lambda: _nth_is(scenario, 6, Image(exits_after=0.3, boot=1.0))
    with pytest.raises(DeployFailed):
        scenario.deploy(V2)
    assert scenario.world.serial == 6
    assert set(scenario.world.containers) == old
    scenario.assert_settled(V1)


def test_a_death_while_monitored_switches_back() -> None:
    way = settings(strategy=Strategy.BLUE_GREEN, update=UpdateConfig(monitor=5.0))
    scenario = Scenario(way)
    scenario.world.images[V2.image_id].exits_after = 2.0
    scenario.world.deaths_expected = True
    before = scenario.fingerprint()
    with pytest.raises(DeployFailed):
        scenario.deploy(V2)
    assert scenario.fingerprint() == before


def test_a_first_deploy_that_dies_while_monitored_leaves_nothing() -> None:
    scenario = Scenario(settings(strategy=Strategy.BLUE_GREEN, update=UpdateConfig(monitor=5.0)), running=0)
    scenario.world.images[V2.image_id].exits_after = 2.0
    scenario.world.deaths_expected = scenario.world.maintenance_allowed = True
    with pytest.raises(DeployFailed) as failure:
        scenario.deploy(V2)
    assert failure.value.exit_code == 1
    assert not scenario.world.containers
    assert not scenario.world.loaded[SERVICE].upstreams


def test_continue_goes_on_without_the_failed_replica() -> None:
    update = UpdateConfig(failure_action=FailureAction.CONTINUE)
    scenario = Scenario(settings(replicas=3, update=update))
    scenario.world.on_add = lambda: _second_never_healthy(scenario)
    with pytest.raises(NotUndone) as failure:
        scenario.deploy(V2)
    assert "1 new replica(s) failed" in failure.value.message
    assert sorted(c.replica.key for c in scenario.world.containers.values()) == [V2, V2]
    assert len(scenario.world.loaded[SERVICE].upstreams) == 2


def test_continue_never_ends_with_nothing() -> None:
    update = UpdateConfig(failure_action=FailureAction.CONTINUE)
    scenario = Scenario(settings(update=update))
    scenario.world.images[V2.image_id].healthy = False
    with pytest.raises(DeployFailed):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


def test_max_failure_ratio_tolerates_so_many_and_no_more() -> None:
    update = UpdateConfig(max_failure_ratio=0.34)
    tolerated = Scenario(settings(replicas=3, update=update))
    tolerated.world.on_add = lambda: _second_never_healthy(tolerated)
    with pytest.raises(NotUndone):
        tolerated.deploy(V2)
    strict = Scenario(settings(replicas=3, update=UpdateConfig(max_failure_ratio=0.33)))
    strict.world.on_add = lambda: _second_never_healthy(strict)
    with pytest.raises(DeployFailed):
        strict.deploy(V2)
    strict.assert_settled(V1)


def test_pause_leaves_everything_for_a_look_and_the_next_deploy_mends_it() -> None:
    scenario = Scenario(settings(update=UpdateConfig(failure_action=FailureAction.PAUSE)))
    scenario.world.images[V2.image_id].healthy = False
    with pytest.raises(NotUndone):
        scenario.deploy(V2)
    assert sum(c.replica.key == V2 for c in scenario.world.containers.values()) == 1
    scenario.deploy(V3)
    scenario.assert_settled(V3)


RAW = "\x1b]0;title\x07\x1b[31mboom\x1b[0m \x9b2J\r"  # sets a title, rings, colors, clears, goes back


@pytest.mark.parametrize("monitored", [False, True])
def test_what_a_failed_replica_wrote_moves_no_terminal(monitored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect = FakeEngine.inspect

    def with_log(engine: FakeEngine, replica_id: str) -> Replica | None:
        found = inspect(engine, replica_id)
        return None if found is None else replace(found, health_log=(RAW,))

    monkeypatch.setattr(FakeEngine, "inspect", with_log)
    monkeypatch.setattr(FakeEngine, "logs", lambda engine, replica_id, lines: [RAW])
    scenario = Scenario(settings(update=UpdateConfig(monitor=2.0 if monitored else 0.0)))
    if monitored:
        scenario.world.deaths_expected = True
        scenario.world.images[V2.image_id] = Image(exits_after=1.0)
    else:
        scenario.world.images[V2.image_id] = Image(healthy=False)
        monkeypatch.setattr(FakeProber, "probe", lambda prober, replica, *_: RAW if replica.key == V2 else None)
    with pytest.raises(DeployFailed) as failure:
        scenario.deploy(V2)
    said = [failure.value.message, *failure.value.details]
    for event in scenario.events:
        if isinstance(event, StepFailed):
            said += [event.reason, *event.details]
        if isinstance(event, StepProgress | Finished):
            said.append(event.text if isinstance(event, StepProgress) else str(event.receipt["reason"]))
    assert any("boom" in text for text in said)
    assert [text for text in said if not text.isprintable()] == []


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("key", [V1, V2])
@pytest.mark.parametrize("count", [0, -2])
def test_a_count_below_one_takes_nothing_away(strategy: Strategy, key: RevisionKey, count: int) -> None:
    """What reads the settings refuses it; a rollback does not ask that."""
    scenario = Scenario(settings(strategy=strategy))
    scenario.settings = replace(scenario.settings, replicas=count)
    before = scenario.fingerprint()
    with pytest.raises(DeployFailed, match="would leave no replica in the pool"):
        scenario.deploy(key)
    assert scenario.fingerprint() == before


def test_the_drain_limit_cuts_and_says_so() -> None:
    scenario = Scenario(settings(drain_timeout=5.0))
    scenario.world.drains_forever = True
    receipt = scenario.deploy(V2)
    assert receipt is not None and receipt.cut > 0
    scenario.assert_settled(V2)


def test_back_to_a_warm_revision_starts_no_container() -> None:
    scenario = Scenario(settings(keep_warm=60.0))
    scenario.deploy(V2)
    before = set(scenario.world.containers)
    scenario.deploy(V1)
    assert set(scenario.world.containers) == before
    scenario.assert_settled(V1, warm=2)


def test_warm_replicas_go_when_their_time_is_over() -> None:
    scenario = Scenario(settings(keep_warm=60.0))
    scenario.deploy(V2)
    scenario.world.advance(61.0)
    assert scenario.deploy(V2) is None
    scenario.assert_settled(V2)


def test_only_the_revision_before_stays_warm() -> None:
    scenario = Scenario(settings(keep_warm=60.0))
    scenario.deploy(V2)
    scenario.deploy(V3)
    scenario.assert_settled(V3, warm=2)
    assert {c.replica.key for c in scenario.world.containers.values()} == {V2, V3}


@pytest.mark.parametrize("strategy", [Strategy.ROLLING, Strategy.BLUE_GREEN])
def test_what_was_warm_before_is_no_part_of_old_against_new(strategy: Strategy) -> None:
    scenario = Scenario(settings(keep_warm=60.0, strategy=strategy))
    one = scenario.deploy(V2)
    two = scenario.deploy(V3)
    assert one is not None and two is not None
    assert one.old == two.old == Usage(1.0, 20_000_000), "two replicas had the traffic"
    assert two.new == one.new == Usage(1.0, 20_000_000)


def test_a_revision_without_a_number_is_counted_where_it_had_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of what was warm is nobody's revision here: a line that says 0 each time says nothing."""
    scenario = Scenario(settings(keep_warm=60.0))
    scenario.deploy(V2)
    there = scenario.world.containers.values()
    counts = {f"{c.ip}:8000": Counters(100, 0) if c.replica.key == V2 else Counters() for c in there}
    monkeypatch.setattr(FakeProxy, "count", lambda proxy, service, marker: Counted(dict(counts)))
    receipt = scenario.deploy(V3)
    assert receipt is not None and receipt.requests == {str(receipt.previous): Counters(200, 0)}


def _fewer(scenario: Scenario) -> None:
    scenario.settings = replace(scenario.settings, replicas=1)
    scenario.deploy(V2)


def _one_ill(scenario: Scenario) -> None:
    ill = next(c for c in scenario.world.containers.values() if c.replica.key == V2)
    ill.replica = replace(ill.replica, health=Health.UNHEALTHY)
    scenario.deploy(V2)


@pytest.mark.parametrize("again", [_fewer, _one_ill, lambda scenario: scenario.deploy(V2, force=True)])
@pytest.mark.parametrize("strategy", [Strategy.ROLLING, Strategy.BLUE_GREEN])
def test_only_another_revision_is_kept_warm(again: Callable[[Scenario], object], strategy: Strategy) -> None:
    """What leaves of the revision that serves is nothing to go back to; what was warm before stays for its time."""
    scenario = Scenario(settings(keep_warm=60.0, strategy=strategy))
    scenario.deploy(V2)
    again(scenario)
    scenario.assert_settled(V2, warm=2)
    assert [c.replica.key for c in scenario.world.containers.values()].count(V1) == 2
    assert scenario.deploy(V2) is None
    scenario.world.advance(61.0)
    assert scenario.deploy(V2) is None
    scenario.assert_settled(V2)


@pytest.mark.parametrize(
    ("way", "state"),
    [(way, state) for way in WAYS.values() for state in (ReplicaState.EXITED, ReplicaState.RESTARTING)
     if way.strategy != Strategy.RECREATE or state is ReplicaState.EXITED],  # recreate stops what restarts
)  # fmt: skip
def test_a_failed_deploy_over_a_dead_version_leaves_it_dead(way: ServiceSettings, state: ReplicaState) -> None:
    """The pool was left as it was, as nobody is ready: nothing of it is there to go back to."""
    scenario = Scenario(way)
    scenario.world.deaths_expected = True
    for container in scenario.world.containers.values():
        scenario.world.die(container)
        container.replica = replace(container.replica, state=state)
    before = scenario.fingerprint()
    scenario.world.images[V2.image_id].healthy = False
    with pytest.raises(DeployFailed) as failure:
        scenario.deploy(V2)
    assert failure.value.exit_code == 1
    assert scenario.fingerprint() == before
    told = [e.receipt for e in scenario.events if isinstance(e, Finished)][-1]
    assert told["replicas"] == 0 and told["outcome"] == "undone"


@pytest.mark.parametrize("update", [UpdateConfig(order=Order.STOP_FIRST), UpdateConfig()])
@pytest.mark.parametrize("strategy", [Strategy.ROLLING, Strategy.RECREATE])
def test_the_receipt_weighs_all_old_replicas_against_all_new_ones(strategy: Strategy, update: UpdateConfig) -> None:
    receipt = Scenario(settings(replicas=3, strategy=strategy, update=update)).deploy(V2)
    assert receipt is not None and receipt.old == receipt.new == Usage(1.5, 30_000_000)


def test_a_replica_that_came_back_elsewhere_is_found_by_the_next_run() -> None:
    scenario = Scenario(settings())
    scenario.deploy(V2)
    victim, other = list(scenario.world.containers.values())
    scenario.world.deaths_expected = True
    victim.died = True
    scenario.world.halt(victim)
    newcomer = scenario.world.add(V3, running=True)  # takes the freed address
    scenario.world.run(victim)
    scenario.world.advance(1.0)
    scenario.deploy(V2)
    hosts = {u.host for u in scenario.world.loaded[SERVICE].upstreams}
    assert hosts == {victim.ip, other.ip}
    assert newcomer.replica.id not in scenario.world.containers or newcomer.ip not in hosts


def _second_never_healthy(scenario: Scenario) -> None:
    _nth_is(scenario, 5, Image(healthy=False))


def _nth_is(scenario: Scenario, serial: int, image: Image) -> None:
    """The `serial`th container ever made (three are there at the beginning) behaves like this."""
    for container in scenario.world.containers.values():
        if container.replica.id.startswith(f"{serial:012x}"):
            container.image = image


def _starts_first(way: ServiceSettings) -> bool:
    return way.strategy is not Strategy.RECREATE and way.update.order is Order.START_FIRST


def test_an_old_replica_that_somebody_starts_again_goes_all_the_same() -> None:
    scenario = Scenario(settings())
    world = scenario.world
    again = []

    def start_what_was_stopped() -> None:
        for container in list(world.containers.values()):
            if container.replica.state is ReplicaState.EXITED:
                world.run(container)
                again.append(container)

    world.on_add = start_what_was_stopped
    scenario.deploy(V2)
    assert again, "nothing was started again"
    scenario.assert_settled(V2)


@pytest.mark.parametrize("strategy", [Strategy.ROLLING, Strategy.BLUE_GREEN])
def test_requests_are_those_of_the_revision_that_had_the_address_then(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an old replica's address has counted is not its successor's, who gets the address at once."""
    scenario = Scenario(settings(replicas=3, strategy=strategy))
    old = [f"{c.ip}:8000" for c in scenario.world.containers.values()]
    counts = dict.fromkeys(old, Counters(100, 1))
    monkeypatch.setattr(FakeProxy, "count", lambda proxy, service, marker: Counted(dict(counts)))
    receipt = scenario.deploy(V2)
    assert receipt is not None and receipt.previous is not None
    served = {revision: counters for revision, counters in receipt.requests.items() if counters.requests}
    assert served == {str(receipt.previous): Counters(300, 3)}

"""What happens to replicas while a deploy is at work: between two of its steps, and during the long ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle

import pytest

from rollout.control import Wish
from rollout.errors import Aborted, DeployFailed, NotUndone
from rollout.events import Notice, Paused, StepStarted
from rollout.model import (
    FailureAction,
    HealthCheck,
    Hook,
    Hooks,
    InFlight,
    Order,
    Pool,
    Replica,
    ReplicaState,
    RevisionKey,
    Strategy,
    Switched,
    UpdateConfig,
    Upstream,
)
from tests.simulation.fakes import FakeProber, FakeProxy
from tests.simulation.scenario import V1, V2, Scenario, settings
from tests.simulation.world import SERVICE, Container, Crash

BLUE_GREEN = Strategy.BLUE_GREEN


def of(scenario: Scenario, key: RevisionKey) -> list[Container]:
    return [c for c in scenario.world.containers.values() if c.replica.key == key]


def when(scenario: Scenario, step: str, happens: Callable[[], object]) -> None:
    """Once, as the first step of this kind begins."""

    def look() -> None:
        last = scenario.events[-1] if scenario.events else None
        if isinstance(last, StepStarted) and last.step == step:
            scenario.world.on_tick = lambda: None
            happens()

    scenario.world.on_tick = look


def dies(scenario: Scenario, key: RevisionKey) -> Callable[[], None]:
    def death() -> None:
        scenario.world.deaths_expected = True
        scenario.world.die(of(scenario, key)[0])

    return death


def routed(scenario: Scenario) -> set[str]:
    return {upstream.host for upstream in scenario.world.loaded[SERVICE].upstreams}


def probed(monkeypatch: pytest.MonkeyPatch, key: RevisionKey, answers: str) -> list[float]:
    """From now on each replica of that revision passes (+) and fails (-) its probes in this order, over and over. When
    they were probed."""
    left: dict[str, cycle[str]] = {}
    seen: list[float] = []
    real = FakeProber.probe

    def probe(prober: FakeProber, replica: Replica, address: str, check: HealthCheck, port: int) -> str | None:
        if replica.key != key:
            return real(prober, replica, address, check, port)
        seen.append(prober.world.now)
        return None if next(left.setdefault(replica.id, cycle(answers))) == "+" else "HTTP 503"

    monkeypatch.setattr(FakeProber, "probe", probe)
    return seen


def test_one_that_dies_just_before_the_switch_fails_the_deploy() -> None:
    scenario = Scenario(settings(strategy=BLUE_GREEN))
    when(scenario, "switch", dies(scenario, V2))
    with pytest.raises(DeployFailed, match="ready before the switch, and no longer"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


def test_one_that_would_stay_alone_and_dies_just_before_the_switch_leaves_no_empty_pool() -> None:
    """`World.check` looks."""
    scenario = Scenario(settings(update=UpdateConfig(order=Order.STOP_FIRST)))

    def the_other_dies() -> None:
        scenario.world.deaths_expected = True
        scenario.world.die(of(scenario, V1)[1])

    when(scenario, "switch", the_other_dies)
    with pytest.raises(DeployFailed, match="would leave no replica in the pool"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


def test_what_was_ready_before_a_pause_is_checked_after_it() -> None:
    scenario = Scenario(settings(strategy=BLUE_GREEN))

    def both_become_ill() -> None:
        if isinstance(scenario.events[-1], Paused):
            scenario.world.on_tick = lambda: None
            scenario.world.deaths_expected = True
            for container in of(scenario, V2):
                container.image = replace(container.image, healthy=False)
            scenario.ask(Wish.RESUME)

    def pause() -> None:
        scenario.ask(Wish.PAUSE)
        scenario.world.on_tick = both_become_ill

    when(scenario, "check", pause)
    with pytest.raises(DeployFailed, match="HTTP 503"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


def test_batches_that_take_long_are_no_failure_once_traffic_has_moved() -> None:
    scenario = Scenario(settings(replicas=6, update=UpdateConfig(monitor=120.0), progress_deadline=600.0))
    scenario.world.images[V2.image_id].boot = 3.0
    receipt = scenario.deploy(V2)
    assert receipt is not None and receipt.seconds > 600.0
    scenario.assert_settled(V2)


HASTY = settings(progress_deadline=3.0, health=HealthCheck(path="/healthz", healthy_deadline=60.0))


def test_one_that_boots_is_waited_for_until_the_progress_deadline_and_no_longer() -> None:
    scenario = Scenario(HASTY)
    scenario.world.images[V2.image_id].boot = 10.0
    began = scenario.world.now
    with pytest.raises(DeployFailed, match="not ready after"):
        scenario.deploy(V2)
    assert 3.0 <= scenario.world.now - began < 4.0
    scenario.assert_settled(V1)


def test_a_step_that_ends_after_the_progress_deadline_is_the_last_one() -> None:
    """Its replicas are ready, and take no traffic."""
    scenario = Scenario(HASTY)
    when(scenario, "start", lambda: scenario.world.advance(4.0))
    with pytest.raises(DeployFailed, match="progress_deadline of 3 s passed"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


def test_what_a_dead_run_has_switched_is_finished_however_long_it_takes() -> None:
    scenario = Scenario(replace(HASTY, replicas=3))

    def crash() -> None:
        raise Crash("after the first batch")

    when(scenario, "drain", crash)
    with pytest.raises(Crash):
        scenario.deploy(V2)
    scenario.world.images[V2.image_id].boot = 10.0
    began = scenario.world.now
    scenario.sync()
    assert scenario.world.now - began > 20.0
    scenario.assert_settled(V2)


THRICE = HealthCheck(path="/healthz", healthy_threshold=3, healthy_deadline=5.0)


@pytest.mark.parametrize(("answers", "probes"), [("+", 3), ("--+++", 5), ("++-+++", 6)])
def test_ready_is_so_many_good_probes_in_a_row(answers: str, probes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(settings(replicas=1, health=THRICE))
    seen = probed(monkeypatch, V2, answers)
    scenario.deploy(V2)
    assert len(seen) == probes


@pytest.mark.parametrize("answers", ["-+", "++-"])
def test_fewer_good_probes_in_a_row_are_not_enough_however_often(answers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(settings(replicas=1, health=THRICE))
    probed(monkeypatch, V2, answers)
    with pytest.raises(DeployFailed, match="is not ready"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


@pytest.mark.parametrize(
    ("answers", "last_break"), [("+", 0), ("+" * 20 + "-" + "+" * 99, 21)], ids=["good", "a break"]
)
def test_ready_is_without_a_break_for_as_long_as_min_healthy_time_says(
    answers: str, last_break: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Scenario(settings(replicas=1, health=HealthCheck(path="/healthz", min_healthy_time=10.0)))
    seen = probed(monkeypatch, V2, answers)
    scenario.deploy(V2)
    assert 10.0 <= seen[-1] - seen[last_break] < 11.0


def test_two_bad_probes_in_a_row_are_no_verdict_of_the_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(settings(replicas=1, update=UpdateConfig(monitor=60.0)))
    when(scenario, "monitor", lambda: probed(monkeypatch, V2, "--+"))
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_three_bad_probes_in_a_row_are(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(settings(replicas=1, update=UpdateConfig(monitor=60.0)))
    when(scenario, "monitor", lambda: probed(monkeypatch, V2, "---+"))
    with pytest.raises(DeployFailed, match="3 probes in a row failed: HTTP 503"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_death_while_monitored_fails_the_deploy(strategy: Strategy) -> None:
    scenario = Scenario(settings(strategy=strategy, update=UpdateConfig(monitor=30.0)))
    when(scenario, "monitor", dies(scenario, V2))
    with pytest.raises(DeployFailed, match="failed while it was monitored"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


def test_one_that_turns_ill_under_traffic_and_is_left_out_drains_before_it_is_stopped() -> None:
    """`World.check_stop` looks."""
    lenient = UpdateConfig(monitor=60.0, failure_action=FailureAction.CONTINUE)
    scenario = Scenario(settings(replicas=3, strategy=BLUE_GREEN, update=lenient, drain_timeout=5.0))
    scenario.world.drains_forever = True  # until it is cut

    def turns_ill() -> None:
        victim = of(scenario, V2)[0]
        victim.image = replace(victim.image, healthy=False)
        scenario.world.excuse(victim)

    when(scenario, "monitor", turns_ill)
    with pytest.raises(NotUndone, match="1 new replica"):
        scenario.deploy(V2)
    assert len(routed(scenario)) == 2


def test_the_others_are_monitored_for_as_long_as_if_none_had_failed() -> None:
    lenient = UpdateConfig(monitor=60.0, failure_action=FailureAction.CONTINUE)
    scenario = Scenario(settings(replicas=4, strategy=BLUE_GREEN, update=lenient))
    when(scenario, "monitor", dies(scenario, V2))
    began = scenario.world.now
    with pytest.raises(NotUndone, match="1 new replica"):
        scenario.deploy(V2)
    assert scenario.world.now - began > 60.0
    assert len(routed(scenario)) == 3


def test_an_abort_is_heard_while_old_replicas_drain() -> None:
    scenario = Scenario(settings(strategy=BLUE_GREEN, drain_timeout=3600.0))

    def abort() -> None:
        scenario.world.generations = [replace(g, ends=scenario.world.now + 600.0) for g in scenario.world.generations]
        scenario.ask(Wish.ABORT)

    when(scenario, "drain", abort)
    began = scenario.world.now
    with pytest.raises(Aborted):
        scenario.deploy(V2)
    assert scenario.world.now - began < 300.0
    scenario.assert_settled(V1)


LONG = {
    "pre_deploy": settings(hooks=Hooks(pre_deploy=Hook(("migrate",), timeout=600.0))),
    "check": settings(strategy=BLUE_GREEN),
    "monitor": settings(strategy=BLUE_GREEN, update=UpdateConfig(monitor=60.0)),
    "drain": settings(strategy=BLUE_GREEN, drain_timeout=600.0),
}


@pytest.mark.parametrize("step", LONG)
def test_the_pool_follows_what_serves_during_a_long_step(step: str) -> None:
    way = LONG[step]
    lenient = replace(way.update, failure_action=FailureAction.CONTINUE)
    scenario = Scenario(replace(way, replicas=3, update=lenient, health=replace(way.health, healthy_deadline=60.0)))
    world, serving = scenario.world, V2 if step in ("monitor", "drain") else V1
    world.images[V2.image_id].job_seconds = 60.0
    world.images[V2.image_id].boot = 40.0 if step == "check" else 0.0
    gone: list[float] = []

    def death() -> None:
        world.deaths_expected = True
        victim = of(scenario, serving)[0]
        address = victim.ip
        world.generations = [replace(g, ends=world.now + 60.0) for g in world.generations]
        world.die(victim)
        began = world.now

        def look() -> None:
            if not gone and address not in routed(scenario):
                gone.append(world.now - began)

        world.on_tick = look

    when(scenario, step, death)
    if serving == V2:
        with pytest.raises(NotUndone, match=r"deployed, but 1 (new )?replica"):
            scenario.deploy(V2)
    else:
        scenario.deploy(V2)
    assert gone and gone[0] <= way.health.interval + 1.0, gone


@pytest.mark.parametrize("name", [False, True], ids=["a port", "a name"])
def test_an_undo_of_recreate_never_runs_both(name: bool) -> None:
    """`World.check_start` looks."""
    scenario = Scenario(settings(strategy=Strategy.RECREATE, replicas=1, remove_first=name))
    scenario.deploy(V2)
    scenario.world.images[V1.image_id].healthy = False
    with pytest.raises(DeployFailed, match="is not ready"):
        scenario.deploy(V1)
    scenario.assert_settled(V2)
    assert {c.replica.state for c in scenario.world.containers.values()} == {ReplicaState.RUNNING}


def test_a_pause_by_failure_action_is_told_as_one_on_a_full_disk_too() -> None:
    scenario = Scenario(settings(strategy=BLUE_GREEN, update=UpdateConfig(failure_action=FailureAction.PAUSE)))
    scenario.world.images[V2.image_id].healthy = False

    def fill() -> None:
        scenario.world.disk_full = True

    when(scenario, "check", fill)
    with pytest.raises(NotUndone, match="paused, as failure_action says"):
        scenario.deploy(V2)
    assert len(of(scenario, V1)) == 2 and len(of(scenario, V2)) == 2


@pytest.mark.parametrize("step", ["drain", "stop", "remove"])
def test_what_has_gone_by_the_end_is_not_told_as_deployed(step: str) -> None:
    """Somebody removes a new replica when nothing of the rollout looks at it any more."""
    scenario = Scenario(settings(strategy=BLUE_GREEN))

    def vanish() -> None:
        scenario.world.deaths_expected = True
        victim = of(scenario, V2)[0]
        scenario.world.die(victim)
        del scenario.world.containers[victim.replica.id]

    when(scenario, step, vanish)
    with pytest.raises(NotUndone, match=r"deployed, but 1 replica\(s\) do not run any more"):
        scenario.deploy(V2)
    assert scenario.journal.history(SERVICE, 1)[0].receipt["replicas"] == 1
    scenario.deploy(V2)
    scenario.assert_settled(V2)


def test_a_drain_waits_for_who_took_them_out_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is restarted with the files from before while the rollout is paused after its switch: the workers to
    wait for are those of the switch that put that right."""
    scenario = Scenario(settings(strategy=BLUE_GREEN))
    before = scenario.world.loaded[SERVICE]
    waited_for, switches = list[Switched | None](), list[Switched]()
    real, real_switch = FakeProxy.in_flight, FakeProxy.switch

    def in_flight(proxy: FakeProxy, switched: Switched | None, upstreams: Sequence[Upstream]) -> InFlight:
        waited_for.append(switched)
        return real(proxy, switched, upstreams)

    def switch(proxy: FakeProxy, pool: Pool) -> Switched:
        switches.append(real_switch(proxy, pool))
        return switches[-1]

    monkeypatch.setattr(FakeProxy, "in_flight", in_flight)
    monkeypatch.setattr(FakeProxy, "switch", switch)

    def restored() -> None:
        if isinstance(scenario.events[-1], Paused):
            scenario.world.disk[SERVICE] = scenario.world.loaded[SERVICE] = before
            scenario.world.on_tick = resumed

    def resumed() -> None:
        if any(isinstance(event, Notice) and "the pool follows" in event.text for event in scenario.events):
            scenario.world.on_tick = lambda: None
            scenario.ask(Wish.RESUME)

    def pause() -> None:
        scenario.ask(Wish.PAUSE)
        scenario.world.on_tick = restored

    when(scenario, "switch", pause)
    scenario.deploy(V2)
    scenario.assert_settled(V2)
    assert len(switches) == 2, "the rollout's, and the one that put it right"
    assert waited_for and all(one is switches[1] for one in waited_for)


def test_a_version_that_was_dead_at_the_beginning_and_is_back_stays_in_the_pool() -> None:
    scenario = Scenario(settings())
    world = scenario.world
    world.deaths_expected = True
    old = list(world.containers.values())
    for container in old:
        world.die(container)
    world.images[V2.image_id].healthy = False

    def come_back() -> None:
        if len(world.containers) > len(old):
            world.on_tick = lambda: None
            for container in old:
                world.run(container)

    world.on_tick = come_back
    with pytest.raises(DeployFailed):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


def test_an_old_replica_that_is_just_restarting_is_waited_for_by_an_undo() -> None:
    scenario = Scenario(settings(replicas=1, update=UpdateConfig(monitor=10.0)))
    scenario.world.deaths_expected = True
    scenario.world.images[V2.image_id].exits_after = 5.0
    old = next(iter(scenario.world.containers.values()))

    def restarts() -> None:
        old.replica = replace(old.replica, state=ReplicaState.RESTARTING, addresses={})

    when(scenario, "monitor", restarts)
    with pytest.raises(DeployFailed, match="while it was monitored"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)

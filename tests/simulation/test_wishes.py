"""People pause, resume, abort and promote at any moment, and the controller dies meanwhile: the guarantees hold.

The world checks G1 and G2 at every port call. A wish comes from another process, so it may come between any two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial

import pytest

from rollout.control import BY_FAILURE_ACTION, GLANCE, Wish
from rollout.errors import Aborted, DeployFailed, Interrupted, NotUndone, RolloutError, UsageError
from rollout.events import Finished, Held, Notice, Paused, Recovering, Resumed, StepStarted, Warned
from rollout.model import FailureAction, Pool, Promotion, ServiceSettings, Strategy, UpdateConfig, Upstream
from rollout.receipt import Receipt
from tests.simulation.others import Others
from tests.simulation.scenario import V1, V2, V3, Scenario, settings
from tests.simulation.test_crashes import _telling_calls
from tests.simulation.test_deploys import WAYS, every_way
from tests.simulation.world import SERVICE, Container, Crash, name_of

BY_HAND = WAYS["blue-green, promoted by hand"]


def asked_at(scenario: Scenario, call: int, *wishes: Wish) -> list[str]:
    """At that port call of the next run the first wish is asked for, the others a while after it took effect. What was
    refused, why."""
    left, refused = list(wishes), list[str]()

    def happen() -> None:
        if not left or scenario.world.calls < call or (len(left) < len(wishes) and not _standing_still(scenario)):
            return
        try:
            scenario.ask(left.pop(0))
        except UsageError as error:
            refused.append(error.message)
            left.clear()

    scenario.world.on_tick = happen
    return refused


def _standing_still(scenario: Scenario) -> bool:
    return isinstance(scenario.events[-1], Paused) if scenario.events else False


def telling_calls(way: ServiceSettings, seed: int) -> list[int]:
    return _telling_calls(Scenario(way, seed), lambda scenario: scenario.deploy(V2))


def each_call(way: ServiceSettings, seed: int, *wishes: Wish) -> Iterator[tuple[Scenario, list[str]]]:
    calls = telling_calls(way, seed)
    assert len(calls) > 15
    for call in calls:
        scenario = Scenario(way, seed)
        yield scenario, asked_at(scenario, call, *wishes)


def outcome(scenario: Scenario) -> Receipt | RolloutError | None:
    try:
        return scenario.deploy(V2)
    except RolloutError as error:
        return error


# --- pause and resume -----------------------------------------------------------------------------------------------


@every_way
def test_paused_anywhere_and_resumed_it_is_deployed(way: ServiceSettings) -> None:
    paused = 0
    for scenario, _ in each_call(way, 0, Wish.PAUSE, Wish.RESUME):
        assert isinstance(outcome(scenario), Receipt)
        paused += any(isinstance(e, Resumed) for e in scenario.events)
        scenario.assert_settled(V2, warm=way.replicas if way.keep_warm else 0)
    assert paused > 5, "it was hardly ever paused"


def test_while_it_is_paused_nothing_changes_and_no_deadline_runs() -> None:
    scenario = Scenario(settings(progress_deadline=6.0))
    scenario.world.on_add = lambda: scenario.ask(Wish.PAUSE) if scenario.world.serial == 3 else None
    seen: list[object] = []

    def happen() -> None:
        if not _standing_still(scenario):
            return
        seen.append(scenario.fingerprint())
        if scenario.world.now > 1100.0:
            scenario.world.on_tick = lambda: None
            scenario.ask(Wish.RESUME)

    scenario.world.on_tick = happen
    receipt = scenario.deploy(V2)
    assert receipt is not None and receipt.phases["paused"] > 90.0
    assert len(seen) > 100 and all(one == seen[0] for one in seen)
    scenario.assert_settled(V2)


@every_way
def test_killed_while_paused_a_sync_leaves_it_and_a_deploy_converges(way: ServiceSettings) -> None:
    for scenario in _killed_while_paused(way):
        record = scenario.journal.unfinished(SERVICE)
        scenario.sync()
        after = scenario.journal.unfinished(SERVICE)
        assert record is not None and after is not None and after.id == record.id
        assert any(isinstance(e, Warned) and e.code == "paused" for e in scenario.events)
        scenario.deploy(V3)
        scenario.assert_settled(V3, warm=_warm(scenario))


@every_way
def test_killed_while_paused_and_resumed_a_sync_converges(way: ServiceSettings) -> None:
    for scenario in _killed_while_paused(way):
        record = scenario.journal.unfinished(SERVICE)
        assert record is not None
        scenario.ask(Wish.RESUME)
        scenario.sync()
        scenario.assert_settled(V2 if record.switched else V1, warm=_warm(scenario))


@every_way
def test_killed_while_paused_and_aborted_a_sync_takes_it_back(way: ServiceSettings) -> None:
    for scenario in _killed_while_paused(way):
        try:
            scenario.ask(Wish.ABORT)
        except UsageError:  # the old ones were put aside already
            scenario.ask(Wish.RESUME)
            scenario.sync()
            scenario.assert_settled(V2, warm=_warm(scenario))
            continue
        scenario.sync()
        if not way.remove_first:
            scenario.assert_settled(V1)
        (record, *_) = scenario.journal.history(SERVICE, 1)
        assert record.state == "aborted"


def _killed_while_paused(way: ServiceSettings) -> Iterator[Scenario]:
    """Paused before each of its steps, and killed then."""
    steps = [e for e in _events_of(way) if isinstance(e, StepStarted)]
    assert len(steps) > 4
    for index in range(1, len(steps)):
        scenario = Scenario(way)
        seen: list[int] = []

        def happen(scenario: Scenario = scenario, index: int = index, seen: list[int] = seen) -> None:
            begun = sum(isinstance(e, StepStarted) for e in scenario.events)
            if begun == index and not seen:
                seen.append(begun)
                scenario.ask(Wish.PAUSE)
            elif _standing_still(scenario):
                raise Crash("while it was paused")

        scenario.world.on_tick = happen
        with pytest.raises(Crash):
            scenario.deploy(V2)
        scenario.world.on_tick = lambda: None
        yield scenario


def _events_of(way: ServiceSettings) -> list[object]:
    scenario = Scenario(way)
    scenario.deploy(V2)
    return list(scenario.events)


def _warm(scenario: Scenario) -> int:
    warm = scenario.journal.warm(SERVICE)
    return len(warm.replicas) if warm is not None else 0


def test_a_signal_in_a_pause_before_the_switch_takes_it_back() -> None:
    scenario = Scenario(settings())
    before = scenario.fingerprint()
    scenario.world.on_add = lambda: scenario.ask(Wish.PAUSE) if scenario.world.serial == 3 else None
    scenario.world.on_tick = lambda: setattr(scenario, "interrupted", _standing_still(scenario))
    with pytest.raises(Interrupted):
        scenario.deploy(V2)
    assert scenario.fingerprint() == before and scenario.journal.unfinished(SERVICE) is None


def test_a_signal_in_a_pause_after_the_switch_leaves_it_paused() -> None:
    scenario = Scenario(settings(update=UpdateConfig(parallelism=1)))
    scenario.world.on_add = lambda: scenario.ask(Wish.PAUSE) if scenario.world.serial == 4 else None
    scenario.world.on_tick = lambda: setattr(scenario, "interrupted", _standing_still(scenario))
    with pytest.raises(Interrupted) as left:
        scenario.deploy(V2)
    assert "rollout resume web" in left.value.hint
    scenario.interrupted, scenario.world.on_tick = False, lambda: None
    scenario.sync()
    assert scenario.journal.unfinished(SERVICE) is not None
    scenario.ask(Wish.RESUME)
    scenario.sync()
    scenario.assert_settled(V2)


def test_paused_while_a_sync_finishes_it_the_sync_leaves_it_at_once() -> None:
    scenario = next(s for s in _killed_while_paused(WAYS["rolling"]) if _switched(s))
    scenario.ask(Wish.RESUME)

    def happen() -> None:
        if isinstance(scenario.events[-1], StepStarted):
            scenario.world.on_tick = lambda: None
            scenario.ask(Wish.PAUSE)

    scenario.world.on_tick = happen
    before = scenario.world.now
    scenario.sync()
    assert scenario.journal.unfinished(SERVICE) is not None and scenario.world.now - before < 60
    scenario.ask(Wish.ABORT)
    scenario.sync()
    scenario.assert_settled(V1)


def _switched(scenario: Scenario) -> bool:
    record = scenario.journal.unfinished(SERVICE)
    return record is not None and record.switched


def test_what_failure_action_paused_stays_until_somebody_decides() -> None:
    scenario = Scenario(settings(update=UpdateConfig(failure_action=FailureAction.PAUSE)))
    scenario.world.images[V2.image_id].healthy = False
    with pytest.raises(NotUndone):
        scenario.deploy(V2)
    assert [e.who for e in scenario.events if isinstance(e, Paused)] == [BY_FAILURE_ACTION]
    scenario.sync()
    assert scenario.journal.unfinished(SERVICE) is not None
    scenario.ask(Wish.ABORT)
    scenario.sync()
    scenario.assert_settled(V1)


# --- abort ----------------------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("seed", range(2))
def test_aborted_anywhere_it_is_as_it_was(way: ServiceSettings, seed: int) -> None:
    aborted = 0
    for scenario, refused in each_call(way, seed, Wish.ABORT):
        old = set(scenario.world.containers)
        result = outcome(scenario)
        if isinstance(result, Aborted):
            aborted += 1
            assert set(scenario.world.containers) == old
            scenario.assert_settled(V1)
            ended = [e.outcome for e in scenario.events if isinstance(e, Finished)]
            assert ended == ["aborted"] and result.exit_code == 1
        else:  # too late: before there was a rollout, or when only what is old was left to clear away
            assert isinstance(result, Receipt), result
            scenario.assert_settled(V2, warm=way.replicas if way.keep_warm else 0)
            assert refused or any(isinstance(e, Finished) for e in scenario.events)
    assert aborted > 5, "it was hardly ever aborted"


@every_way
def test_killed_after_an_abort_was_asked_for_the_next_run_takes_it_back(way: ServiceSettings) -> None:
    calls = telling_calls(way, 1)
    for call in calls:
        scenario = Scenario(way, 1)
        refused = asked_at(scenario, call, Wish.ABORT)
        if scenario.survive_anything(V2, call + 7):
            continue
        scenario.world.on_tick = lambda: None
        scenario.sync()
        record = scenario.journal.history(SERVICE, 1)
        if record and record[0].state == "aborted":
            scenario.assert_settled(V1)
        else:
            assert refused or not record or record[0].state in ("deployed", "undone")
        scenario.deploy(V2)
        scenario.assert_settled(V2, warm=_warm(scenario))


def test_an_abort_ends_the_wait_for_a_replica_that_never_gets_ready() -> None:
    scenario = Scenario(settings())
    scenario.world.images[V2.image_id].boot = 1e6
    began = scenario.world.now
    scenario.world.on_add = lambda: scenario.ask(Wish.ABORT)
    with pytest.raises(Aborted, match="aborted by cli:anna"):
        scenario.deploy(V2)
    assert scenario.world.now - began < 2 * GLANCE + 2
    scenario.assert_settled(V1)


def test_an_abort_ends_the_monitor_and_goes_back() -> None:
    scenario = Scenario(settings(update=UpdateConfig(parallelism=0, monitor=1000.0)))
    began = scenario.world.now

    def happen() -> None:
        last = scenario.events[-1] if scenario.events else None
        if getattr(last, "step", "") == "monitor" and scenario.world.now > began + 30:
            scenario.world.on_tick = lambda: None
            scenario.ask(Wish.ABORT)

    scenario.world.on_tick = happen
    with pytest.raises(Aborted):
        scenario.deploy(V2)
    assert scenario.world.now - began < 60
    scenario.assert_settled(V1)


# --- promote --------------------------------------------------------------------------------------------------------


def held_until(scenario: Scenario, seconds: float) -> list[tuple[dict[str, Pool], int]]:
    """Promoted by another process after that time; what the world was like while it was held."""
    scenario.promotes, seen = False, list[tuple[dict[str, Pool], int]]()
    until = scenario.world.now + seconds

    def happen() -> None:
        held = bool(scenario.events) and isinstance(scenario.events[-1], Held)
        if held:
            seen.append((dict(scenario.world.loaded), len(scenario.world.containers)))
            if scenario.world.now > until:
                scenario.ask(Wish.PROMOTE)
                scenario.world.on_tick = lambda: None

    scenario.world.on_tick = happen
    return seen


def test_held_it_takes_no_traffic_until_somebody_promotes_however_long_that_is() -> None:
    scenario = Scenario(BY_HAND)
    before = dict(scenario.world.loaded)
    seen = held_until(scenario, 5000.0)
    receipt = scenario.deploy(V2)
    assert receipt is not None and receipt.phases["hold"] > 4900
    assert len(seen) > 100
    assert all(one == (before, 4) for one in seen)
    scenario.assert_settled(V2)


def test_a_replica_that_dies_while_it_is_held_never_takes_traffic() -> None:
    scenario = Scenario(BY_HAND)
    scenario.world.deaths_expected = True
    scenario.world.images[V2.image_id].exits_after = 100.0
    held_until(scenario, 200.0)
    with pytest.raises(DeployFailed, match="exited"):
        scenario.deploy(V2)
    scenario.assert_settled(V1)


def test_killed_while_it_is_held_it_is_taken_back_even_when_promoted_meanwhile() -> None:
    for promoted in (False, True):
        scenario = Scenario(BY_HAND, promotes=False)
        old = set(scenario.world.containers)
        scenario.world.on_tick = partial(_crash_when_held, scenario)
        with pytest.raises(Crash):
            scenario.deploy(V2)
        scenario.world.on_tick = lambda: None
        if promoted:
            scenario.ask(Wish.PROMOTE)
        scenario.sync()
        assert set(scenario.world.containers) == old
        scenario.assert_settled(V1)
        assert any(isinstance(e, Recovering) for e in scenario.events)


def _crash_when_held(scenario: Scenario) -> None:
    if scenario.events and isinstance(scenario.events[-1], Held):
        raise Crash("while it was held")


def test_aborted_while_it_is_held() -> None:
    scenario = Scenario(BY_HAND, promotes=False)
    before = scenario.fingerprint()
    scenario.world.on_tick = lambda: _abort_when_held(scenario)
    with pytest.raises(Aborted):
        scenario.deploy(V2)
    assert scenario.fingerprint() == before


def _abort_when_held(scenario: Scenario) -> None:
    if scenario.events and isinstance(scenario.events[-1], Held):
        scenario.world.on_tick = lambda: None
        scenario.ask(Wish.ABORT)


@pytest.mark.parametrize("why", ["nothing serves", "only more replicas"])
def test_what_replaces_nothing_is_not_held(why: str) -> None:
    scenario = Scenario(BY_HAND, running=0 if why == "nothing serves" else 1, promotes=False)
    scenario.deploy(V2 if why == "nothing serves" else V1)
    assert not any(isinstance(e, Held) for e in scenario.events)
    scenario.assert_settled(V2 if why == "nothing serves" else V1)


def test_a_manual_promotion_is_blue_greens() -> None:
    assert BY_HAND.strategy is Strategy.BLUE_GREEN and BY_HAND.promotion is Promotion.MANUAL


def test_an_abort_that_comes_when_the_old_are_put_aside_is_told_and_not_done() -> None:
    """Asked for in the moment between the look and the step: the old ones are warm already, a rollback is the way."""
    scenario = Scenario(WAYS["rolling, kept warm"])
    scenario.world.add(V3)  # a left-over: one more step after they are put aside

    def happen() -> None:
        record = scenario.journal.unfinished(SERVICE)
        if record is not None and scenario.journal.last_step(record.id) == "keep_warm":
            scenario.world.on_tick = lambda: None
            scenario.journal.wish(record.id, Wish.ABORT, "cli:anna")

    scenario.world.on_tick = happen
    scenario.deploy(V2)
    scenario.assert_settled(V2, warm=2)


# --- the pool, while a rollout waits --------------------------------------------------------------------------------


Story = Generator[Callable[[], bool], None, None]


def told_beside(scenario: Scenario, story: Story) -> None:
    """Go on with the story whenever the condition that it has yielded last is true, at any port call."""
    condition = next(story)

    def happen() -> None:
        nonlocal condition
        if condition():
            condition = next(story, lambda: False)

    scenario.world.on_tick = happen


def waiting(scenario: Scenario) -> bool:
    said = [e for e in scenario.events if not isinstance(e, Notice)]
    return bool(said) and (isinstance(said[-1], (Held, Paused)) or getattr(said[-1], "step", "") == "delay")


@pytest.mark.parametrize("why", ["held", "paused", "delay"])
def test_the_pool_follows_what_serves_while_a_rollout_waits(why: str) -> None:
    """One old replica dies, and another is restarted elsewhere and boots for long."""
    rolling = settings(replicas=4, update=UpdateConfig(delay=500.0 if why == "delay" else 0.0))
    scenario = Scenario(replace(BY_HAND, replicas=4) if why == "held" else rolling, promotes=False)
    world, others, ended = scenario.world, Others(scenario.world), list[bool]()
    world.deaths_expected = True

    def routed(container: Container) -> bool:
        return Upstream(name_of(container), container.ip, 8000) in world.loaded[SERVICE].upstreams

    def story() -> Story:
        if why == "paused":
            yield lambda: any(isinstance(e, StepStarted) and e.step == "check" for e in scenario.events)
            scenario.ask(Wish.PAUSE)
        yield partial(waiting, scenario)
        dead, elsewhere = [c for c in world.containers.values() if c.replica.key == V1 and routed(c)][:2]
        elsewhere.image = replace(elsewhere.image, boot=20.0)
        others.stop(elsewhere)
        for _ in range(2):  # one takes its address; another that of a replica that was replaced already
            others.stranger()
        others.start(elsewhere)
        others.stop(dead)
        yield lambda: not {name_of(dead), name_of(elsewhere)} & world.loaded[SERVICE].names
        yield lambda: routed(elsewhere)
        ended.append(waiting(scenario))
        if why != "delay":
            scenario.ask(Wish.PROMOTE if why == "held" else Wish.RESUME)

    told_beside(scenario, story())
    scenario.deploy(V2)
    assert ended == [True], "the story did not come to its end while the rollout waited"
    scenario.assert_settled(V2)

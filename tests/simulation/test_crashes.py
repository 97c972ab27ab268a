"""The controller is killed at every port call, of every strategy, under many seeds; the next run must converge.

G4: a crash at any instruction converges. The world checks G1 and G2 at every turn of both runs. Of calls between which
nothing has changed that a next run could find (a look at the engine, a probe), one stands for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from rollout.errors import DeployFailed
from rollout.events import Finished, Notice, StepFinished
from rollout.model import Counted, Counters, RevisionKey, ServiceSettings
from tests.simulation.fakes import FakeProxy
from tests.simulation.scenario import V1, V2, V3, Scenario
from tests.simulation.test_deploys import WAYS, every_way
from tests.simulation.world import SERVICE, Crash

SEEDS = range(4)


def _crashes(way: ServiceSettings, seed: int, key: RevisionKey = V2) -> Iterator[tuple[int, Scenario]]:
    """(call, scenario just killed there) for every call of a whole deploy that can make a difference."""
    calls = _telling_calls(Scenario(way, seed), lambda scenario: scenario.deploy(key))
    assert len(calls) > 15, "a deploy changes more than that: nothing was crashed"
    for call in calls:
        scenario = Scenario(way, seed)
        assert not scenario.survive(key, call)
        yield call, scenario


def _telling_calls(scenario: Scenario, act: Callable[[Scenario], object]) -> list[int]:
    """The first call after each change of the world, in a run that nobody kills."""
    world, seen = scenario.world, -1
    calls = []

    def look() -> None:
        nonlocal seen
        if world.changes != seen:
            seen = world.changes
            calls.append(world.calls)

    world.on_tick = look
    act(scenario)
    return calls


@every_way
@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_deploy_again_converges(way: ServiceSettings, seed: int) -> None:
    for _, scenario in _crashes(way, seed):
        scenario.deploy(V2)
        scenario.assert_settled(V2, warm=_warm(scenario, way))


@every_way
@pytest.mark.parametrize("seed", SEEDS)
def test_a_deploy_of_something_else_converges(way: ServiceSettings, seed: int) -> None:
    for _, scenario in _crashes(way, seed):
        scenario.deploy(V3)
        scenario.assert_settled(V3, warm=_warm(scenario, way))


@every_way
def test_going_back_converges(way: ServiceSettings) -> None:
    for _, scenario in _crashes(way, 0):
        scenario.deploy(V1)
        scenario.assert_settled(V1, warm=_warm(scenario, way))


@every_way
def test_killed_again_during_recovery_converges(way: ServiceSettings) -> None:
    for call, scenario in _crashes(way, 1):
        for again in (5, 11, 17 + call % 13, 40):
            if scenario.survive(V2, again):
                break
        scenario.deploy(V2)
        scenario.assert_settled(V2, warm=_warm(scenario, way))


@every_way
def test_killed_while_undoing_converges(way: ServiceSettings) -> None:
    """The new version never becomes healthy; the controller dies anywhere in the deploy or in its undo."""
    calls = _telling_calls(_sick(way), _fails)
    assert len(calls) > 10
    for call in calls:
        scenario = _sick(way)
        old = set(scenario.world.containers)
        with pytest.raises(Crash):
            scenario.deploy(V2, crash_at=call)
        scenario.deploy(V1)
        scenario.assert_settled(V1)
        if not _stops_first(way):
            assert set(scenario.world.containers) == old


@every_way
def test_a_lost_journal_is_rebuilt_from_what_runs(way: ServiceSettings) -> None:
    """`.rollout/` is deleted together with the controller: the next deploy still ends at one version."""
    for _, scenario in _crashes(way, 3):
        scenario.journal = type(scenario.journal)(scenario.clock)
        scenario.deploy(V2)
        scenario.assert_settled(V2, warm=_warm(scenario, way))


def test_a_recovered_rollout_counts_what_was_served_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what old replicas served that have no address any more."""
    served: dict[str, Counters] = {}
    monkeypatch.setattr(FakeProxy, "count", lambda *_: Counted(dict(served)))
    way, told = WAYS["rolling"], 0
    for _, scenario in _crashes(way, 0):
        old = [u.address for u in Scenario(way, 0).world.loaded[SERVICE].upstreams]
        served.update(dict.fromkeys(old, Counters(100, 3)))
        scenario.events.clear()
        scenario.deploy(V2)
        for event in scenario.events:
            if isinstance(event, Finished) and event.receipt["rollout"] == 1:
                told += 1
                assert sum(c["failed"] for c in event.receipt["requests"].values()) == 3 * len(old), event
        served.clear()
    assert told > 10


def test_a_recovered_rollout_tells_what_was_cut_before() -> None:
    told = 0
    for _, scenario in _crashes(replace(WAYS["rolling"], drain_timeout=0.2), 0):
        cut = [e for e in scenario.events if isinstance(e, StepFinished) and e.step == "drain"]
        announced = any(isinstance(e, Notice) and "are cut" in e.text for e in scenario.events)
        scenario.events.clear()
        scenario.deploy(V2)
        receipts = [e.receipt for e in scenario.events if isinstance(e, Finished) and e.receipt["rollout"] == 1]
        if cut and announced and receipts:
            told += receipts[0]["cut"] > 0
            assert receipts[0]["cut"] > 0
    assert told > 3


def _sick(way: ServiceSettings) -> Scenario:
    scenario = Scenario(way, 2)
    scenario.world.images[V2.image_id].healthy = False
    return scenario


def _fails(scenario: Scenario) -> None:
    with pytest.raises(DeployFailed):
        scenario.deploy(V2)


def _warm(scenario: Scenario, way: ServiceSettings) -> int:
    """How many replicas are warm: what the journal says, and never more than one revision's."""
    warm = scenario.journal.warm(way.name)
    count = len(warm.replicas) if warm is not None else 0
    assert count <= max(way.replicas, 2) and (way.keep_warm or not count)
    return count


def _stops_first(way: ServiceSettings) -> bool:
    return way in (WAYS["recreate"], WAYS["rolling, stop-first"])

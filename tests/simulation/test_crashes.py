"""The controller is killed at every port call, of every strategy, under many seeds; the next run must converge.

G4: a crash at any instruction converges. The world checks G1 and G2 at every turn of both runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rollout.errors import DeployFailed
from rollout.model import RevisionKey, ServiceSettings
from tests.simulation.scenario import V1, V2, V3, Scenario
from tests.simulation.test_deploys import WAYS, every_way
from tests.simulation.world import Crash

SEEDS = range(4)


def _crashes(way: ServiceSettings, seed: int, key: RevisionKey = V2) -> Iterator[tuple[int, Scenario]]:
    """(call, scenario just killed there) for every call of a whole deploy."""
    call = 0
    while True:
        call += 1
        scenario = Scenario(way, seed)
        if scenario.survive(key, call):
            assert call > 30, "a deploy makes more calls than that: nothing was crashed"
            return
        yield call, scenario


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
    call = 0
    while True:
        call += 1
        scenario = Scenario(way, 2)
        scenario.world.images[V2.image_id].healthy = False
        old = set(scenario.world.containers)
        try:
            scenario.deploy(V2, crash_at=call)
        except Crash:
            scenario.deploy(V1)
            scenario.assert_settled(V1)
            if not _stops_first(way):
                assert set(scenario.world.containers) == old
            continue
        except DeployFailed:
            assert call > 20
            return
        raise AssertionError("a version that is never healthy was deployed")


@every_way
def test_a_lost_journal_is_rebuilt_from_what_runs(way: ServiceSettings) -> None:
    """`.rollout/` is deleted together with the controller: the next deploy still ends at one version."""
    for _, scenario in _crashes(way, 3):
        scenario.journal = type(scenario.journal)(scenario.clock)
        scenario.deploy(V2)
        scenario.assert_settled(V2, warm=_warm(scenario, way))


def _warm(scenario: Scenario, way: ServiceSettings) -> int:
    """How many replicas are warm: what the journal says, and never more than one revision's."""
    warm = scenario.journal.warm(way.name)
    count = len(warm.replicas) if warm is not None else 0
    assert count <= max(way.replicas, 2) and (way.keep_warm or not count)
    return count


def _stops_first(way: ServiceSettings) -> bool:
    return way in (WAYS["recreate"], WAYS["rolling, stop-first"])

"""The former revision is kept warm, an older one was warm before it: the controller is killed anywhere in between."""

from __future__ import annotations

import pytest

from rollout.model import ServiceSettings, Strategy
from tests.simulation.scenario import V1, V2, V3, Scenario, settings
from tests.simulation.world import SERVICE

WARM = {
    "rolling": settings(keep_warm=60.0),
    "blue-green": settings(strategy=Strategy.BLUE_GREEN, keep_warm=60.0),
}


@pytest.mark.parametrize("way", WARM.values(), ids=WARM)
def test_what_is_warm_is_what_served_before(way: ServiceSettings) -> None:
    call = list(WARM.values()).index(way)
    while True:
        call += 2  # every other call: the two ways differ only in their batches
        scenario = Scenario(way)
        scenario.deploy(V2)
        if scenario.survive(V3, call):
            assert call > 40, "a deploy makes more calls than that: nothing was crashed"
            return
        scenario.deploy(V3)
        scenario.assert_settled(V3, warm=2)
        _is_warm(scenario, call)


@pytest.mark.parametrize("way", WARM.values(), ids=WARM)
def test_going_back_to_the_warm_one(way: ServiceSettings) -> None:
    call = list(WARM.values()).index(way)
    while True:
        call += 2  # every other call: the two ways differ only in their batches
        scenario = Scenario(way)
        scenario.deploy(V2)
        if scenario.survive(V1, call):
            assert call > 20, "a switch makes more calls than that: nothing was crashed"
            return
        scenario.deploy(V1)
        scenario.assert_settled(V1, warm=2)
        _is_warm(scenario, call)


def _is_warm(scenario: Scenario, call: int) -> None:
    """The second revision, by its number, with its own replicas."""
    warm = scenario.journal.warm(SERVICE)
    assert warm is not None, f"killed at call {call}: {scenario.picture()}"
    keys = {scenario.world.containers[i].replica.key for i in warm.replicas}
    number = next(r.number for r in scenario.journal.revisions(SERVICE) if r.key == V2)
    assert (keys, warm.revision) == ({V2}, number), f"killed at call {call}: {scenario.picture()}"

"""Plans of any strategy over any world: what is in the pool leaves it, and drains, before it is stopped or removed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.model import (
    Health,
    Hook,
    Hooks,
    Order,
    Promotion,
    Replica,
    ReplicaState,
    RevisionKey,
    ServiceSettings,
    Strategy,
    UpdateConfig,
)
from rollout.plan import Drain, Observed, Plan, Remove, Stop, Switch
from rollout.strategies import plan

OLD, TARGET = RevisionKey("old", "sha256:old"), RevisionKey("new", "sha256:new")
IDS = [letter * 64 for letter in "abcde"]

replicas = st.builds(
    Replica,
    id=st.sampled_from(IDS),
    name=st.just("shop-web-1"),
    service=st.just("web"),
    number=st.integers(1, 5),
    key=st.sampled_from((OLD, TARGET)),
    state=st.sampled_from(ReplicaState),
    health=st.sampled_from(Health),
)
ids = st.frozensets(st.sampled_from(IDS))
worlds = st.builds(
    Observed,
    target=st.just(TARGET),
    replicas=st.lists(replicas, max_size=5, unique_by=lambda replica: replica.id).map(tuple),
    routed=ids,
    spared=ids,
    warm=ids,
)
services = st.builds(
    ServiceSettings,
    name=st.just("web"),
    port=st.just(8000),
    replicas=st.integers(-3, 4),
    strategy=st.sampled_from(Strategy),
    promotion=st.sampled_from(Promotion),
    update=st.builds(
        UpdateConfig,
        parallelism=st.integers(0, 3),
        delay=st.sampled_from((0.0, 1.0)),
        order=st.sampled_from(Order),
        monitor=st.sampled_from((0.0, 1.0)),
    ),
    hooks=st.sampled_from((Hooks(), Hooks(post_switch=Hook(("smoke",)), pre_stop=Hook(("leave",))))),
    keep_warm=st.sampled_from((0.0, 60.0)),
    remove_first=st.booleans(),
)


def taken_from_under_the_proxy(made: Plan, routed: frozenset[str]) -> set[str]:
    """Of those in the pool the ones that a step ends which have not left it and drained since."""
    left: set[str] = set()
    drained: set[str] = set()
    found: set[str] = set()
    for step in made.steps:
        if isinstance(step, Switch):
            left |= set(step.remove)
        elif isinstance(step, Drain):
            drained |= left & set(step.replicas)
        elif isinstance(step, Stop | Remove):
            found |= (routed & set(step.replicas)) - drained
    return found


@given(settings=services, observed=worlds)
def test_nothing_in_the_pool_is_stopped_or_removed_before_it_has_left_and_drained(
    settings: ServiceSettings, observed: Observed
) -> None:
    assert taken_from_under_the_proxy(plan(settings, observed), observed.routed) == set()


@given(settings=services, observed=worlds)
def test_no_replica_of_the_target_is_both_kept_and_ended(settings: ServiceSettings, observed: Observed) -> None:
    made = plan(settings, observed)
    ended = {i for step in made.steps if isinstance(step, Stop | Remove) for i in step.replicas}
    assert not ended & set(made.existing)


def replica(letter: str, key: RevisionKey, state: ReplicaState = ReplicaState.RUNNING) -> Replica:
    return Replica(letter * 64, f"shop-web-{letter}", "web", 1, key, state)


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("count", [0, -1, -2, -3])
@pytest.mark.parametrize("key", [OLD, TARGET])
def test_for_no_replicas_at_all_the_switch_is_asked_first_and_refuses(
    strategy: Strategy, count: int, key: RevisionKey
) -> None:
    """Whoever let such a count through: an empty pool that nobody meant (`maintenance`) is never switched to."""
    serving = (replica("a", key), replica("b", key))
    made = plan(
        ServiceSettings("web", 8000, replicas=count, strategy=strategy),
        Observed(TARGET, serving, frozenset(r.id for r in serving)),
    )
    assert made.steps[0] == Switch(remove=(serving[0].id, serving[1].id))


def test_a_dead_one_that_the_pool_still_names_leaves_it_before_its_address_is_somebody_elses() -> None:
    serving, dead = replica("a", TARGET), replica("b", TARGET, ReplicaState.EXITED)
    observed = Observed(TARGET, (serving, dead), frozenset({serving.id, dead.id}))
    made = plan(ServiceSettings("web", 8000, replicas=1), observed)
    assert made.steps == (Switch(remove=(dead.id,)), Drain((dead.id,)), Remove((dead.id,)))
    hooks = Hooks(pre_deploy=Hook(("migrate",)), post_switch=Hook(("smoke",)))
    hooked = plan(ServiceSettings("web", 8000, replicas=1, hooks=hooks), observed)
    assert hooked.steps == made.steps, "for these alone nothing is run"
    unrouted = Observed(TARGET, (serving, dead), frozenset({serving.id}))
    assert plan(ServiceSettings("web", 8000, replicas=1), unrouted).steps == (Remove((dead.id,)),)

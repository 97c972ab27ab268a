"""The plan of an undo: the pool becomes exactly what it was."""

from __future__ import annotations

from rollout.model import Replica, ReplicaState, RevisionKey
from rollout.plan import EXISTING, Drain, Observed, Remove, Stop, Switch
from rollout.strategies.undo import undo

OLD, NEW = RevisionKey("old", "sha256:old"), RevisionKey("new", "sha256:new")


def replica(letter: str, key: RevisionKey) -> Replica:
    return Replica(letter * 64, f"shop-web-{letter}", "web", 1, key, ReplicaState.RUNNING)


def test_new_replicas_leave_the_pool_and_go() -> None:
    old, new = replica("a", OLD), replica("b", NEW)
    observed = Observed(NEW, (old, new), frozenset({new.id}))
    steps = undo(observed, [old.id], [old.id], switched=True).steps
    assert Switch(add=(EXISTING,), remove=(new.id,)) in steps
    assert steps[-3:] == (Drain((new.id,)), Stop((new.id,)), Remove((new.id,)))


def test_warm_replicas_that_were_switched_to_leave_the_pool_and_stay() -> None:
    """They were there before the rollout, but they did not serve then: a pool with both would mix two versions."""
    serving, warm = replica("a", OLD), replica("b", NEW)
    observed = Observed(NEW, (serving, warm), frozenset({warm.id}))
    plan = undo(observed, [serving.id], [serving.id, warm.id], switched=True)
    assert plan.steps[-1:] == (Switch(add=(EXISTING,), remove=(warm.id,)),)
    assert plan.existing == (serving.id,)


def test_new_replicas_drain_where_old_ones_have_gone() -> None:
    """One that was removed by hand left its address to a new one, perhaps: then that had its requests."""
    new = replica("b", NEW)
    steps = undo(Observed(NEW, (new,), frozenset()), ["a" * 64], ["a" * 64], switched=False).steps
    assert steps[-3:] == (Drain((new.id,)), Stop((new.id,)), Remove((new.id,)))
    steps = undo(Observed(NEW, (replica("a", OLD), new), frozenset({"a" * 64})), ["a" * 64], ["a" * 64], False).steps
    assert steps == (Stop((new.id,)), Remove((new.id,)))

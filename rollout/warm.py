"""Warm replicas: the former revision, drained and out of rotation, running on for `keep_warm`."""

from __future__ import annotations

from collections.abc import Sequence

from rollout import steps
from rollout.model import Replica, RevisionKey
from rollout.plan import Drain, PreStop, Remove, Stop
from rollout.ports import Warm
from rollout.steps.run import Run


def resting(warm: Warm | None, replicas: Sequence[Replica], target: RevisionKey) -> frozenset[str]:
    """Ids to leave alone. Warm replicas of the target itself are not: putting them back is only a switch."""
    if warm is None or any(r.key == target for r in replicas if r.id in warm.replicas):
        return frozenset()
    return frozenset(warm.replicas)


def expired(warm: Warm, replicas: Sequence[Replica], target: RevisionKey, now: float) -> bool:
    """Whether they have been kept long enough, by the wall clock, and are not what is asked for now."""
    return now >= warm.until and not any(r.key == target for r in replicas if r.id in warm.replicas)


def retire_expired(run: Run, target: RevisionKey) -> None:
    """Stop what has been kept long enough, unless it is what is asked for now."""
    warm = run.ports.journal.warm(run.service)
    if warm is None:
        return
    replicas = run.ports.engine.replicas(run.service)
    if not expired(warm, replicas, target, run.ports.clock.wall()):
        return
    _retire(run, warm, replicas)
    run.notice(f"the warm replicas of revision {warm.revision} were stopped: their time is over")


def replaced(run: Run, before: Warm | None) -> None:
    """A rollout is through: what was warm before it is in the pool now, or is no longer the revision to go back to.
    A run that recovers may find what the rollout itself has kept: that took traffic when it began. Where the revision
    stayed the same there is the same one to go back to."""
    same = run.previous is not None and run.previous.key == run.record.target.key
    if before is None or same or any(map(run.was_routed, before.replicas)):
        return
    replicas = run.ports.engine.replicas(run.service)
    _retire(run, before, [r for r in replicas if r.id not in run.live])


def _retire(run: Run, warm: Warm, replicas: Sequence[Replica]) -> None:
    now = run.ports.journal.warm(run.service)
    still_wanted = frozenset(now.replicas) if now is not None and now != warm else frozenset[str]()
    ids = tuple(r.id for r in replicas if r.id in warm.replicas and r.id not in still_wanted)
    for step in (Drain(ids), PreStop(ids), Stop(ids), Remove(ids)) if ids else ():
        steps.perform(run, step)
    if now == warm:
        run.ports.journal.set_warm(run.service, None)

"""Monitor: watch the new replicas under traffic, as `update_config.monitor` says; the old ones still run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.plan import Monitor
from rollout.steps.following import Following
from rollout.steps.readiness import last_words, why_dead, why_not_ready
from rollout.steps.run import ReplicaFailed, Run

FAILED_PROBES = 3  # in a row; one lost probe under load is no verdict


def perform(run: Run, step: Monitor) -> Mapping[str, Any]:
    ids = run.members(step.batches)
    restarts = {i: (r.restart_count if (r := run.ports.engine.inspect(i)) is not None else 0) for i in ids}
    failing = dict.fromkeys(ids, 0)
    following = Following(run)
    until = run.ports.clock.now() + step.seconds
    while run.ports.clock.now() < until and not run.interrupted():
        run.stop_if_asked()
        for replica_id in ids:
            reason = _why_failed(run, replica_id, restarts[replica_id], failing)
            if reason:
                raise _failure(run, replica_id, reason)
        left = until - run.ports.clock.now()
        run.say(f"{max(0.0, left):.0f} s left")
        following.sleep(max(0.0, min(run.settings.health.interval, left)))
    return {"monitored": ids}


def _why_failed(run: Run, replica_id: str, restarts: int, failing: dict[str, int]) -> str | None:
    replica = run.ports.engine.inspect(replica_id)
    death = why_dead(replica, restarts)
    if death or replica is None:
        return death
    reason = why_not_ready(run, replica)
    failing[replica_id] = failing[replica_id] + 1 if reason else 0
    return f"{FAILED_PROBES} probes in a row failed: {reason}" if failing[replica_id] >= FAILED_PROBES else None


def _failure(run: Run, replica_id: str, reason: str) -> ReplicaFailed:
    return ReplicaFailed(
        f"service {run.service}: new replica {replica_id[:12]} failed while it was monitored: {reason}",
        [replica_id],
        details=last_words(run, replica_id),
    )

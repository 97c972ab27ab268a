"""Switch: change the pool, confirmed live. From the first switch on, a rollout is finished rather than undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rollout.errors import DeployFailed
from rollout.plan import Switch
from rollout.steps.readiness import ready_pool
from rollout.steps.run import Run


def perform(run: Run, step: Switch) -> Mapping[str, Any]:
    run.stop_if_asked()
    wanted = run.live_after(step)
    pool = ready_pool(run, wanted, () if run.undoing else run.members(step.add))
    if not pool.upstreams and not step.maintenance:
        raise DeployFailed(f"service {run.service}: the switch would leave no replica in the pool; it was not made")
    if not run.record.switched:
        # with where counting began: a run that recovers counts from there
        run.ports.journal.mark_state(run.record.id, switched=True, marker=run.record.marker or None)
        run.record = replace(run.record, switched=True)
    if run.undoing and run.ports.proxy.holds(pool):
        # not rendered anew: a template that the proxy refuses is what may be undone. Which workers knew the replicas
        # that leave is not known then, so their drain waits for all.
        run.live = wanted
        return {"pool": [u.address for u in pool.upstreams], "token": "", "reloaded": False}
    switched = run.ports.proxy.switch(pool)
    run.live = wanted
    for replica_id in step.remove:
        run.switched[replica_id] = switched
    return {"pool": [u.address for u in pool.upstreams], "token": switched.token, "reloaded": switched.reloaded}

"""KeepWarm: drained old replicas run on, out of rotation; the next run or the sidecar stops them when their time is
over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.plan import Drain, KeepWarm, PreStop, Remove, Stop
from rollout.ports import Warm
from rollout.steps import drain, pre_stop, remove, stop
from rollout.steps.run import Run


def perform(run: Run, step: KeepWarm) -> Mapping[str, Any]:
    if run.previous is None:
        run.notice("the old replicas have no stored revision to go back to, so they are not kept warm")
        pre_stop.perform(run, PreStop(step.replicas))
        stop.perform(run, Stop(step.replicas))
        remove.perform(run, Remove(step.replicas))
        return {"warm": []}
    _end_former(run, step)  # first: once the new ones are written down, nothing tells of the former any more
    until = run.ports.clock.wall() + step.seconds
    run.ports.journal.set_warm(run.service, Warm(run.service, run.previous.number, step.replicas, until))
    return {"warm": step.replicas, "until": until}


def _end_former(run: Run, step: KeepWarm) -> None:
    """One revision is kept warm, the last one. What was warm before it goes, unless it is what serves now."""
    former = run.ports.journal.warm(run.service)
    there = run.replicas()
    spared = run.live | set(step.replicas)
    ids = tuple(i for i in (former.replicas if former is not None else ()) if i in there and i not in spared)
    if ids:
        drain.perform(run, Drain(ids))
        pre_stop.perform(run, PreStop(ids))
        stop.perform(run, Stop(ids))
        remove.perform(run, Remove(ids))

"""KeepWarm: drained old replicas run on, out of rotation; the next run or the sidecar stops them when their time is
over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.plan import KeepWarm
from rollout.ports import Warm
from rollout.steps.run import Run


def perform(run: Run, step: KeepWarm) -> Mapping[str, Any]:
    if run.previous is None:
        run.notice("the old replicas have no stored revision to go back to, so they are not kept warm")
        return {"warm": []}
    until = run.ports.clock.wall() + step.seconds
    run.ports.journal.set_warm(run.service, Warm(run.service, run.previous.number, step.replicas, until))
    return {"warm": step.replicas, "until": until}

"""Hold: everything is ready; wait until somebody promotes. Nothing but an abort or a signal ends it otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.control import GLANCE
from rollout.events import Held, Promoted
from rollout.plan import Hold
from rollout.steps.following import Following
from rollout.steps.run import Run


def perform(run: Run, step: Hold) -> Mapping[str, Any]:
    pool = run.pool_of(run.members(step.batches), run.replicas())
    addresses = tuple(u.address for u in pool.upstreams)
    run.emit(Held(run.service, run.record.id, run.record.target.number, addresses))
    following = Following(run)
    with run.off_the_clock():
        while not (who := run.standing().promoted):
            run.stop_if_asked()
            following.sleep(GLANCE)
    run.emit(Promoted(run.service, who))
    return {"promoted_by": who}

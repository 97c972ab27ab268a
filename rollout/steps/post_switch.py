"""PostSwitch: the user's own check of what serves now; the old replicas can still take the traffic back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.errors import DeployFailed
from rollout.model import Replica
from rollout.plan import PostSwitch
from rollout.steps import hooks
from rollout.steps.run import Run


def perform(run: Run, step: PostSwitch) -> Mapping[str, Any]:
    hook = run.settings.hooks.post_switch
    assert hook is not None, "planned without the hook"
    with run.off_the_clock():
        return hooks.judged(run, step.kind, hook, lambda: hooks.in_replica(run, step.kind, hook, _one_that_serves(run)))


def _one_that_serves(run: Run) -> Replica:
    """The first of the new revision."""
    serving = [r for r in run.replicas().values() if r.id in run.live and r.running]
    if not serving:
        raise DeployFailed("no new replica runs any more")
    return min(serving, key=lambda r: (r.key != run.record.target.key, r.number))

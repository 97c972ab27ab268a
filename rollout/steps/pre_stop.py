"""PreStop: the user's command in each old replica, which has drained and is about to be stopped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rollout.model import Hook, Replica
from rollout.plan import PreStop
from rollout.steps import hooks
from rollout.steps.run import Run


def perform(run: Run, step: PreStop) -> Mapping[str, Any]:
    hook = run.settings.hooks.pre_stop
    if hook is None:
        return {}
    running = [r for i, r in run.replicas().items() if i in step.replicas and r.running]
    run.ports.fan_out([partial(_one, run, hook, replica) for replica in running])
    return {"ran_in": [r.id for r in running]}


def _one(run: Run, hook: Hook, replica: Replica) -> Mapping[str, object]:
    return hooks.judged(run, PreStop.kind, hook, partial(hooks.in_replica, run, PreStop.kind, hook, replica))

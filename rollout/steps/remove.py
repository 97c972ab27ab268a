"""Remove: the stopped containers go. Until here an undo could still have started them again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rollout.plan import Remove
from rollout.steps.run import Run


def perform(run: Run, step: Remove) -> Mapping[str, Any]:
    # `docker compose restart` and `up --no-recreate` start also what was stopped before; nothing is sent to it
    again = [i for i, replica in run.replicas().items() if i in step.replicas and replica.running]
    run.ports.fan_out([partial(run.ports.engine.stop, i, run.settings.stop_grace_period) for i in again])
    run.ports.fan_out([partial(run.ports.engine.remove, i) for i in step.replicas])
    return {"removed": step.replicas}

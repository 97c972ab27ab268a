"""Remove: the stopped containers go. Until here an undo could still have started them again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rollout.plan import Drain, Remove, Stop
from rollout.steps import drain, stop
from rollout.steps.run import Run


def perform(run: Run, step: Remove) -> Mapping[str, Any]:
    # `docker compose restart` and `up --no-recreate` start also what was stopped before. The pool does not name it, but
    # an old worker may: at the address that it had when it was in the pool.
    again = tuple(i for i, replica in run.replicas().items() if i in step.replicas and replica.running)
    if again:
        drain.perform(run, Drain(again))
        stop.perform(run, Stop(again))
    run.ports.fan_out([partial(run.ports.engine.remove, i) for i in step.replicas])
    return {"removed": step.replicas}

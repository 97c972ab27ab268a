"""Remove: the stopped containers go. Until here an undo could still have started them again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rollout.plan import Remove
from rollout.steps.run import Run


def perform(run: Run, step: Remove) -> Mapping[str, Any]:
    run.ports.fan_out([partial(run.ports.engine.remove, i) for i in step.replicas])
    return {"removed": step.replicas}

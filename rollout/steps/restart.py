"""Restart: an undo starts the stopped old replicas again, the very same containers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rollout.plan import Restart
from rollout.steps.run import Run


def perform(run: Run, step: Restart) -> Mapping[str, Any]:
    run.batches[step.batch] = list(step.replicas)
    run.ports.fan_out([partial(run.ports.engine.start, i) for i in step.replicas])
    return {"replicas": step.replicas}

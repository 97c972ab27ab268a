"""Stop: the stop signal, the grace period, SIGKILL. Only what has drained comes here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rollout.plan import Stop
from rollout.steps.run import Run


def perform(run: Run, step: Stop) -> Mapping[str, Any]:
    measure_usage(run, step.replicas)
    grace = run.settings.stop_grace_period
    run.ports.fan_out([partial(run.ports.engine.stop, i, grace) for i in step.replicas])
    run.count()  # before `forget`: HAProxy's counters of a server go with it
    run.ports.proxy.forget(run.service, [run.upstreams[i] for i in step.replicas if i in run.upstreams])
    return {"stopped": step.replicas}


def measure_usage(run: Run, replicas: tuple[str, ...]) -> None:
    """CPU and memory for the receipt, while they still run."""
    ids = [i for i in replicas if i not in run.usage]
    for replica_id, usage in zip(
        ids, run.ports.fan_out([partial(run.ports.engine.usage, i) for i in ids]) if ids else [], strict=True
    ):
        if usage is not None:
            run.usage[replica_id] = usage

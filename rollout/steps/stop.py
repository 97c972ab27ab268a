"""Stop: the stop signal, the grace period, SIGKILL. Only what has drained comes here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rollout.plan import Stop
from rollout.steps.run import Run
from rollout.steps.usage import measurements


def perform(run: Run, step: Stop) -> Mapping[str, Any]:
    grace = run.settings.stop_grace_period
    stops = [partial(run.ports.engine.stop, i, grace) for i in step.replicas]
    run.ports.fan_out([*stops, *measurements(run, run.live - set(run.record.old))])
    run.count()  # before `forget`: HAProxy's counters of a server go with it
    run.ports.proxy.forget(run.service, [run.upstreams[i] for i in step.replicas if i in run.upstreams])
    return {"stopped": step.replicas}

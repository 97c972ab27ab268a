"""Check: wait until every new replica is ready, at the address the proxy will use.

While it waits, the config that the next switch will load is rendered and tested, so that its cost is not added; and
the pool goes on following what serves.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rollout.fanout import Call
from rollout.model import FailureAction
from rollout.plan import Check
from rollout.steps.following import Following
from rollout.steps.readiness import why_never_ready
from rollout.steps.run import ReplicaFailed, Run
from rollout.steps.usage import measurements


def perform(run: Run, step: Check) -> Mapping[str, Any]:
    ids = run.members(step.batches)
    failed, following = threading.Event(), Following(run)
    waits: list[Call] = [partial(_wait, run, i, failed, following) for i in ids]
    beside: list[Call] = [partial(_prepare_switch, run, following), *measurements(run, run.live & set(run.record.old))]
    verdicts = run.ports.fan_out([*waits, *beside])
    run.stop_if_asked()
    failures = [v for v in verdicts if isinstance(v, ReplicaFailed)]
    if failures:
        raise _together(run, failures)
    return {"ready": ids}


def _wait(run: Run, replica_id: str, failed: threading.Event, following: Following) -> ReplicaFailed | None:
    """Ends with the first that fails, unless the rollout may go on without it: then each has its time."""
    update = run.settings.update
    tolerant = update.failure_action is FailureAction.CONTINUE or update.max_failure_ratio > 0
    verdict = why_never_ready(run, replica_id, following.sleep, given_up=lambda: failed.is_set() and not tolerant)
    if verdict is not None:
        failed.set()
    return verdict


def _prepare_switch(run: Run, following: Following) -> None:
    """Test the next pool's config now. Addresses are known as soon as the containers run."""
    switch = run.next_switch()
    if switch is not None and not switch.maintenance:
        with following.resting():
            run.ports.proxy.prepare(run.pool_of(run.live_after(switch), run.replicas()))


def _together(run: Run, failures: Sequence[ReplicaFailed]) -> ReplicaFailed:
    if len(failures) == 1:
        return failures[0]
    return ReplicaFailed(
        f"service {run.service}: {len(failures)} new replicas are not ready: "
        + "; ".join(f.message.split(": ", 1)[-1] for f in failures),
        [i for f in failures for i in f.failed],
        details=[line for f in failures for line in f.details],
    )

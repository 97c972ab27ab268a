"""Start: create replicas through Compose, then start them. They take no traffic yet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rollout.errors import DeployFailed, NotUndone
from rollout.model import Revision
from rollout.plan import Start
from rollout.steps.run import Run


def perform(run: Run, step: Start) -> Mapping[str, Any]:
    revision = _revision(run, step)
    run.ports.fan_out([partial(_create_and_start, run, step, revision), run.ports.proxy.warm_up])
    return {"replicas": run.batches[step.batch]}


def _create_and_start(run: Run, step: Start, revision: Revision) -> None:
    config = None if run.from_files and not step.previous else revision.config
    ids = run.ports.engine.create(run.service, step.count, config)
    run.batches[step.batch] = ids
    _same_revision(run, revision, ids)
    ahead, run.ahead = run.ahead, []
    run.ports.fan_out([*(partial(run.ports.engine.start, i) for i in ids), *ahead])


def _revision(run: Run, step: Start) -> Revision:
    target = run.record.target
    if not step.previous and not (run.from_files or target.config):
        # its warm replicas were all that a rollback needed, until one of them went
        raise DeployFailed(
            f"service {run.service}: revision {target.number} was not made by rollout, its configuration is not known",
            hint="put that version into the Compose file and run `rollout deploy`",
        )
    if not step.previous:
        return target
    if run.previous is None or not run.previous.config:  # what plain Compose made has no stored configuration
        raise NotUndone(
            f"service {run.service}: its old containers are gone and their configuration was never stored",
            hint="put the former version into the Compose file and run `rollout deploy` again",
        )
    return run.previous


def _same_revision(run: Run, revision: Revision, ids: list[str]) -> None:
    """The Compose file or the tag may have changed since the plan was made: half of each must never be the result."""
    replicas = run.replicas()
    for replica_id in ids:
        replica = replicas.get(replica_id)
        if replica is None or not run.from_files or replica.key == revision.key:
            continue
        what = "the image" if replica.key.config_hash == revision.key.config_hash else "the Compose file"
        raise DeployFailed(
            f"service {run.service}: {what} changed while the deploy was under way",
            hint="run `rollout deploy` again to deploy what it says now",
        )

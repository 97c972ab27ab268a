"""Start: create replicas through Compose, then start them. They take no traffic yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from rollout.errors import DeployFailed, NotUndone
from rollout.model import Replica, Revision, RevisionKey
from rollout.plan import Start
from rollout.steps.run import Run


def perform(run: Run, step: Start) -> Mapping[str, Any]:
    revision = _revision(run, step)
    run.ports.fan_out([partial(_create_and_start, run, step, revision), run.ports.proxy.warm_up])
    return {"replicas": run.batches[step.batch]}


def _create_and_start(run: Run, step: Start, revision: Revision) -> None:
    from_files = run.from_files and not step.previous
    ids = run.ports.engine.create(run.service, step.count, None if from_files else revision.config)
    run.batches[step.batch] = ids
    made = _same_revision(run, revision, ids, from_files=from_files)
    if step.previous and made and made[0].key != revision.key:
        _number(run, made[0].key, revision)
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
    return _from_its_image(run, run.previous)


def _from_its_image(run: Run, revision: Revision) -> Revision:
    """The tag may have moved on to the very version that failed: then the image is named by its id."""
    image_id = revision.key.image_id
    if run.ports.images.image_id(revision.image) == image_id:
        return revision
    if run.ports.images.image_id(image_id) is None:
        raise NotUndone(
            f"service {run.service}: the image of revision {revision.number} ({revision.image}) is no longer here",
            hint="put a version that can be had into the Compose file and run `rollout deploy` again",
        )
    return replace(revision, config=run.ports.with_image(revision.config, run.service, image_id))


def _number(run: Run, key: RevisionKey, revision: Revision) -> None:
    """What is made from an image by its id has another configuration, so it is a revision of its own."""

    def number() -> None:
        before = run.ports.journal.revision(run.service, key, revision.image, revision.config)
        run.record = replace(run.record, before=before)

    run.write_down(number)


def _same_revision(run: Run, revision: Revision, ids: list[str], *, from_files: bool) -> list[Replica]:
    """The Compose file or the tag may have changed since the plan was made: half of each must never be the result. A
    stored configuration cannot have changed. Answers the replicas."""
    replicas = run.replicas()
    made = [replicas[i] for i in ids if i in replicas]
    for replica in made:
        same_image = replica.key.image_id == revision.key.image_id
        if replica.key == revision.key or (same_image and not from_files):
            continue
        other_file = from_files and replica.key.config_hash != revision.key.config_hash
        what = "the Compose file" if other_file else "the image"
        raise DeployFailed(
            f"service {run.service}: {what} changed while the deploy was under way",
            hint="run `rollout deploy` again to deploy what it says now",
        )
    return made

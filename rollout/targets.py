"""What a command asks for, made definite: which image, which configuration, which revision; and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from rollout.compose import LoadedProject, with_image
from rollout.deploy import Request
from rollout.errors import ImageNotFound, UsageError
from rollout.model import Pool, Project, Replica, Revision, RevisionKey
from rollout.ports import Engine, Images, Journal, RolloutRecord
from rollout.retention import keep_tag
from rollout.steps.run import routed_ids

Hashes = Callable[[str], Mapping[str, str]]  # Compose.hashes
SEARCHED = 1000  # rollouts looked through for the one before


def in_order(loaded: LoadedProject, project: Project, wanted: Sequence[str] = ()) -> list[str]:
    """The services to deploy (default: all with x-rollout), each after those it depends on, however indirectly."""
    services: Mapping[str, Any] = loaded.document.get("services") or {}
    graph = {name: list((raw or {}).get("depends_on") or ()) for name, raw in services.items()}
    chosen = set(wanted or project.services)
    return [name for name in TopologicalSorter(graph).static_order() if name in chosen]


def image_reference(project: Project, service: str) -> str:
    """The service's image; one that is only built has the name Compose gives it."""
    return project.services[service].image or f"{project.name}-{service}"


def deploy_target(loaded: LoadedProject, project: Project, service: str, images: Images) -> Request:
    """What the Compose files say now. Raises ImageNotFound."""
    reference = image_reference(project, service)
    key = RevisionKey(loaded.hashes[service], _image_id(images, service, reference))
    return Request(project.name, key, reference, loaded.config, from_files=loaded.from_files)


def with_other_image(loaded: LoadedProject, service: str, reference: str) -> str:
    """The resolved project with this image for the service."""
    return with_image(loaded.config, service, reference)


def image_target(
    loaded: LoadedProject, project: Project, service: str, reference: str, images: Images, hashes: Hashes
) -> Request:
    """What the Compose files say now, with another image. Raises ImageNotFound."""
    config = with_other_image(loaded, service, reference)
    key = RevisionKey(hashes(config)[service], _image_id(images, service, reference))
    return Request(project.name, key, reference, config, from_files=False)


def rollback_target(project: Project, revision: Revision, images: Images, engine: Engine, hashes: Hashes) -> Request:
    """A stored revision. Where its replicas still run it takes only a switch; where its tag has moved on since, its
    image is named by the tag that was kept. Raises UsageError, ImageNotFound."""
    service, key = revision.service, revision.key
    running = sum(r.key == key and r.running for r in engine.replicas(service))
    if running >= project.services[service].replicas:
        return _stored(project, revision, key, revision.config)
    if not revision.config:
        raise UsageError(
            f"service {service}: revision {revision.number} was not made by rollout, its configuration is not known",
            hint="put that version into the Compose file and run `rollout deploy`",
        )
    if images.image_id(key.image_id) is None:
        raise ImageNotFound(
            f"service {service}: the image of revision {revision.number} ({revision.image}) is no longer here",
            hint=f"choose another: `rollout history {service}`; x-rollout.keep says how many images are kept",
        )
    if images.image_id(revision.image) == key.image_id:
        return _stored(project, revision, key, revision.config)
    kept = keep_tag(project.name, service, revision.number)
    images.tag(key.image_id, kept)
    config = with_image(revision.config, service, kept)
    return _stored(project, revision, RevisionKey(hashes(config)[service], key.image_id), config)


def choose_revision(journal: Journal, service: str, number: int | None, live: Revision | None) -> Revision:
    """The revision with this number, without one the revision deployed before the live one. Raises UsageError."""
    known = {r.number: r for r in journal.revisions(service)}
    if number is not None:
        if number not in known:
            there = ", ".join(str(n) for n in known) or "none"
            raise UsageError(f"service {service} has no revision {number}", hint=f"there are: {there}")
        return known[number]
    for candidate in _served(journal.history(service, SEARCHED)):
        if candidate in known and (live is None or candidate != live.number):
            return known[candidate]
    raise UsageError(
        f"service {service}: there is no revision to go back to",
        hint=f"`rollout history {service}` shows what was deployed",
    )


def live_revision(journal: Journal, service: str, replicas: Sequence[Replica], pool: Pool | None) -> Revision | None:
    """The revision that serves: the one deployed last, or, where others have replaced all that was left of it, the one
    whose replicas are in the pool. None: not known."""
    live = journal.live(service)
    routed = routed_ids(pool, replicas)
    if live is not None and (not routed or any(replica.key == live.key for replica in replicas)):
        return live
    keys = {replica.key for replica in replicas if replica.id in routed}
    return next((revision for revision in journal.revisions(service) if revision.key in keys), None)


def _served(history: Sequence[RolloutRecord]) -> list[int]:
    """Revisions that have served, the newest first; each rollout also knows what served before it."""
    numbers: list[int] = []
    for record in history:
        if record.state == "deployed":
            before = record.receipt.get("previous")
            numbers += [record.target.number, *([before] if before is not None else [])]
    return numbers


def _stored(project: Project, revision: Revision, key: RevisionKey, config: str) -> Request:
    return Request(project.name, key, revision.image, config, what="rollback", from_files=False)


def _image_id(images: Images, service: str, reference: str) -> str:
    found = images.image_id(reference)
    if found is None:
        raise ImageNotFound(
            f"service {service}: there is no image {reference} here",
            hint="`--pull missing` pulls it, `--build` builds it; is the name right?",
        )
    return found

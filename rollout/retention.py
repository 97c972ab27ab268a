"""Keeping what a rollback needs: the image of the last revisions, under a tag of our own, pruned after."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from rollout.model import Revision
from rollout.ports import Images, Journal

PREFIX = "rollout-keep"


def keep_tag(project: str, service: str, number: int) -> str:
    """`rollout-keep/shop/web:r3`. Repository names are lower case; what that loses is told apart by a digest."""
    return f"{_repository(project, service)}:r{number}"


def kept_tags(images: Images, project: str, service: str) -> list[str]:
    return images.tags(_repository(project, service))


def retain(
    images: Images, journal: Journal, project: str, live: Revision, keep: int, tags: Sequence[str] | None = None
) -> None:
    """Tag the live revision's image and drop the tags of all but the newest `keep` revisions of its service. `tags` are
    the `kept_tags` until now, where the caller knows them: to list them takes an engine with many images 15 ms."""
    service = live.service
    images.tag(live.key.image_id, keep_tag(project, service, live.number))
    numbers = [r.number for r in journal.revisions(service) if r.number != live.number]
    kept = {live.number, *numbers[: max(0, keep - 1)]}
    wanted = {keep_tag(project, service, number) for number in kept}
    for tag in kept_tags(images, project, service) if tags is None else tags:
        if tag not in wanted:
            images.untag(tag)


def _repository(project: str, service: str) -> str:
    return f"{PREFIX}/{_part(project)}/{_part(service)}"


def _part(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain == name:
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest

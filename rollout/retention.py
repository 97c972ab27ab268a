"""Keeping what a rollback needs: the image of the last revisions, under a tag of our own, pruned after."""

from __future__ import annotations

import hashlib
import re

from rollout.model import Revision
from rollout.ports import Images, Journal

PREFIX = "rollout-keep"


def keep_tag(project: str, service: str, number: int) -> str:
    """`rollout-keep/shop/web:r3`. Repository names are lower case; what that loses is told apart by a digest."""
    return f"{_repository(project, service)}:r{number}"


def retain(images: Images, journal: Journal, project: str, service: str, live: Revision, keep: int) -> None:
    """Tag the live revision's image and drop the tags of all but the newest `keep` revisions."""
    images.tag(live.key.image_id, keep_tag(project, service, live.number))
    numbers = [r.number for r in journal.revisions(service) if r.number != live.number]
    kept = {live.number, *numbers[: max(0, keep - 1)]}
    wanted = {keep_tag(project, service, number) for number in kept}
    for tag in images.tags(_repository(project, service) + ":"):
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

"""What has changed in a service's configuration, as a unified diff, with secrets kept secret."""

from __future__ import annotations

import difflib
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from rollout.compose import LoadedProject, parse
from rollout.model import Revision, RevisionKey

_SALT = secrets.token_bytes(16)  # of this run: equal values look equal, and nothing can be guessed from them later


def service_diff(
    service: str, live: Revision | None, loaded: LoadedProject, key: RevisionKey, show_secrets: bool
) -> list[str]:
    """Lines of a unified diff from the live revision's service to the one in the files; empty when nothing changed or
    nothing is known. Values of environment variables are masked unless `show_secrets`."""
    if live is None or live.key == key:
        return []
    if not live.config:
        return [f"  revision {live.number} was not made by rollout: its configuration is not known"]
    before = _lines(parse(live.config), service, show_secrets)
    now = _lines(loaded.document, service, show_secrets)
    diff = list(difflib.unified_diff(before, now, f"revision {live.number}", "the Compose file now", lineterm=""))
    if live.key.image_id != key.image_id and key.image_id:
        diff.append(f"  image id: {live.key.image_id[:19]} -> {key.image_id[:19]}")
    return diff


def _lines(document: Mapping[str, Any], service: str, show_secrets: bool) -> list[str]:
    import yaml

    section = dict((document.get("services") or {}).get(service) or {})
    section.pop("x-rollout", None)  # not part of what a revision is
    if not show_secrets:
        section = _masked(section)
    return yaml.safe_dump(section, sort_keys=True, allow_unicode=True, width=1000).splitlines()


def _masked(section: dict[str, Any]) -> dict[str, Any]:
    found = {**section}
    if isinstance(found.get("environment"), Mapping):
        found["environment"] = {name: mask(value) for name, value in found["environment"].items()}
    build = found.get("build")
    if isinstance(build, Mapping) and isinstance(build.get("args"), Mapping):
        found["build"] = {**build, "args": {name: mask(value) for name, value in build["args"].items()}}
    return found


def mask(value: object) -> str:
    """`***3fa9`: the same for the same value, so that a change is seen, and no more than that."""
    if value is None or value == "":
        return str(value or "")
    return "***" + hmac.new(_SALT, str(value).encode(), hashlib.sha256).hexdigest()[:4]

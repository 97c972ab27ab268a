"""Where rollout itself runs: on the engine's host, or in one of its containers."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from rollout.engines.docker import reading
from rollout.engines.docker.connection import Connection, EngineAnswer, Retry

MOUNTS = Path("/proc/self/mountinfo")
# The engine mounts these from its folder of the container. Its host has mounts from such folders too, at other places.
_OWN_ID = re.compile(r"/containers/([0-9a-f]{64})/\S+ /etc/(?:hostname|hosts|resolv\.conf) ")


def host_path(connection: Connection, path: str) -> str | None:
    """Where the engine's host has this path of ours; empty when it has it nowhere. None: we run in no container of this
    engine, and a path is what it is. Raises EngineError."""
    own = own_container(MOUNTS.read_text(encoding="utf-8", errors="replace")) if MOUNTS.exists() else ""
    if not own:
        return None
    try:
        seen = connection.call(
            "look at our own container",
            lambda c: reading.inspection(c.inspect_container(own)),
            Retry.ANY,
        )
    except EngineAnswer as answer:
        if answer.status == 404:
            return None
        raise
    return seen_from_host(path, [(str(m["Source"]), str(m["Destination"])) for m in reading.mounts(seen)])


def own_container(mountinfo: str) -> str:
    """The id of the container that has these mounts, empty when it is none."""
    found = _OWN_ID.search(mountinfo)
    return found[1] if found else ""


def seen_from_host(path: str, mounts: list[tuple[str, str]]) -> str:
    """The host's name of this path; `mounts` are pairs of source and destination. Empty when no mount holds it."""
    holding = [(s, d) for s, d in mounts if s and PurePath(path).is_relative_to(d)]
    if not holding:
        return ""
    source, destination = max(holding, key=lambda mount: len(PurePath(mount[1]).parts))
    return str(PurePath(source) / PurePath(path).relative_to(destination))

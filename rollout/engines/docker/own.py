"""The container that this program runs in itself, if it does: a project mounted at another path than on the host means
another thing to the engine, which knows only the host's paths."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from rollout.engines.docker import reading
from rollout.engines.docker.connection import Connection, EngineAnswer, Retry
from rollout.model import Finding, Severity

MOUNTS = Path("/proc/self/mountinfo")
# the engine mounts these three from its own folder of the container
_ID = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) ")


def path_finding(connection: Connection, directory: str, mountinfo: Path = MOUNTS) -> Finding | None:
    """What is wrong when `directory` is elsewhere on the host; None when it is not, or this is no container of the
    engine's. Raises EngineError."""
    own = own_id(mountinfo)
    if own is None:
        return None
    try:
        seen: dict[str, Any] = connection.call(
            "inspect the container that this runs in",
            lambda c: reading.whole(c.inspect_container(own), *reading.IN_INSPECTION),
            Retry.ANY,
        )
    except EngineAnswer as answer:
        if answer.status == 404:
            return None  # another engine's container: nothing is known of its paths
        raise
    return mismatch(directory, host_path(directory, reading.mounts(seen)))


def own_id(mountinfo: Path) -> str | None:
    try:
        found = _ID.search(mountinfo.read_text())
    except OSError:
        return None
    return found[1] if found else None


def host_path(directory: str, mounts: list[dict[str, Any]]) -> str | None:
    """Where the host has this path of the container; None when it is not shared with it."""
    for mount in sorted(mounts, key=lambda m: len(m["Destination"]), reverse=True):
        place = mount["Destination"].rstrip("/")
        if directory == place or directory.startswith(f"{place}/"):
            below = directory[len(place) :].lstrip("/")
            return posixpath.join(mount["Source"], below) if mount["Source"] and below else mount["Source"] or None
    return None


def mismatch(directory: str, on_host: str | None) -> Finding | None:
    if on_host == directory:
        return None
    where = f"is {on_host} on the host" if on_host else "is not mounted from the host"
    path = on_host or "/the/project/on/the/host"
    return Finding(
        Severity.ERROR,
        "project-path",
        directory,
        f"the project {where}, but {directory} in here: the engine would take its bind mounts from a path that is not "
        "the project's, and the proxy's mount would not be found",
        f'mount it at the same path: volumes: ["{path}:{path}"], and working_dir: {path}',
    )

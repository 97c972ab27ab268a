"""Every request this package makes to the Docker engine, for whoever guards its socket with an allow-list.

Paths are patterns after the version prefix (`/v1.41`). A test records what is really sent and compares.
Compose makes requests of its own (it creates containers and networks, pulls and builds); they are not listed here.
"""

from __future__ import annotations

import re

ENGINE_CALLS: tuple[tuple[str, str, str], ...] = (
    ("GET", r"/_ping", "is there an engine, and which API does it speak"),
    ("GET", r"/containers/json", "the containers of a service; the proxy's container"),
    ("GET", r"/containers/[^/]+/json", "one container's state, health, mounts and networks"),
    ("GET", r"/containers/[^/]+/logs", "last lines of a replica that failed; what the proxy says about a reload"),
    ("GET", r"/containers/[^/]+/top", "old and new workers of the proxy"),
    ("GET", r"/containers/[^/]+/stats", "CPU and memory, where the control group cannot be read directly"),
    ("GET", r"/containers/[^/]+/archive", "the proxy's own configuration files"),
    ("POST", r"/containers/[^/]+/start", "start a replica"),
    ("POST", r"/containers/[^/]+/stop", "stop a drained replica"),
    ("POST", r"/containers/[^/]+/kill", "signal the proxy: reload"),
    ("POST", r"/containers/[^/]+/exec", "prepare a command: test the proxy's configuration, probe a replica"),
    ("POST", r"/exec/[^/]+/start", "run it"),
    ("GET", r"/exec/[^/]+/json", "its exit code"),
    ("DELETE", r"/containers/[^/]+", "remove a stopped replica and its anonymous volumes"),
    ("GET", r"/images/json", "which revisions' images are kept"),
    ("GET", r"/images/.+/json", "what an image reference means now"),
    ("POST", r"/images/.+/tag", "keep a revision's image for rollback"),
    ("DELETE", r"/images/.+", "drop the name of an image that is no longer kept"),
)

_VERSION = re.compile(r"^/v\d+\.\d+")


def matching(method: str, path: str) -> tuple[str, str, str] | None:
    """The row that covers this request, None when none does. `path` without the query."""
    bare = _VERSION.sub("", path)
    return next((row for row in ENGINE_CALLS if row[0] == method and re.fullmatch(row[1], bare)), None)

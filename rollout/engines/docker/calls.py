"""Every request to the Docker engine, for whoever guards its socket with an allow-list: ours and Compose's.

Paths are patterns after the version prefix (`/v1.41`). Tests record what is really sent and compare, both ways.
docs/engine-calls.md is made from these tables by scripts/engine_calls.py.
"""

from __future__ import annotations

import re

Row = tuple[str, str, str]  # method, pattern of the path, what for

ENGINE_CALLS: tuple[Row, ...] = (
    ("GET", r"/_ping", "is there an engine, and which API does it speak"),
    ("GET", r"/version", "`rollout check`: which engine it is"),
    ("GET", r"/containers/json", "the containers of a service; the proxy's container"),
    ("GET", r"/events", "`rollout serve`: that a container has started, died or changed its health"),
    ("GET", r"/containers/[^/]+/json", "one container's state, health, mounts and networks"),
    (
        "GET",
        r"/containers/[^/]+/logs",
        "last lines of a replica that failed; a hook's output; the proxy's about a reload",
    ),
    ("GET", r"/containers/[^/]+/top", "old and new workers of the proxy"),
    ("GET", r"/containers/[^/]+/stats", "CPU and memory, where the control group cannot be read directly"),
    ("GET", r"/containers/[^/]+/archive", "the proxy's own configuration files"),
    ("POST", r"/containers/[^/]+/start", "start a replica"),
    ("POST", r"/containers/[^/]+/stop", "stop a drained replica"),
    ("POST", r"/containers/[^/]+/kill", "signal the proxy: reload"),
    ("POST", r"/containers/[^/]+/exec", "prepare a command: test the proxy's configuration, probe a replica, a hook"),
    ("POST", r"/exec/[^/]+/start", "run it"),
    ("GET", r"/exec/[^/]+/json", "its exit code"),
    ("DELETE", r"/containers/[^/]+", "remove a stopped replica and its anonymous volumes"),
    ("GET", r"/images/json", "which revisions' images are kept"),
    ("GET", r"/images/.+/json", "what an image reference means now"),
    ("GET", r"/distribution/.+/json", "`x-rollout.schedule`: which digest a tag has in its registry now"),
    ("POST", r"/images/.+/tag", "keep a revision's image for rollback"),
    ("DELETE", r"/images/.+", "drop the name of an image that is no longer kept"),
)

# Of Docker Compose 2.26. It runs as a program of its own, with the same DOCKER_HOST, and says so in its User-Agent.
COMPOSE_CALLS: tuple[Row, ...] = (
    ("HEAD", r"/_ping", "is there an engine, and which API does it speak"),
    ("GET", r"/info", "what kind of engine it is"),
    ("GET", r"/version", "the same, before it creates or builds"),
    ("GET", r"/containers/json", "the project's containers"),
    ("GET", r"/containers/[^/]+/json", "one container's settings"),
    ("POST", r"/containers/create", "create replicas, which rollout starts; the job of a `pre_deploy` hook"),
    ("POST", r"/containers/[^/]+/start", "the job of a `pre_deploy` hook"),
    ("GET", r"/networks", "find the project's networks"),
    ("GET", r"/networks/[^/]+", "one of them"),
    ("POST", r"/networks/create", "a network of the service that does not exist yet"),
    ("POST", r"/networks/[^/]+/connect", "the second and further networks of a new replica, on engines before 25"),
    ("GET", r"/volumes/[^/]+", "the service's named volumes"),
    ("POST", r"/volumes/create", "a named volume of the service that does not exist yet"),
    ("GET", r"/images/.+/json", "is the image here"),
    ("POST", r"/images/create", "`--pull`: pull the image"),
    ("POST", r"/session", "`--build`: BuildKit"),
    ("POST", r"/grpc", "`--build`: BuildKit"),
)

_VERSION = re.compile(r"^/v\d+\.\d+")


def matching(method: str, path: str, table: tuple[Row, ...] = ENGINE_CALLS) -> Row | None:
    """The row that covers this request, None when none does. `path` without the query."""
    bare = _VERSION.sub("", path)
    return next((row for row in table if row[0] == method and re.fullmatch(row[1], bare)), None)

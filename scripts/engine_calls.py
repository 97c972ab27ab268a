#!/usr/bin/env python3
"""Writes docs/engine-calls.md from the tables in rollout/engines/docker/calls.py."""

from __future__ import annotations

from pathlib import Path

from rollout.engines.docker.calls import COMPOSE_CALLS, ENGINE_CALLS, Row

PAGE = Path(__file__).resolve().parents[1] / "docs/engine-calls.md"

HEAD = """\
# What is asked of the Docker engine

Who may use the engine's socket is as powerful as root. So you may want a filter before it that lets through only what a
deploy needs: point `DOCKER_HOST` at the filter. These are all the requests there are. A test runs deploys through such
a filter and compares both ways: nothing else is asked for, and nothing is listed that is not used.

Paths are regular expressions for the whole path after the version prefix (`/v1.41`), without the query.

A filter by path takes away whole classes of requests, no more: whoever may create a container can mount the host's root
into it. `POST /containers/create` is Compose's; a filter that also looks into its body can forbid `Privileged`,
`PidMode` and binds outside of the project.

rollout needs no root: a user of the group `docker` will do, or any user who may open the filter's socket. The proxy's
container never needs the engine's socket, nor does any of the project's.
"""


def page() -> str:
    """The whole file."""
    ours = _table("rollout", "User-Agent `docker-sdk-python/…`.", ENGINE_CALLS)
    theirs = _table("Docker Compose, run by rollout", "User-Agent `compose/…` or `Docker-Client/…`.", COMPOSE_CALLS)
    return f"{HEAD}\n{ours}\n{theirs}"


def _table(title: str, about: str, rows: tuple[Row, ...]) -> str:
    lines = [f"| {method} | `{path.replace('|', chr(92) + '|')}` | {reason} |" for method, path, reason in rows]
    return "\n".join([f"## {title}", "", about, "", "| method | path | what for |", "|---|---|---|", *lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")

#!/usr/bin/env python3
"""Writes what is made from the tables in rollout/engines/docker/calls.py: docs/engine-calls.md, and the filter for the
engine's socket, examples/socket-proxy/haproxy.cfg."""

from __future__ import annotations

from pathlib import Path

from rollout.engines.docker.calls import COMPOSE_CALLS, ENGINE_CALLS, Row

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/engine-calls.md"
FILTER = ROOT / "examples/socket-proxy/haproxy.cfg"

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
container never needs the engine's socket, nor does any of the project's. Such a filter, made from these tables:
[haproxy.cfg](../examples/socket-proxy/haproxy.cfg), used by `docker-compose.socket-proxy.yml`.
"""

FILTER_HEAD = """\
# A filter before the Docker engine's socket: lets through what rollout and Docker Compose ask for, refuses the rest.
# Made by scripts/engine_calls.py from rollout/engines/docker/calls.py, as docs/engine-calls.md is.
global
    maxconn 200
    log stdout format raw local0 notice

defaults
    mode http
    log global
    option dontlog-normal
    timeout connect 5s
    timeout client 1h
    timeout server 1h  # a pull, a build, the stream of events
    timeout tunnel 1h

frontend filter
    bind :2375
    http-request set-var(txn.path) path,regsub(^/v[0-9]+[.][0-9]+,)
    http-request set-var(txn.call) method,concat(\" \",txn.path)
    http-request deny deny_status 400 if { path -m sub .. } or { path -m sub -i %2e } or { path -m sub // }
"""

FILTER_TAIL = """\
    http-request deny deny_status 403 unless listed
    default_backend engine

backend engine
    server engine /var/run/docker.sock
"""


def page() -> str:
    """The whole file."""
    ours = _table("rollout", "User-Agent `docker-sdk-python/…`.", ENGINE_CALLS)
    theirs = _table("Docker Compose, run by rollout", "User-Agent `compose/…` or `Docker-Client/…`.", COMPOSE_CALLS)
    return f"{HEAD}\n{ours}\n{theirs}"


def filter_config() -> str:
    """The whole file."""
    calls = dict.fromkeys((method, path) for method, path, _ in (*ENGINE_CALLS, *COMPOSE_CALLS))
    rules = [f"    acl listed var(txn.call) -m reg '^{method} {path}$'" for method, path in calls]
    return "\n".join([FILTER_HEAD.rstrip(), *rules, FILTER_TAIL])


def _table(title: str, about: str, rows: tuple[Row, ...]) -> str:
    lines = [f"| {method} | `{path.replace('|', chr(92) + '|')}` | {reason} |" for method, path, reason in rows]
    return "\n".join([f"## {title}", "", about, "", "| method | path | what for |", "|---|---|---|", *lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
    FILTER.parent.mkdir(exist_ok=True)
    FILTER.write_text(filter_config())
    print(f"wrote {PAGE} and {FILTER}")

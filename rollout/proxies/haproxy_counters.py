"""Requests by upstream since a marker. HAProxy counts per worker and server; a marker is what it had counted then.

`requests` are those sent to the server, a retried one once. `failed` are answers 5xx of the server, requests that could
not be connected, and answers that never came or were cut short, each request counted once.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping

from rollout.model import Counted, Counters
from rollout.proxies.haproxy_answers import Server, Worker

REMEMBERED = 1000  # deleted servers; a deploy deletes a few


class Deleted:
    """What deleted servers had counted: HAProxy forgets it with them. Lives as long as this process does."""

    def __init__(self) -> None:
        self.last = 0  # the serial of the last one
        self._servers: deque[tuple[int, str, Server]] = deque(maxlen=REMEMBERED)

    def add(self, service: str, server: Server) -> None:
        self.last += 1
        self._servers.append((self.last, service, server))

    def of(self, service: str) -> list[tuple[int, Server]]:
        return [(serial, server) for serial, name, server in self._servers if name == service]


def marker(worker: Worker, servers: Mapping[str, Server] | None, last_deleted: int) -> str:
    """Text. `servers` None: HAProxy does not know the backend yet, so whatever it counts later came after."""
    counted = None if servers is None else {s.name: [s.address, s.requests, s.failed] for s in servers.values()}
    return json.dumps({"worker": worker.identity, "servers": counted, "deleted": last_deleted}, sort_keys=True)


def since(text: str, worker: Worker, deleted: Iterable[tuple[int, Server]], live: Mapping[str, Server]) -> Counted:
    """What was counted since the marker `text`. `missing` when a reload or a restart has begun the counters anew, or
    another run of rollout deleted a server with what it had counted."""
    try:
        values = json.loads(text)
        began, counted, last_deleted = str(values["worker"]), values["servers"], int(values["deleted"])
        before = {name: (str(a), int(r), int(f)) for name, (a, r, f) in (counted or {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return Counted(missing="the marker is not one of HAProxy's")
    if counted is not None and began != worker.identity:
        return Counted(missing="HAProxy was reloaded or restarted meanwhile, which begins its counters anew")
    seen = [server for serial, server in deleted if serial > last_deleted] + list(live.values())
    lost = sorted(before.keys() - {server.name for server in seen})
    totals: dict[str, Counters] = {}
    seconds: dict[str, float] = {}
    for server in seen:
        # the first of a name is the one the marker knew; one that was added again began at zero
        grown = _grown(server, before.pop(server.name, None))
        totals[server.address] = totals.get(server.address, Counters()) + grown
        seconds[server.address] = seconds.get(server.address, 0.0) + grown.requests * server.latency
    return Counted(
        totals, f"what {', '.join(lost)} served is not known: deleted by another run" if lost else "", seconds
    )


def _grown(server: Server, before: tuple[str, int, int] | None) -> Counters:
    if before is None or before[0] != server.address or server.requests < before[1]:
        return Counters(server.requests, server.failed)
    return Counters(server.requests - before[1], max(0, server.failed - before[2]))

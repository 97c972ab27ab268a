"""Requests by upstream since a marker. HAProxy counts per worker and server; a marker is what it had counted then.

`requests` are those sent to the server, a retried one once. `failed` are answers 5xx of the server, requests that could
not be connected, and answers that never came or were cut short, each request counted once.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping

from rollout.model import Counted, Counters
from rollout.proxies.haproxy_answers import Server, Worker

REMEMBERED = 1000  # deleted servers; a deploy deletes a few


class Deleted:
    """What deleted servers had counted: HAProxy forgets it with them. Lives as long as this process does.

    Who deletes, and who looks, holds `lock` meanwhile: else a server could be seen here and there, or nowhere.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._servers: deque[tuple[float, str, Server]] = deque(maxlen=REMEMBERED)

    def add(self, service: str, server: Server, at: float) -> None:
        """`at` is the monotonic clock: markers of other processes of this machine go by it too."""
        self._servers.append((at, service, server))

    def of(self, service: str) -> list[tuple[float, Server]]:
        return [(at, server) for at, name, server in self._servers if name == service]


_deleted: dict[str, Deleted] = {}


def deleted_here(lock_path: str) -> Deleted:
    """What this process has deleted of the proxy with that lock. Each operation has an adapter of its own, and so have
    those who count."""
    return _deleted.setdefault(lock_path, Deleted())


def marker(worker: Worker, servers: Mapping[str, Server] | None, at: float) -> str:
    """Text. `servers` None: HAProxy does not know the backend yet, so whatever it counts later came after."""
    counted = None if servers is None else {s.name: [s.address, s.requests, s.failed] for s in servers.values()}
    return json.dumps({"worker": worker.identity, "servers": counted, "at": at}, sort_keys=True)


def since(text: str, worker: Worker, deleted: Iterable[tuple[float, Server]], live: Mapping[str, Server]) -> Counted:
    """What was counted since the marker `text`. `missing` when a reload or a restart has begun the counters anew, or
    another run of rollout deleted a server with what it had counted."""
    try:
        values = json.loads(text)
        began, counted, marked_at = str(values["worker"]), values["servers"], float(values["at"])
        before = {name: (str(a), int(r), int(f)) for name, (a, r, f) in (counted or {}).items()}
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return Counted(missing="the marker is not one of HAProxy's")
    if counted is not None and began != worker.identity:
        return Counted(missing="HAProxy was reloaded or restarted meanwhile, which begins its counters anew")
    seen = [server for at, server in deleted if at > marked_at] + list(live.values())
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

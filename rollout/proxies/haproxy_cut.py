"""Past the drain limit: close what still goes to servers that have left the pool, and as little else as possible.

The serving worker closes a server's sessions by name. A stopping one refuses that ("Proxy is disabled") but closes a
session by its address; its idle clients could still begin a request to the server, so it has to end then.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from rollout.ports import Clock, ProxyProcess
from rollout.proxies.haproxy_answers import Server, Target
from rollout.proxies.haproxy_socket import Refused, Silent
from rollout.proxies.haproxy_sockets import Sockets
from rollout.waiting import DeadlinePassed, wait_for

END_TIMEOUT = 2.0
_SESSION = re.compile(
    r"(?P<id>0x[0-9a-f]+): .*?\bfe=(?P<frontend>\S+) be=(?P<backend>\S+) srv=(?P<server>\S+)", re.ASCII
)


def cut(sockets: Sockets, process: ProxyProcess, clock: Clock, service: str | None, target: Target) -> int:
    """Close the connections to these servers in every worker; how many. Raises ProxyUnreachable."""
    serving = sockets.runtime.worker().pid
    closed = 0
    for pid in sockets.master.workers():
        with contextlib.suppress(Silent):
            known = target.among(sockets.master.servers(pid, service) or {})
            if pid == serving:
                closed += _close(sockets, known)
            elif any(server.in_flight or not server.in_maintenance for server in known.values()):
                closed += _end(sockets, process, clock, pid, known)
    return closed


def _close(sockets: Sockets, known: Mapping[str, Server]) -> int:
    busy = [server for server in known.values() if server.in_flight]
    for server in busy:
        with contextlib.suppress(Refused):  # it ended meanwhile
            sockets.runtime.run(f"shutdown sessions server {server.backend}/{server.name}")
    return sum(server.in_flight for server in busy)


def _end(sockets: Sockets, process: ProxyProcess, clock: Clock, pid: int, known: Mapping[str, Server]) -> int:
    closed = 0
    for session in sockets.master.sessions(pid):
        if (found := _SESSION.match(session)) and found["server"] in known:
            sockets.master.close_session(pid, found["id"])
            closed += 1
    if all(server.in_maintenance for server in known.values()):
        return closed
    others = [s for s in sockets.master.sessions(pid) if (f := _SESSION.match(s)) and f["frontend"] != "GLOBAL"]
    worker = sockets.master.worker(pid)
    if worker is None or not worker.stopping:
        return closed
    process.exec(["sh", "-c", 'kill -TERM "$0"', str(pid)])
    with contextlib.suppress(DeadlinePassed):
        wait_for(clock, lambda: True if pid not in sockets.master.workers() else None, timeout=END_TIMEOUT)
    return closed + sum(1 for s in others if (f := _SESSION.match(s)) and f["server"] not in known)

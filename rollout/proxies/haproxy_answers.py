"""What HAProxy answers to `show info` and `show stat`, as values. What it would not say, or half of what it would, is
ProxyUnreachable: half a table could hide a server or its sessions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rollout.errors import ProxyUnreachable
from rollout.model import Upstream


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be drained: servers by name, and by address. Another name at the same address is a replica that has
    gone, and left its address to this one."""

    names: frozenset[str]
    addresses: frozenset[str]

    @classmethod
    def of(cls, upstreams: Iterable[Upstream]) -> Target:
        known = list(upstreams)
        return cls(frozenset(u.name for u in known), frozenset(u.address for u in known))

    def among(self, servers: Mapping[str, Server]) -> dict[str, Server]:
        return {name: s for name, s in servers.items() if name in self.names or s.address in self.addresses}


@dataclass(frozen=True, slots=True)
class Server:
    """A server as a worker knows it now. `sessions` and `queued` are in flight; counters since it was added."""

    name: str
    address: str
    status: str  # "UP", "no check", "DOWN 1/2", "MAINT", "DRAIN"
    weight: int
    sessions: int
    queued: int
    requests: int
    failed: int
    backend: str = ""
    latency: float = 0.0  # seconds a request took lately, the mean of the last 1,024

    @property
    def serving(self) -> bool:
        return self.status.startswith(("UP", "no check"))

    @property
    def in_maintenance(self) -> bool:
        return self.status.startswith("MAINT")

    @property
    def draining(self) -> bool:
        return self.status.startswith("DRAIN")

    @property
    def in_flight(self) -> int:
        return self.sessions + self.queued


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that serves: `started` in whole seconds since the epoch; `stopping` once it accepts nothing more."""

    pid: int
    started: int
    stopping: bool
    version: str

    @property
    def identity(self) -> str:
        return f"{self.pid}@{self.started}"


def parse_info(answer: str) -> Worker:
    """`show info`. Raises ProxyUnreachable for what HAProxy would not say."""
    values = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)
    try:
        return Worker(
            pid=int(values["Pid"]),
            started=int(values["Start_time_sec"]) if "Start_time_sec" in values else 0,
            stopping=values["Stopping"] != "0",
            version=values["Version"],
        )
    except (KeyError, ValueError):
        raise nonsense("show info", answer) from None


def parse_servers(answer: str) -> dict[str, Server] | None:
    """`show stat`, of servers only. None: no such backend. Raises ProxyUnreachable for what HAProxy would not say."""
    if answer.startswith("No such proxy"):
        return None
    # an answer that was cut off could hide a server, or its sessions
    if not answer.startswith("# pxname,svname,") or not answer.endswith("\n\n"):
        raise nonsense("show stat", answer)
    rows = csv.DictReader(answer[2:].splitlines())
    try:
        servers = map(_server, rows)
        return {server.name: server for server in servers}
    except (KeyError, TypeError, ValueError, csv.Error):
        raise nonsense("show stat", answer) from None


def _server(row: dict[str, str | None]) -> Server:
    def number(key: str) -> int:
        value = row[key]
        if value is None:  # the row is too short
            raise ValueError(key)
        return int(value or 0)

    # a retry counts in `stot` again; a redispatched request is counted where it went
    requests = max(0, number("stot") - number("wretr") - number("wredis"))
    # `eresp` also counts answers cut short (`srv_abrt`), and 3.2 counts an unanswered request twice
    unanswered = max(0, requests - number("econ") - number("req_tot"))
    lost = min(max(0, number("eresp") - number("srv_abrt")), unanswered)
    return Server(
        name=row["svname"] or "",
        address=row["addr"] or "",
        status=row["status"] or "",
        weight=number("uweight"),
        sessions=number("scur"),
        queued=number("qcur"),
        requests=requests,
        failed=number("hrsp_5xx") + number("econ") + number("srv_abrt") + lost,
        backend=row["pxname"] or "",
        latency=int(row.get("ttime") or 0) / 1000,
    )


def nonsense(command: str, answer: str) -> ProxyUnreachable:
    said = " ".join(answer[:200].split())[:80]
    return ProxyUnreachable(
        f"the answer to `{command}` is not HAProxy's: {said!r}" if said else f"HAProxy did not answer `{command}`",
        hint="is the configured socket really HAProxy's runtime (or master) socket?",
    )

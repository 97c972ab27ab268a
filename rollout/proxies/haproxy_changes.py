"""From the servers HAProxy has to those it should have: the commands that are missing, none when it is there. No I/O.

The way back is the same function with the former servers: so every state in between has one way forward and one back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.proxies.haproxy_answers import Server
from rollout.proxies.haproxy_config import ServerLine


@dataclass(frozen=True, slots=True)
class Command:
    """`says`: what HAProxy answers when it has done it (empty: nothing; None: anything)."""

    text: str
    says: str | None = ""


def admit(backend: str, wanted: Mapping[str, ServerLine], live: Mapping[str, Server]) -> list[Command]:
    """Bring every wanted server into rotation, at its address and weight. Nothing leaves rotation by these."""
    commands: list[Command] = []
    for line in wanted.values():
        server = live.get(line.name)
        commands += _add(backend, line) if server is None else _mend(backend, line, server)
    return commands


def retire(backend: str, wanted: Mapping[str, ServerLine], live: Mapping[str, Server]) -> list[Command]:
    """Take every other server out of rotation. Maintenance even where cookies stick: a draining server would still be
    sent requests by them, so it would never have drained exactly."""
    return [
        Command(f"set server {backend}/{server.name} state maint")
        for server in live.values()
        if server.name not in wanted and not server.in_maintenance
    ]


def not_serving(wanted: Mapping[str, ServerLine], live: Mapping[str, Server]) -> list[str]:
    """Wanted servers that get no traffic now, each with its state for a person."""
    return [
        f"{name} is {live[name].status if name in live else 'not there'}"
        for name in wanted
        if name not in live or not live[name].serving
    ]


def leftovers(wanted: Mapping[str, ServerLine], live: Mapping[str, Server]) -> list[str]:
    """Servers of earlier pools that nothing uses any more."""
    return [s.name for s in live.values() if s.name not in wanted and s.in_maintenance and not s.in_flight]


def _add(backend: str, line: ServerLine) -> list[Command]:
    server = f"{backend}/{line.name}"
    options = " ".join((*line.options, "weight", str(line.weight)))
    commands = [Command(f"add server {server} {line.address} {options}", says="New server registered")]
    if "check" in line.options:
        commands.append(Command(f"enable health {server}"))
    # a new server is born in maintenance, and nothing is sent to it before this
    return [*commands, Command(f"set server {server} state ready")]


def _mend(backend: str, line: ServerLine, server: Server) -> list[Command]:
    name = f"{backend}/{line.name}"
    commands = []
    if server.address != line.address:
        host, _, port = line.address.rpartition(":")
        commands.append(Command(f"set server {name} addr {host.strip('[]')} port {port}", says=None))
    if server.weight != line.weight:
        commands.append(Command(f"set server {name} weight {line.weight}"))
    if server.in_maintenance or server.draining:
        commands.append(Command(f"set server {name} state ready"))
    return commands

"""Ports that a new configuration listens on and somebody else has.

`haproxy -c` opens none, and a reload that cannot have one is not harmless: the serving worker is paused, in case it is
the one that holds it, and for two seconds refuses every connection (3.0). So it is looked up before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rollout.ports import ProxyProcess
from rollout.proxies.haproxy_files import Line

_PORTS = re.compile(r":(\d+)(?:-(\d+))?$")
_LISTENING = "0A"


def ports(lines: Iterable[Line]) -> set[int]:
    """The TCP ports that these lines bind."""
    found: set[int] = set()
    for line in lines:
        if line.starts("bind"):
            for address in line.words[1:2]:
                for part in address.split(","):
                    found |= _ports(part)
    return found


def taken(process: ProxyProcess, new: Iterable[Line], loaded: Iterable[Line]) -> list[int]:
    """Ports of `new`, none of `loaded`, that some program beside HAProxy listens on already. Empty where the table of
    sockets cannot be read."""
    wanted = ports(new) - ports(loaded)
    if not wanted:
        return []
    table = process.exec(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).output
    rows = [line.split() for line in table.splitlines()]
    held = {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTENING}
    return sorted(wanted & held)


def _ports(address: str) -> set[int]:
    if "@" in address and not address.startswith(("ipv4@", "ipv6@")):
        return set()  # a path, an abstract name, a descriptor
    found = _PORTS.search(address.rpartition("@")[2])
    if found is None:
        return set()
    first, last = int(found[1]), int(found[2] or found[1])
    return set(range(first, last + 1))

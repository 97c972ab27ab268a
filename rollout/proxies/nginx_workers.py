"""Which of nginx's workers still know a former configuration, and whether they can still use it.

A worker that shuts down accepts nothing and closes each client connection after its response. So it can send a request
to an upstream only for a client connection that it holds, and that is not joined to another service's upstream already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address

from rollout.ports import Process
from rollout.proxies.nginx_config import LoadedConfig, seconds

MASTER = "nginx: master process"
_WORKER = "nginx: worker process"
_ENDING = "nginx: worker process is shutting down"

# Of workers that only finish what they have. Each holds the memory of a configuration for as long as one client stays.
GENERATIONS = 8


@dataclass(frozen=True, slots=True)
class Workers:
    """Worker pids: those that accept connections, and those that only finish what they have."""

    serving: frozenset[int] = frozenset()
    ending: frozenset[int] = frozenset()

    @property
    def all(self) -> frozenset[int]:
        return self.serving | self.ending

    @property
    def surplus(self) -> int:
        """How many of those that end are too many."""
        return max(0, len(self.ending) - GENERATIONS * max(1, len(self.serving)))


def workers(processes: Iterable[Process]) -> Workers:
    serving, ending = set(), set()
    for process in processes:
        if process.title.startswith(_ENDING):
            ending.add(process.pid)
        elif process.title.startswith(_WORKER):
            serving.add(process.pid)
    return Workers(frozenset(serving), frozenset(ending))


@dataclass(frozen=True, slots=True)
class Token:
    """What `Switched.token` holds: the proxy it was, its workers that may know the previous pool, and why sockets alone
    cannot tell when those are done with it (empty: they can)."""

    identity: str
    workers: tuple[int, ...]
    unpaired: str = ""

    def text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> Token | None:
        try:
            known = json.loads(text)
            return Token(str(known["identity"]), tuple(known["workers"]), str(known["unpaired"]))
        except (ValueError, TypeError, KeyError):
            return None


# With these a client connection may carry several requests at once, one request may open several upstream connections
# or outlive its client, or a worker opens connections of its own: counting pairs then proves nothing.
_UNLESS_OFF = frozenset({
    "mirror", "auth_request", "slice", "add_before_body", "add_after_body", "health_check", "ssl_ocsp",
})  # fmt: skip
_IF_ON = frozenset({"http2", "http3", "ssi", "ssl_stapling"})
_IF_ON_ENDINGS = ("_ignore_client_abort", "_cache_background_update")  # proxy_, fastcgi_, uwsgi_ and scgi_


def pids_only(config: LoadedConfig) -> str:
    """Why only its end proves that a worker of this configuration is done; empty when its sockets can as well."""
    for directive in config.walk():
        if directive.name == "keepalive_min_timeout" and any(map(seconds, directive.args)):
            # a kept client connection may bring another request while the worker shuts down
            return f"keepalive_min_timeout {' '.join(directive.args)} ({directive.where})"
        name, first = directive.name, directive.args[0] if directive.args else ""
        if (
            (name in _UNLESS_OFF and first != "off")
            or ((name in _IF_ON or name.endswith(_IF_ON_ENDINGS)) and first == "on")
            or (name == "listen" and ({"http2", "quic"} & set(directive.args) or first.startswith("unix:")))
            or name.startswith(("js_", "perl"))
            or "_by_lua" in name
        ):
            return f"{name} {first}".strip() + f" ({directive.where})"
    return ""


# --- sockets ---------------------------------------------------------------------------------------------------

# One run of a shell: the socket table, what the workers hold, the table again. Only cat and ls are needed.
LOOK = r"""
tables() { echo "table $1"; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; }
started() { read -r stat < "$1/stat" && set -- ${stat##*) } && echo "${20}"; } 2>/dev/null
echo "range $(cat /proc/sys/net/ipv4/ip_local_port_range)"
tables first
for process in /proc/[0-9]*; do
    title=
    { IFS= read -r title < "$process/cmdline"; } 2>/dev/null
    case $title in "nginx: worker process is shutting down"*)
        echo "worker ${process##*/} $(started "$process")"
        ls -l "$process/fd/" 2>/dev/null || { [ ! -d "$process" ] || echo denied; } ;;
    esac
done
tables second
"""

# Signal $0 to the workers named, or to all that shut down: the shell's own kill, since slim images have no other.
END = r"""
[ $# -gt 0 ] || for process in /proc/[0-9]*; do
    title=
    { IFS= read -r title < "$process/cmdline"; } 2>/dev/null
    case $title in "nginx: worker process is shutting down"*) set -- "$@" "${process##*/}" ;; esac
done
[ $# -eq 0 ] || kill -s "$0" "$@" 2>/dev/null || true
"""

_LISTEN, _TIME_WAIT = "0A", "06"
_DNS = 53
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Socket:
    local: Address
    remote: Address
    state: str
    inode: int


@dataclass(slots=True)
class Sockets:
    """What one look saw. `held`: the socket inodes of each worker that is shutting down; None: they cannot be read.
    `started`: when each was, in the kernel's ticks."""

    first: dict[int, Socket] = field(default_factory=dict)
    second: dict[int, Socket] = field(default_factory=dict)
    listening: set[int] = field(default_factory=set)
    ephemeral: tuple[int, int] = (32768, 60999)
    held: dict[int, set[int]] | None = field(default_factory=dict)
    started: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remaining:
    """`connections` would be cut if the old upstreams went away now; `done` when none can ever come again."""

    done: bool
    connections: int


def remaining(seen: Sockets, gone: Iterable[Address], peers: Iterable[Address]) -> Remaining | None:
    """What keeps the workers that shut down from being done with `gone`. None when their sockets cannot be read.

    `peers` are the other addresses of the former pool: a request sent to one of them may be tried again on `gone`.
    """
    if not seen.held:
        return None
    targets = set(gone)
    elsewhere = targets | set(peers)
    every = seen.first | seen.second
    connected = sum(socket.remote in targets for socket in every.values())
    paired, waiting = True, 0
    for inodes in seen.held.values():
        held = [every[inode] for inode in inodes if inode in every]
        clients = sum(_is_client(socket, seen) for socket in held)
        upstreams = [socket for socket in held if not _is_client(socket, seen) and socket.remote[1] != _DNS]
        # only what was open all the while: one request that changes its upstream meanwhile is not two
        stable = [socket for socket in upstreams if socket.inode in seen.first and socket.inode in seen.second]
        paired &= clients == sum(socket.remote not in elsewhere for socket in stable)
        waiting += max(0, clients - len(upstreams))
    return Remaining(paired and not connected, connected + waiting)


def unfinished(seen: Sockets, gone: Iterable[Address], peers: Iterable[Address], unpaired: bool) -> list[int]:
    """Workers that shut down and could still begin a request to `gone`, as pids where they run.

    A client connection joined to an upstream begins no other request; but with several upstreams a request that fails
    on one is tried on the next, and with `unpaired` nothing can be told from pairs.
    """
    targets, others = set(gone), set(peers)
    retried = targets | others if len(targets | others) > 1 else set[Address]()
    every = seen.first | seen.second
    pids = []
    for pid, inodes in (seen.held or {}).items():
        held = [every[inode] for inode in inodes if inode in every]
        clients = sum(_is_client(socket, seen) for socket in held)
        joined = [socket for socket in held if not _is_client(socket, seen) and socket.remote[1] != _DNS]
        if clients and (unpaired or clients != sum(socket.remote not in retried for socket in joined)):
            pids.append(pid)
    return pids


def surplus(seen: Sockets, count: int, ended: Sequence[int]) -> list[int]:
    """Which workers to end so that `count` fewer shut down, when `ended` end anyway: those that have for longest."""
    rest = [pid for pid in seen.held or {} if pid not in ended]
    return sorted(rest, key=lambda pid: (seen.started.get(pid, 0), pid))[: max(0, count - len(ended))]


def clients_of(seen: Sockets, pids: Iterable[int]) -> int:
    """Client connections that these workers hold."""
    every = seen.first | seen.second
    held = [every[inode] for pid in pids for inode in (seen.held or {}).get(pid, ()) if inode in every]
    return sum(_is_client(socket, seen) for socket in held)


def _is_client(socket: Socket, seen: Sockets) -> bool:
    low, high = seen.ephemeral
    return socket.local[1] in seen.listening or not low <= socket.local[1] <= high


def read_sockets(lines: Sequence[str]) -> Sockets:
    """The output of LOOK. One that is torn or not the kernel's proves nothing, as if the sockets could not be read."""
    try:
        return _read_sockets(lines)
    except (ValueError, IndexError):
        return Sockets(held=None)


def _read_sockets(lines: Sequence[str]) -> Sockets:
    seen = Sockets()
    table: dict[int, Socket] | None = None
    inodes: set[int] | None = None
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] == "range" and len(words) == 3:
            seen.ephemeral = (int(words[1]), int(words[2]))
        elif words[0] == "table":
            table = seen.first if words[-1] == "first" else seen.second
        elif words[0] == "worker":
            inodes = set()
            pid = int(words[1])
            seen.started[pid] = int(words[2]) if len(words) > 2 else 0
            if seen.held is not None:
                seen.held[pid] = inodes
        elif words[0] == "denied":
            seen.held = None
        elif (link := re.search(r"socket:\[(\d+)\]", line)) and inodes is not None:
            inodes.add(int(link.group(1)))
        elif re.fullmatch(r"\d+:", words[0]) and table is not None:
            _add(words, table, seen)
    return seen


def _add(words: Sequence[str], table: dict[int, Socket], seen: Sockets) -> None:
    local, remote, state, inode = _address(words[1]), _address(words[2]), words[3], int(words[9])
    if state == _LISTEN:
        seen.listening.add(local[1])
    elif inode and state != _TIME_WAIT:
        table[inode] = Socket(local, remote, state, inode)


def _address(text: str) -> Address:
    """`0100007F:1F90` is 127.0.0.1 port 8080: the address in the machine's (little-endian) words."""
    host, port = text.split(":")
    packed = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
    if len(packed) == 4:
        return str(IPv4Address(packed)), int(port, 16)
    whole = IPv6Address(packed)
    return str(whole.ipv4_mapped or whole), int(port, 16)

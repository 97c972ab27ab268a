"""Which of nginx's workers still know a former configuration, and whether they can still use it.

A worker that shuts down accepts nothing and closes each client connection after its response. So it can send a request
to an upstream only for a client connection that it holds, and that is not joined to another service's upstream already;
unless its configuration makes it do more (`pids_only`).
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import chain

from rollout.ports import Process
from rollout.proxies.nginx_config import Directive, LoadedConfig, seconds
from rollout.proxies.nginx_redirects import sends_on

_MASTER = ("nginx: master process", "angie: master process")
_WORKER = ("nginx: worker process", "angie: worker process")
_ENDING = ("nginx: worker process is shutting down", "angie: worker process is shutting down")

# Of workers that only finish what they have. Each holds the memory of a configuration for as long as one client stays.
GENERATIONS = 8


@dataclass(frozen=True, slots=True)
class Workers:
    """Worker pids: those that accept connections, and those that only finish what they have; and their masters'."""

    serving: frozenset[int] = frozenset()
    ending: frozenset[int] = frozenset()
    masters: frozenset[int] = frozenset()

    @property
    def all(self) -> frozenset[int]:
        return self.serving | self.ending

    @property
    def surplus(self) -> int:
        """How many of those that end are too many."""
        return max(0, len(self.ending) - GENERATIONS * max(1, len(self.serving)))


def workers(processes: Iterable[Process]) -> Workers:
    serving, ending, masters = set(), set(), set()
    for process in processes:
        if process.title.startswith(_MASTER):
            masters.add(process.pid)
        elif process.title.startswith(_ENDING):
            ending.add(process.pid)
        elif process.title.startswith(_WORKER):
            serving.add(process.pid)
    return Workers(frozenset(serving), frozenset(ending), frozenset(masters))


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


# With these a client connection may carry several requests at once, one request may open several upstream connections,
# outlive its client (a cache is filled to the end) or be followed by another, or a worker opens connections of its own:
# counting pairs then proves nothing.
_KINDS = ("proxy", "fastcgi", "uwsgi", "scgi")
_UNLESS_OFF = frozenset({
    "mirror", "auth_request", "slice", "add_before_body", "add_after_body", "post_action", "health_check", "ssl_ocsp",
    *(f"{kind}_{what}" for kind in _KINDS for what in ("cache", "store")),
})  # fmt: skip
_IF_ON = frozenset({
    "http2", "http3", "ssi", "ssl_stapling",
    *(f"{kind}_{what}" for kind in _KINDS for what in ("ignore_client_abort", "cache_background_update")),
})  # fmt: skip
_ALWAYS = ("js_", "perl", "echo_", "srcache_", "otel_exporter")
# These open no connections, or their directives say when. Whatever else is loaded may do anything.
_HARMLESS_MODULE = re.compile(
    r"ndk_http_module|ngx_(?:(?:http|stream)_(?:geoip2?|js|lua|lua_upstream)|stream|mail"
    r"|http_(?:image_filter|xslt_filter|perl|echo|headers_more_filter|set_misc|subs_filter|cache_purge|fancyindex|dav_ext"
    r"|auth_pam|brotli_(?:filter|static)|zstd_(?:filter|static)|uploadprogress|upstream_fair))_module(?:\.so)?"
)
_NAMED = 60  # letters of a directive that are told: one may hold a program


def pids_only(config: LoadedConfig) -> str:
    """Why only its end proves that a worker of this configuration is done; empty when its sockets can as well."""
    found = next(chain(filter(_unpairs, config.walk()), sends_on(config)), None)
    if found is None:
        return ""
    words = " ".join([found.name, *found.args])
    return f"{words if len(words) <= _NAMED else words[:_NAMED] + '...'} ({found.where})"


def _unpairs(directive: Directive) -> bool:
    name, first = directive.name, directive.args[0] if directive.args else ""
    return (
        # a kept client connection may bring another request while the worker shuts down
        (name == "keepalive_min_timeout" and any(map(seconds, directive.args)))
        or (name in _UNLESS_OFF and first != "off")
        or (name in _IF_ON and first.lower() == "on")
        or (name == "listen" and bool({"http2", "quic"} & set(directive.args) or first.lower().startswith("unix:")))
        or (name == "load_module" and not _HARMLESS_MODULE.fullmatch(posixpath.basename(first)))
        or name.startswith(_ALWAYS)
        or "_by_lua" in name
    )


# --- sockets ---------------------------------------------------------------------------------------------------

# One run of a shell: the socket table, what the workers hold, the table again. Only cat and ls are needed. An ls that
# fails is no ban on reading: GNU's does for a socket that goes while it is listed. Each worker has one to its master.
LOOK = r"""
tables() { echo "table $1"; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; }
about() { read -r stat < "$1/stat" && set -- ${stat##*) } && echo "$2 ${20}"; } 2>/dev/null
echo "range $(cat /proc/sys/net/ipv4/ip_local_port_range)"
tables first
for process in /proc/[0-9]*; do
    title=
    { IFS= read -r title < "$process/cmdline"; } 2>/dev/null
    case $title in
    "nginx: master process"* | "angie: master process"*) echo "master ${process##*/}" ;;
    "nginx: worker process is shutting down"* | "angie: worker process is shutting down"*)
        echo "worker ${process##*/} $(about "$process")"
        links=$(ls -l "$process/fd/" 2>/dev/null)
        echo "$links"
        case $links in *socket:*) ;; *) [ ! -d "$process" ] || echo denied ;; esac ;;
    esac
done
tables second
echo end
"""

# Signal $0 to the workers named that are still there: the shell's own kill, since slim images have no other.
END = r"""
for pid; do
    title=
    { IFS= read -r title < "/proc/$pid/cmdline"; } 2>/dev/null
    case $title in "nginx: worker process is shutting down"* | "angie: worker process is shutting down"*)
        kill -s "$0" "$pid" 2>/dev/null ;;
    esac
done
true
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
    """What one look saw. `held`: the socket inodes of each worker that is shutting down and may be ours; None: they
    cannot be read. `started`: when each was, in the kernel's ticks. `own`: those that are our master's for certain,
    which is known even where sockets cannot be read; no other may be ended."""

    first: dict[int, Socket] = field(default_factory=dict)
    second: dict[int, Socket] = field(default_factory=dict)
    listening: set[int] = field(default_factory=set)
    ephemeral: tuple[int, int] = (32768, 60999)
    held: dict[int, set[int]] | None = field(default_factory=dict)
    started: dict[int, int] = field(default_factory=dict)
    own: frozenset[int] = frozenset()


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
    """Workers of ours that shut down and could still begin a request to `gone`, as pids where they run.

    A client connection joined to an upstream begins no other request; but with several upstreams a request that fails
    on one is tried on the next. With `unpaired` nothing can be told from pairs, nor that there are no clients: those of
    a `unix:` listener and of QUIC are in no table of TCP.
    """
    targets, others = set(gone), set(peers)
    retried = targets | others if len(targets | others) > 1 else set[Address]()
    every = seen.first | seen.second
    pids = []
    for pid, inodes in (seen.held or {}).items():
        held = [every[inode] for inode in inodes if inode in every]
        clients = sum(_is_client(socket, seen) for socket in held)
        joined = [socket for socket in held if not _is_client(socket, seen) and socket.remote[1] != _DNS]
        able = clients and clients != sum(socket.remote not in retried for socket in joined)
        if pid in seen.own and (unpaired or able):
            pids.append(pid)
    return pids


def surplus(seen: Sockets, count: int, ended: Sequence[int]) -> list[int]:
    """Which workers of ours to end so that `count` fewer shut down, when `ended` end anyway: those that have for
    longest."""
    rest = [pid for pid in seen.held or {} if pid in seen.own and pid not in ended]
    return sorted(rest, key=lambda pid: (seen.started.get(pid, 0), pid))[: max(0, count - len(ended))]


def clients_of(seen: Sockets, pids: Iterable[int]) -> int:
    """Client connections that these workers hold: one at least each, since something that is not seen holds it."""
    every = seen.first | seen.second
    held = [[every[inode] for inode in (seen.held or {}).get(pid, ()) if inode in every] for pid in pids]
    return sum(max(1, sum(_is_client(socket, seen) for socket in sockets)) for sockets in held)


def cut_with(seen: Sockets, pids: Collection[int], gone: Iterable[Address]) -> int:
    """Connections that are cut when these workers end and `gone` are stopped."""
    targets, ended = set(gone), {inode for pid in pids for inode in (seen.held or {}).get(pid, ())}
    every = (seen.first | seen.second).values()
    return clients_of(seen, pids) + sum(one.remote in targets and one.inode not in ended for one in every)


def _is_client(socket: Socket, seen: Sockets) -> bool:
    low, high = seen.ephemeral
    return socket.local[1] in seen.listening or not low <= socket.local[1] <= high


def read_sockets(lines: Sequence[str], masters: Collection[int] = ()) -> Sockets:
    """The output of LOOK. One that is torn or not the kernel's proves nothing, as if the sockets could not be read.

    `masters` are ours, as `ProxyProcess.processes` sees them. A look may meet another nginx (one on the host, one in a
    shared pid namespace): its workers are left out.
    """
    try:
        return _read_sockets(lines, frozenset(masters))
    except (ValueError, IndexError):
        return Sockets(held=None)


@dataclass(slots=True)
class _Worker:
    parent: int = 0
    started: int = 0
    inodes: set[int] = field(default_factory=set)
    denied: bool = False


def _read_sockets(lines: Sequence[str], masters: frozenset[int]) -> Sockets:
    words = [(line.split(), line) for line in lines if line.strip()]
    if not words or words[-1][0] != ["end"]:
        return Sockets(held=None)
    seen = _tables(first for first, _ in words)
    there, found = _processes(words)
    ours = _ours(there, masters)
    others = there - ours if ours else set()
    kept = {pid: one for pid, one in found.items() if one.parent not in others}
    seen.held = None if any(one.denied for one in kept.values()) else {pid: one.inodes for pid, one in kept.items()}
    seen.started = {pid: one.started for pid, one in kept.items()}
    seen.own = frozenset(pid for pid, one in kept.items() if one.parent in ours)
    return seen


def _tables(lines: Iterable[Sequence[str]]) -> Sockets:
    """The kernel's part of a look."""
    seen = Sockets()
    table: dict[int, Socket] | None = None
    for words in lines:
        if words[0] == "range" and len(words) == 3:
            seen.ephemeral = (int(words[1]), int(words[2]))
        elif words[0] == "table":
            table = seen.first if words[-1] == "first" else seen.second
        elif re.fullmatch(r"\d+:", words[0]) and table is not None:
            _add(words, table, seen)
    return seen


def _processes(lines: Iterable[tuple[Sequence[str], str]]) -> tuple[set[int], dict[int, _Worker]]:
    """The masters in a look, and the workers that shut down."""
    masters, found, worker = set[int](), dict[int, _Worker](), _Worker()
    for words, line in lines:
        if words[0] == "master":
            masters.add(int(words[1]))
        elif words[0] == "worker":
            parent, started = map(int, [*words[2:4], "0", "0"][:2])  # one that is gone by now has none
            worker = found[int(words[1])] = _Worker(parent, started)
        elif words[0] == "denied":
            worker.denied = True
        elif link := re.search(r"socket:\[(\d+)\]", line):
            worker.inodes.add(int(link.group(1)))
    return masters, found


def _ours(there: set[int], known: frozenset[int]) -> set[int]:
    """Which of the masters that a look saw are those we know. Where it was, pids may be others: then all are, if they
    are no more, and none otherwise. An account that may not see what is root's sees none (`hidepid`)."""
    if not there:
        return set(known)
    return there & known or (there if len(there) <= len(known) else set())


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

"""When nginx is done with an upstream: its old workers gone, or unable to send to it (nginx_workers)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rollout.model import InFlight, Switched, Upstream
from rollout.ports import Clock, ProxyProcess
from rollout.proxies.nginx_config import LoadedConfig
from rollout.proxies.nginx_workers import LOOK, Address, Remaining, Token, read_sockets, remaining, workers

# A look at the sockets starts a program in the container; workers that just end are gone before the first.
_FIRST_LOOK = 0.1
_PAUSE = 4.0  # times what a look takes: at most a fifth of the time is spent looking


@dataclass(slots=True)
class _Watch:
    """The looks at one set of workers."""

    begun: float
    next: float
    last: Remaining | None = None


class Drain:
    """Answers `Proxy.in_flight` for one nginx. `peers` answers the addresses that the old workers may send the same
    requests to, when the switch is not known."""

    def __init__(self, process: ProxyProcess, clock: Clock, config: Callable[[], LoadedConfig]) -> None:
        self._process = process
        self._clock = clock
        self._config = config
        self._watches: dict[tuple[int, ...], _Watch] = {}
        self._user: dict[str, str | None] = {}  # by proxy identity; None: sockets cannot be read in it

    def in_flight(self, token: Token, switched: Switched | None, upstreams: Sequence[Upstream]) -> InFlight:
        """As the port says; `token` holds the workers to wait for, empty: each one that shuts down."""
        ending = workers(self._process.processes()).ending
        old = tuple(sorted(ending & set(token.workers) if switched else ending))
        if not old:
            self._watches.clear()
            return InFlight(True)
        gone = [(upstream.host, upstream.port) for upstream in upstreams]
        peers = [(upstream.host, upstream.port) for upstream in switched.previous.upstreams] if switched else []
        seen = self._look(token.identity, old, gone, peers)
        paired = seen is not None and seen.done and switched is not None and not token.unpaired
        return InFlight(paired, seen.connections if seen else 0, _detail(len(old), seen, token.unpaired))

    def _look(
        self, identity: str, old: tuple[int, ...], gone: Sequence[Address], peers: Sequence[Address]
    ) -> Remaining | None:
        now = self._clock.now()
        watch = self._watches.setdefault(old, _Watch(now, now + _FIRST_LOOK))
        if now >= watch.next:
            watch.last = self._remaining(identity, gone, peers)
            after = self._clock.now()
            watch.next = after + _PAUSE * (after - now)
        return watch.last

    def _remaining(self, identity: str, gone: Sequence[Address], peers: Sequence[Address]) -> Remaining | None:
        for user in self._users(identity):
            done = self._process.exec(["sh", "-c", LOOK], user=user)
            seen = remaining(read_sockets(done.output.splitlines()), gone, peers) if done.exit_code == 0 else None
            if seen is not None:
                self._user[identity] = user
                return seen
        return None

    def _users(self, identity: str) -> list[str]:
        """Accounts that may read what the workers hold: their own, which is the container's where nginx is not root."""
        known = self._user.get(identity)
        return [known] if known is not None else [self._config().user, ""]


def _detail(workers_left: int, seen: Remaining | None, unpaired: str) -> str:
    left = f"{workers_left} old worker{'s' if workers_left != 1 else ''}"
    if seen is None:
        return left
    text = f"{left}, {seen.connections} connection{'s' if seen.connections != 1 else ''}"
    return f"{text}; waiting for them to end: {unpaired}" if unpaired and not seen.connections else text

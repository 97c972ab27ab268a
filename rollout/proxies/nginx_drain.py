"""When nginx is done with an upstream: its old workers gone, or unable to send to it (nginx_workers)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rollout.errors import ProxyUnreachable
from rollout.model import InFlight, Relief, Switched, Upstream
from rollout.ports import Clock, ProxyProcess
from rollout.proxies.nginx_config import LoadedConfig
from rollout.proxies.nginx_workers import (
    END,
    LOOK,
    Address,
    Remaining,
    Sockets,
    Token,
    Workers,
    clients_of,
    cut_with,
    read_sockets,
    remaining,
    surplus,
    unfinished,
    workers,
)
from rollout.waiting import DeadlinePassed, wait_for

# A look at the sockets starts a program in the container; workers that just end are gone before the first.
_FIRST_LOOK = 0.1
_END_TIMEOUT = 2.0
_NONE_SEEN = "no worker of nginx is seen"
_LOOKS = 3  # at the drain limit, before sockets are taken as not to be read: one look may meet a worker that just ends
_PAUSE = 4.0  # times what a look takes: at most a fifth of the time is spent looking


@dataclass(slots=True)
class _Watch:
    """The looks at one set of workers."""

    begun: float
    next: float
    last: Remaining | None = None


class Drain:
    """Answers `Proxy.in_flight` for one nginx. `config` is what it would load now: whose account the workers have."""

    def __init__(self, process: ProxyProcess, clock: Clock, config: Callable[[], LoadedConfig]) -> None:
        self._process = process
        self._clock = clock
        self._config = config
        self._watches: dict[tuple[int, ...], _Watch] = {}
        self._ending: dict[int, float] = {}  # worker that shuts down -> when it was first seen to
        self._user: dict[str, str] = {}  # who may read the workers' sockets, by proxy identity

    def in_flight(self, token: Token, switched: Switched | None, upstreams: Sequence[Upstream]) -> InFlight:
        """As the port says; `token` holds the workers to wait for, empty: each one that shuts down."""
        there = workers(self._process.processes())
        old = tuple(sorted(there.ending & set(token.workers) if switched else there.ending))
        if not there.serving:
            return InFlight(False, detail=_NONE_SEEN)  # no answer is no permission
        if not old:
            self._watches.clear()
            return InFlight(True)
        gone = [(upstream.host, upstream.port) for upstream in upstreams]
        peers = [(upstream.host, upstream.port) for upstream in switched.previous.upstreams] if switched else []
        seen = self._look(token.identity, there, old, gone, peers)
        paired = seen is not None and seen.done and switched is not None and not token.unpaired
        if paired and there.surplus:
            # done with them; but those older still have this drain's time to end by themselves before `cut` ends them
            return InFlight(False, detail=f"{len(there.ending)} old workers, {there.surplus} more than may pile up")
        return InFlight(paired, seen.connections if seen else 0, _detail(len(old), seen, token.unpaired))

    def cut(self, token: Token, switched: Switched | None, upstreams: Sequence[Upstream]) -> int:
        """As the port says: end the old workers that could still begin a request to `upstreams`, and the oldest of
        those that pile up; see them gone. Where sockets cannot be read all that shut down are ended, and each counts as
        one connection. Raises ProxyUnreachable."""
        there = self._workers()
        old = tuple(sorted(there.ending & set(token.workers) if switched else there.ending))
        if not old:
            return 0
        gone = [(upstream.host, upstream.port) for upstream in upstreams]
        peers = [(upstream.host, upstream.port) for upstream in switched.previous.upstreams] if switched else gone
        seen = self._readable(token.identity, there)
        if seen.held is None:
            self._end(sorted(seen.own))
            return max(len(old), len(seen.own))
        pids = unfinished(seen, gone, peers, bool(token.unpaired))
        pids += surplus(seen, there.surplus, pids)
        self._end(pids)
        return cut_with(seen, pids, gone)

    def relieve(self, identity: str, limit: float) -> Relief:
        """End the oldest of the workers that pile up, of those that have been seen to shut down for `limit` seconds.
        Looks from time to time, by the same `Drain`, or nothing is known of how long. Nothing where their sockets
        cannot be read."""
        there, now = workers(self._process.processes()), self._clock.now()
        self._ending = {pid: self._ending.get(pid, now) for pid in there.ending}
        late = sum(now - since >= limit for since in self._ending.values())
        many = min(there.surplus, late)
        if not many:
            return Relief()
        seen = self._sockets(identity, there)
        # who shuts down for longest has started first, whatever its pid is called where it runs
        piled = surplus(seen, many, [])
        self._end(piled)
        return Relief(len(piled), clients_of(seen, piled))

    def _end(self, pids: Sequence[int]) -> None:
        """TERM makes a worker leave at once."""
        if not pids:
            return
        before = len(self._workers().ending)
        for signal in ("TERM", "KILL"):
            self._process.exec(["sh", "-c", END, signal, *map(str, pids)])
            try:
                wait_for(self._clock, lambda: self._fewer(before, len(pids)), timeout=_END_TIMEOUT)
            except DeadlinePassed:
                continue
            return

    def _fewer(self, before: int, count: int) -> bool | None:
        there = workers(self._process.processes())
        return True if there.serving and len(there.ending) <= before - count else None

    def _workers(self) -> Workers:
        """One serves as long as nginx runs: none at all is no answer, and asked for again for a moment. Raises
        ProxyUnreachable."""

        def look() -> Workers | None:
            there = workers(self._process.processes())
            return there if there.serving else None

        try:
            return wait_for(self._clock, look, timeout=_END_TIMEOUT)
        except DeadlinePassed:
            raise ProxyUnreachable(_NONE_SEEN) from None

    def _look(
        self,
        identity: str,
        there: Workers,
        old: tuple[int, ...],
        gone: Sequence[Address],
        peers: Sequence[Address],
    ) -> Remaining | None:
        now = self._clock.now()
        watch = self._watches.setdefault(old, _Watch(now, now + _FIRST_LOOK))
        if now >= watch.next:
            watch.last = remaining(self._sockets(identity, there), gone, peers)
            after = self._clock.now()
            watch.next = after + _PAUSE * (after - now)
        return watch.last

    def _readable(self, identity: str, there: Workers) -> Sockets:
        """A look whose sockets could be read, if that can be had."""
        seen = self._sockets(identity, there)
        for _ in range(_LOOKS - 1):
            if seen.held is None:
                seen = self._sockets(identity, there)
        return seen

    def _sockets(self, identity: str, there: Workers) -> Sockets:
        """What the workers that shut down hold."""
        seen = Sockets(held=None)
        for user in self._users(identity):
            done = self._process.exec(["sh", "-c", LOOK], user=user)
            if done.exit_code == 0:
                seen = read_sockets(done.output.splitlines(), there.masters)
            if done.exit_code == 0 and seen.held:
                self._user[identity] = user
                break
        return seen

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

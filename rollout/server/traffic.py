"""Requests, failures and latency by revision, as the proxy counts them: what the page's plots and the metrics show.

Nothing is counted while nobody looks: each look counts what has come since the one before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.model import Counted, Counters, ProxyType
from rollout.ports import Clock
from rollout.server.view import View
from rollout.wiring import Wired

PAUSE = 2.0  # seconds; sooner a look shows what the one before has seen
KEPT = 180  # points of a series
STALE = 600.0  # seconds, longer than any interval of scraping; after so long nobody looks, and counting begins anew
REMEMBERED = 900.0  # seconds; a series that has ended is shown for so long
ADDRESSES = 20_000

Revision = tuple[str, int]  # service, number


@dataclass(frozen=True, slots=True)
class Point:
    """`at` is wall clock. `rate` in requests a second, `errors` the part that failed, `latency` in seconds. `whole`:
    the proxy knew of all that it had served."""

    at: float
    rate: float
    errors: float
    latency: float | None
    whole: bool = True


class Traffic:
    """Safe from any thread."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view, self._clock = view, clock
        self._lock = threading.Lock()
        self._markers: dict[str, str] = {}  # service, or "" for all of them -> marker of the last look
        self._looked_at = 0.0
        self._revision_of: dict[str, Revision] = {}  # address -> whose it was last
        self._present: frozenset[Revision] = frozenset()  # revisions that have replicas now
        self.totals: dict[Revision, Counters] = {}
        self.points: dict[Revision, deque[Point]] = {}
        self.missing: dict[str, str] = {}

    def look(self) -> None:
        """Count what has come since the last look. Raises RolloutError when there is nothing to look at."""
        with self._lock:
            passed = self._clock.now() - self._looked_at
            if self._markers and passed < PAUSE:
                return
            self._learn(self._view.status())
            with self._view.looking() as wired:
                counted = self._count(wired, anew=passed >= STALE)
            self._looked_at = self._clock.now()
            if counted:
                self._add(counted, passed)

    def _learn(self, status: Mapping[str, Any]) -> None:
        """Addresses are handed on: the newest owner counts. Those that are gone are kept, for what is still to come."""
        owners = {
            replica["address"]: (service["service"], replica["revision"] or 0)
            for service in status["services"]
            for replica in service["replicas"]
            if replica["address"]
        }
        self._present = frozenset(owners.values())
        self._revision_of = {address: r for address, r in self._revision_of.items() if address not in owners} | owners
        while len(self._revision_of) > ADDRESSES:
            del self._revision_of[next(iter(self._revision_of))]

    def _count(self, wired: Wired, *, anew: bool) -> dict[str, Counted]:
        """Since the last look; nothing yet of what was not looked at then. All markers go on, or none."""
        proxy, counted, markers = wired.ports.proxy, {}, {}
        for scope in _scopes(wired):
            if anew or scope not in self._markers:
                markers[scope] = proxy.mark(scope)
            else:
                counted[scope], markers[scope] = proxy.count_and_mark(scope, self._markers[scope])
        self._markers = markers
        return counted

    def _add(self, counted: Mapping[str, Counted], seconds: float) -> None:
        self.missing = {scope: one.missing for scope, one in counted.items() if one.missing and not one.by_address}
        partial = {scope for scope, one in counted.items() if one.missing}
        now = self._clock.wall()
        sums: dict[Revision, tuple[Counters, float | None]] = dict.fromkeys(self._present, (Counters(), None))
        for one in counted.values():
            for address, counters in one.by_address.items():
                if (revision := self._revision_of.get(address)) is not None:
                    before, spent = sums.get(revision, (Counters(), None))
                    took = one.seconds.get(address)
                    sums[revision] = (before + counters, spent if took is None else (spent or 0.0) + took)
        for revision, series in self.points.items():
            if series[-1].rate:  # one that has gone ends at zero
                sums.setdefault(revision, (Counters(), None))
        for revision, (counters, spent) in sums.items():
            self.totals[revision] = self.totals.get(revision, Counters()) + counters
            latency = spent / counters.requests if spent is not None and counters.requests else None
            errors = counters.failed / counters.requests if counters.requests else 0.0
            series = self.points.setdefault(revision, deque(maxlen=KEPT))
            rate, whole = counters.requests / max(seconds, 0.001), partial.isdisjoint(("", revision[0]))
            series.append(Point(now, rate, min(errors, 1.0), latency, whole))
        self.points = {revision: series for revision, series in self.points.items() if series[-1].at > now - REMEMBERED}
        self.totals = {revision: total for revision, total in self.totals.items() if revision in self.points}


def _scopes(wired: Wired) -> Sequence[str]:
    """What one marker is for: nginx writes one log for every service, HAProxy counts by service."""
    return ("",) if wired.project.proxy.type is ProxyType.NGINX else tuple(wired.project.services)

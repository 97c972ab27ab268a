"""Probing replicas that would come into a pool, aside from everything else: a replica that hangs holds nobody up.

One that keeps dying has to stay ready for longer each time before it is let in again: its users would otherwise meet
every one of its deaths.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rollout.controller import Candidate
from rollout.model import Upstream
from rollout.ports import Clock, Prober
from rollout.steps.readiness import PAUSE_GROWTH, why_unready
from rollout.waiting import FIRST_PAUSE

WORKERS = 8
REMEMBERED = 600.0  # seconds for which it counts that a replica has come into the pool
LONGEST = 60.0  # seconds that one which keeps dying has to stay ready


def steady_for(entries: int, min_healthy_time: float) -> float:
    """Seconds without a failed probe before a replica is let in that came in `entries` times lately: nothing more than
    the settings say for the first two times, then 1, 2, 4 …"""
    return max(min_healthy_time, min(LONGEST, 2.0 ** (entries - 2)) if entries >= 2 else 0.0)


@dataclass(slots=True)
class _Progress:
    candidate: Candidate
    due: float
    pause: float = FIRST_PAUSE
    ready_since: float | None = None
    under_way: bool = False
    proven: bool = False
    counted: bool = False  # as coming into the pool: once, however long it waits for that


class Proving:
    """Probes what `want` names until it is no longer named. One that is proven stays so while its pool cannot be
    changed, as long as no probe fails. `tell` is called when a probe has ended, with the service when it has proven its
    replica, else with nothing. `want`, `due` and `proven` are for one thread."""

    def __init__(self, prober: Prober, clock: Clock, tell: Callable[[str], None]) -> None:
        self._prober, self._clock, self._tell = prober, clock, tell
        self._known: dict[Upstream, _Progress] = {}
        self._entries: dict[str, list[float]] = {}  # upstream's name -> when it was proven
        self._lock = threading.Lock()
        self._bug: Exception | None = None
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="probe")

    def close(self) -> None:
        self._workers.shutdown(wait=True, cancel_futures=True)

    def proven(self, candidate: Candidate) -> bool:
        with self._lock:
            found = self._known.get(candidate.upstream)
            return found is not None and found.proven

    def want(self, candidates: Iterable[Candidate], services: Iterable[str]) -> None:
        """`candidates` are all that there are now of these services."""
        now, looked_at = self._clock.now(), set(services)
        wanted = {candidate.upstream: candidate for candidate in candidates}
        with self._lock:
            self._known = {
                upstream: found
                for upstream, found in self._known.items()
                if upstream in wanted or found.candidate.settings.name not in looked_at
            }
            for upstream, candidate in wanted.items():
                if upstream in self._known:
                    self._known[upstream].candidate = candidate
                else:
                    self._known[upstream] = _Progress(candidate, due=now)

    def due(self) -> float | None:
        """Begin the probes that are due. Seconds until the next will be, None when none is waited for."""
        now = self._clock.now()
        if self._bug is not None:
            raise self._bug
        with self._lock:
            waiting = [found for found in self._known.values() if not found.under_way]
            for found in waiting:
                if found.due <= now:
                    found.under_way = True
                    self._workers.submit(self._probe, found)
            left = [found.due - now for found in waiting if not found.under_way]
        return max(0.0, min(left)) if left else None

    # --- in the workers

    def _probe(self, found: _Progress) -> None:
        service = ""
        try:
            began, reason = self._clock.now(), self._why_unready(found.candidate)
            with self._lock:
                if self._judge(found, began, passed=reason is None):
                    service = found.candidate.settings.name
        except Exception as error:  # noqa: BLE001  # nobody looks at a worker's future: the next `due` raises it
            self._bug = error
        self._tell(service)

    def _why_unready(self, candidate: Candidate) -> str | None:
        for _ in range(candidate.settings.health.healthy_threshold):
            reason = why_unready(self._prober, candidate.settings, candidate.network, candidate.replica)
            if reason is not None:
                return reason
        return None

    def _judge(self, found: _Progress, began: float, *, passed: bool) -> bool:
        now, check = self._clock.now(), found.candidate.settings.health
        found.under_way = False
        if not passed:
            found.proven, found.ready_since, found.due = False, None, now + found.pause
            found.pause = min(found.pause * PAUSE_GROWTH, check.interval)
            return False
        found.due = now + check.interval
        if found.proven:
            return False
        if found.ready_since is None:
            found.ready_since = began
        entries = self._lately(found.candidate.upstream.name, now)
        ready_at = found.ready_since + steady_for(len(entries) - found.counted, check.min_healthy_time)
        found.proven = now >= ready_at
        if not found.proven:
            found.due = min(found.due, ready_at)
        elif not found.counted:
            found.counted = True
            self._entries[found.candidate.upstream.name] = [*entries, now]
        return found.proven

    def _lately(self, name: str, now: float) -> list[float]:
        for other in [n for n, times in self._entries.items() if times[-1] < now - REMEMBERED]:
            del self._entries[other]
        return self._entries.get(name, [])

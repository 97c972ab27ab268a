"""While a rollout waits its pool goes on following the replicas: whoever else would do it leaves the service to the one
who has its lease."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rollout.errors import RolloutError
from rollout.events import Notice, Warned
from rollout.model import Pool, Upstream
from rollout.ports import Clock
from rollout.steps.readiness import stays_ready
from rollout.steps.run import Run


class Following:
    """Looks once every probe interval. What is in the way of a look is told once, and ends no wait. Several threads may
    wait at once: one of them looks."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._due = run.ports.clock.now() + run.settings.health.interval
        self._told = ""
        self._proxy_in_use = threading.Lock()

    def sleep(self, seconds: float) -> None:
        self._run.ports.clock.sleep(seconds)
        self.look()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Nothing is switched meanwhile."""
        with self._proxy_in_use:
            yield

    def look(self) -> None:
        """If it is time to."""
        clock = self._run.ports.clock
        if clock.now() < self._due or not self._proxy_in_use.acquire(blocking=False):
            return
        try:
            self._look(clock)
        finally:
            self._proxy_in_use.release()

    def _look(self, clock: Clock) -> None:
        self._due = clock.now() + self._run.settings.health.interval
        try:
            _follow(self._run)
        except RolloutError as error:
            if error.message != self._told:
                self._told = error.message
                self._run.emit(Warned(self._run.service, "not-followed", "; ".join([error.message, *error.details])))


def _follow(run: Run) -> None:
    replicas = run.replicas()
    there = [replicas[i] for i in run.live if i in replicas and replicas[i].running]
    ready = [r.id for r in there if stays_ready(run, r)]
    before = run.ports.proxy.pool(run.service)
    pool = run.pool_of(ready, replicas)
    if before is None or not pool.upstreams or set(pool.upstreams) == set(before.upstreams):
        return  # never an empty pool because of a doubt
    run.left_by(run.ports.proxy.switch(pool))
    run.emit(followed(before, pool))


def followed(before: Pool, after: Pool) -> Notice:
    gone = sorted(set(before.upstreams) - set(after.upstreams))
    came = sorted(set(after.upstreams) - set(before.upstreams))
    parts = [f"{word} {named(those)}" for word, those in (("in", came), ("out", gone)) if those]
    return Notice(after.service, f"the pool follows its replicas: {', '.join(parts) or 'its settings have changed'}")


def named(upstreams: Iterable[Upstream]) -> str:
    return ", ".join(f"{u.name} ({u.address})" for u in upstreams)

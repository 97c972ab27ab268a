"""What the proxy was asked for by this process, counted: reloads and refusals, which nothing else keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from rollout.errors import ProxyRejected, RolloutError
from rollout.model import Pool, Switched
from rollout.ports import Proxy
from rollout.wiring import Wired


@dataclass(slots=True)
class Tally:
    """Safe from any thread."""

    reloads: int = 0
    refusals: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *, reloads: int = 0, refusals: int = 0) -> None:
        with self._lock:
            self.reloads += reloads
            self.refusals += refusals


def counting(wired: Wired, tally: Tally) -> None:
    """Let what the rollouts of this project ask of the proxy be counted."""
    wired.ports = replace(wired.ports, proxy=cast("Proxy", _Counting(wired.ports.proxy, tally)))


class _Counting:
    """`ports.Proxy`, as it is, with two of its outcomes counted."""

    def __init__(self, proxy: Proxy, tally: Tally) -> None:
        self._proxy, self._tally = proxy, tally
        self._refused: set[str] = set()  # services whose rollout has been refused, and nothing taken since

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proxy, name)

    def prepare(self, pool: Pool) -> None:
        with self._once(pool.service):
            self._proxy.prepare(pool)

    def switch(self, pool: Pool) -> Switched:
        with self._once(pool.service):
            done = self._proxy.switch(pool)
        self._tally.add(reloads=int(done.reloaded))
        return done

    def switch_all(self, pools: Sequence[Pool]) -> list[Switched | RolloutError]:
        done = self._proxy.switch_all(pools)
        self._tally.add(
            reloads=int(any(isinstance(one, Switched) and one.reloaded for one in done)),  # they share one
            refusals=sum(isinstance(one, ProxyRejected) for one in done),
        )
        return done

    @contextmanager
    def _once(self, service: str) -> Iterator[None]:
        """A rollout's refusal is one, also where it is met again while the rollout is taken back."""
        try:
            yield
        except ProxyRejected:
            if service not in self._refused:
                self._refused.add(service)
                self._tally.add(refusals=1)
            raise
        self._refused.discard(service)

"""What the proxy was asked for by this process, counted: reloads and refusals, which nothing else keeps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from rollout.errors import ProxyRejected
from rollout.model import Switched
from rollout.ports import Proxy
from rollout.wiring import Wired

T = TypeVar("T")


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

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._proxy, name)
        if name in ("switch", "switch_all"):
            return lambda *args, **more: self._switched(lambda: found(*args, **more))
        return found

    def _switched(self, switch: Callable[[], T]) -> T:
        try:
            done = switch()
        except ProxyRejected:
            self._tally.add(refusals=1)
            raise
        several = done if isinstance(done, list) else [done]
        self._tally.add(
            reloads=int(any(isinstance(one, Switched) and one.reloaded for one in several)),  # they share one
            refusals=sum(isinstance(one, ProxyRejected) for one in several),
        )
        return done

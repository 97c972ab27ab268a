"""Deploys through an engine of which single calls go wrong, and what must hold after each."""

from __future__ import annotations

import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.projects import Done, Edge, Shop, running
from tests.faults.engine_proxy import Call, EngineProxy, Fault
from tests.load import Load, Mix

IMPATIENT = (sys.executable, str(Path(__file__).with_name("impatient.py")))
BLIND = (*IMPATIENT, "--blind")
BOUND = 75.0  # seconds, whatever goes wrong
HANGING = 120.0  # and where the engine does not answer: with the limits of `impatient`
VERSIONS = ("1", "2", "3")
# Every kind of client, none idle for nearly as long as nginx keeps idle connections through a reload.
MIX = Mix(
    get=1, post=1, think=6, think_seconds=0.4, fresh=1, preconnected=1, preconnected_seconds=0.4,
    uploads=1, upload_seconds=0.3, streams=1, stream_seconds=0.5, upgrades=1, upgrade_seconds=0.5, arrivals=5.0,
)  # fmt: skip
UNCHANGED, LEAVING, DEPLOYED = {1, 4}, 5, 0


class Quick(Edge):
    """Lets idle connections go sooner, for shorter drains; this load's clients are never idle for so long."""

    @property
    def keepalive(self) -> str:
        return "keepalive_timeout 15s; keepalive_min_timeout 2s;"


NGINX, HAPROXY = Quick("nginx", "1.30"), Edge("haproxy", "3.0")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of call of a deploy, by rollout itself or by Compose."""

    name: str
    method: str
    path: str
    by_compose: bool = False

    def covers(self, call: Call) -> bool:
        same = call.method == self.method and call.by_compose == self.by_compose
        return same and re.fullmatch(self.path, call.path) is not None

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


class Occurrence:
    """The n-th call of a kind is spoilt; with `for_ever` every one from then on."""

    def __init__(self, kind: Kind, fault: Fault, number: int, *, for_ever: bool = False) -> None:
        self.kind, self.fault, self.number, self.for_ever = kind, fault, number, for_ever
        self._seen = 0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Fault | None:
        if not self.kind.covers(call):
            return None
        with self._lock:
            self._seen += 1
            hit = self._seen >= self.number if self.for_ever else self._seen == self.number
        return self.fault if hit else None


class Storm:
    """Any call of rollout's own may go wrong in any way, by a seeded die. Not a hang: a storm of them only lasts."""

    FAULTS = tuple(fault for fault in Fault if fault not in {Fault.HANG, Fault.SILENT, Fault.REFUSE})

    def __init__(self, seed: int, share: float) -> None:
        self._random, self._share = random.Random(seed), share
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Fault | None:
        with self._lock:
            if call.by_compose or self._random.random() >= self._share:
                return None
            return self._random.choice(self.FAULTS)


@dataclass
class Stand:
    """One project under one load, deployed again and again through the proxy before the engine."""

    shop: Shop
    load: Load
    proxy: EngineProxy
    version: int = 0
    outcomes: list[str] = field(default_factory=list)

    def deploy(
        self, what: str, decide: Callable[[Call], Fault | None], *, must_meet: bool = True, may_stay: bool = False
    ) -> Done:
        """The next version with these faults; then, when it failed, once more without: the promise holds after each.

        `may_stay`: so much goes wrong that what was begun may be left for the second run to take back.
        """
        self.version += 1
        old, new = VERSIONS[(self.version - 1) % 3], VERSIONS[self.version % 3]
        before = self.shop.snapshot()
        self.shop.tag(new)
        self.proxy.spoilt.clear()
        self.proxy.decide = decide
        done = self.shop.rollout("deploy", "web", code=None, timeout=2 * HANGING)
        self.proxy.decide = lambda _: None
        told = f"{what}: {done}\nspoilt: {[f'{c} {f.value}' for c, f in self.proxy.spoilt]}\n{self.shop.describe()}"
        assert self.proxy.spoilt or not must_meet, f"the fault met no call: {told}"
        hung = any(fault is Fault.HANG for _, fault in self.proxy.spoilt)
        assert done.seconds < (HANGING if hung else BOUND), told
        assert "Traceback" not in done.said, told
        if done.code in UNCHANGED:
            assert self.shop.snapshot().in_force() == before.in_force(), told
            assert self.shop.answers() == old, told
        else:
            assert done.code in {DEPLOYED, LEAVING}, told
            assert self.shop.answers() == new or (may_stay and done.code == LEAVING), told
        if done.code != DEPLOYED:
            assert "error:" in done.err, told
            self.shop.rollout("deploy", "web", timeout=2 * BOUND)
        assert self.shop.answers() == new, told
        self.shop.settled()
        failed = self.load.progress()["failed"]
        assert failed == 0, f"{told}\n{self.load.report().describe()}"
        self.outcomes.append(f"{what}: exit {done.code} after {done.seconds:.1f} s")
        return done


@contextmanager
def stand(edge: Edge, directory: Path) -> Iterator[Stand]:
    """At its end: what was asked and lost, and that nothing is left."""
    with running(edge, directory) as shop, shop.load(MIX) as load, EngineProxy(directory / "engine.sock") as proxy:
        shop.program = IMPATIENT
        shop.env["DOCKER_HOST"] = proxy.url
        load.wait_for(30)
        try:
            yield Stand(shop, load, proxy)
        finally:
            shop.env.clear()  # what is left is removed without the proxy, which ends first
        load.wait_for(load.progress()["total"] + 30)
        report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
        assert {line["in_flight"] for line in shop.term_lines()} <= {0}, shop.term_lines()
        print(f"{edge}: {report.total:,} requests, {report.failed} failed, {len(proxy.calls):,} calls of the engine")

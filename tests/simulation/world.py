"""A world of containers, a proxy and time, all virtual and repeatable, with the guarantees checked at every turn.

The fakes behind the ports (`fakes.py`) act on it. It knows what a real machine does that matters here: an address is
handed to the next container at once when it is freed; a switch leaves an old generation of workers that may still
send to the old addresses until it ends; a container takes time to boot.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rollout.model import Pool, Replica, ReplicaState, RevisionKey

NETWORK = "shop_default"
SERVICE = "web"


class Violated(AssertionError):
    """A guarantee of DESIGN 1 does not hold."""


class Crash(BaseException):
    """The controller is killed here. Nothing may catch it."""


@dataclass
class Image:
    """How containers of this image behave. Times in virtual seconds."""

    boot: float = 0.05
    healthy: bool = True
    exits_after: float | None = None  # since start; None: it stays


@dataclass
class Container:
    replica: Replica
    image: Image
    started: float = 0.0
    died: bool = False  # by itself, not by our doing

    @property
    def ip(self) -> str:
        return self.replica.addresses.get(NETWORK, "")


@dataclass
class Generation:
    """Old workers: they know these addresses until `ends`, and cannot be told otherwise."""

    addresses: frozenset[str]
    ends: float
    token: str


@dataclass
class World:
    seed: int = 0
    now: float = 1000.0
    containers: dict[str, Container] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    disk: dict[str, Pool] = field(default_factory=dict)
    loaded: dict[str, Pool] = field(default_factory=dict)
    generations: list[Generation] = field(default_factory=list)
    reject_pools: bool = False
    drains_forever: bool = False
    maintenance_allowed: bool = False
    deaths_expected: bool = False
    calls: int = 0
    crash_at: int | None = None
    serial: int = 0
    stops: list[str] = field(default_factory=list)
    on_add: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    # --- time and crashes

    def tick(self, where: str) -> None:
        """Called before and after every port call: a place to crash, and a place to look."""
        self.check()
        self.calls += 1
        if self.crash_at is not None and self.calls == self.crash_at:
            raise Crash(where)

    def advance(self, seconds: float) -> None:
        self.now += max(seconds, 0.0)
        self.settle()

    def settle(self) -> None:
        for container in self.containers.values():
            after = container.image.exits_after
            running = container.replica.state is ReplicaState.RUNNING
            if running and after is not None and self.now >= container.started + after:
                container.died = True
                self.halt(container, exit_code=1)
        self.generations = [g for g in self.generations if g.ends > self.now]

    # --- containers

    def add(self, key: RevisionKey, *, running: bool = False) -> Container:
        self.serial += 1
        replica_id = f"{self.serial:012x}".ljust(64, "0")
        number = max([c.replica.number for c in self.containers.values()], default=0) + 1
        replica = Replica(
            replica_id, f"shop-{SERVICE}-{number}", SERVICE, number, key, ReplicaState.CREATED, created_at=self.now
        )
        container = Container(replica, self.images[key.image_id])
        self.containers[replica_id] = container
        self.on_add()
        if running:
            self.run(container)
        return container

    def run(self, container: Container) -> None:
        taken = {c.ip for c in self.containers.values()}
        ip = next(f"10.0.0.{n}" for n in range(2, 250) if f"10.0.0.{n}" not in taken)
        container.started = self.now
        container.died = False
        container.replica = replace(
            container.replica, state=ReplicaState.RUNNING, addresses={NETWORK: ip}, started_at=self.now
        )
        self.settle()

    def halt(self, container: Container, exit_code: int = 0) -> None:
        container.replica = replace(container.replica, state=ReplicaState.EXITED, addresses={}, exit_code=exit_code)

    def ready(self, container: Container) -> bool:
        up = container.replica.state is ReplicaState.RUNNING
        return up and container.image.healthy and self.now >= container.started + container.image.boot

    def by_ip(self, ip: str) -> Container | None:
        return next((c for c in self.containers.values() if c.ip == ip), None)

    # --- the proxy

    def load(self, pool: Pool) -> str:
        """What the running proxy does when it is given a pool; answers the token of the generation it leaves behind."""
        before = self.loaded.get(pool.service)
        self.loaded[pool.service] = pool
        token = f"g{self.calls}-{len(self.generations)}"
        if before is not None and before.upstreams != pool.upstreams:
            lasts = 1e9 if self.drains_forever else self.rng.choice([0.0, 0.02, 0.5, 3.0])
            gone = frozenset(u.host for u in before.upstreams)
            if lasts:
                self.generations.append(Generation(gone, self.now + lasts, token))
        return token

    def may_send_to(self, ip: str) -> bool:
        routed = any(u.host == ip for pool in self.loaded.values() for u in pool.upstreams)
        return routed or any(ip in g.addresses for g in self.generations)

    # --- the guarantees

    def check(self) -> None:
        self.settle()
        for pool in self.loaded.values():
            if not pool.upstreams and not self.maintenance_allowed:
                raise Violated(f"the pool of {pool.service} is empty")
            for upstream in pool.upstreams:
                self._takes_traffic_rightly(upstream.host)

    def _takes_traffic_rightly(self, ip: str) -> None:
        container = self.by_ip(ip)
        if container is None:
            if self.deaths_expected and any(c.died for c in self.containers.values()):
                return
            raise Violated(f"{ip} takes traffic and no container has it (G1)")
        if not self.ready(container):
            raise Violated(f"{container.replica.name} takes traffic and is not ready (G1)")

    def check_stop(self, container: Container) -> None:
        """Called at the instant of a SIGTERM (G2) and of freeing an address (PROXIES 0.4)."""
        if container.ip and self.may_send_to(container.ip):
            raise Violated(f"{container.replica.name} is stopped while the proxy may still send to it (G2)")
        self.stops.append(container.replica.id)

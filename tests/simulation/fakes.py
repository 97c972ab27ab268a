"""The ports over the virtual world. Held to the same contract suite as the real ones (tests/contract)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rollout.errors import DeployFailed, EngineError, ImageNotFound, LockHeld, ProxyRejected, SpecError
from rollout.fanout import one_by_one
from rollout.journal import SqliteJournal
from rollout.model import (
    Counted,
    Finding,
    HealthCheck,
    InFlight,
    Pool,
    Replica,
    ReplicaState,
    RevisionKey,
    ServiceSettings,
    Switched,
    Upstream,
    Usage,
)
from rollout.ports import ExecResult
from rollout.steps.run import Ports
from tests.simulation.world import NETWORK, Generation, World


class FakeClock:
    def __init__(self, world: World) -> None:
        self.world = world

    def now(self) -> float:
        return self.world.now

    def wall(self) -> float:
        return self.world.now

    def sleep(self, seconds: float) -> None:
        self.world.advance(max(seconds, 0.001))


class FakeEngine:
    """`wanted` says which revision Compose would create from the user's files now."""

    def __init__(self, world: World, wanted: Callable[[str | None], RevisionKey]) -> None:
        self.world, self._wanted = world, wanted

    def replicas(self, service: str) -> list[Replica]:
        found = [c.replica for c in self.world.containers.values() if c.replica.service == service]
        return sorted(found, key=lambda r: r.number)

    def inspect(self, replica_id: str) -> Replica | None:
        self.world.settle()
        container = self.world.containers.get(replica_id)
        return container.replica if container is not None else None

    def create(self, service: str, count: int, config: str | None) -> list[str]:
        ids = []
        for _ in range(count):
            ids.append(self.world.add(self._wanted(config)).replica.id)
            self.world.tick("create: one made")
        return ids

    def start(self, replica_id: str) -> None:
        container = self.world.containers.get(replica_id)
        if container is None:
            raise EngineError(f"no container {replica_id[:12]}")
        if container.replica.state is not ReplicaState.RUNNING:
            self.world.advance(0.2)
            self.world.run(container)

    def stop(self, replica_id: str, timeout: float | None) -> None:
        container = self.world.containers.get(replica_id)
        if container is None or container.replica.state is not ReplicaState.RUNNING:
            return
        self.world.check_stop(container)
        self.world.halt(container)

    def remove(self, replica_id: str) -> None:
        container = self.world.containers.get(replica_id)
        if container is None:
            return
        if container.replica.state is ReplicaState.RUNNING:
            raise EngineError(f"container {replica_id[:12]} is running: stop it first")
        del self.world.containers[replica_id]

    def logs(self, replica_id: str, lines: int) -> list[str]:
        return ["the last words"][:lines] if replica_id in self.world.containers else []

    def exec(self, container: str, argv: Sequence[str], *, user: str = "", timeout: float = 30.0) -> ExecResult:
        found = self.world.containers.get(container)
        if found is None or not found.replica.running:
            raise EngineError(f"container {container[:12]} is not running")
        return ExecResult(0, "")

    def usage(self, replica_id: str) -> Usage | None:
        container = self.world.containers.get(replica_id)
        running = container is not None and container.replica.running
        return Usage(0.5, 10_000_000) if running else None


class FakeImages:
    def __init__(self, world: World) -> None:
        self.world = world

    def image_id(self, reference: str) -> str | None:
        return self.world.tags.get(reference, reference if reference in self.world.images else None)

    def pull(self, service: str, config: str | None) -> None:
        raise ImageNotFound(f"service {service}: no registry in this world")

    def build(self, service: str) -> None:
        raise DeployFailed(f"service {service}: nothing to build in this world")

    def tag(self, image_id: str, reference: str) -> None:
        self.world.tags[reference] = image_id

    def untag(self, reference: str) -> None:
        self.world.tags.pop(reference, None)

    def tags(self, prefix: str) -> list[str]:
        return sorted(t for t in self.world.tags if t.startswith(prefix))


class FakeProber:
    def __init__(self, world: World) -> None:
        self.world = world

    def probe(self, replica: Replica, address: str, check: HealthCheck, port: int) -> str | None:
        container = self.world.by_ip(address)
        if container is None:
            return "connection refused"
        return None if self.world.ready(container) else "HTTP 503"


class FakeProxy:
    def __init__(self, world: World) -> None:
        self.world = world

    def network(self, settings: ServiceSettings) -> str:
        if NETWORK not in settings.networks:
            raise SpecError([])
        return NETWORK

    def pool(self, service: str) -> Pool | None:
        return self.world.disk.get(service)

    def prepare(self, pool: Pool) -> None:
        if self.world.reject_pools:
            raise ProxyRejected("the config was refused")

    def switch(self, pool: Pool) -> Switched:
        previous = self.world.disk.get(pool.service, Pool(pool.service))
        self.prepare(pool)
        self.world.disk[pool.service] = pool
        self.world.tick("switch: written, not loaded")
        if self.world.loaded.get(pool.service) == pool:
            return Switched(previous, pool)
        token = self.world.load(pool)
        self.world.advance(0.1)
        return Switched(previous, pool, token, reloaded=True)

    def in_flight(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> InFlight:
        left = self._knowing(upstreams)
        return InFlight(drained=not left, connections=len(left), detail=f"{len(left)} old workers" if left else "")

    def cut(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> int:
        left = self._knowing(upstreams)
        self.world.generations = [g for g in self.world.generations if g not in left]
        return len(left)

    def forget(self, service: str, upstreams: Sequence[Upstream]) -> None:
        pass

    def mark(self, service: str) -> str:
        return str(self.world.now)

    def count(self, service: str, marker: str) -> Counted:
        return Counted(missing="no traffic in this world")

    def findings(self) -> list[Finding]:
        return []

    def _knowing(self, upstreams: Sequence[Upstream]) -> list[Generation]:
        hosts = {u.host for u in upstreams}
        return [g for g in self.world.generations if g.addresses & hosts]


class FakeLock:
    def __init__(self) -> None:
        self.holders: dict[str, str] = {}

    @contextmanager
    def hold(self, service: str, what: str, wait: float) -> Iterator[None]:
        if service in self.holders:
            raise LockHeld(f"service {service}: another rollout is under way: {self.holders[service]}")
        self.holders[service] = what
        try:
            yield
        finally:
            del self.holders[service]


class MemoryJournal(SqliteJournal):
    """The real journal, on a database in memory that outlives the controller."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(Path("memory"), clock)
        self._connection = self._prepared(sqlite3.connect(":memory:", check_same_thread=False))


class Watched:
    """A port whose every call is a place to crash and to look, before and after."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner, self._world = inner, world

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self._world.tick(f"before {name}")
            result = attribute(*args, **kwargs)
            self._world.tick(f"after {name}")
            return result

        return call


def ports(world: World, journal: MemoryJournal, wanted: Callable[[str | None], RevisionKey]) -> Ports:
    """A fresh controller over the world: what survives a crash is the world, the journal and nothing else."""
    watched: Mapping[str, Any] = {
        "engine": FakeEngine(world, wanted),
        "images": FakeImages(world),
        "proxy": FakeProxy(world),
        "prober": FakeProber(world),
        "journal": journal,
    }
    made = {name: Watched(port, world) for name, port in watched.items()}
    return Ports(lock=FakeLock(), clock=FakeClock(world), fan_out=one_by_one, **made)

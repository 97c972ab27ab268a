"""The ports over the virtual world. Held to the same contract suite as the real ones (tests/contract)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from rollout.errors import (
    ComposeError,
    DeployFailed,
    EngineError,
    ImageNotFound,
    LockHeld,
    ProxyRejected,
    ProxyUnreachable,
    RolloutError,
    SpecError,
    StateError,
)
from rollout.fanout import Call, FanOut, one_by_one
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
from rollout.ports import ExecResult, Output
from rollout.steps.run import Ports
from tests.simulation.world import NETWORK, Generation, Job, Program, World


class FakeClock:
    def __init__(self, world: World) -> None:
        self.world = world

    def now(self) -> float:
        return self.world.now

    def wall(self) -> float:
        return self.world.now + self.world.wall_ahead

    def sleep(self, seconds: float) -> None:
        self.world.advance(max(seconds, 0.001))


class FakeEngine:
    """`wanted` says which revision Compose would create from the user's files now."""

    def __init__(self, world: World, wanted: Callable[[str | None], RevisionKey]) -> None:
        self.world, self._wanted = world, wanted

    def replicas(self, service: str) -> list[Replica]:
        there = [c.replica for c in self.world.containers.values() if c.replica.service == service]
        found = [self.world.listed(r) for r in there]
        return sorted(found, key=lambda r: r.number)

    def all_replicas(self) -> dict[str, list[Replica]]:
        names = {c.replica.service for c in self.world.containers.values()}
        return {name: self.replicas(name) for name in sorted(names)}

    def watch(self, container: str = "") -> FakeWatch:
        return FakeWatch(self.world)

    def inspect(self, replica_id: str) -> Replica | None:
        self.world.settle()
        self.world.outdated.pop(replica_id, None)
        container = self.world.containers.get(replica_id) or self.world.jobs.get(replica_id)
        return container.replica if container is not None else None

    def create(self, service: str, count: int, config: str | None) -> list[str]:
        if config == "":
            raise ComposeError("no configuration file provided")
        ids = []
        if self.world.fixed_name and self.world.containers:
            raise ComposeError("its container_name allows one container")
        for _ in range(count):
            ids.append(self.world.add(self._wanted(config), service=service).replica.id)
            self.world.tick("create: one made")
        return ids

    def start(self, replica_id: str) -> None:
        container = self.world.containers.get(replica_id)
        if container is None:
            raise EngineError(f"no container {replica_id[:12]}")
        if container.replica.state is not ReplicaState.RUNNING:
            if not container.image.startable:
                raise DeployFailed(f"container {replica_id[:12]} cannot be started")
            self.world.advance(0.2)
            self.world.check_start(container)
            self.world.run(container)

    def stop(self, replica_id: str, timeout: float | None) -> None:
        job = self.world.jobs.get(replica_id)
        if job is not None and job.replica.running:
            job.replica = replace(job.replica, state=ReplicaState.EXITED, exit_code=143)
            self.world.changes += 1
            return
        container = self.world.containers.get(replica_id)
        if container is None or container.replica.state not in (ReplicaState.RUNNING, ReplicaState.PAUSED):
            return
        self.world.check_stop(container)
        self.world.halt(container)

    def remove(self, replica_id: str) -> None:
        if replica_id in self.world.jobs:
            if self.world.jobs[replica_id].replica.running:
                raise EngineError(f"container {replica_id[:12]} is running: stop it first")
            del self.world.jobs[replica_id]
            self.world.changes += 1
            return
        container = self.world.containers.get(replica_id)
        if container is None:
            return
        if container.replica.state in (ReplicaState.RUNNING, ReplicaState.PAUSED):
            raise EngineError(f"container {replica_id[:12]} is running: stop it first")
        del self.world.containers[replica_id]
        self.world.changes += 1

    def logs(self, replica_id: str, lines: int) -> list[str]:
        return ["the last words"][:lines] if replica_id in self.world.containers else []

    def exec(
        self,
        container: str,
        argv: Sequence[str],
        *,
        user: str = "",
        timeout: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> ExecResult:
        found = self.world.containers.get(container)
        if found is None or not found.replica.running:
            raise EngineError(f"container {container[:12]} is not running")
        if environment:
            self.world.ran.append((environment["ROLLOUT_HOOK"], container))
        return ExecResult(found.image.hook_exit, "the hook's last words")

    def start_job(self, service: str, argv: Sequence[str], config: str, environment: Mapping[str, str]) -> str:
        key = self._wanted(config)
        self.world.serial += 1
        job = f"{self.world.serial:012x}".ljust(64, "f")
        replica = Replica(job, f"{service}-run-{job[:12]}", service, 1, key, ReplicaState.CREATED)
        self.world.jobs[job] = Job(replica, 0.0)
        self.world.changes += 1
        self.world.tick("start_job: made")
        if not self.world.images[key.image_id].startable:
            raise DeployFailed("it could not be started")
        self.world.ran.append((environment.get("ROLLOUT_HOOK", ""), job))
        running = replace(replica, state=ReplicaState.RUNNING)
        self.world.jobs[job] = Job(running, self.world.now + self.world.images[key.image_id].job_seconds)
        self.world.changes += 1
        return job

    def jobs(self, service: str) -> list[str]:
        return [i for i, job in self.world.jobs.items() if job.replica.service == service]

    def output(self, container: str, after: str) -> Output:
        job = self.world.jobs.get(container)
        ended = job is not None and not job.replica.running
        lines = ([] if after else ["begun"]) + (["ended"] if ended and after != "all" else [])
        return Output(tuple(lines), "all" if ended else "some")

    def usage(self, replica_id: str) -> Usage | None:
        container = self.world.containers.get(replica_id)
        running = container is not None and container.replica.running
        return Usage(0.5, 10_000_000) if running else None


class FakeWatch:
    """What has changed since it was made, or since the last time it was iterated; it waits for nothing."""

    def __init__(self, world: World) -> None:
        self._world, self._closed = world, False
        self._seen = self._look()

    def __iter__(self) -> Iterator[str]:
        before, self._seen = self._seen, self._look()
        if not self._closed:
            yield from sorted({service for _, service, *_ in before ^ self._seen})

    def close(self) -> None:
        self._closed = True

    def _look(self) -> frozenset[tuple[str, str, str, str, float]]:
        found = (c.replica for c in self._world.containers.values())
        return frozenset((r.id, r.service, r.state, r.health, r.started_at) for r in found)


class FakeHost:
    """Programs say one word and end as the world knows."""

    def __init__(self, world: World) -> None:
        self.world = world

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        timeout: float,
        say: Callable[[str], None],
        given_up: Callable[[], bool],
    ) -> ExecResult:
        self.world.ran.append((environment["ROLLOUT_HOOK"], "host"))
        program, until = self.world.programs.get(argv[0], Program()), self.world.now + timeout
        if program.exit_code in (126, 127):
            return ExecResult(program.exit_code, "no such program")
        say("begun")
        ends = self.world.now + program.seconds
        while self.world.now < ends and not given_up():
            if self.world.now >= until:
                raise DeployFailed(f"it took longer than {timeout:g} s")
            self.world.advance(0.1)
        return ExecResult(program.exit_code, "begun")


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
        self.world.changes += 1

    def untag(self, reference: str) -> None:
        self.world.tags.pop(reference, None)
        self.world.changes += 1

    def tags(self, repository: str) -> list[str]:
        return sorted(t for t in self.world.tags if t.startswith(f"{repository}:"))


class FakeProber:
    def __init__(self, world: World) -> None:
        self.world = world

    def probe(self, replica: Replica, address: str, check: HealthCheck, port: int) -> str | None:
        container = self.world.by_ip(address)
        if address in self.world.foreign:
            return None  # a stranger may well answer 200
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

    def warm_up(self) -> None:
        """Nothing is cold here."""

    def prepare(self, pool: Pool) -> None:
        if self.world.reject_pools:
            raise ProxyRejected("the config was refused")

    def switch(self, pool: Pool) -> Switched:
        previous = self.world.disk.get(pool.service, Pool(pool.service))
        self.prepare(pool)
        if self.world.disk_full:
            raise StateError("the proxy's directory cannot be written: no space left on device")
        self.world.disk[pool.service] = pool
        self.world.changes += 1
        self.world.tick("switch: written, not loaded")
        if self.world.loaded.get(pool.service) == pool:
            return Switched(previous, pool)
        token = self.world.load(pool)
        self.world.advance(0.1)
        return Switched(previous, pool, token, reloaded=True)

    def switch_all(self, pools: Sequence[Pool]) -> list[Switched | RolloutError]:
        outcomes: list[Switched | RolloutError] = []
        for pool in pools:
            try:
                outcomes.append(self.switch(pool))
            except ProxyRejected as error:
                outcomes.append(error)
        return outcomes

    def identity(self) -> str:
        return "the one proxy"

    def fingerprints(self, services: Sequence[str]) -> dict[str, str]:
        return {s: f"settled {self.world.loaded.get(s) == self.world.disk.get(s)}" for s in services}

    def holds(self, pool: Pool) -> bool:
        return self.world.disk.get(pool.service) == self.world.loaded.get(pool.service) == pool

    def in_flight(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> InFlight:
        left = self._knowing(upstreams)
        return InFlight(drained=not left, connections=len(left), detail=f"{len(left)} old workers" if left else "")

    def cut(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> int:
        left = self._knowing(upstreams)
        self.world.generations = [g for g in self.world.generations if g not in left]
        self.world.changes += 1
        return len(left)

    def forget(self, service: str, upstreams: Sequence[Upstream]) -> None:
        pass

    def mark(self, service: str) -> str:
        return str(self.world.now)

    def count(self, service: str, marker: str) -> Counted:
        return Counted(missing="no traffic in this world")

    def count_and_mark(self, service: str, marker: str) -> tuple[Counted, str]:
        return self.count(service, marker), self.mark(service)

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

    @contextmanager
    def attempt(self, service: str, what: str) -> Iterator[bool]:
        if service in self.holders:
            yield False
            return
        with self.hold(service, what, 0):
            yield True


class MemoryJournal(SqliteJournal):
    """The real journal, on a database in memory that outlives the controller."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(Path("memory"), clock)
        self._connection = self._prepared(sqlite3.connect(":memory:", check_same_thread=False))
        self._world = clock.world

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        if self._world.disk_full:
            raise StateError("the journal cannot be written: database or disk is full")
        with super()._write() as db:
            yield db
        self._world.changes += 1


class Breakage:
    """The next call of a port that can fail does: before it has done anything, or with its answer lost."""

    ERRORS: ClassVar[Mapping[str, Callable[[str], RolloutError]]] = {
        "engine": lambda name: EngineError(f"{name}: the engine answered 500", transient=True),
        "images": lambda name: EngineError(f"{name}: the engine answered 500"),
        "proxy": lambda name: ProxyUnreachable(f"{name}: the proxy does not answer"),
        "journal": lambda name: StateError(f"{name}: disk I/O error"),
    }
    NEVER_RAISE = frozenset({"count", "pool", "findings"})
    WHOLE_OR_NOTHING = frozenset({"switch", "cut"})  # "ProxyUnreachable when nothing was changed"

    def __init__(self) -> None:
        self.armed = ""  # before | after

    def strike(self, port: str, name: str, when: str) -> None:
        if self.armed != when or port not in self.ERRORS or name in self.NEVER_RAISE:
            return
        if when == "after" and name in self.WHOLE_OR_NOTHING:
            return
        self.armed = ""
        raise self.ERRORS[port](name)


class Watched:
    """A port whose every call is a place to crash, to fail and to look, before and after."""

    def __init__(self, inner: Any, world: World, port: str, breakage: Breakage) -> None:
        self._inner, self._world, self._port, self._breakage = inner, world, port, breakage

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self._world.tick(f"before {name}")
            self._breakage.strike(self._port, name, "before")
            result = attribute(*args, **kwargs)
            self._breakage.strike(self._port, name, "after")
            self._world.tick(f"after {name}")
            return result

        return call


def in_any_order(world: World) -> FanOut:
    """As threads: all are begun, whatever fails, in an order of the world's choice."""

    def fan_out(calls: Sequence[Call]) -> list[Any]:
        order = list(range(len(calls)))
        world.rng.shuffle(order)
        results: list[Any] = [None] * len(calls)
        errors = []
        for index in order:
            try:
                results[index] = calls[index]()
            except RolloutError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return results

    return fan_out


def ports(
    world: World,
    journal: MemoryJournal,
    wanted: Callable[[str | None], RevisionKey],
    breakage: Breakage | None = None,
    fan_out: FanOut = one_by_one,
    lock: FakeLock | None = None,
) -> Ports:
    """A fresh controller over the world: what survives a crash is the world, the journal and nothing else."""
    watched: Mapping[str, Any] = {
        "engine": FakeEngine(world, wanted),
        "images": FakeImages(world),
        "proxy": FakeProxy(world),
        "prober": FakeProber(world),
        "host": FakeHost(world),
        "journal": journal,
    }
    broken = breakage or Breakage()
    made = {name: Watched(port, world, name, broken) for name, port in watched.items()}
    return Ports(
        lock=lock or FakeLock(),
        clock=FakeClock(world),
        fan_out=fan_out,
        with_image=lambda config, service, image: f"{config}, image {image}",
        **made,
    )

"""A world of containers, a proxy and time, all virtual and repeatable, with the guarantees checked at every turn.

The fakes behind the ports (`fakes.py`) act on it. It knows what a real machine does that matters here: an address is
handed to the next container at once when it is freed, be it of this project or not; a switch leaves an old generation
of workers that may still send to the old addresses until it ends; a reload loads all of the configuration on disk;
a container takes time to boot.

What somebody else does (`others.py`) is excused: nobody can keep a request from a replica that has just died. The
excuse ends when the next run changes the pool, which must then be right.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rollout.model import Health, Pool, Replica, ReplicaState, RevisionKey, Upstream

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
    startable: bool = True
    healthcheck: bool = False  # Docker's verdict is there as well
    job_seconds: float = 1.0  # how long a hook's job runs
    job_exit: int = 0
    hook_exit: int = 0  # of a command run in a replica


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
class Program:
    """How a program of the host ends."""

    exit_code: int = 0
    seconds: float = 1.0


@dataclass
class Job:
    """A one-off container. `replica` is only its state; it is never one."""

    replica: Replica
    ends: float


@dataclass
class Generation:
    """Old workers: they know these upstreams until `ends`, and cannot be told otherwise."""

    upstreams: frozenset[Upstream]
    ends: float
    token: str

    @property
    def addresses(self) -> frozenset[str]:
        return frozenset(u.host for u in self.upstreams)


@dataclass
class World:
    seed: int = 0
    now: float = 1000.0
    wall_ahead: float = 0.0  # of the monotonic clock
    containers: dict[str, Container] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)  # of the host; others are good and quick
    outdated: dict[str, tuple[Replica, float]] = field(default_factory=dict)  # what lists say until then, or an inspect
    jobs: dict[str, Job] = field(default_factory=dict)
    ran: list[tuple[str, str]] = field(default_factory=list)  # hook, and the container or `host` it ran in
    foreign: set[str] = field(default_factory=set)  # addresses of other projects' containers
    images: dict[str, Image] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    disk: dict[str, Pool] = field(default_factory=dict)
    loaded: dict[str, Pool] = field(default_factory=dict)
    generations: list[Generation] = field(default_factory=list)
    reload_loads_all: bool = True  # nginx; HAProxy changes one backend
    reject_pools: bool = False
    disk_full: bool = False
    drains_forever: bool = False
    maintenance_allowed: bool = False
    never_both: bool = False  # of two revisions: a single writer, a published port
    fixed_name: bool = False  # there can be one container
    deaths_expected: bool = False
    calls: int = 0
    changes: int = 0  # of what a controller could find after a crash: containers, proxy, journal, tags
    crash_at: int | None = None
    serial: int = 0
    stops: list[str] = field(default_factory=list)
    on_add: Callable[[], None] = lambda: None
    may_be_empty: Callable[[str], bool] = lambda service: False  # its pool
    may_be_ill: Callable[[Container], bool] = lambda container: False  # though it takes traffic
    emptied: set[str] = field(default_factory=set)  # services whose pool was rightly emptied
    on_tick: Callable[[], None] = lambda: None  # what else happens during a run, by `calls`
    excused: dict[tuple[str, str], int] = field(default_factory=dict)  # (upstream, address) -> when, by `happened`
    happened: int = 0  # what others have done, counted
    run_began: int = 0  # `happened` at the beginning of the run

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._checked = (-1, 0.0)

    # --- time and crashes

    def tick(self, where: str) -> None:
        """Called before and after every port call: a place to crash, and a place to look."""
        if self._checked != (self.changes, self.now):
            self.check()
        self.calls += 1
        if self.crash_at is not None and self.calls == self.crash_at:
            raise Crash(where)
        self.on_tick()

    def advance(self, seconds: float) -> None:
        self.now += max(seconds, 0.0)
        self.settle()

    def settle(self) -> None:
        for job in self.jobs.values():
            if job.replica.running and self.now >= job.ends:
                code = self.images[job.replica.key.image_id].job_exit
                job.replica = replace(job.replica, state=ReplicaState.EXITED, exit_code=code)
                self.changes += 1
        for container in self.containers.values():
            after = container.image.exits_after
            running = container.replica.state is ReplicaState.RUNNING
            if running and after is not None and self.now >= container.started + after:
                self.die(container)
            elif running and container.image.healthcheck:
                container.replica = replace(container.replica, health=self._verdict(container))
        if any(g.ends <= self.now for g in self.generations):
            self.changes += 1
            self.generations = [g for g in self.generations if g.ends > self.now]

    # --- containers

    def add(self, key: RevisionKey, *, running: bool = False, service: str = SERVICE) -> Container:
        self.serial += 1
        replica_id = f"{self.serial:012x}".ljust(64, "0")
        same = [c.replica.number for c in self.containers.values() if c.replica.service == service]
        number = max(same, default=0) + 1
        replica = Replica(
            replica_id, f"shop-{service}-{number}", service, number, key, ReplicaState.CREATED,
            image=key.image_id, created_at=self.now,
        )  # fmt: skip
        container = Container(replica, replace(self.images[key.image_id]))
        self.containers[replica_id] = container
        self.changes += 1
        self.on_add()
        if running:
            self.run(container)
        return container

    def run(self, container: Container) -> None:
        container.started = self.now
        container.died = False
        self.changes += 1
        container.replica = replace(
            container.replica,
            state=ReplicaState.RUNNING,
            addresses={NETWORK: self.free_address()},
            started_at=self.now,
            health=Health.NONE,
        )
        self.settle()

    def free_address(self) -> str:
        """The lowest: one that was just freed is handed on at once."""
        taken = {c.ip for c in self.containers.values()} | self.foreign
        return next(f"10.0.0.{n}" for n in range(2, 250) if f"10.0.0.{n}" not in taken)

    def halt(self, container: Container, exit_code: int = 0) -> None:
        container.replica = replace(container.replica, state=ReplicaState.EXITED, addresses={}, exit_code=exit_code)
        self.changes += 1

    def die(self, container: Container) -> None:
        """By itself, or by another's hand: not rollout's doing."""
        if self.deaths_expected:
            self.excuse(container)
        container.died = True
        self.halt(container, exit_code=1)

    def excuse(self, container: Container) -> None:
        self.happened += 1
        self.changes += 1
        self.excused[(name_of(container), container.ip)] = self.happened

    def ready(self, container: Container) -> bool:
        up = container.replica.state is ReplicaState.RUNNING
        return up and container.image.healthy and self.now >= container.started + container.image.boot

    def _verdict(self, container: Container) -> Health:
        if not container.image.healthy:
            return Health.UNHEALTHY
        return Health.HEALTHY if self.ready(container) else Health.STARTING

    def by_ip(self, ip: str) -> Container | None:
        return next((c for c in self.containers.values() if c.ip == ip), None)

    def outdate(self, replica: Replica, seconds: float = math.inf) -> None:
        """For so long lists go on saying this of a container that has changed: the engine tells of a death before it
        brings its list up to date; an inspection waits for that."""
        self.outdated[replica.id] = (replica, self.now + seconds)

    def listed(self, replica: Replica) -> Replica:
        before, until = self.outdated.get(replica.id, (replica, 0.0))
        return before if self.now < until else replica

    # --- the proxy

    def load(self, pool: Pool) -> str:
        """What the running proxy does when it is told to take a pool from disk; answers the token of the generation it
        leaves behind."""
        before = self.loaded
        self.changes += 1
        self.loaded = dict(self.disk) if self.reload_loads_all else {**before, pool.service: pool}
        token = f"g{self.calls}-{len(self.generations)}"
        known = {u for p in before.values() for u in p.upstreams}
        gone = known if self.reload_loads_all else known - {u for p in self.loaded.values() for u in p.upstreams}
        if gone and before != self.loaded:
            lasts = 1e9 if self.drains_forever else self.rng.choice([0.0, 0.02, 0.5, 3.0])
            if lasts:
                self.generations.append(Generation(frozenset(gone), self.now + lasts, token))
        self._end_excuses(pool, known)
        self.emptied = {s for s, p in self.loaded.items() if not p.upstreams and self._rightly_empty(s)}
        return token

    def _rightly_empty(self, service: str) -> bool:
        return service in self.emptied or self.may_be_empty(service)

    def _end_excuses(self, pool: Pool, known: set[Upstream]) -> None:
        """The controller has looked and chosen: what was so before it began is its own affair from here on, unless the
        engine's list still says otherwise. A replica that stays at its address may be ill: one failed probe must not
        take a replica out under load."""
        for upstream in pool.upstreams:
            holder, pair = self.by_ip(upstream.host), (upstream.name, upstream.host)
            if upstream in known and self._still_listed(upstream):
                continue
            stays = upstream in known and holder is not None and name_of(holder) == upstream.name
            if not stays and self.excused.get(pair, self.run_began + 1) <= self.run_began:
                del self.excused[pair]
            ill = holder is not None and name_of(holder) == upstream.name and not self.ready(holder)
            if ill and holder is not None and pair not in self.excused and self.may_be_ill(holder):
                self.excused[pair] = self.happened

    def _still_listed(self, upstream: Upstream) -> bool:
        found = [c for c in self.containers.values() if name_of(c) == upstream.name]
        return any(self.listed(c.replica) is not c.replica for c in found)

    def may_send_to(self, ip: str) -> bool:
        routed = any(u.host == ip for pool in self.loaded.values() for u in pool.upstreams)
        return routed or any(ip in g.addresses for g in self.generations)

    # --- the guarantees

    def check(self) -> None:
        self.settle()
        self._checked = (self.changes, self.now)
        for pool in self.loaded.values():
            if not pool.upstreams and not self.maintenance_allowed and pool.service not in self.emptied:
                raise Violated(f"the pool of {pool.service} is empty")
            for upstream in pool.upstreams:
                self._takes_traffic_rightly(upstream)
        for generation in self.generations:
            for upstream in generation.upstreams:
                self._is_not_another(upstream)

    def _takes_traffic_rightly(self, upstream: Upstream) -> None:
        self._is_not_another(upstream)
        if (upstream.name, upstream.host) in self.excused:
            return
        container = self.by_ip(upstream.host)
        if container is None:
            raise Violated(f"{upstream.host} takes traffic and no container has it (G1)")
        if not self.ready(container):
            raise Violated(f"{container.replica.name} takes traffic and is not ready (G1)")

    def _is_not_another(self, upstream: Upstream) -> None:
        """An address that was handed on while the proxy still knows it brings requests to a stranger."""
        holder = self.by_ip(upstream.host)
        stranger = upstream.host in self.foreign or (holder is not None and name_of(holder) != upstream.name)
        if stranger and (upstream.name, upstream.host) not in self.excused:
            who = holder.replica.name if holder is not None else "another project's container"
            raise Violated(f"{who} has {upstream.host} and gets requests for {upstream.name} (G2)")

    def check_start(self, container: Container) -> None:
        """Called at the instant of a start by rollout."""
        others = [c for c in self.containers.values() if c.replica.running and c.replica.key != container.replica.key]
        if self.never_both and others:
            raise Violated(f"{container.replica.name} is started beside {others[0].replica.name}, of another revision")

    def check_stop(self, container: Container) -> None:
        """Called at the instant of a SIGTERM (G2) and of freeing an address (PROXIES 0.4)."""
        pools = [frozenset(pool.upstreams) for pool in self.loaded.values()]
        known = {u for some in (*pools, *(g.upstreams for g in self.generations)) for u in some}
        mine = name_of(container)
        for upstream in known:
            stale = upstream.name != mine and (upstream.name, upstream.host) in self.excused
            if upstream.host == container.ip and not stale:
                raise Violated(f"{container.replica.name} is stopped while the proxy may still send to it (G2)")
        self.stops.append(container.replica.id)


def name_of(container: Container) -> str:
    """Of its upstream; what the pool calls it."""
    return f"{container.replica.service}-{container.replica.short_id}"

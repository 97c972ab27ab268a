"""One service in the virtual world, and the controller as a thing that can be run, killed and run again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from rollout.control import Wish, ask
from rollout.controller import sync_once
from rollout.deploy import Request, deploy
from rollout.errors import RolloutError, UsageError
from rollout.events import Event, Held
from rollout.model import HealthCheck, Pool, ReplicaState, RevisionKey, ServiceSettings, Upstream
from rollout.receipt import Receipt
from rollout.steps.run import upstream_name
from tests.simulation.fakes import Breakage, FakeClock, MemoryJournal, ports
from tests.simulation.world import NETWORK, SERVICE, Crash, Image, World

V1, V2, V3 = (RevisionKey(f"hash-{n}", f"sha256:image-{n}") for n in (1, 2, 3))


@dataclass
class Scenario:
    settings: ServiceSettings
    seed: int = 0
    running: int = -1  # replicas of V1 at the start; -1: as many as the settings ask for
    events: list[Event] = field(default_factory=list)
    breakage: Breakage = field(default_factory=Breakage)
    promotes: bool = True  # somebody promotes as soon as a rollout is held

    def __post_init__(self) -> None:
        self.world = World(seed=self.seed)
        self.world.images = {key.image_id: Image() for key in (V1, V2, V3)}
        self.world.maintenance_allowed = self.world.never_both = self.settings.strategy == "recreate"
        self.world.fixed_name = self.settings.remove_first
        self.clock = FakeClock(self.world)
        self.journal = MemoryJournal(self.clock)
        self.interrupted = False
        count = self.settings.replicas if self.running < 0 else self.running
        containers = [self.world.add(V1, running=True) for _ in range(count)]
        self.world.advance(1.0)
        ups = tuple(Upstream(upstream_name(c.replica), c.ip, self.settings.port) for c in containers)
        if ups:
            pool = Pool(SERVICE, ups, self.settings.pool)
            self.world.disk[SERVICE] = pool
            self.world.loaded[SERVICE] = pool

    def deploy(
        self, key: RevisionKey, *, crash_at: int | None = None, force: bool = False, what: str = "deploy"
    ) -> Receipt | None:
        """A fresh controller deploys `key`. `crash_at`: killed at that port call of this run (Crash is raised)."""
        self.world.calls = 0
        self.world.crash_at = crash_at
        request = Request("shop", key, key.image_id, f"config of {key.config_hash}", what, force=force)
        fresh = ports(self.world, self.journal, lambda config: _key_of(config, key), self.breakage)
        try:
            return deploy(fresh, self.settings, request, self._hear, lambda: self.interrupted)
        finally:
            self.world.crash_at = None

    def sync(self) -> None:
        """A fresh controller does what the sidecar does by itself."""
        fresh = ports(self.world, self.journal, lambda config: _key_of(config, V2))
        sync_once(fresh, self.settings, self._hear)

    def ask(self, wish: Wish) -> None:
        """As another process does."""
        ask(self.journal, SERVICE, wish, "cli:anna")

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Held) and self.promotes:
            with suppress(UsageError):  # somebody has aborted it meanwhile
                self.ask(Wish.PROMOTE)

    def survive(self, key: RevisionKey, crash_at: int) -> bool:
        """Whether the deploy got through; False when it was killed at that call."""
        try:
            self.deploy(key, crash_at=crash_at)
        except Crash:
            return False
        return True

    def survive_anything(self, key: RevisionKey, crash_at: int) -> bool:
        """As `survive`, for a deploy that may also fail by itself."""
        try:
            return self.survive(key, crash_at)
        except RolloutError:
            return True

    def assert_settled(self, key: RevisionKey, warm: int = 0) -> None:
        """Exactly the declared replicas of one revision, all routed, nothing left over."""
        world = self.world
        world.check()
        assert world.jobs == {}, "a hook's job was left behind"
        containers = list(world.containers.values())
        serving = [c for c in containers if c.replica.key == key and c.replica.state is ReplicaState.RUNNING]
        routed = {u.host for u in world.loaded[SERVICE].upstreams}
        live = [c for c in serving if c.ip in routed]
        assert len(live) == self.settings.replicas, self.picture()
        assert len(containers) == self.settings.replicas + warm, self.picture()
        assert world.disk == world.loaded, self.picture()
        assert self.journal.unfinished(SERVICE) is None

    def picture(self) -> str:
        lines = [
            f"{c.replica.name} {c.replica.key.config_hash} {c.replica.state} {c.ip}"
            for c in self.world.containers.values()
        ]
        pool = self.world.loaded.get(SERVICE)
        return "\n".join([*lines, f"pool: {[u.host for u in pool.upstreams] if pool else None}"])

    def fingerprint(self) -> object:
        """Containers, pool and tags: what must not change when a deploy fails (G3)."""
        containers = {i: (c.replica.state, c.replica.key, c.ip) for i, c in self.world.containers.items()}
        assert self.world.jobs == {}, "a hook's job was left behind"
        return containers, dict(self.world.disk), dict(self.world.loaded), dict(self.world.tags)


def settings(**changes: object) -> ServiceSettings:
    values: dict[str, object] = {
        "name": SERVICE,
        "port": 8000,
        "replicas": 2,
        "health": HealthCheck(path="/healthz", healthy_deadline=5.0),
        "networks": (NETWORK,),
    }
    return ServiceSettings(**{**values, **changes})  # type: ignore[arg-type]  # test data by name


def _key_of(config: str | None, current: RevisionKey) -> RevisionKey:
    """Which revision Compose creates: from the files the current one, from a stored config that one."""
    if config is None:
        return current
    return next(k for k in (V1, V2, V3) if config == f"config of {k.config_hash}")

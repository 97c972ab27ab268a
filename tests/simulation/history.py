"""Two services in one project behind one proxy, and all that can happen to them, in any order (`test_histories.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from rollout.control import Wish, ask
from rollout.controller import RECOVERY, Candidate, Controller, Pass, sync_once
from rollout.deploy import Request, deploy
from rollout.errors import ExitCode, RolloutError, UsageError
from rollout.events import Event, Held, StepProgress
from rollout.model import Health, Pool, ReplicaState, RevisionKey, ServiceSettings, Strategy, Upstream
from rollout.ports import RolloutRecord
from rollout.receipt import Receipt
from rollout.steps.readiness import why_unready
from rollout.steps.run import Ports
from tests.simulation import verdict
from tests.simulation.fakes import Breakage, FakeClock, FakeLock, MemoryJournal, in_any_order, ports
from tests.simulation.others import Others, picture
from tests.simulation.scenario import V1, V2, V3, settings
from tests.simulation.world import Container, Crash, Image, World, name_of

VERSIONS = (V1, V2, V3)
SERVICES = ("web", "api")
LAGS = frozenset({"stop", "pause", "die, and a stranger comes"})  # the engine's list may say so later
LAG = 0.1  # seconds; measured with engine 20.10: 0.06


@dataclass(frozen=True)
class Happening:
    """Something that happens at a port call of a run. `pick` says to which container, or how much."""

    at: int
    what: str
    pick: int


@dataclass
class File:
    """What the Compose file says of a service."""

    key: RevisionKey
    settings: ServiceSettings


class History:
    """The world, and one way to do each thing. Counts what was done, for the report."""

    done: ClassVar[Counter[str]] = Counter()

    def __init__(self, *, reload_loads_all: bool, healthchecks: bool, seed: int) -> None:
        self.world = World(seed=seed, reload_loads_all=reload_loads_all, deaths_expected=True)
        self.world.images = {key.image_id: Image(healthcheck=healthchecks) for key in VERSIONS}
        self.world.on_tick = self._happen
        self.world.may_be_empty, self.world.may_be_ill = self._nothing_to_go_back_to, self._is_gone_back_to
        self.others = Others(self.world)
        self.clock = FakeClock(self.world)
        self.journal = MemoryJournal(self.clock)
        self.files = {name: File(V1, settings(name=name)) for name in SERVICES}
        self.breakage = Breakage()
        self.lock = FakeLock()  # of all controllers; a crash frees it, as the end of a process does
        self.pending: list[Happening] = []
        self.interrupted = False
        self.events: list[Event] = []
        self.meddled = 0  # what others have done, counted
        self.settles = True  # the sidecar can do what takes its time as well; else its project does not load, say
        self._nested = False
        self._busy = SERVICES[0]  # the service that `run` is at
        for name in SERVICES:
            self._first(name)

    def _first(self, name: str) -> None:
        """As plain `docker compose up` and a first `rollout render` leave it."""
        containers = [self.world.add(V1, running=True, service=name) for _ in range(2)]
        self.world.advance(1.0)
        pool = Pool(name, tuple(Upstream(name_of(c), c.ip, 8000) for c in containers), self.files[name].settings.pool)
        self.world.disk[name] = self.world.loaded[name] = pool

    # --- the controller

    def run(self, service: str, key: RevisionKey, what: str, happenings: list[Happening], *, force: bool) -> str:
        """One run of the program with all that happens meanwhile. The outcome: `deployed`, `nothing`, `crashed` or
        the error's name. Whatever else it raises is a defect."""
        world = self.world
        self.pending = sorted(happenings, key=lambda h: h.at)
        world.calls, world.run_began, self.interrupted, self._busy = 0, world.happened, False, service
        before, code = self._seen(service), ExitCode.OK
        try:
            receipt = self._deploy(service, key, what, force=force)
            outcome = "nothing" if receipt is None else receipt.outcome
        except Crash:
            outcome = "crashed"
        except RolloutError as error:
            outcome, code = type(error).__name__, error.exit_code
        finally:
            recorded = not world.disk_full  # else its end is not in the journal, which it has said
            self.pending, self.breakage.armed, world.disk_full = [], "", False
            self.done["port calls"] += world.calls
        self.done["runs"] += 1
        self.done[f"runs that ended: {outcome}"] += 1
        if outcome != "crashed" and recorded:
            self._judge(service, key, code, before, deployed=outcome == "deployed")
        return outcome

    def _seen(self, service: str) -> verdict.Seen:
        return verdict.look(self.world, self.journal, service, self.meddled)

    def _judge(self, service: str, key: RevisionKey, code: ExitCode, before: verdict.Seen, *, deployed: bool) -> None:
        settings, after, said = self.files[service].settings, self._seen(service), self.picture
        left = self.journal.unfinished(service)
        paused = left is not None and self._is_paused(left.id)
        judged = verdict.judge(
            code, key, settings.update, settings.replicas, before, after,
            deployed=deployed, interrupted=self.interrupted, paused=paused, tell=said,
        )  # fmt: skip
        self.done[f"exit codes judged: {int(code)}"] += judged

    def _deploy(self, service: str, key: RevisionKey, what: str, *, force: bool) -> Receipt | None:
        file = self.files[service]
        if file.settings.strategy is Strategy.RECREATE:
            self.world.maintenance_allowed = True
        request = Request(
            "shop", key, key.image_id, f"config of {key.config_hash}", what, from_files=what == "deploy", force=force
        )
        fresh = self._controller(key)
        return deploy(fresh, file.settings, request, self._hear, lambda: self.interrupted)

    def _controller(self, key: RevisionKey) -> Ports:
        """A new one, as a process that has just started; `key` is what the Compose file names."""
        order = in_any_order(self.world)
        return ports(self.world, self.journal, lambda config: _key_of(config, key), self.breakage, order, self.lock)

    # --- the sidecar

    def follow(
        self,
        passes: int,
        happenings: list[Happening],
        *,
        sees_events: bool,
        between: Callable[[], None] = lambda: None,
        resyncs: Iterable[int] = (),
        hear: Callable[[Pass], None] = lambda done: None,
    ) -> str:
        """A sidecar is started, looks at everything a few times and is stopped; as `server.membership` does it, with
        its probes and its settling at once. `sees_events`: the engine's hints reach it, but in these `resyncs` (from 0)
        it looks at everything unasked. `between` two looks something may happen; `hear` is told what each has left."""
        world = self.world
        self.pending = sorted(happenings, key=lambda h: h.at)
        world.calls, world.run_began, self.interrupted = 0, world.happened, False
        outcome = "followed"
        try:
            self._follow(passes, between, resyncs, hear, sees_events=sees_events)
        except Crash:
            outcome = "crashed"
        except RolloutError as error:
            outcome = type(error).__name__
        finally:
            self.pending, self.breakage.armed, world.disk_full = [], "", False
            self.done["port calls"] += world.calls
        self.done[f"sidecars that ended: {outcome}"] += 1
        return outcome

    def _follow(
        self,
        passes: int,
        between: Callable[[], None],
        resyncs: Iterable[int],
        hear: Callable[[Pass], None],
        *,
        sees_events: bool,
    ) -> None:
        own = self._controller(V1)

        def proven(candidate: Candidate) -> bool:
            look = (own.prober, candidate.settings, candidate.network, candidate.replica)
            return why_unready(*look) is None

        services = {name: file.settings for name, file in self.files.items()}
        controller, watch = Controller(own, self.events.append, proven), own.engine.watch()
        hinted: set[str] | None = set(services)
        for number in range(passes):
            if number:
                between()
                hinted = set(watch) if sees_events and number not in resyncs else None
            self.world.run_began = self.world.happened
            done = controller.one_pass(services, hinted, stuck=() if self.settles else SERVICES)
            self.done["passes"] += 1
            hear(done)
            for service in sorted(done.unsettled if self.settles else ()):
                sync_once(own, services[service], self.events.append, what=RECOVERY)
            self.world.advance(0.5)

    def _nothing_to_go_back_to(self, service: str) -> bool:
        """What is taken back takes the traffic with it when none of what had it before is able to serve."""
        record = self.journal.unfinished(service)
        return record is not None and not any(self.world.ready(c) for c in self._before(record))

    def _is_gone_back_to(self, container: Container) -> bool:
        """What was ill before a rollout may be so again after its undo, if nothing better is left."""
        record = self.journal.unfinished(container.replica.service)
        before = self._before(record) if record is not None else []
        return container in before and not any(self.world.ready(c) for c in before)

    def _before(self, record: RolloutRecord) -> list[Container]:
        """What is left of the replicas that had the traffic when the rollout began."""
        names = record.previous.names if record.previous is not None else ()
        return [c for c in self.others.of(record.service) if c.replica.id in record.old and name_of(c) in names]

    # --- what happens during a run

    def _happen(self) -> None:
        while not self._nested and self.pending and self.pending[0].at <= self.world.calls:
            happening = self.pending.pop(0)
            self.done[f"during a run: {happening.what}"] += 1
            self._act(happening)

    def _act(self, happening: Happening) -> None:
        what, pick = happening.what, happening.pick
        simple: dict[str, Callable[[], object]] = {
            "interrupt": self._interrupt,
            "disk full": lambda: self._disk(full=True),
            "disk free": lambda: self._disk(full=False),
            "the config is refused": lambda: self._refuse(True),
            "the config is taken": lambda: self._refuse(False),
            "error": lambda: self._break("before"),
            "answer lost": lambda: self._break("after"),
            "a stranger": self.others.stranger,
            "abort": lambda: self._ask(Wish.ABORT),
            "pause": self._pause,
            "resume": lambda: self._ask(Wish.RESUME),
            "the other service": lambda: self._meanwhile(pick),
        }
        if what == "crash":
            raise Crash(f"at call {self.world.calls}")
        if what in simple:
            simple[what]()
        else:
            self.other(what, SERVICES[pick % 2], pick // 2)

    def _ask(self, wish: Wish, service: str = "") -> bool:
        """From another process, whose disk is not full."""
        full, self.world.disk_full = self.world.disk_full, False
        try:
            ask(self.journal, service or self._busy, wish, "cli:anna")
        except UsageError:
            return False
        finally:
            self.world.disk_full = full
        return True

    def _pause(self) -> None:
        if self._ask(Wish.PAUSE):
            self.pending.append(Happening(self.world.calls + 25, "resume", 0))
            self.pending.sort(key=lambda h: h.at)

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Held):
            self._ask(Wish.PROMOTE, event.service)

    def _interrupt(self) -> None:
        self.interrupted = True

    def _disk(self, *, full: bool) -> None:
        self.world.disk_full = full

    def _refuse(self, refused: bool) -> None:
        self.world.reject_pools = refused

    def _break(self, when: str) -> None:
        self.breakage.armed = when

    def _meanwhile(self, pick: int) -> None:
        """Another controller deploys the other service, from its beginning to its end, between two calls of this."""
        other = SERVICES[1 - SERVICES.index(self._busy)]
        self._nested, armed, self.breakage.armed = True, self.breakage.armed, ""
        try:
            self._deploy(other, VERSIONS[pick % 3], "deploy", force=False)
        except RolloutError:
            self.done["runs in another run that failed"] += 1
        finally:
            self._nested, self.breakage.armed = False, armed

    # --- what others do

    def other(self, what: str, service: str, pick: int) -> None:
        found = self.others.of(service)
        one = found[pick % len(found)] if found else None
        file, others = self.files[service], self.others
        self.meddled += 1
        if what == "compose up":
            others.up(service, file.key, file.settings.replicas)
        elif what == "scale":
            others.scale(service, file.key, 1 + pick % 3)
        elif what == "clock jump":
            self.world.wall_ahead += (pick - 4) * 100.0
        elif one is not None:
            self._to_one(what, one)

    def _to_one(self, what: str, one: Container) -> None:
        others = self.others
        actions: dict[str, Callable[[], None]] = {
            "stop": lambda: others.stop(one),
            "start": lambda: others.start(one),
            "die and return": lambda: others.restart(one, elsewhere=False),
            "return elsewhere": lambda: others.restart(one, elsewhere=True),
            "die, and a stranger comes": lambda: others.lose_address(one),
            "pause": lambda: others.pause(one),
            "sicken": lambda: others.sicken(one),
            "vanish": lambda: others.remove(one),
        }
        before = one.replica
        actions[what]()
        if what in LAGS and one.replica is not before and self.world.rng.random() < 0.5:
            self.done["the list comes later"] += 1
            self.world.outdate(before, LAG)

    def lose_journal(self) -> None:
        self.journal = MemoryJournal(self.clock)

    # --- the end

    def calm_follow(self) -> None:
        """Nothing is wrong any more and nobody interferes: two passes, and every pool is its ready replicas."""
        self.others.heal()
        self.world.advance(10.0)
        outcome = self.follow(2, [], sees_events=True)
        assert outcome == "followed", f"{outcome}\n{self.picture()}"
        self.world.check()
        for service in SERVICES:
            record = self.journal.unfinished(service)
            assert record is None or record.state == "paused" or self._is_paused(record.id), self.picture()
            routed = {u.name for u in self.world.loaded[service].upstreams}
            ready = {name_of(c) for c in self._ready_of(service)}
            if ready:
                assert routed == ready, self.picture()
                assert self.world.disk[service] == self.world.loaded[service], self.picture()

    def _is_paused(self, rollout: int) -> bool:
        """A person has asked for it before its process died, and nobody has asked for anything since."""
        asked = [wish.wish for wish in self.journal.wishes(rollout)]
        return bool(asked) and asked[-1] == Wish.PAUSE

    def _ready_of(self, service: str) -> list[Container]:
        """Which replicas take traffic by the rules: told here in other words than the program's."""
        warm, live = self.journal.warm(service), self.journal.live(service)
        resting = set(warm.replicas) if warm is not None else set()
        routed = {u.name for u in self.world.disk[service].upstreams}
        there = [c for c in self.others.of(service) if c.replica.id not in resting]
        if (record := self.journal.unfinished(service)) is not None:  # paused: what it has made waits
            there = [c for c in there if c.replica.id in record.old or name_of(c) in routed]
        if live is not None and live.key not in {c.replica.key for c in there}:  # others have replaced the last of it
            live = None
        mine = [c for c in there if name_of(c) in routed or (live is not None and c.replica.key == live.key)]
        if live is None:
            keys = {c.replica.key for c in mine}
            mine = [c for c in there if c.replica.key in keys]
        unhealthy = Health.UNHEALTHY
        if live is None and not any(c.replica.running for c in mine):
            mine = there
        return [c for c in mine or there if self.world.ready(c) and c.replica.health is not unhealthy]

    def calm_deploy(self, service: str, key: RevisionKey) -> None:
        """Nothing is wrong any more and nobody interferes: this must go through and leave the service in order."""
        self.others.heal()
        self.world.advance(10.0)
        outcome = self.run(service, key, "deploy", [], force=False)
        assert outcome in ("deployed", "nothing"), f"{outcome}\n{self.picture()}"
        self._settled(service, key)

    def _settled(self, service: str, key: RevisionKey) -> None:
        world, wanted = self.world, self.files[service].settings.replicas
        world.check()
        warm = self.journal.warm(service)
        resting = set(warm.replicas) if warm is not None else set()
        found = self.others.of(service)
        live = [c for c in found if c.replica.id not in resting]
        assert [c.replica.key for c in live] == [key] * wanted, self.picture()
        assert all(c.replica.state is ReplicaState.RUNNING for c in live), self.picture()
        routed = {u.host for u in world.loaded[service].upstreams}
        assert routed == {c.ip for c in live} and not routed & world.foreign, self.picture()
        assert world.disk[service] == world.loaded[service], self.picture()
        assert self.journal.unfinished(service) is None
        for container in live:
            world.excused.pop((name_of(container), container.ip), None)
        world.check()

    def picture(self) -> str:
        told = [str(event) for event in self.events if not isinstance(event, StepProgress)]
        wanted = [f"{name}: {f.settings.replicas} of {f.key.config_hash}" for name, f in self.files.items()]
        return "\n".join([picture(self.world), *wanted, *told[-25:]])

    def change(self, service: str, key: RevisionKey, changes: dict[str, object]) -> None:
        """The user edits the Compose file."""
        self.files[service] = File(key, replace(settings(name=service), **changes))  # type: ignore[arg-type]


def _key_of(config: str | None, current: RevisionKey) -> RevisionKey:
    if config is None:
        return current
    return next(k for k in VERSIONS if config == f"config of {k.config_hash}")

"""What the steps of one rollout share: the ports, the settings, and what has happened so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rollout.control import Standing, Wishes
from rollout.errors import Aborted, Interrupted, StateError, Unhealthy
from rollout.events import Notice, Sink, StepProgress
from rollout.fanout import FanOut
from rollout.model import Counters, Pool, Replica, Revision, ServiceSettings, Switched, Upstream, Usage
from rollout.plan import EXISTING, KeepWarm, Plan, Remove, Switch
from rollout.ports import Clock, Engine, Host, Images, Journal, Lock, Prober, Proxy, RolloutRecord


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside, as the core sees it. Made by `wiring`, or of fakes by the simulation."""

    engine: Engine
    images: Images
    proxy: Proxy
    prober: Prober
    journal: Journal
    lock: Lock
    clock: Clock
    fan_out: FanOut
    host: Host
    with_image: Callable[[str, str, str], str]  # a resolved project (YAML), a service of it, its image from now on


class ReplicaFailed(Unhealthy):
    """A new replica failed its check or the monitor; `failed` are the ids, so that `continue` can go on without
    them.
    """

    def __init__(self, message: str, failed: Iterable[str], *, hint: str = "", details: Iterable[str] = ()) -> None:
        super().__init__(message, hint=hint, details=tuple(details))
        self.failed = tuple(failed)


class LeftPaused(Interrupted):
    """The rollout is paused and nobody waits for its end, after a signal for instance: it stays so, until somebody
    resumes or aborts it."""


@dataclass(slots=True)
class Run:
    """One rollout under way. `live` are the replicas meant to be in the pool now; steps change it by switching."""

    ports: Ports
    settings: ServiceSettings
    record: RolloutRecord
    emit: Sink
    network: str
    live: set[str]
    interrupted: Callable[[], bool] = lambda: False
    from_files: bool = True  # create from the user's Compose files as they are; else from the revision's stored config
    plan: Plan = field(default_factory=Plan)
    index: int = 0
    undoing: bool = False
    waits_for_people: bool = True  # while it is paused; else it is left as it is
    deadline: float = 0.0  # clock.now() by which the rollout must be over; 0: none
    batches: dict[int, list[str]] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)  # replica id -> its upstream when last routed
    ready_at: dict[str, Upstream] = field(default_factory=dict)  # replica id -> where it was found to be ready
    switched: dict[str, Switched] = field(default_factory=dict)  # replica id -> the switch that took it out
    tolerated: list[str] = field(default_factory=list)  # new replicas that failed and were left out (`continue`)
    gone: list[str] = field(default_factory=list)  # that should serve, and did not run at the end
    cut: int = 0
    counted: dict[str, Counters] = field(default_factory=dict)  # "ip:port" -> what is in `requests` of its count
    requests: dict[int, Counters] = field(default_factory=dict)  # revision number -> as the proxy counted
    uncounted: str = ""
    usage: dict[str, Usage] = field(default_factory=dict)
    revision_of: dict[str, int] = field(default_factory=dict)  # "ip:port" -> revision number
    phases: dict[str, float] = field(default_factory=dict)
    ahead: list[Callable[[], None]] = field(default_factory=list)  # what the start of replicas leaves time for
    kept: list[str] | None = None  # tags that keep images, listed ahead
    wishes: Wishes = field(init=False)

    def __post_init__(self) -> None:
        self.wishes = Wishes(self.ports.journal, self.ports.clock)

    @property
    def service(self) -> str:
        return self.settings.name

    @property
    def previous(self) -> Revision | None:
        """What served when it began; its config is empty when plain Compose made it."""
        return self.record.before

    def was_routed(self, replica_id: str) -> bool:
        """Whether it was in the pool when the rollout began; the journal knows that by upstream name."""
        previous = self.record.previous
        return previous is not None and _upstream_name(self.service, replica_id) in previous.names

    def begin_plan(self, plan: Plan) -> None:
        """What the plan removes and no switch takes out had ended when it was made: it stays out, even if it runs again
        by now."""
        self.plan, self.index = plan, 0
        self.batches[EXISTING] = list(plan.existing)
        taken_out = {i for step in plan.steps if isinstance(step, Switch) for i in step.remove}
        self.live -= {i for step in plan.steps if isinstance(step, Remove) for i in step.replicas} - taken_out

    def trust(self, pool: Pool | None, replicas: Iterable[Replica]) -> None:
        """What a pool in force names at its present address counts as found ready: one probe that fails under load must
        not take it out."""
        known = {(u.name, u.address) for u in pool.upstreams} if pool is not None else set()
        for replica in replicas:
            upstream = self.upstream(replica)
            if upstream is not None and (upstream.name, upstream.address) in known:
                self.ready_at[replica.id] = upstream

    def standing(self, *, fresh: bool = False) -> Standing:
        """What people have asked of this rollout so far; an undo is not asked anything any more."""
        return Standing() if self.undoing else self.wishes.of(self.record.id, fresh=fresh)

    def aborted_by(self, *, fresh: bool = False) -> str:
        """Who has asked to take it all back; empty as well where there is no way back."""
        return "" if self.no_way_back() else self.standing(fresh=fresh).aborted

    def no_way_back(self) -> str:
        """Why the rollout cannot be aborted any more; empty while it can."""
        done = self.plan.steps[: self.index]
        if done and len(done) == len(self.plan.steps):
            return "it is done already"
        if any(isinstance(step, KeepWarm) for step in done):
            return "the old replicas are put aside already"
        if any(isinstance(step, Remove) for step in done) and not (self.previous and self.previous.config):
            return "the old containers are removed already and their configuration was never stored"
        return ""

    def ending(self) -> bool:
        """Whether a wait should end now: an abort, or a signal while it still means to take everything back."""
        if self.undoing:
            return False
        return bool(self.aborted_by()) or (self.interrupted() and not self.record.switched)

    def stop_if_asked(self) -> None:
        """Raises what `ending` says: Aborted, Interrupted."""
        if not self.ending():
            return
        if by := self.aborted_by():
            raise Aborted(f"service {self.service}: aborted by {by}")
        raise Interrupted(f"service {self.service}: interrupted before the switch")

    @contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """What is within does not count against `progress_deadline`: people, and what has a limit of its own."""
        began = self.ports.clock.now()
        try:
            yield
        finally:
            if self.deadline:
                self.deadline += self.ports.clock.now() - began

    def members(self, batches: Iterable[int]) -> list[str]:
        """Ids of the batches' replicas, those that failed and were tolerated left out."""
        return [i for b in batches for i in self.batches.get(b, []) if i not in self.tolerated]

    def say(self, text: str) -> None:
        at = self.plan.steps[self.index : self.index + 1]  # none: a step may be done outside of a plan
        kind = at[0].kind if at else ""
        self.emit(StepProgress(self.service, self.index, kind, text))

    def write_down(self, write: Callable[[], object]) -> None:
        """Before the first switch an unwritable journal ends the rollout. After it, and in an undo, ending well matters
        more than the record: the next run re-observes everything it needs."""
        try:
            write()
        except StateError as error:
            if not (self.undoing or self.record.switched):
                raise
            self.notice(f"the journal cannot be written, going on without it: {error.message}")

    def notice(self, text: str) -> None:
        self.emit(Notice(self.service, text))

    def replicas(self) -> dict[str, Replica]:
        return {r.id: r for r in self.ports.engine.replicas(self.service)}

    def upstream(self, replica: Replica) -> Upstream | None:
        """The address at which the proxy reaches this replica; None when it has none (it does not run)."""
        return upstream_of(replica, self.network, self.settings.port)

    def pool_of(self, ids: Iterable[str], replicas: Mapping[str, Replica]) -> Pool:
        """The pool of those of `ids` that run, at their present addresses; remembers each."""
        found = []
        for replica_id in ids:
            replica = replicas.get(replica_id)
            upstream = self.upstream(replica) if replica is not None and replica.running else None
            if replica is None or upstream is None:
                continue
            found.append(upstream)
            self.upstreams[replica_id] = upstream
            self.revision_of[upstream.address] = self.revision_number(replica)
        return Pool(self.service, tuple(found), self.settings.pool)

    def revision_number(self, replica: Replica) -> int:
        """0 for a revision that was never deployed by us and has no number."""
        made_by_it = replica.id not in self.record.old
        if self.previous is not None and replica.key == self.previous.key and (self.undoing or not made_by_it):
            return self.previous.number
        return self.record.target.number if made_by_it or replica.key == self.record.target.key else 0

    def next_switch(self) -> Switch | None:
        """The next switch of the plan, from the current step on."""
        return next((s for s in self.plan.steps[self.index :] if isinstance(s, Switch)), None)

    def left_by(self, switched: Switched) -> None:
        """What had left the pool, and was named again by what this switch replaced (a proxy that was restarted with the
        files from before): whoever drains it has to wait for the workers that knew that."""
        for replica_id in self.switched:
            if _upstream_name(self.service, replica_id) in switched.previous.names:
                self.switched[replica_id] = switched

    def live_after(self, step: Switch) -> set[str]:
        return (self.live | set(self.members(step.add))) - set(step.remove) - set(self.tolerated)

    def count(self) -> None:
        """Read the proxy's counters; called before anything that forgets them or frees an address, and at the end. What
        is new since the last time was served by who has the address now: the next replica to start may get it."""
        counted = self.ports.proxy.count(self.service, self.record.marker)
        self.uncounted = counted.missing
        for address, counters in counted.by_address.items():
            number = self.revision_of.get(address)
            if number is None:
                continue
            known = self.counted.get(address, Counters())
            more = Counters(max(0, counters.requests - known.requests), max(0, counters.failed - known.failed))
            self.counted[address] = known + more
            self.requests[number] = self.requests.get(number, Counters()) + more


def upstream_name(replica: Replica) -> str:
    """Never reused: container numbers are, and addresses are handed on at once (PROXIES 0.4)."""
    return _upstream_name(replica.service, replica.id)


def _upstream_name(service: str, replica_id: str) -> str:
    return f"{service}-{replica_id[:12]}"


def upstream_of(replica: Replica, network: str, port: int) -> Upstream | None:
    """None when it has no address on that network (it does not run)."""
    host = replica.addresses.get(network, "")
    return Upstream(upstream_name(replica), host, port) if host else None


def routed_ids(pool: Pool | None, replicas: Iterable[Replica]) -> frozenset[str]:
    """Which replicas the pool names."""
    names = pool.names if pool is not None else frozenset()
    return frozenset(r.id for r in replicas if upstream_name(r) in names)

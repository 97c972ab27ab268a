"""Keeping services as they are meant to be, without deploying anything new: one service thoroughly (`sync_once`), or
the pools of a whole project, again and again (`Controller`).

One look at all containers, a decision a service, and only where the pool differs the lease, a second look, and one
change of the proxy for all of them. A service that a rollout has the lease of is left to that rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from rollout import control, membership, recover, warm
from rollout.errors import RolloutError, SpecError
from rollout.events import Notice, Sink, Warned
from rollout.model import Health, Pool, Replica, Revision, RevisionKey, ServiceSettings, Switched, Upstream
from rollout.ports import SYNC, RolloutRecord, Warm
from rollout.steps.following import followed
from rollout.steps.run import Ports, Run, routed_ids, upstream_name, upstream_of

AT_A_TIME = 200  # services whose leases are held together: whoever wants one of them waits for all
RECOVERY = "recovery"


def sync_once(
    ports: Ports, settings: ServiceSettings, emit: Sink, *, wait_lock: float = 0.0, what: str = SYNC
) -> frozenset[str]:
    """Finish or undo what an interrupted run left, make the pool follow the replicas, stop what was warm long enough.
    Answers the ids in the pool. `what` signs the lease. Raises LockHeld when a rollout is under way, NotUndone,
    ProxyUnreachable."""
    service = settings.name
    with ports.lock.hold(service, what, wait_lock):
        network = ports.proxy.network(settings)
        recover.converge(ports, settings, network, emit, by_itself=True)
        live = ports.journal.live(service) or Revision(service, 0, RevisionKey("", ""), "", "", 0.0)
        record = RolloutRecord(0, service, "sync", "running", settings.strategy, live, (), None, False, 0.0)
        run = Run(ports, settings, record, emit, network, live=set())
        routed = membership.sync(run)
        warm.retire_expired(run, live.key)
        return routed


# --- the decision -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One service in one look. `restarted` are replicas that are known to have been started anew since the last."""

    settings: ServiceSettings
    network: str
    replicas: Sequence[Replica]
    pool: Pool | None
    warm: Warm | None
    live: Revision | None
    restarted: frozenset[str] = frozenset()
    unfinished: RolloutRecord | None = None

    @property
    def service(self) -> str:
        return self.settings.name


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that would take traffic once it has proved that it is ready, at this address."""

    settings: ServiceSettings
    network: str
    replica: Replica
    upstream: Upstream


Proven = Callable[[Candidate], bool]


@dataclass(frozen=True, slots=True)
class Decision:
    """`pool` is the one the service should have; None when nothing of it is ready: the last one stays then."""

    pool: Pool | None
    unproven: tuple[Candidate, ...]


def decide(seen: Seen, proven: Proven) -> Decision:
    """A replica that is in the pool where it is now stays, unless Docker calls it unhealthy; any other must be proven
    first. Never an empty pool because of a doubt."""
    known = set(seen.pool.upstreams) if seen.pool is not None else set[Upstream]()
    ready, unproven = [], []
    for replica in membership.belonging(seen.replicas, seen.pool, seen.warm, seen.live, seen.unfinished):
        upstream = upstream_of(replica, seen.network, seen.settings.port)
        if upstream is None or replica.health is Health.UNHEALTHY:
            continue
        candidate = Candidate(seen.settings, seen.network, replica, upstream)
        if (upstream in known and replica.id not in seen.restarted) or proven(candidate):
            ready.append(upstream)
        else:
            unproven.append(candidate)
    pool = Pool(seen.settings.name, tuple(ready), seen.settings.pool) if ready else None
    return Decision(pool, tuple(unproven))


def _brought_up_to_date(listed: Sequence[Replica], details: Mapping[str, Replica | None]) -> list[Replica]:
    """`details` None: it is gone."""
    found = [details.get(replica.id, replica) for replica in listed]
    return [replica for replica in found if replica is not None]


def only_more(before: Pool | None, after: Pool) -> bool:
    """Whether `after` is what serves now, and more: then nobody waits for it."""
    return before is not None and bool(before.upstreams) and set(before.upstreams) < set(after.upstreams)


# --- a pass over the project -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Pass:
    """What one pass leaves to others. `held`: services that another has the lease of. `unsettled`: those that need
    `sync_once` as well: a dead run's rollout, or warm replicas whose time is over. `unproven`: replicas to be probed.
    `postponed`: services that only more replicas have come to. `waiting`: services whose pool is not yet what it should
    be, whyever (those `held`, `postponed`, or refused by the proxy). `reloaded`: whether the proxy was reloaded."""

    held: set[str] = field(default_factory=set)
    postponed: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    unsettled: set[str] = field(default_factory=set)
    unproven: list[Candidate] = field(default_factory=list)
    reloaded: bool = False


class Controller:
    """Makes the pools follow the replicas, one `one_pass` at a time; remembers what is confirmed, so that a pass in
    which nothing has changed costs next to nothing. For one thread."""

    def __init__(self, ports: Ports, emit: Sink, proven: Proven) -> None:
        self._ports, self._emit, self._proven = ports, emit, proven
        self._proxy = ""  # its identity when `_networks` were asked for
        self._networks: dict[str, str] = {}
        self._confirmed: dict[str, tuple[Pool, str]] = {}  # what was switched to, and the proxy's fingerprint then
        self._looked: dict[str, float] = {}  # upstream's name -> when its replica has started, as this pass found
        self._started: dict[str, float] = {}  # the same, of those that were taken to be ready since
        self._told: dict[tuple[str, str], str] = {}

    def one_pass(
        self,
        services: Mapping[str, ServiceSettings],
        concerned: Collection[str] | None = None,
        *,
        additions: bool = True,
        stuck: Collection[str] = (),
    ) -> Pass:
        """Look at the services to which something has happened (`concerned`; None: at all, nothing is known of any) and
        mend their pools; without `additions` only if something has to leave one. `stuck` are those that could not be
        settled when it was tried. Raises EngineError, ProxyUnreachable,
        StateError, LockHeld: the next pass finds what this one left."""
        settings = [s for name, s in services.items() if concerned is None or name in concerned]
        self._ask_networks(settings)
        done, self._looked = Pass(), {}
        seen = self._look([s for s in settings if s.name in self._networks])
        if concerned is None:
            self._forget_the_gone(seen)
        else:
            seen = self._with_details(seen)
        fingerprints = self._ports.proxy.fingerprints([one.service for one in seen])
        wrong, urgent = [], additions
        for one in seen:
            if self._left_to_others(one, done, stuck):
                continue
            decision = self._decide(self._as_it_was_left(one))
            done.unproven += decision.unproven
            self._tell_whether_ready(one, decision, hinted=concerned is not None)
            pool = decision.pool  # none: nothing is ready, and to load the last one anew would help nobody
            confirmed = self._confirmed.get(one.service) == (pool, fingerprints[one.service])
            if pool is not None and not (pool == one.pool and confirmed):
                wrong.append(one)
                urgent |= not only_more(one.pool, pool)
        done.waiting.update(one.service for one in wrong)
        if urgent:
            for start in range(0, len(wrong), AT_A_TIME):
                self._mend(wrong[start : start + AT_A_TIME], done, stuck)
        else:
            done.postponed.update(one.service for one in wrong)
        return done

    def _mend(self, wrong: Sequence[Seen], done: Pass, stuck: Collection[str]) -> None:
        """Under their leases, after a second look: what was seen before may be a rollout's work."""
        restarted = frozenset[str]().union(*(one.restarted for one in wrong))
        with ExitStack() as leases:
            mine = [o for o in wrong if leases.enter_context(self._ports.lock.attempt(o.service, SYNC))]
            done.held.update({one.service for one in wrong} - {one.service for one in mine})
            before: list[Pool] = []
            pools: list[Pool] = []
            for one in self._sure_of_those_that_come(self._look([one.settings for one in mine], restarted)):
                pool = None if self._died_meanwhile(one, stuck) else self._decide(self._as_it_was_left(one)).pool
                if pool is not None:
                    pools.append(pool)
                    before.append(one.pool or Pool(one.service, (), pool.options))
            if not pools:
                return
            outcomes = self._ports.proxy.switch_all(pools)
            fingerprints = self._ports.proxy.fingerprints([pool.service for pool in pools])
        for was, pool, outcome in zip(before, pools, outcomes, strict=True):
            if self._conclude(was, pool, outcome, fingerprints[pool.service]):
                done.waiting.discard(pool.service)
            done.reloaded |= isinstance(outcome, Switched) and outcome.reloaded

    def _conclude(self, before: Pool, pool: Pool, outcome: Switched | RolloutError, fingerprint: str) -> bool:
        """Whether it is in force."""
        if isinstance(outcome, RolloutError):
            words = "; ".join([outcome.message, *outcome.details])
            self._tell(Warned(pool.service, "pool-refused", f"the proxy does not take the pool: {words}"))
            return False
        self._told.pop((pool.service, "pool-refused"), None)
        self._confirmed[pool.service] = (pool, fingerprint)
        if before != pool:
            self._emit(followed(before, pool))
        return True

    def _decide(self, one: Seen) -> Decision:
        decision = decide(one, self._proven)
        known = set(one.pool.upstreams) if one.pool is not None else set[Upstream]()
        for upstream in decision.pool.upstreams if decision.pool is not None else ():
            if upstream.name in self._looked:
                self._started[upstream.name] = self._looked[upstream.name]
            elif upstream not in known:
                self._started.pop(upstream.name, None)  # it has proved itself since, however it was started
        return decision

    # --- looking

    def _ask_networks(self, settings: Iterable[ServiceSettings]) -> None:
        """Over which network the proxy reaches each service, asked anew when it was restarted."""
        identity = self._ports.proxy.identity()
        if identity != self._proxy:
            self._proxy, self._networks = identity, {}
        for one in settings:
            if one.name in self._networks:
                continue
            try:
                self._networks[one.name] = self._ports.proxy.network(one)
            except SpecError as error:
                self._tell(Warned(one.name, "no-network", "; ".join([error.message, *error.details])))

    def _look(self, settings: Sequence[ServiceSettings], restarted: frozenset[str] = frozenset()) -> list[Seen]:
        found = membership.replicas_of(self._ports.engine, [one.name for one in settings])
        return [self._seen(one, found.get(one.name, ()), restarted) for one in settings]

    def _seen(self, one: ServiceSettings, replicas: Sequence[Replica], restarted: frozenset[str]) -> Seen:
        journal, pool, network = self._ports.journal, self._ports.proxy.pool(one.name), self._networks[one.name]
        warm, live, unfinished = journal.warm(one.name), journal.live(one.name), journal.unfinished(one.name)
        return Seen(one, network, replicas, pool, warm, live, restarted, unfinished)

    def _with_details(self, seen: Sequence[Seen]) -> list[Seen]:
        """Something has happened to these services. The list may not know it yet: the engine says `die`, `pause` and
        `unpause` before it brings its list up to date, and an inspection waits for that (measured with 20.10: 60 ms).
        And a replica that is back at its old address may have been gone meanwhile: then it is not ready because it
        was."""
        doubtful = [
            r.id
            for one in seen
            for routed in [routed_ids(one.pool, one.replicas)]
            for r in one.replicas
            if r.id in routed or not r.running
        ]
        details = self._inspected(doubtful)
        running = [r for r in details.values() if r is not None and r.running]
        self._looked = {upstream_name(r): r.started_at for r in running}
        for name, at in self._looked.items():
            self._started.setdefault(name, at)
        anew = frozenset(r.id for r in running if self._started[upstream_name(r)] != r.started_at)
        return [replace(one, replicas=_brought_up_to_date(one.replicas, details), restarted=anew) for one in seen]

    def _sure_of_those_that_come(self, seen: Sequence[Seen]) -> list[Seen]:
        """The list may go on saying that one runs whose address is a stranger's by now: who comes into a pool is
        inspected."""
        coming: list[str] = []
        for one in seen:
            pool, before = decide(one, self._proven).pool, set(one.pool.upstreams if one.pool is not None else ())
            new = {u.name for u in set(pool.upstreams if pool is not None else ()) - before}
            coming += [replica.id for replica in one.replicas if upstream_name(replica) in new]
        details = self._inspected(coming)
        return [replace(one, replicas=_brought_up_to_date(one.replicas, details)) for one in seen]

    def _inspected(self, ids: Sequence[str]) -> dict[str, Replica | None]:
        found = self._ports.fan_out([partial(self._ports.engine.inspect, number) for number in ids])
        return dict(zip(ids, found, strict=True))

    def _forget_the_gone(self, seen: Sequence[Seen]) -> None:
        """`seen` is every service."""
        there = {upstream_name(replica) for one in seen for replica in one.replicas}
        self._started = {name: at for name, at in self._started.items() if name in there}

    def _left_to_others(self, one: Seen, done: Pass, stuck: Collection[str]) -> bool:
        """Whether a rollout is under way, or was left so and is for `sync_once`: that finds most to go by where nothing
        has changed since. Only one that it could do nothing about is followed until it can."""
        if not self._unsettled(one):
            return False
        with self._ports.lock.attempt(one.service, RECOVERY) as free:
            (done.unsettled if free else done.held).add(one.service)
        return not free or (one.unfinished is not None and one.service not in stuck)

    def _died_meanwhile(self, one: Seen, stuck: Collection[str]) -> bool:
        """Since the first look a run has left something unfinished: the next pass hands that on."""
        return one.unfinished is not None and one.service not in stuck and self._unsettled(one)

    def _as_it_was_left(self, one: Seen) -> Seen:
        """Between two revisions by a run that died: what has ended leaves the pool. Who comes in, and whether an ill
        one stays, is for its recovery."""
        if one.unfinished is None or not self._unsettled(one):
            return one
        routed = routed_ids(one.pool, one.replicas)
        left = [replace(replica, health=Health.NONE) for replica in one.replicas if replica.id in routed]
        return replace(one, replicas=left)

    def _unsettled(self, one: Seen) -> bool:
        """Whether a rollout of this service is under way or was left so, or warm replicas have been kept long enough.
        One that was paused stays so until somebody resumes, aborts or deploys."""
        if one.unfinished is not None:
            asked = control.standing(self._ports.journal.wishes(one.unfinished.id))
            by_failure = one.unfinished.state == "paused" and not (asked.resumed or asked.aborted)
            return not (by_failure or control.stays_paused(self._ports.journal, one.unfinished))
        target = one.live.key if one.live is not None else RevisionKey("", "")
        return one.warm is not None and warm.expired(one.warm, one.replicas, target, self._ports.clock.wall())

    # --- telling

    def _tell_whether_ready(self, one: Seen, decision: Decision, *, hinted: bool) -> None:
        if decision.pool is not None:
            if self._told.pop((one.service, "nothing-ready"), None) is not None:
                self._emit(Notice(one.service, "a replica is ready again"))
        elif not (hinted and decision.unproven):  # else they have only just come
            self._tell(membership.nothing_ready(one.pool or Pool(one.service)))

    def _tell(self, event: Warned) -> None:
        """Once a change, not once a pass."""
        if self._told.get((event.service, event.code)) != event.text:
            self._told[event.service, event.code] = event.text
            self._emit(event)

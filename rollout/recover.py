"""Recovery: an earlier run died in the middle. Interrupted is an ordinary start: look at what is there, and go on.

Before its first switch nothing of the new revision took traffic, so it is undone, held for a promotion or not; after
it, it is finished; an undo is finished as an undo, and what somebody has aborted is undone. What was done is read from
the engine and the proxy, not from the journal, which only says what was wanted and what was there before.
"""

from __future__ import annotations

from dataclasses import replace

from rollout import strategies, warm
from rollout.control import BY_NEXT_RUN, Standing, Wish, standing, stays_paused
from rollout.errors import (
    Aborted,
    DeployFailed,
    EngineError,
    NotUndone,
    ProxyUnreachable,
    RolloutError,
    StateError,
)
from rollout.events import Recovering, Sink, Warned
from rollout.execution import close, outcome_of, perform, serves_alone, undo, unfinished
from rollout.model import Pool, Promotion, Replica, ServiceSettings, Strategy
from rollout.plan import Observed
from rollout.ports import Proxy, RolloutRecord
from rollout.steps.pre_deploy import clear
from rollout.steps.run import LeftPaused, Ports, Run, routed_ids

_MAY_COME_BACK = (EngineError, ProxyUnreachable, StateError)


def converge(ports: Ports, settings: ServiceSettings, network: str, emit: Sink, *, by_itself: bool = False) -> None:
    """Finish or undo what an earlier run left; nothing when it left nothing. `by_itself`: nobody asked for a deploy, so
    what is paused stays paused.

    When neither can ever work (the old containers are gone for good, or are ill themselves) the rollout is given up as
    failed: a plan begins at any world, and the deploy of a better version must not wait for what will not come back.
    Raises NotUndone when something that may come back is in the way: the engine, the proxy, a full disk; StateError
    when only the journal is, and somebody asked for a deploy.
    """
    record = ports.journal.unfinished(settings.name)
    if record is None:
        return
    asked = standing(ports.journal.wishes(record.id))
    if by_itself and stays_paused(ports.journal, record):
        emit(Warned(settings.name, "paused", _is_paused(record, asked)))
        return
    if asked.paused:
        ports.journal.wish(record.id, Wish.RESUME, BY_NEXT_RUN)
    replicas = ports.engine.replicas(settings.name)
    run = _resume(ports, settings, record, network, emit, replicas)
    forward = record.switched and record.state != "undoing" and not asked.aborted
    verb = "finishing it" if forward else "undoing it"
    emit(Recovering(settings.name, f"rollout {record.id} ({record.what}) was left {record.state}: {verb}"))
    began = ports.clock.now()
    run.waits_for_people = not by_itself
    clear(run)
    try:
        outcome, reason = _forward(run) if forward else _back(run, _why_back(settings.name, asked))
    except LeftPaused as error:
        emit(Warned(settings.name, "paused", f"{error.message}; {error.hint}"))
        return
    except NotUndone as error:
        if isinstance(error.__cause__, _MAY_COME_BACK):
            raise unfinished(run, error) from error.__cause__
        emit(Warned(settings.name, "not-undone", f"{error.message}; going on from what is there"))
        outcome, reason = "failed", error.message
    close(run, outcome, began=began, reason=reason)
    if not by_itself and ports.journal.unfinished(settings.name) is not None:
        # it would be undone once more by the run after the next, whatever that has deployed meanwhile
        raise StateError(
            f"service {settings.name}: rollout {record.id} is over, but that could not be written down; "
            "nothing else was begun",
            hint="see why the journal cannot be written, then run this again",
        )


def _forward(run: Run) -> tuple[str, str]:
    try:
        _finish(run)
    except (NotUndone, LeftPaused):
        raise
    except RolloutError as error:
        if isinstance(error, _MAY_COME_BACK) and serves_alone(run):
            raise NotUndone(error.message, hint=error.hint, details=error.details) from error
        return _back(run, error)
    return "deployed", ""


def _back(run: Run, why: RolloutError) -> tuple[str, str]:
    undo(run, why.message)
    return outcome_of(why), why.message


def _why_back(service: str, asked: Standing) -> RolloutError:
    if asked.aborted:
        return Aborted(f"service {service}: aborted by {asked.aborted}")
    return DeployFailed("the run that began it ended before the switch")


def _is_paused(record: RolloutRecord, asked: Standing) -> str:
    ways = f"`rollout resume {record.service}` or `rollout abort {record.service}`"
    return f"rollout {record.id} is paused by {asked.paused} and its process has ended; {ways}, then `rollout sync`"


def _resume(
    ports: Ports,
    settings: ServiceSettings,
    record: RolloutRecord,
    network: str,
    emit: Sink,
    replicas: list[Replica],
) -> Run:
    run = Run(ports, settings, record, emit, network, live=set(), from_files=False)
    pool = ports.proxy.pool(settings.name)
    run.live = set(routed_ids(pool, replicas))
    if record.previous is not None:  # what it had served is counted before its addresses are anybody else's
        number = record.before.number if record.before is not None else 0
        run.revision_of = dict.fromkeys((u.address for u in record.previous.upstreams), number)
        run.count()
    run.cut = ports.journal.cut(record.id)
    run.pool_of([r.id for r in replicas], {r.id: r for r in replicas})
    run.trust(pool if _in_force(ports.proxy, pool) else None, replicas)
    return run


def _in_force(proxy: Proxy, pool: Pool | None) -> bool:
    """A run that was killed between writing a pool and loading it leaves one that nobody has ever been sent to."""
    try:
        return pool is not None and proxy.holds(pool)
    except ProxyUnreachable:
        return False


def _finish(run: Run) -> None:
    """The rest of the work is the same strategy's plan from the world as it is now."""
    record, ports = run.record, run.ports
    replicas = ports.engine.replicas(run.service)
    resting = ports.journal.warm(run.service)
    target = record.target.key
    spared = frozenset(record.old) if record.forced else frozenset()
    observed = Observed(
        target=target,
        replicas=tuple(replicas),
        routed=routed_ids(ports.proxy.pool(run.service), replicas),
        spared=spared,
        warm=warm.resting(resting, replicas, target),
    )
    run.settings = _as_begun(run.settings, record)
    perform(run, strategies.plan(run.settings, observed))
    warm.replaced(run, resting)


def _as_begun(settings: ServiceSettings, record: RolloutRecord) -> ServiceSettings:
    """What comes before the first switch has been done."""
    hooks = replace(settings.hooks, pre_deploy=None)
    return replace(settings, strategy=Strategy(record.strategy), promotion=Promotion.AUTO, hooks=hooks)

"""The deploy, told once. Everything it does is a step of a plan; what it decides is in `strategies`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from rollout import membership, recover, steps, strategies, warm
from rollout.control import BY_FAILURE_ACTION, Wish
from rollout.errors import Aborted, ImageNotFound, NotUndone, RolloutError, StateError, Unreachable
from rollout.events import NothingToDo, Notice, Paused, RolloutStarted, Sink
from rollout.execution import close, only_leaving, outcome_of, perform, serves_alone, undo, unfinished
from rollout.model import FailureAction, Pool, Promotion, Revision, RevisionKey, ServiceSettings
from rollout.plan import Check, Observed, Plan, Remove, Start
from rollout.ports import RolloutRecord
from rollout.receipt import Receipt
from rollout.retention import kept_tags, retain
from rollout.steps.run import LeftPaused, Ports, ReplicaFailed, Run, routed_ids, upstream_name


@dataclass(frozen=True, slots=True)
class Request:
    """What to deploy. `config`: the resolved project (YAML) it comes from; `from_files`: the user's Compose files still
    say exactly that, so Compose creates from them."""

    project: str
    key: RevisionKey
    image: str
    config: str
    what: str = "deploy"  # deploy | rollback
    from_files: bool = True
    force: bool = False
    wait_lock: float = 0.0


def deploy(
    ports: Ports,
    settings: ServiceSettings,
    request: Request,
    emit: Sink,
    interrupted: Callable[[], bool],
    at_its_turn: Callable[[], Request] | None = None,
) -> Receipt | None:
    """Bring the service to the requested revision; None when it is there already. Raises a RolloutError otherwise: its
    type says whether the service is as it was (DeployFailed) or not (NotUndone). `at_its_turn` may answer another
    request, once nobody else works on the service."""
    settings = _settings_for(request.what, settings)
    with ports.lock.hold(settings.name, request.what, request.wait_lock):
        network = ports.proxy.network(settings)
        recover.converge(ports, settings, network, emit)
        request = at_its_turn() if at_its_turn is not None else request
        run = _observe(ports, settings, request, network, emit, interrupted)
        membership.sync(run, render=False)
        warm.retire_expired(run, request.key)
        observed, plan = make_plan(run, request)
        if not _harmless_at_first(plan):
            membership.sync(run)  # a template that has changed, or is broken, is met now
        if not any(not isinstance(step, Remove) for step in plan.steps):
            _nothing_to_do(run, plan)
            _retain(run, request.project)
            return None
        _begin(run, request, observed, plan)
        return carry_out(run, plan, request.project)


def _settings_for(what: str, settings: ServiceSettings) -> ServiceSettings:
    """Who goes back is in a hurry: nobody has to promote what has served before, and nothing is prepared for it."""
    if what != "rollback":
        return settings
    hooks, update = replace(settings.hooks, pre_deploy=None), settings.rollback or settings.update
    return replace(settings, promotion=Promotion.AUTO, hooks=hooks, update=update)


def _harmless_at_first(plan: Plan) -> bool:
    """Whether the proxy tests the next configuration before anything is taken away or cannot be taken back."""
    return isinstance(next(iter(plan.steps), None), Start | Check)


def make_plan(run: Run, request: Request) -> tuple[Observed, Plan]:
    """The world as it is and the plan from it to the target; changes nothing."""
    observed = observe(run.ports, run.service, request.key, force=request.force)
    return observed, strategies.plan(run.settings, observed)


def observe(ports: Ports, service: str, target: RevisionKey, *, force: bool) -> Observed:
    replicas = ports.engine.replicas(service)
    spared = frozenset(r.id for r in replicas if r.key == target) if force else frozenset()
    return Observed(
        target=target,
        replicas=tuple(replicas),
        routed=routed_ids(ports.proxy.pool(service), replicas),
        spared=spared,
        warm=warm.resting(ports.journal.warm(service), replicas, target),
    )


def carry_out(run: Run, plan: Plan, project: str) -> Receipt:
    """Perform the plan; on failure do what `failure_action` says."""
    began = run.ports.clock.now()
    try:
        resting = run.ports.journal.warm(run.service)
        perform(run, plan)
        warm.replaced(run, resting)
    except RolloutError as error:
        raise _failed(run, error, began) from error
    _retain(run, project)
    receipt = close(run, "deployed", began=began)
    missing = [f"{len(run.tolerated)} new replica(s) failed and were left out"] if run.tolerated else []
    missing += [f"{len(run.gone)} replica(s) do not run any more"] if run.gone else []
    if missing:
        raise NotUndone(
            f"service {run.service}: deployed, but {', '.join(missing)}",
            hint=f"`rollout deploy {run.service}` starts what is missing",
        )
    return receipt


def _observe(
    ports: Ports,
    settings: ServiceSettings,
    request: Request,
    network: str,
    emit: Sink,
    interrupted: Callable[[], bool],
) -> Run:
    target = ports.journal.revision(settings.name, request.key, request.image, request.config)
    record = RolloutRecord(0, settings.name, request.what, "running", settings.strategy, target, (), None, False, 0.0)
    run = Run(ports, settings, record, emit, network, live=set(), interrupted=interrupted)
    run.from_files = request.from_files
    return run


def _begin(run: Run, request: Request, observed: Observed, plan: Plan) -> None:
    """From here on there is something to take back: write down what is there now."""
    ports, service = run.ports, run.service
    starts = any(isinstance(step, Start) for step in plan.steps)
    if starts and ports.images.image_id(request.key.image_id) is None:
        raise ImageNotFound(f"service {service}: image {request.image} ({request.key.image_id[:19]}) is not here")
    run.record = ports.journal.begin(
        what=request.what,
        strategy=run.settings.strategy,
        target=run.record.target,
        old=[r.id for r in observed.replicas],
        previous=_serving(ports.proxy.pool(service) or Pool(service), observed),
        marker="" if starts else ports.proxy.mark(service),
        forced=request.force,
        before=_previous(run, observed),
    )
    if starts:
        run.ahead = [partial(_mark, run), partial(_list_kept, run, request.project)]
    for replica in observed.replicas:
        run.pool_of([replica.id], {replica.id: replica})
    run.deadline = ports.clock.now() + run.settings.progress_deadline
    run.emit(
        RolloutStarted(
            service,
            run.record.id,
            request.what,
            run.settings.strategy,
            run.record.target.number,
            run.previous.number if run.previous is not None else None,
            run.settings.replicas,
            plan.texts(),
        )
    )
    if run.settings.health.implied and all(r.health == "none" for r in observed.replicas):
        run.notice(f"no health check is configured: a TCP accept on port {run.settings.port} is the check")


def _serving(pool: Pool, observed: Observed) -> Pool:
    """What of it there is to go back to. A pool is left as it was while nobody is ready: it may name the dead."""
    dead = {upstream_name(r) for r in observed.replicas if r.state in ("exited", "dead")}
    return replace(pool, upstreams=tuple(u for u in pool.upstreams if u.name not in dead))


def _mark(run: Run) -> None:
    run.record = replace(run.record, marker=run.ports.proxy.mark(run.service))


def _list_kept(run: Run, project: str) -> None:
    with suppress(RolloutError):  # asked for again when it is needed
        run.kept = kept_tags(run.ports.images, project, run.service)


def _previous(run: Run, observed: Observed) -> Revision | None:
    """The revision that serves now. What `docker compose up` made gets a number too, though its config is not known."""
    routed = [r for r in observed.replicas if r.id in observed.routed]
    others = [r for r in routed if r.key != observed.target] or routed
    if not others:
        return None
    newest = max(others, key=lambda r: (r.created_at, r.number))
    return run.ports.journal.revision(run.service, newest.key, newest.image, "")


def _nothing_to_do(run: Run, plan: Plan) -> None:
    for step in plan.steps:
        if isinstance(step, Remove):
            steps.perform(run, step)
            run.emit(Notice(run.service, f"removed {len(step.replicas)} left-over container(s)"))
    run.emit(NothingToDo(run.service, run.record.target.number, len(run.live)))


def _retain(run: Run, project: str) -> None:
    """Also where there was nothing to do: what `docker compose up` made is what the first rollback goes back to.

    A tag that cannot be set makes no deploy fail that has succeeded.
    """
    try:
        retain(run.ports.images, run.ports.journal, project, run.record.target, run.settings.keep, run.kept)
    except RolloutError as error:
        run.notice(f"the image of revision {run.record.target.number} is not kept for a rollback: {error.message}")


def _failed(run: Run, error: RolloutError, began: float) -> RolloutError:
    """What to raise after doing what has to be done about it."""
    if isinstance(error, LeftPaused):
        return error
    if not isinstance(error, Aborted):
        left = _left_as_it_is(run, error)
        if left is not None:
            return left
    try:
        undo(run, error.message)
    except NotUndone as failure:
        raise unfinished(run, failure) from error
    close(run, outcome_of(error), began=began, reason=error.message)
    return error


def _left_as_it_is(run: Run, error: RolloutError) -> NotUndone | None:
    """Where going back is not what is wanted: what to raise then."""
    if only_leaving(run) or (isinstance(error, Unreachable) and serves_alone(run)):
        undone = "the old replicas could not be cleared away" if only_leaving(run) else "the rest could not be done"
        return unfinished(
            run,
            NotUndone(
                f"service {run.service}: revision {run.record.target.number} serves, but {undone}: {error.message}",
                hint=f"`rollout deploy {run.service}` does the rest",
                details=error.details,
            ),
        )
    if run.settings.update.failure_action is FailureAction.PAUSE and isinstance(error, ReplicaFailed):
        try:
            run.ports.journal.mark_state(run.record.id, state="paused")
            run.ports.journal.wish(run.record.id, Wish.PAUSE, BY_FAILURE_ACTION)
        except StateError as failure:
            run.notice(f"the journal cannot be written, so the next run will not know of the pause: {failure.message}")
        run.emit(Paused(run.service, run.record.id, BY_FAILURE_ACTION, run.plan.steps[run.index].text()))
        return NotUndone(
            f"{error.message}; paused, as failure_action says: old and new replicas run on, the pool stays as it was",
            hint=f"look at the new containers; the next `rollout deploy {run.service}` finishes it or takes it back",
            details=error.details,
        )
    return None

"""Performing a plan, any plan: journal before and after each step, tell what goes on, stop where it fails."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from rollout import steps
from rollout.control import GLANCE
from rollout.errors import Aborted, DeployFailed, EngineError, Interrupted, NotUndone, RolloutError
from rollout.events import (
    Aborting,
    Finished,
    Paused,
    Resumed,
    StepFailed,
    StepFinished,
    StepStarted,
    Undone,
    UndoStarted,
    Unfinished,
    Warned,
)
from rollout.model import Counters, FailureAction, Strategy
from rollout.plan import Check, Drain, Monitor, Observed, Plan, PostSwitch, Remove, Step, Stop, Switch
from rollout.receipt import Receipt, total_usage
from rollout.steps.following import Following
from rollout.steps.run import LeftPaused, ReplicaFailed, Run, routed_ids
from rollout.steps.usage import measurements
from rollout.strategies.undo import undo as undo_plan


def perform(run: Run, plan: Plan) -> None:
    """Do every step in order. What a step raises leaves this function, with `run.index` at that step."""
    run.begin_plan(plan)
    for index, step in enumerate(plan.steps):
        run.index = index
        stood_still = heed(run, step)
        _still_allowed(run, step)
        if stood_still and isinstance(step, Switch) and step.add:
            _perform_one(run, Check(step.add))  # what was ready before the pause
        _perform_one(run, step)
    run.index = len(plan.steps)


def heed(run: Run, step: Step) -> bool:
    """What people have asked for since the last step: stand still while it is paused, raise Aborted. Whether it stood
    still.

    Raises LeftPaused when a signal ends the pause of what has switched, Interrupted before.
    """
    paused = bool(run.standing(fresh=True).paused) and not run.aborted_by()
    if paused:
        _stand_still(run, step)
    if by := run.aborted_by():
        run.emit(Aborting(run.service, by))
        raise Aborted(f"service {run.service}: aborted by {by}")
    if (by := run.standing().aborted) and not isinstance(step, Remove):
        run.emit(Warned(run.service, "not-aborted", f"not aborted, as {by} asked: {run.no_way_back()}"))
    return paused


def _stand_still(run: Run, step: Step) -> None:
    run.emit(Paused(run.service, run.record.id, run.standing().paused, step.text()))
    began, following = run.ports.clock.now(), Following(run)
    with run.off_the_clock():
        while run.standing().paused and not run.aborted_by():
            run.stop_if_asked()
            if run.interrupted() or not run.waits_for_people:
                raise LeftPaused(
                    f"service {run.service}: rollout {run.record.id} is paused and stays as it is",
                    hint=f"`rollout resume {run.service}` or `rollout abort {run.service}`, then `rollout sync`",
                )
            following.sleep(GLANCE)
    run.phases["paused"] = run.phases.get("paused", 0.0) + run.ports.clock.now() - began
    if by := run.standing().resumed:
        run.emit(Resumed(run.service, by))


def undo(run: Run, reason: str) -> None:
    """Take everything back; the service is exactly as it was when this returns. Raises NotUndone when it can't."""
    run.undoing = True
    began = run.ports.clock.now()
    run.write_down(lambda: run.ports.journal.mark_state(run.record.id, state="undoing"))
    try:
        replicas = run.ports.engine.replicas(run.service)
        pool = run.ports.proxy.pool(run.service)
        observed = Observed(run.record.target.key, tuple(replicas), routed_ids(pool, replicas))
        run.live = set(observed.routed)
        run.tolerated.clear()
        alone = run.record.strategy == Strategy.RECREATE
        was_routed = [i for i in run.record.old if run.was_routed(i)]
        plan = undo_plan(observed, was_routed, run.record.old, run.record.switched, never_both=alone)
        run.emit(UndoStarted(run.service, reason, plan.texts()))
        perform(run, plan)
    except RolloutError as error:
        raise NotUndone(
            f"service {run.service}: the rollout failed and undoing it failed too: {error.message}",
            hint="mend that, then run `rollout deploy` again: it takes back what is left before anything else",
            details=[f"it failed because: {reason}", *error.details],
        ) from error
    run.emit(Undone(run.service, run.ports.clock.now() - began))


def close(run: Run, outcome: str, *, began: float, reason: str = "") -> Receipt:
    """The end of a rollout: measure, see who is there, write the receipt, tell."""
    run.count()
    run.ports.fan_out([partial(_see_who_is_gone, run), *measurements(run, run.live - set(run.record.old))])
    receipt = _receipt(run, outcome, began, reason)
    run.write_down(lambda: run.ports.journal.finish(run.record.id, outcome, receipt.as_json()))
    run.emit(Finished(run.service, outcome, receipt.as_json()))
    return receipt


def _see_who_is_gone(run: Run) -> None:
    """Somebody may have stopped or removed replicas meanwhile."""
    with suppress(EngineError):  # what was done is done; the next run looks again
        there = run.replicas()
        run.gone = [i for i in run.live if i not in there or not there[i].running]


def unfinished(run: Run, error: NotUndone) -> NotUndone:
    """Tell that the rollout stays neither finished nor taken back, and answer the error to raise."""
    run.emit(Unfinished(run.service, run.record.id, error.message, error.hint))
    return error


def outcome_of(error: RolloutError) -> str:
    """What became of a rollout that was taken back because of this."""
    if isinstance(error, Aborted):
        return "aborted"
    return "interrupted" if isinstance(error, Interrupted) else "undone"


def only_leaving(run: Run) -> bool:
    """Whether the failing step comes after the last switch: the new version serves, only old replicas are left to
    go.
    """
    rest = run.plan.steps[run.index :]
    return run.record.switched and not any(isinstance(s, Switch | PostSwitch | Check | Monitor) for s in rest)


def serves_alone(run: Run) -> bool:
    """Whether the new version has the traffic and nothing had it before: going back would be an outage."""
    return bool(run.live - set(run.record.old)) and not any(map(run.was_routed, run.record.old))


def _perform_one(run: Run, step: Step) -> None:
    text, clock = step.text(), run.ports.clock
    run.write_down(lambda: run.ports.journal.step_begun(run.record.id, run.index, step.kind, step.detail()))
    run.emit(StepStarted(run.service, run.index, step.kind, text))
    began = clock.now()
    while True:
        try:
            result = steps.perform(run, step)
            break
        except RolloutError as error:
            run.emit(StepFailed(run.service, run.index, step.kind, error.message, error.details))
            if not (isinstance(error, ReplicaFailed) and _go_on_without(run, error)):
                raise  # else once more: what is left has to be ready, watched and switched all the same
    seconds = clock.now() - began
    run.phases[step.kind] = run.phases.get(step.kind, 0.0) + seconds
    run.write_down(lambda: run.ports.journal.step_done(run.record.id, run.index, result))
    run.emit(StepFinished(run.service, run.index, step.kind, text, seconds))


def _still_allowed(run: Run, step: Step) -> None:
    if run.undoing or run.record.switched:
        return
    if run.interrupted():
        raise Interrupted(f"service {run.service}: interrupted before the switch")
    if run.deadline and run.ports.clock.now() > run.deadline:
        raise DeployFailed(f"service {run.service}: progress_deadline of {run.settings.progress_deadline:g} s passed")


def _go_on_without(run: Run, error: ReplicaFailed) -> bool:
    """`failure_action: continue` and `max_failure_ratio`: leave the failed replicas out, if others serve."""
    if run.undoing:
        return False
    update = run.settings.update
    lost = len(run.tolerated) + len(error.failed)
    allowed = lost <= update.max_failure_ratio * run.settings.replicas
    if not (allowed or update.failure_action is FailureAction.CONTINUE):
        return False
    if lost >= run.settings.replicas:
        return False  # nothing of the new revision would be left
    run.tolerated.extend(error.failed)
    run.notice(f"going on without {len(error.failed)} failed replica(s), as update_config says: {error.message}")
    _dispose(run, error.failed)
    return True


def _dispose(run: Run, failed: tuple[str, ...]) -> None:
    routed = tuple(i for i in failed if i in run.live)
    rest: list[Step] = [Switch(remove=routed), Drain(routed)] if routed else []
    for step in [*rest, Stop(failed), Remove(failed)]:
        steps.perform(run, step)


def _receipt(run: Run, outcome: str, began: float, reason: str) -> Receipt:
    served = [i for i in run.record.old if run.was_routed(i)]  # not what was warm from earlier, and has ended since
    old = [u for i, u in run.usage.items() if i in (served or run.record.old)]
    new = [u for i, u in run.usage.items() if i not in run.record.old]
    return Receipt(
        service=run.service,
        rollout=run.record.id,
        what=run.record.what,
        outcome=outcome,
        strategy=run.record.strategy,
        revision=run.record.target.number,
        previous=run.previous.number if run.previous is not None else None,
        replicas=len(run.live) - len(run.gone),
        started_at=run.record.started_at,
        seconds=run.ports.clock.now() - began,
        phases=dict(run.phases),
        requests={str(number): c for number, c in run.requests.items() if number or c != Counters()},
        uncounted=run.uncounted,
        cut=run.cut,
        old=total_usage(old),
        new=total_usage(new),
        reason=reason,
    )

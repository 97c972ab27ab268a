"""PreDeploy: a job from the new image, a migration for instance, before anything is started. When it fails, nothing has
changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.control import GLANCE
from rollout.errors import DeployFailed, RolloutError
from rollout.model import Hook, ReplicaState
from rollout.plan import PreDeploy
from rollout.ports import ExecResult
from rollout.steps import hooks
from rollout.steps.following import Following
from rollout.steps.run import Run

NAME = PreDeploy.kind
_ENDED = (ReplicaState.EXITED, ReplicaState.DEAD)


def perform(run: Run, step: PreDeploy) -> Mapping[str, Any]:
    hook = run.settings.hooks.pre_deploy
    assert hook is not None, "planned without the hook"
    with run.off_the_clock():
        return hooks.judged(run, NAME, hook, lambda: _on_host(run, hook) if hook.host_command else _job(run, hook))


def clear(run: Run) -> None:
    """Stop and remove what is there of jobs: of this run, and of one that was killed."""
    for job in run.ports.engine.jobs(run.service):
        run.ports.engine.stop(job, run.settings.stop_grace_period)
        run.ports.engine.remove(job)


def _on_host(run: Run, hook: Hook) -> ExecResult:
    told = hooks.Told(run, NAME)
    return run.ports.host.run(hook.host_command, hooks.environment(run, NAME), hook.timeout, told, run.ending)


def _job(run: Run, hook: Hook) -> ExecResult:
    clear(run)
    try:
        job = run.ports.engine.start_job(
            run.service, hook.command, run.record.target.config, hooks.environment(run, NAME)
        )
        result = _watched(run, job, hook)
    except RolloutError:
        clear(run)
        raise
    clear(run)
    return result


def _watched(run: Run, job: str, hook: Hook) -> ExecResult:
    engine, clock, told = run.ports.engine, run.ports.clock, hooks.Told(run, NAME)
    following = Following(run)
    until, mark = clock.now() + hook.timeout, ""
    while True:
        container = engine.inspect(job)
        output = engine.output(job, mark)  # after the look: the last lines of one that has ended are among them
        mark = output.mark
        for line in output.lines:
            told(line)
        if container is None:
            raise DeployFailed("its container was removed by somebody else")
        if container.state in _ENDED:
            return ExecResult(container.exit_code or 0, "\n".join(told.last))
        run.stop_if_asked()
        if clock.now() >= until:
            raise DeployFailed(f"it took longer than {hook.timeout:g} s and was stopped", details=tuple(told.last))
        following.sleep(min(GLANCE, max(0.0, until - clock.now())))

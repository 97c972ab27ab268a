"""What the steps that run a hook share: its environment, its output, what its failure means.

Nothing here says what the command is: it may hold a secret, and texts are shown, kept and sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rollout.errors import DeployFailed, EngineError
from rollout.events import HookOutput, Warned
from rollout.model import Hook, Replica
from rollout.ports import ExecResult
from rollout.steps.output import LOG_LINES, legible
from rollout.steps.run import Run


@dataclass(slots=True)
class Told:
    """A hook's output: told as it comes, the last lines kept for a failure."""

    run: Run
    hook: str
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))

    def __call__(self, line: str) -> None:
        if text := legible(line):
            self.last.append(text)
            self.run.emit(HookOutput(self.run.service, self.hook, text))


def environment(run: Run, hook: str, replica: Replica | None = None) -> dict[str, str]:
    """What a hook can read of the rollout (docs/configuration.md)."""
    target = run.record.target
    found = {
        "ROLLOUT_HOOK": hook,
        "ROLLOUT_SERVICE": run.service,
        "ROLLOUT_WHAT": run.record.what,
        "ROLLOUT_ID": str(run.record.id),
        "ROLLOUT_REVISION": str(target.number),
        "ROLLOUT_PREVIOUS": str(run.previous.number) if run.previous is not None else "",
        "ROLLOUT_IMAGE": target.image,
    }
    if replica is not None:
        upstream = run.upstream(replica)
        found |= {"ROLLOUT_REPLICA": replica.name, "ROLLOUT_ADDRESS": upstream.address if upstream else ""}
    return found


def in_replica(run: Run, name: str, hook: Hook, replica: Replica) -> ExecResult:
    """Run it for a replica: inside it, or on the host. Raises DeployFailed when it takes too long or cannot be run."""
    told, variables = Told(run, name), environment(run, name, replica)
    if hook.host_command:
        return run.ports.host.run(hook.host_command, variables, hook.timeout, told, run.ending)
    try:
        result = run.ports.engine.exec(replica.id, hook.command, timeout=hook.timeout, environment=variables)
    except EngineError as error:
        raise DeployFailed(error.message, hint=error.hint) from error
    for line in result.output.splitlines():
        told(line)
    return result


def judged(run: Run, name: str, hook: Hook, attempt: Callable[[], ExecResult]) -> Mapping[str, object]:
    """The step's result. A failure is raised as DeployFailed, or told where the hook says `failure: continue`."""
    try:
        result = attempt()
        run.stop_if_asked()  # it was ended for that: its exit code says nothing
        if result.exit_code == 0:
            return {"exit_code": 0}
        raise DeployFailed(
            f"it ended with exit code {result.exit_code}", details=result.output.splitlines()[-LOG_LINES:]
        )
    except DeployFailed as error:
        if run.ending():
            raise
        text = f"service {run.service}: the {name} hook failed: {error.message}"
        if hook.fails:
            raise DeployFailed(text, hint=error.hint, details=list(map(legible, error.details))) from error
        run.emit(Warned(run.service, "hook-failed", f"{text}; going on, as its failure: continue says"))
        return {"failed": error.message}

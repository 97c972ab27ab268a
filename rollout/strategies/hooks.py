"""Where the user's hooks stand in a plan of any strategy. An undo has none: it goes back to what ran before."""

from __future__ import annotations

from dataclasses import replace

from rollout.model import Hooks
from rollout.plan import Observed, Plan, PostSwitch, PreDeploy, PreStop, Start, Step, Stop, Switch


def with_hooks(hooks: Hooks, observed: Observed, plan: Plan) -> Plan:
    """pre_deploy first, when the plan brings a version of which nothing runs yet; post_switch after the last switch;
    pre_stop before each stop."""
    steps: list[Step] = []
    last_switch = max((i for i, step in enumerate(plan.steps) if isinstance(step, Switch)), default=-1)
    if hooks.pre_deploy and any(isinstance(step, Start) for step in plan.steps) and not observed.current():
        steps.append(PreDeploy())
    for index, step in enumerate(plan.steps):
        if hooks.pre_stop and isinstance(step, Stop):
            steps.append(PreStop(step.replicas))
        steps.append(step)
        if hooks.post_switch and index == last_switch:
            steps.append(PostSwitch())
    return replace(plan, steps=tuple(steps))

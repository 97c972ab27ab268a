"""Left-over containers that the pool still names: they ended after it was last looked at, or nobody was ready since."""

from __future__ import annotations

from dataclasses import replace

from rollout.plan import Drain, Observed, Plan, Remove, Switch


def out_of_the_pool_first(observed: Observed, plan: Plan) -> Plan:
    """The same plan, with a switch without them and a drain before they are removed. From then on their address may be
    somebody else's; and they may have been started again meanwhile."""
    dead = tuple(r.id for r in observed.leftovers() if r.id in observed.routed)
    if not dead:
        return plan
    steps = plan.steps
    removal = next(i for i, step in enumerate(steps) if isinstance(step, Remove) and set(dead) <= set(step.replicas))
    before, drain = list(steps[:removal]), Drain(dead)
    for at in reversed(range(removal)):
        if isinstance(switch := before[at], Switch):
            before[at] = replace(switch, remove=(*switch.remove, *dead))
            break
    else:
        serves = any(r.running and r.id in observed.routed for r in observed.replicas)
        before.append(Switch(remove=dead, maintenance=not serves))
    return replace(plan, steps=(*before, drain, *steps[removal:]))

"""Stop the old replicas, then start the new ones: for what cannot run twice (a fixed name or port, a single writer).

The service answers 503 in between and says so; nothing in flight is cut. Old containers are removed last, so that a
failed start can bring back the very same ones, except when a fixed container name has to be free first.
"""

from __future__ import annotations

from rollout.model import ServiceSettings
from rollout.plan import EXISTING, Check, Drain, Monitor, Observed, Plan, Remove, Start, Step, Stop, Switch
from rollout.strategies.rolling import rolling


def recreate(settings: ServiceSettings, observed: Observed) -> Plan:
    current = observed.current()
    missing = settings.replicas - len(current)
    old = tuple(r.id for r in observed.outdated())
    leftovers = tuple(r.id for r in observed.leftovers())
    # Only surplus, unrouted or left-over containers: nothing has to stop first. For no replicas at all its switch is
    # refused, where the maintenance here would have no end.
    if (missing <= 0 and not old) or settings.replicas < 1:
        return rolling(settings, observed)
    kept = sorted(current, key=lambda r: (r.id not in observed.routed, r.number))[: settings.replicas]
    old += tuple(r.id for r in current if r not in kept)
    gone = (*old, *leftovers)
    unrouted = tuple(r.id for r in kept if r.id not in observed.routed)  # an earlier run got that far
    new = (EXISTING, 1) if unrouted else (1,)
    steps: list[Step] = []
    if old:
        steps += [Switch(remove=old, maintenance=all(r.id in unrouted for r in kept)), Drain(old), Stop(old)]
    if settings.remove_first and gone:
        steps.append(Remove(gone))
    if missing > 0:
        steps.append(Start(1, missing))
    if missing > 0 or unrouted:
        steps += [Check(new), Switch(add=new)]
        if settings.update.monitor:
            steps.append(Monitor(new, settings.update.monitor))
    if gone and not settings.remove_first:
        steps.append(Remove(gone))
    return Plan(tuple(steps), unrouted)

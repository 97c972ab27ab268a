"""Back to what was: the inverse of any strategy, started from whatever is there.

Old replicas that were stopped are started again (the same containers); those that are gone are made again from their
stored revision. Traffic goes back before a new replica is drained, stopped and removed; except where both cannot run at
once (`recreate`): there the new ones have to be gone before.
"""

from __future__ import annotations

from collections.abc import Sequence

from rollout.model import Replica
from rollout.plan import EXISTING, UNDO, Check, Drain, Observed, Plan, Remove, Restart, Start, Step, Stop, Switch


def undo(
    observed: Observed, was_routed: Sequence[str], old: Sequence[str], switched: bool, *, never_both: bool = False
) -> Plan:
    """`was_routed`: ids in the pool when the rollout began; `old`: every container there was then; `switched`: whether
    any switch was begun (even a replica that is not in the pool now may then have been: the proxy is asked);
    `never_both`: old and new must not run at once."""
    by_id = {r.id: r for r in observed.replicas}
    new = [r for r in observed.replicas if r.id not in set(old)]
    named = [r for r in observed.replicas if r.id in observed.routed and r.id not in was_routed]
    # the dead that it named before are as they were; of which one may be back, and be all that there is to go back to
    in_pool = tuple(r.id for r in named if r in new or (was_routed and r.running))
    down = [by_id[i] for i in was_routed if i in by_id and not by_id[i].running]
    # one in the pool that the engine starts again and again is as it was
    stopped = tuple(r.id for r in down if r.state != "restarting" or r.id not in observed.routed)
    gone = [i for i in was_routed if i not in by_id]
    out = tuple(i for i in was_routed if i in by_id and by_id[i].running and i not in observed.routed)
    back: list[Step] = []
    added: tuple[int, ...] = (EXISTING,) if out else ()
    if stopped:
        back.append(Restart(UNDO, stopped))
        added += (UNDO,)
    if gone:
        back.append(Start(UNDO - 1, len(gone), previous=True))
        added += (UNDO - 1,)
    if added:
        back.append(Check(added))
    begun = switched or bool(in_pool)
    if never_both and new and (stopped or gone):
        away = _dispose(new, routed=begun)
        before = [Switch(remove=in_pool, maintenance=observed.routed <= set(in_pool))] if begun else []
        return Plan((*before, *away, *back, Switch(add=added)), out)
    if added or begun:
        # also when the pool looks right: a switch that failed in the middle may have left another one live
        back.append(Switch(add=added, remove=in_pool, maintenance=not was_routed))
    # what has gone left its address to a new one, perhaps, and the proxy has sent there until now
    return Plan((*back, *_dispose(new, routed=begun or bool(stopped or gone))), out)


def _dispose(new: Sequence[Replica], *, routed: bool) -> list[Step]:
    """`routed`: whether any of them may have had traffic. `created` ones are stopped as well: the call that starts
    them may still be under way in the engine."""
    alive = tuple(r.id for r in new if r.state not in ("exited", "dead"))
    steps: list[Step] = [Drain(alive)] if alive and routed else []
    steps += [Stop(alive)] if alive else []
    return [*steps, *([Remove(tuple(r.id for r in new))] if new else [])]

"""Rolling in batches, and blue-green, which is one batch with the old set kept.

start-first, per batch: Start Check Switch(+new -old) [Monitor] Drain Stop; stop-first: Switch(-old) Drain Stop Start
Check Switch(+new), unless that would empty the pool. Old replicas are stopped batch by batch, which bounds the surge,
but removed only at the very end: until then an undo can start the very same containers again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rollout.model import Order, Promotion, ServiceSettings
from rollout.plan import (
    EXISTING,
    Check,
    Delay,
    Drain,
    Hold,
    KeepWarm,
    Monitor,
    Observed,
    Plan,
    Remove,
    Start,
    Step,
    Stop,
    Switch,
)


def rolling(settings: ServiceSettings, observed: Observed) -> Plan:
    if settings.update.order is Order.STOP_FIRST:
        settings = replace(settings, keep_warm=0.0)  # what has stopped is not warm
    current = observed.current()
    wanted = max(settings.replicas, 0)  # fewer mean none as well: a switch to none is refused
    kept = sorted(current, key=lambda r: (r.id not in observed.routed, r.number))[:wanted]
    surplus = [r for r in current if r not in kept]
    old = [*observed.outdated(), *surplus]
    going = tuple(r.id for r in old)
    # one of the target itself is nothing to go back to: surplus, ill, or replaced on demand
    warm = frozenset(r.id for r in old if settings.keep_warm and r.key != observed.target)
    unrouted = [r.id for r in kept if r.id not in observed.routed]
    missing = wanted - len(kept)
    steps: list[Step] = []
    if unrouted:
        steps.append(Check((EXISTING,)))
        if not missing:
            steps += _switched(settings, (EXISTING,), going, warm)
    for batch, count, out, last in _batches(missing, going, settings.update.parallelism):
        add = (EXISTING, batch) if unrouted and batch == 1 else (batch,)
        steps += _batch(_never_empty(settings, observed, out), batch, count, add, out, warm)
        if settings.update.delay and not last:
            steps.append(Delay(settings.update.delay))
    if old and not missing and not unrouted:
        steps += _switched(settings, (), going, warm)
    return Plan((*steps, *_cleanup(settings, observed, going, warm)), tuple(unrouted))


def blue_green(settings: ServiceSettings, observed: Observed) -> Plan:
    """The whole new set beside the old one, one switch, the old set kept warm or stopped."""
    at_once = replace(settings.update, parallelism=0, order=Order.START_FIRST)
    plan = rolling(replace(settings, update=at_once), observed)
    return _held(plan) if settings.promotion is Promotion.MANUAL and _replaces(observed) else plan


def _held(plan: Plan) -> Plan:
    """Wait for a person before the new replicas take traffic, and look again after it: they may have died meanwhile."""
    at = next((i for i, step in enumerate(plan.steps) if isinstance(step, Switch) and step.add), None)
    if at is None:
        return plan
    switch = plan.steps[at]
    assert isinstance(switch, Switch)
    return replace(plan, steps=(*plan.steps[:at], Hold(switch.add), Check(switch.add), *plan.steps[at:]))


def _replaces(observed: Observed) -> bool:
    """Whether another version serves that can go on serving while the new one is held."""
    return any(r.key != observed.target or r.id in observed.spared for r in observed.outdated() if r.running)


def _batches(missing: int, old: tuple[str, ...], parallelism: int) -> Iterator[tuple[int, int, tuple[str, ...], bool]]:
    """(batch number from 1, replicas to start, old ids that leave with it, is it the last). The last takes the rest."""
    size = parallelism or missing
    for batch, begin in enumerate(range(0, missing, size or 1), start=1):
        count = min(size, missing - begin)
        last = begin + count >= missing
        yield batch, count, old[begin:] if last else old[begin : begin + count], last


def _never_empty(settings: ServiceSettings, observed: Observed, out: tuple[str, ...]) -> ServiceSettings:
    """A batch that would take the last replica out of the pool starts first, whatever the order asked for."""
    serving = {r.id for r in observed.replicas if r.running and r.id in observed.routed}
    if not serving <= set(out):
        return settings
    return replace(settings, update=replace(settings.update, order=Order.START_FIRST))


def _batch(
    settings: ServiceSettings, batch: int, count: int, add: tuple[int, ...], out: tuple[str, ...], warm: frozenset[str]
) -> list[Step]:
    fresh: list[Step] = [Start(batch, count), Check((batch,))]
    if settings.update.order is Order.START_FIRST:
        return [*fresh, *_switched(settings, add, out, warm)]
    before: list[Step] = [Switch(remove=out), Drain(out), Stop(out)] if out else []
    return [*before, *fresh, Switch(add=add), *_monitor(settings, add)]


def _switched(
    settings: ServiceSettings, add: tuple[int, ...], out: tuple[str, ...], warm: frozenset[str]
) -> list[Step]:
    after: list[Step] = [Drain(out)] if out else []
    if ending := tuple(i for i in out if i not in warm):
        after.append(Stop(ending))
    return [Switch(add=add, remove=out), *_monitor(settings, add), *after]


def _monitor(settings: ServiceSettings, batches: tuple[int, ...]) -> list[Step]:
    return [Monitor(batches, settings.update.monitor)] if batches and settings.update.monitor else []


def _cleanup(settings: ServiceSettings, observed: Observed, old: tuple[str, ...], warm: frozenset[str]) -> list[Step]:
    resting = tuple(i for i in old if i in warm)
    gone = (*(i for i in old if i not in warm), *(r.id for r in observed.leftovers()))
    return [*([KeepWarm(resting, settings.keep_warm)] if resting else []), *([Remove(gone)] if gone else [])]

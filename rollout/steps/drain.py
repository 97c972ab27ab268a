"""Drain: wait until the proxy can no longer send the old replicas a request, by measurement; or until the drain
limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rollout.errors import DeployFailed
from rollout.model import InFlight, Switched, Upstream
from rollout.plan import Drain, KeepWarm
from rollout.steps.following import Following
from rollout.steps.readiness import ready_pool
from rollout.steps.run import Run
from rollout.steps.usage import measurements
from rollout.waiting import DeadlinePassed, wait_for

LONGEST_PAUSE = 0.1


def perform(run: Run, step: Drain) -> Mapping[str, Any]:
    old = measurements(run, set(step.replicas) & set(run.record.old))
    cut: int = run.ports.fan_out([partial(_drain_all, run, step), *old])[0]
    return {"cut": cut}


def _drain_all(run: Run, step: Drain) -> int:
    replicas = run.replicas()
    cut = 0
    for switched, ids in _by_switch(run, step):
        run.pool_of(ids, replicas)  # a run that recovers does not know their addresses yet
        # a paused one holds its address as well, and its requests
        upstreams = [u for i in ids if i in replicas and (u := run.upstream(replicas[i])) is not None]
        if upstreams:
            cut += _drain(run, switched, ids, upstreams)
    run.cut += cut
    return cut


def _by_switch(run: Run, step: Drain) -> list[tuple[Switched | None, list[str]]]:
    """Replicas that left by the same switch drain together: one look serves all of them."""
    groups: dict[str, tuple[Switched | None, list[str]]] = {}
    for replica_id in step.replicas:
        switched = run.switched.get(replica_id)
        groups.setdefault(switched.token if switched else "", (switched, []))[1].append(replica_id)
    return list(groups.values())


def _named(run: Run, upstreams: list[Upstream]) -> bool:
    """Whether its files name what left the pool: a backup that was restored, a restart with the files from before."""
    pool = run.ports.proxy.pool(run.service)
    named = {u.address for u in pool.upstreams} & {u.address for u in upstreams} if pool is not None else set()
    return bool(named) and not named & {u.address for u in run.pool_of(run.live, run.replicas()).upstreams}


def _kept_warm(run: Run) -> bool:
    """nginx's connections to a replica that is not stopped live as long as the worker that holds them."""
    return any(isinstance(step, KeepWarm) for step in run.plan.steps)


def _drain(run: Run, switched: Switched | None, ids: Sequence[str], upstreams: list[Upstream]) -> int:
    following = Following(run)

    def look() -> InFlight | None:
        nonlocal switched
        run.stop_if_asked()
        following.look()
        switched = run.switched.get(ids[0], switched)
        if _named(run, upstreams):
            pool = ready_pool(run, run.live)
            if not pool.upstreams:
                raise DeployFailed(
                    f"service {run.service}: the proxy's files name old replicas again, and no other is there to serve"
                )
            run.notice("the proxy's files name old replicas again, which somebody else put back: switched once more")
            switched = run.ports.proxy.switch(pool)
            run.switched.update(dict.fromkeys(ids, switched))
        seen = run.ports.proxy.in_flight(switched, upstreams)
        if not seen.drained and seen.detail:
            run.say(seen.detail)
        return seen if seen.drained else None

    try:
        wait_for(run.ports.clock, look, timeout=run.settings.drain_timeout, longest=LONGEST_PAUSE)
    except DeadlinePassed:
        cut = run.ports.proxy.cut(switched, upstreams)
        when = ", at the latest when these are stopped" if _kept_warm(run) else ""
        passed = f"the drain limit of {run.settings.drain_timeout:g} s has passed"
        run.notice(f"{passed}: {cut} connections to old replicas are cut{when}")
        return cut
    return 0

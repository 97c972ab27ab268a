"""Membership: the pool follows the replicas. A deploy changes which revision is live; this keeps its pool true.

A replica that crashed and came back has another address; one that a person stopped is gone. Never an empty pool
because of a doubt: when nothing is ready the last pool stays and it is said.
"""

from __future__ import annotations

from rollout.events import Notice, Sink, Warned
from rollout.model import Health, Pool, Replica, Revision, Upstream
from rollout.ports import Warm
from rollout.steps.readiness import why_not_ready
from rollout.steps.run import Run, routed_ids


def sync(run: Run) -> frozenset[str]:
    """Make the pool equal to the ready replicas of the live revision; returns the ids in it. Confirms even an equal
    pool: what is on disk may not be what the proxy runs, after a crash.
    """
    replicas = run.ports.engine.replicas(run.service)
    pool = run.ports.proxy.pool(run.service)
    warm, live = run.ports.journal.warm(run.service), run.ports.journal.live(run.service)
    wanted = [r for r in replicas if _belongs(r, pool, warm, live) and _fit(run, r, pool)]
    if not wanted:
        _say_nothing_is_ready(run.emit, run.service, pool)
        return frozenset()
    by_id = {r.id: r for r in replicas}
    fresh = run.pool_of([r.id for r in wanted], by_id)
    switched = run.ports.proxy.switch(fresh)
    if pool is not None and pool.upstreams != fresh.upstreams:
        run.emit(Notice(run.service, f"the pool follows its replicas: {_difference(pool, fresh)}"))
    if pool is not None:
        for replica_id in routed_ids(pool, replicas) - {r.id for r in wanted}:
            run.switched[replica_id] = switched
    run.live = {r.id for r in wanted}
    return frozenset(run.live)


def _belongs(replica: Replica, pool: Pool | None, warm: Warm | None, live: Revision | None) -> bool:
    """Routed already, or of the live revision. With neither known (a first run over what `docker compose up` made),
    all.
    """
    if not replica.running:
        return False
    if warm is not None and replica.id in warm.replicas:
        return False
    routed = pool is not None and bool(pool.upstreams)
    if routed and replica.id in routed_ids(pool, [replica]):
        return True
    if live is not None:
        return replica.key == live.key
    return not routed


def _fit(run: Run, replica: Replica, pool: Pool | None) -> bool:
    """In the pool at its present address: only Docker's verdict can take it out. Else it has to pass a probe first."""
    if replica.health is Health.UNHEALTHY:
        return False
    upstream = run.upstream(replica)
    if upstream is None:
        return False
    if pool is not None and upstream.address in {u.address for u in pool.upstreams if u.name == upstream.name}:
        return True
    return why_not_ready(run, replica) is None


def _say_nothing_is_ready(emit: Sink, service: str, pool: Pool | None) -> None:
    if pool is not None and pool.upstreams:
        text = f"no replica of {service} is ready; the pool is left as it was ({_names(pool.upstreams)})"
        emit(Warned(service, "nothing-ready", text))


def _difference(before: Pool, after: Pool) -> str:
    gone = set(before.upstreams) - set(after.upstreams)
    came = set(after.upstreams) - set(before.upstreams)
    parts = [f"in {_names(tuple(sorted(came)))}"] if came else []
    parts += [f"out {_names(tuple(sorted(gone)))}"] if gone else []
    return ", ".join(parts)


def _names(upstreams: tuple[Upstream, ...]) -> str:
    return ", ".join(f"{u.name} ({u.address})" for u in upstreams)

"""Membership: the pool follows the replicas. A deploy changes which revision is live; this keeps its pool true.

A replica that crashed and came back has another address; one that a person stopped is gone. Never an empty pool
because of a doubt: when nothing is ready the last pool stays and it is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rollout.events import Warned
from rollout.model import Pool, Replica, Revision
from rollout.ports import Engine, RolloutRecord, Warm
from rollout.steps.following import followed, named
from rollout.steps.readiness import stays_ready
from rollout.steps.run import Run, routed_ids

FEW = 3  # services for which the engine is asked one by one; for more all containers are listed at once


def replicas_of(engine: Engine, services: Sequence[str]) -> Mapping[str, Sequence[Replica]]:
    """The containers of these services, in whatever state; of others as well, or none for one that has none."""
    few = len(services) <= FEW
    return {name: engine.replicas(name) for name in services} if few else engine.all_replicas()


def belonging(
    replicas: Sequence[Replica],
    pool: Pool | None,
    warm: Warm | None,
    live: Revision | None,
    unfinished: RolloutRecord | None = None,
) -> list[Replica]:
    """Those that run and take traffic when they are ready: what is routed already, and what is of the same revision.
    Between two revisions (`unfinished`) neither joins by itself, and nothing that the rollout has made does: when that
    joins is its own decision.

    Where no container is left of either (a first run; `docker compose up` recreated all of them) it is what there is;
    also where none of them runs and which revision should is not known. From then on that is the revision: one of which
    no container is left is nobody's any more, whoever deployed it.
    """
    resting = frozenset(warm.replicas) if warm is not None else frozenset[str]()
    there = [r for r in replicas if r.id not in resting]
    routed = routed_ids(pool, there)
    if unfinished is not None:
        live = None
        there = [r for r in there if r.id in routed or r.id in unfinished.old]
    if live is not None and not any(r.key == live.key for r in there):
        live = None
    keys = {live.key} if live is not None else {r.key for r in there if r.id in routed}
    mine = [r for r in there if r.id in routed or r.key in keys]
    running = [r for r in mine if r.running]
    return running if running or (mine and live is not None) else [r for r in there if r.running]


def sync(run: Run, *, render: bool = True) -> frozenset[str]:
    """Make the pool equal to the ready replicas of the live revision; returns the ids in it. Confirms even an equal
    pool: what is on disk may not be what the proxy runs, after a crash. `render` False: an equal one is not rendered
    anew, since whatever follows does that before it changes anything.
    """
    replicas = run.ports.engine.replicas(run.service)
    pool = run.ports.proxy.pool(run.service)
    journal, service = run.ports.journal, run.service
    mine = belonging(replicas, pool, journal.warm(service), journal.live(service), journal.unfinished(service))
    in_force = pool is not None and run.ports.proxy.holds(pool)
    run.trust(pool if in_force else None, replicas)
    wanted = [r for r in mine if stays_ready(run, r)]
    if not wanted:
        if pool is not None and pool.upstreams:
            run.emit(nothing_ready(pool))
        return frozenset()
    by_id = {r.id: r for r in replicas}
    fresh = run.pool_of([r.id for r in wanted], by_id)
    run.live = {r.id for r in wanted}
    if not render and in_force and pool == fresh:
        return frozenset(run.live)
    switched = run.ports.proxy.switch(fresh)
    if pool is not None and pool.upstreams != fresh.upstreams:
        run.emit(followed(pool, fresh))
    if pool is not None:
        for replica_id in routed_ids(pool, replicas) - {r.id for r in wanted}:
            run.switched[replica_id] = switched
    return frozenset(run.live)


def nothing_ready(pool: Pool) -> Warned:
    text = f"no replica of {pool.service} is ready; the pool is left as it was ({named(pool.upstreams) or 'empty'})"
    return Warned(pool.service, "nothing-ready", text)

"""An exit code is a promise as well: what each says of the service must be so in the world.

Judged only where nobody else has changed anything during the run, and where nothing was wrong before it or the run says
that it has put it right: else the world is not the outcome of that run alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rollout.errors import ExitCode
from rollout.model import FailureAction, RevisionKey, UpdateConfig
from rollout.ports import Journal
from tests.simulation.world import Container, World, name_of

DOCUMENTED = frozenset(ExitCode) - {ExitCode.BUG}  # of which the last is that something is wrong with rollout itself
AS_IT_WAS = frozenset({ExitCode.FAILED, ExitCode.USAGE, ExitCode.LOCKED, ExitCode.UNREACHABLE, ExitCode.INTERRUPTED})


@dataclass(frozen=True)
class Seen:
    """One service at one moment. `serving`: how many replicas of which revision take traffic and can."""

    serving: Counter[RevisionKey]
    routed: int
    containers: int
    unfinished: str  # the state of the rollout that is under way, if one is
    in_force: bool  # the pool on disk: one that was killed in a switch may have left another there
    meddled: int  # what others have done so far, counted

    @property
    def sound(self) -> bool:
        """All that takes traffic can."""
        return self.serving.total() == self.routed > 0


def look(world: World, journal: Journal, service: str, meddled: int) -> Seen:
    routed = world.loaded[service].upstreams
    there = {name_of(c): c for c in world.containers.values() if c.replica.service == service}
    able = [there[u.name] for u in routed if u.name in there and _serves(world, there[u.name], u.host)]
    record = journal.unfinished(service)
    return Seen(
        serving=Counter(c.replica.key for c in able),
        routed=len(routed),
        containers=len(there),
        unfinished=record.state if record is not None else "",
        in_force=world.disk.get(service) == world.loaded.get(service),
        meddled=meddled + world.happened,
    )


def _serves(world: World, container: Container, host: str) -> bool:
    return container.ip == host and world.ready(container)


def judge(
    code: ExitCode,
    key: RevisionKey,
    update: UpdateConfig,
    wanted: int,
    before: Seen,
    after: Seen,
    *,
    deployed: bool,
    interrupted: bool,
    paused: bool,
    tell: Callable[[], str],
) -> bool:
    """Whether it could be judged at all beyond being a documented one. Raises AssertionError when it is not true."""
    assert code in DOCUMENTED, f"exit {code}\n{tell()}"
    assert code != ExitCode.LOCKED, f"nobody else has the lock\n{tell()}"
    if code == ExitCode.INTERRUPTED:
        assert interrupted, f"nobody has interrupted it\n{tell()}"
        if paused and after.unfinished:  # a signal ends the waiting, not the pause
            return True
    if before.meddled != after.meddled:
        return False
    said = f"exit {code}: {before} -> {after}\n{tell()}"
    if code == ExitCode.OK and (deployed or before.sound):
        assert set(after.serving) <= {key} and not after.unfinished, said
        # who was ill before, and whom no health check calls so, stays at its address: one failed probe takes nobody out
        assert after.sound or not before.sound, said
        return True
    if code == ExitCode.NOT_UNDONE:
        tolerant = update.max_failure_ratio > 0 or update.failure_action is FailureAction.CONTINUE
        # who had died before it, and was listed as running still, is missed at its end
        incomplete = 0 < after.serving[key] < wanted
        assert after.unfinished or incomplete or (tolerant and after.serving[key]), said
        return True
    if not before.sound or not before.in_force or before.unfinished:
        return False
    assert set(after.serving) == set(before.serving) and after.sound, said
    return True

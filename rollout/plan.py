"""A plan is a flat list of typed steps. Pure data: a strategy makes it, the deploy performs it, `rollout plan` prints
it.

Old replicas are named by their container id. New ones do not exist yet, so they are named by the number of the batch
that starts them; batch 0 is what the target revision already has running when the plan is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from rollout.model import Replica, RevisionKey

EXISTING = 0  # the batch of replicas that were there before the plan
UNDO = -1  # the batch of old replicas that an undo brings back


@dataclass(frozen=True, slots=True)
class Step:
    kind: ClassVar[str] = ""

    def text(self) -> str:
        """One line for a person."""
        raise NotImplementedError

    def detail(self) -> Mapping[str, Any]:
        """For the journal, JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PreDeploy(Step):
    """Run the hook of that name; nothing has been started yet."""

    kind: ClassVar[str] = "pre_deploy"

    def text(self) -> str:
        return "run the pre_deploy hook"


@dataclass(frozen=True, slots=True)
class Start(Step):
    """Create and start `count` replicas of the target revision."""

    kind: ClassVar[str] = "start"
    batch: int
    count: int
    previous: bool = False  # of the revision before instead: an undo whose old replicas are gone

    def text(self) -> str:
        return f"start {_replicas(self.count, 'old' if self.previous else 'new')}"


@dataclass(frozen=True, slots=True)
class Restart(Step):
    """Start stopped old replicas again, the same containers."""

    kind: ClassVar[str] = "restart"
    batch: int
    replicas: tuple[str, ...]

    def text(self) -> str:
        return f"start again {_ids(self.replicas)}"


@dataclass(frozen=True, slots=True)
class Check(Step):
    """Wait until every replica of the batches is ready."""

    kind: ClassVar[str] = "check"
    batches: tuple[int, ...]

    def text(self) -> str:
        return "check that they are ready"


@dataclass(frozen=True, slots=True)
class Hold(Step):
    """Wait until somebody promotes the batches' replicas, which are ready and take no traffic yet."""

    kind: ClassVar[str] = "hold"
    batches: tuple[int, ...]

    def text(self) -> str:
        return "hold until it is promoted"


@dataclass(frozen=True, slots=True)
class Switch(Step):
    """Change the pool: batches in, old replicas out; confirmed live."""

    kind: ClassVar[str] = "switch"
    add: tuple[int, ...] = ()
    remove: tuple[str, ...] = ()
    maintenance: bool = False  # an empty pool is what is wanted (recreate)

    def text(self) -> str:
        if self.maintenance:
            return "switch to maintenance (503)" + (f", taking out {_ids(self.remove)}" if self.remove else "")
        parts = ["put the new replicas in"] if self.add else []
        parts += [f"take out {_ids(self.remove)}"] if self.remove else []
        return "switch: " + (", ".join(parts) or "confirm the pool")


@dataclass(frozen=True, slots=True)
class PostSwitch(Step):
    """Run the hook of that name; the old replicas can still take the traffic back."""

    kind: ClassVar[str] = "post_switch"

    def text(self) -> str:
        return "run the post_switch hook"


@dataclass(frozen=True, slots=True)
class Monitor(Step):
    """Watch the batches' replicas under traffic; a death or an unhealthy one is a failure."""

    kind: ClassVar[str] = "monitor"
    batches: tuple[int, ...]
    seconds: float

    def text(self) -> str:
        return f"monitor for {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Delay(Step):
    kind: ClassVar[str] = "delay"
    seconds: float

    def text(self) -> str:
        return f"delay {self.seconds:g} s before the next batch"


@dataclass(frozen=True, slots=True)
class Drain(Step):
    """Wait until the proxy can no longer send them a request, or the drain limit."""

    kind: ClassVar[str] = "drain"
    replicas: tuple[str, ...]

    def text(self) -> str:
        return f"drain {_ids(self.replicas)}"


@dataclass(frozen=True, slots=True)
class PreStop(Step):
    """Run the hook of that name for each of these drained replicas."""

    kind: ClassVar[str] = "pre_stop"
    replicas: tuple[str, ...]

    def text(self) -> str:
        return f"run the pre_stop hook in {_ids(self.replicas)}"


@dataclass(frozen=True, slots=True)
class Stop(Step):
    kind: ClassVar[str] = "stop"
    replicas: tuple[str, ...]

    def text(self) -> str:
        return f"stop {_ids(self.replicas)}"


@dataclass(frozen=True, slots=True)
class Remove(Step):
    kind: ClassVar[str] = "remove"
    replicas: tuple[str, ...]

    def text(self) -> str:
        return f"remove {_ids(self.replicas)}"


@dataclass(frozen=True, slots=True)
class KeepWarm(Step):
    """Let drained old replicas run on, out of rotation, so that a rollback is only a switch."""

    kind: ClassVar[str] = "keep_warm"
    replicas: tuple[str, ...]
    seconds: float

    def text(self) -> str:
        return f"keep {_ids(self.replicas)} warm for {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Plan:
    steps: tuple[Step, ...] = ()
    existing: tuple[str, ...] = ()  # ids of batch 0

    def __bool__(self) -> bool:
        return bool(self.steps)

    def texts(self) -> tuple[str, ...]:
        return tuple(step.text() for step in self.steps)


@dataclass(frozen=True, slots=True)
class Observed:
    """The world as a strategy sees it. `routed` are the ids in the proxy's pool; `spared` are not to be counted as the
    target's although they have its key (`--force`); `warm` are kept on purpose."""

    target: RevisionKey
    replicas: tuple[Replica, ...]
    routed: frozenset[str] = frozenset()
    spared: frozenset[str] = frozenset()
    warm: frozenset[str] = frozenset()

    def current(self) -> list[Replica]:
        """Replicas of the target revision that run and are not known to be ill."""
        return [r for r in self.replicas if self._is_target(r) and r.running and r.health != "unhealthy"]

    def outdated(self) -> list[Replica]:
        """Replicas that run and must go: another revision, or ill; the routed ones first."""
        gone = [r for r in self.replicas if r not in self.current() and r.state in _ALIVE and r.id not in self.warm]
        return sorted(gone, key=lambda r: (r.id not in self.routed, r.number))

    def leftovers(self) -> list[Replica]:
        """Containers that do not run: never started again, never counted, cleaned up at the end."""
        return [r for r in self.replicas if r.state not in _ALIVE]

    def _is_target(self, replica: Replica) -> bool:
        return replica.key == self.target and replica.id not in self.spared and replica.id not in self.warm


_ALIVE = frozenset({"running", "paused", "restarting"})


def _ids(ids: Sequence[str]) -> str:
    return ", ".join(i[:12] for i in ids) if ids else "nothing"


def _replicas(count: int, which: str) -> str:
    return f"1 {which} replica" if count == 1 else f"{count} {which} replicas"

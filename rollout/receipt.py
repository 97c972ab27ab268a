"""The receipt: what a rollout did and cost, measured. Printed at its end, kept in the journal, shown by `history`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rollout.model import Counters, Usage


@dataclass(frozen=True, slots=True)
class Receipt:
    """Times in seconds, memory in bytes, `started_at` in seconds since the epoch.

    `requests` is keyed by revision number as text (`"0"`: one that was never deployed by us, where it had any).
    `uncounted` says why the proxy's counters are missing; then `requests` is empty and means nothing.
    """

    service: str
    rollout: int
    what: str
    outcome: str  # deployed | undone | aborted | interrupted | failed
    strategy: str
    revision: int
    previous: int | None
    replicas: int
    started_at: float
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    requests: Mapping[str, Counters] = field(default_factory=dict)
    uncounted: str = ""
    cut: int = 0  # connections closed by force at the drain limit
    old: Usage | None = None  # all old replicas that had the traffic together, just before they were stopped
    new: Usage | None = None
    reason: str = ""  # why it failed

    @property
    def failed_requests(self) -> int:
        return sum(c.failed for c in self.requests.values())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Receipt:
        """The inverse of `as_json`; raises TypeError or KeyError for what never was a receipt."""
        values = dict(data)
        values["requests"] = {k: Counters(**v) for k, v in values.get("requests", {}).items()}
        for side in ("old", "new"):
            values[side] = Usage(**values[side]) if values.get(side) else None
        return cls(**values)


def total_usage(usages: list[Usage]) -> Usage | None:
    if not usages:
        return None
    return Usage(sum(u.cpu_seconds for u in usages), sum(u.memory_bytes for u in usages))

"""Which replicas are ready, as the membership knows: the engine's word alone says nothing of a probe."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from rollout.controller import Candidate


class Readiness:
    """Safe from any thread. Until a service was looked at, the engine's word counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unproven: dict[str, frozenset[str]] = {}

    def heard(self, services: Iterable[str], unproven: Iterable[Candidate]) -> None:
        """`unproven` are all replicas of these services that have yet to pass their probe."""
        found: dict[str, set[str]] = {name: set() for name in services}
        for candidate in unproven:
            found.setdefault(candidate.settings.name, set()).add(candidate.replica.id)
        with self._lock:
            self._unproven.update({name: frozenset(ids) for name, ids in found.items()})

    def unproven(self, service: str) -> frozenset[str]:
        """Ids."""
        with self._lock:
            return self._unproven.get(service, frozenset())

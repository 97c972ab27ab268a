"""When replicas died, and which lost requests that explains: what was inside one goes with it, and nothing else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tests.load import Failure, Mix

# Seconds after its process died in which a request that was inside is seen to have failed: the load's own process may
# have to wait for a processor. A dead replica that stays in the pool costs requests for 8.5 to 9.9 s.
AT_ONCE = 2.0
CONNECT_TIMEOUT = 2.0  # seconds; of both proxies, in tests/e2e/projects.py
UNANSWERED = 2 * CONNECT_TIMEOUT + AT_ONCE  # an address that answers no more is waited for, two in a pool one by one
NOBODY_ASKED = frozenset({"http_503", "http_504", "refused"})  # a request that met no replica at all


class Deaths:
    """When something died, by the clock that the load uses."""

    def __init__(self, mix: Mix, grace: float = AT_ONCE) -> None:
        self.mix, self.grace = mix, grace
        self.at: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def now(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.at.append((began, time.monotonic()))

    def explain(self, failure: Failure) -> bool:
        """One whose replica's network has gone with it hears nothing, and ends when its client gives up. An upload
        looks at its connection only as it goes on, `upload_seconds` after it has begun."""
        waited = self.mix.timeout if failure.cls == "timeout" else 0.0
        longest = waited + (self.mix.upload_seconds + AT_ONCE if waited else 0.0)
        if failure.kind == "upload":
            longest = max(longest, self.mix.upload_seconds)
        ended_at = failure.monotonic
        return any(began <= ended_at - waited and ended_at - longest <= ended + self.grace for began, ended in self.at)

"""Real time. The only module that reads a clock or sleeps; everything else is handed a `Clock`."""

from __future__ import annotations

import time


class SystemClock:
    """Real time. `now` is monotonic seconds for durations, `wall` is seconds since the epoch for people."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)  # the one place that may

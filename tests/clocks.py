"""A clock that only its test moves."""

from __future__ import annotations


class HandClock:
    def __init__(self, time: float = 0.0) -> None:
        self.time = time

    def now(self) -> float:
        return self.time

    wall = now

    def sleep(self, seconds: float) -> None:
        self.time += seconds

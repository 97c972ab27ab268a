"""Delay: Compose's `update_config.delay` between batches; the one pause that the user asked for by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.plan import Delay
from rollout.steps.following import Following
from rollout.steps.run import Run

SLICE = 0.25  # a signal is seen within this


def perform(run: Run, step: Delay) -> Mapping[str, Any]:
    following = Following(run)
    until = run.ports.clock.now() + step.seconds
    with run.off_the_clock():
        while (left := until - run.ports.clock.now()) > 0 and not (run.interrupted() or run.ending()):
            following.sleep(min(SLICE, left))
    return {}

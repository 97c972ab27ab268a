"""Delay: Compose's `update_config.delay` between batches; the one pause that the user asked for by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.plan import Delay
from rollout.steps.run import Run

SLICE = 0.25  # a signal is seen within this


def perform(run: Run, step: Delay) -> Mapping[str, Any]:
    until = run.ports.clock.now() + step.seconds
    while (left := until - run.ports.clock.now()) > 0 and not (run.interrupted() or run.ending()):
        run.ports.clock.sleep(min(SLICE, left))
    return {}

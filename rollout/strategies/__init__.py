"""Strategies: pure functions from (settings, observed world) to a plan. None of them does anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rollout.model import ServiceSettings, Strategy
from rollout.plan import Observed, Plan
from rollout.strategies.hooks import with_hooks
from rollout.strategies.leftovers import out_of_the_pool_first
from rollout.strategies.recreate import recreate
from rollout.strategies.rolling import blue_green, rolling

STRATEGIES: Mapping[Strategy, Callable[[ServiceSettings, Observed], Plan]] = {
    Strategy.ROLLING: rolling,
    Strategy.BLUE_GREEN: blue_green,
    Strategy.RECREATE: recreate,
}


def plan(settings: ServiceSettings, observed: Observed) -> Plan:
    """What it takes to bring the service to the target revision; empty when it is there. Any strategy, started on the
    half-done world of an interrupted run, gives the rest of that run's work."""
    made = with_hooks(settings.hooks, observed, STRATEGIES[settings.strategy](settings, observed))
    return out_of_the_pool_first(observed, made)  # a switch for these alone is no reason to run a hook

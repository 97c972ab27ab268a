"""The steps, one file each; the folder shows the flow. A step re-observes before it acts, so doing it twice is
harmless.

Each `perform(run, step)` returns what the journal should keep of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout import plan
from rollout.steps import (
    check,
    delay,
    drain,
    hold,
    keep_warm,
    monitor,
    post_switch,
    pre_deploy,
    pre_stop,
    remove,
    restart,
    start,
    stop,
    switch,
)
from rollout.steps.run import Run

_PERFORM: Mapping[type[plan.Step], Any] = {
    plan.PreDeploy: pre_deploy.perform,
    plan.Start: start.perform,
    plan.Restart: restart.perform,
    plan.Check: check.perform,
    plan.Hold: hold.perform,
    plan.Switch: switch.perform,
    plan.PostSwitch: post_switch.perform,
    plan.Monitor: monitor.perform,
    plan.Delay: delay.perform,
    plan.Drain: drain.perform,
    plan.PreStop: pre_stop.perform,
    plan.Stop: stop.perform,
    plan.Remove: remove.perform,
    plan.KeepWarm: keep_warm.perform,
}


def perform(run: Run, step: plan.Step) -> Mapping[str, Any]:
    result: Mapping[str, Any] = _PERFORM[type(step)](run, step)
    return result

"""The hooks of one service's `x-rollout.hooks`, as settings."""

from __future__ import annotations

from typing import Any

from rollout.model import Hook, Hooks
from rollout.spec.faults import Faults, Place

# seconds, and whether a failure is the deploy's; where the user says nothing
_DEFAULTS = {"pre_deploy": (300.0, True), "post_switch": (30.0, True), "pre_stop": (30.0, False)}


def read_hooks(section: Any, place: Place, faults: Faults) -> Hooks:
    """Those that are there. Faults are added; what has some is read as far as it goes."""
    asked = [name for name in _DEFAULTS if name in section.model_fields_set]
    return Hooks(**{name: _hook(name, getattr(section, name), (*place, name), faults) for name in asked})


def _hook(name: str, section: Any, place: Place, faults: Faults) -> Hook:
    if section.command and section.host_command:
        faults.add(place, "command and host_command exclude each other", "keep one: in a container, or on the host")
    if not (section.command or section.host_command):
        faults.add(place, "does not say what to run", 'add command: ["./manage.py", "migrate"], or host_command')
    seconds, fails = _DEFAULTS[name]
    if section.timeout is not None and section.timeout <= 0:
        faults.add((*place, "timeout"), "must be longer than 0", "like 5m")
    return Hook(
        command=section.command or (),
        host_command=section.host_command or (),
        timeout=seconds if section.timeout is None else section.timeout,
        fails=fails if section.failure is None else section.failure == "fail",
    )

"""The hooks of one service's `x-rollout.hooks`, as settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.model import Hook, Hooks
from rollout.spec.faults import Faults, Place

# seconds, and whether a failure is the deploy's; where the user says nothing
_DEFAULTS = {"pre_deploy": (300.0, True), "post_switch": (30.0, True), "pre_stop": (30.0, False)}


def read_hooks(section: Mapping[str, Any], place: Place, faults: Faults) -> Hooks:
    """Those that are there. Faults are added; what has some is read as far as it goes."""
    return Hooks(**{name: _hook(name, section[name], (*place, name), faults) for name in _DEFAULTS if name in section})


def _hook(name: str, section: Mapping[str, Any], place: Place, faults: Faults) -> Hook:
    if "command" in section and "host_command" in section:
        faults.add(place, "command and host_command exclude each other", "keep one: in a container, or on the host")
    perhaps = faults.within(place) - {"timeout", "failure"}  # misspelt, or not acceptable
    if not ("command" in section or "host_command" in section or perhaps):
        faults.add(place, "does not say what to run", 'add command: ["./manage.py", "migrate"], or host_command')
    seconds, fails = _DEFAULTS[name]
    timeout = section.get("timeout", seconds)
    if timeout <= 0:
        faults.add((*place, "timeout"), "must be longer than 0", "like 5m")
    return Hook(
        command=section.get("command", ()),
        host_command=section.get("host_command", ()),
        timeout=timeout,
        fails=section["failure"] == "fail" if "failure" in section else fails,
    )

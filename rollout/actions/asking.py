"""Ask something of a rollout that is under way, in whatever process."""

from __future__ import annotations

from typing import Any

from rollout import control
from rollout.wiring import Wired


def ask(wired: Wired, service: str, wish: str, who: str) -> dict[str, Any]:
    """`wish` is one of `control.Wish`, `who` as `cli:anna`. What was asked, JSON-able; `at_work`: whether a process
    performs the rollout now. Raises UsageError for what makes no sense, StateError."""
    at_work = wired.lock.holder(service) is not None
    record = control.ask(wired.ports.journal, service, control.Wish(wish), who, at_work=at_work)
    return {"service": service, "rollout": record.id, "wish": wish, "who": who, "at_work": at_work}

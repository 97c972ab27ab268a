"""What is told of an event, and how it looks in each format. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rollout import events
from rollout.receipt import Receipt
from rollout.report.receipt import outcome as told
from rollout.report.words import said


@dataclass(frozen=True, slots=True)
class Message:
    """One outcome of one rollout. `id` is the same in each attempt to deliver it; `at` is wall clock."""

    id: str
    at: float
    project: str
    service: str
    outcome: str  # one of model.OUTCOMES
    rollout: int
    text: str
    receipt: Mapping[str, Any] | None = field(default=None, repr=False)


def message(event: events.Event, project: str, at: float, number: str) -> Message | None:
    """None when the event is no outcome."""
    outcome = _outcome(event)
    if outcome is None:
        return None
    receipt = event.receipt if isinstance(event, events.Finished) else None
    rollout = int(receipt["rollout"] if receipt is not None else getattr(event, "rollout", 0))
    return Message(number, at, project, event.service, outcome, rollout, _text(event), receipt)


def body(message: Message, form: str) -> bytes:
    """The request's body: JSON either way."""
    if form == "slack":
        return json.dumps({"text": _escaped(f"{message.project}: {message.text}")}).encode()
    told = {
        "id": message.id,
        "at": message.at,
        "project": message.project,
        "service": message.service,
        "outcome": message.outcome,
        "rollout": message.rollout,
        "text": message.text,
        "receipt": message.receipt,
    }
    return json.dumps(told).encode()


def signature(secret: bytes, at: int, body: bytes) -> str:
    """The value of `X-Rollout-Signature`: `t=SECONDS,v1=HEX`, HMAC-SHA256 of `SECONDS.BODY`. A receiver refuses an old
    time, so that nobody can send it what was overheard."""
    digest = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _outcome(event: events.Event) -> str | None:
    match event:
        case events.Finished():
            return event.outcome
        case events.Held() | events.Paused() | events.Unfinished():
            return events.kind(event)
    return None


def _text(event: events.Event) -> str:
    if not isinstance(event, events.Finished):
        return f"{event.service}: {said(event)}"
    receipt = Receipt.from_json(event.receipt)
    because = f": {receipt.reason}" if receipt.reason and receipt.reason not in told(receipt) else ""
    return told(receipt) + because


def _escaped(text: str) -> str:
    """Slack takes these for its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""The receipt as it is printed: the outcome in one line, below it what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.model import Usage
from rollout.receipt import Receipt
from rollout.report.words import duration, memory, plural

GREEN, YELLOW, RED, BOLD = "32", "33", "31", "1"


def painted(text: str, *codes: str, color: bool) -> str:
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if color else text


def receipt_lines(data: Mapping[str, Any], *, color: bool = False, quiet: bool = False) -> list[str]:
    """`data` is `Receipt.as_json()`; `quiet` keeps the outcome only."""
    receipt = Receipt.from_json(data)
    first = painted(outcome(receipt), BOLD, _tone(receipt), color=color)
    if quiet:
        return [first]
    rows = [
        ("phases", ", ".join(f"{name} {duration(seconds)}" for name, seconds in receipt.phases.items())),
        ("requests", _requests(receipt)),
        ("cut", f"{plural(receipt.cut, 'connection')} at the drain limit" if receipt.cut else "no connection"),
        ("usage", _usage(receipt)),
    ]
    return [first, *(f"  {name:<9} {text}" for name, text in rows if text)]


def outcome(receipt: Receipt) -> str:
    """One line: what became of it, and what it cost anybody."""
    took = duration(receipt.seconds)
    was = f" (was {receipt.previous})" if receipt.previous not in (None, receipt.revision) else ""
    if receipt.outcome == "deployed":
        verb = "rolled back to" if receipt.what == "rollback" else "deployed"
        return f"{receipt.service}: {verb} revision {receipt.revision}{was} in {took}, {_losses(receipt)}"
    serves = "" if receipt.previous is None else f", revision {receipt.previous} serves as before"
    if serves and not receipt.replicas:
        serves = f"; no replica of revision {receipt.previous} runs"
    what = {"interrupted": "interrupted", "undone": "not deployed"}.get(receipt.outcome, receipt.outcome)
    became = f"was taken back{serves}"
    if receipt.outcome == "failed":
        became = "was neither finished nor taken back"
    line = f"{receipt.service}: {what} after {took}: revision {receipt.revision} {became}"
    return f"{line}, {_losses(receipt)}" if receipt.failed_requests or receipt.cut else line


def _losses(receipt: Receipt) -> str:
    failed = receipt.failed_requests
    lost = [f"{plural(failed, 'request')} FAILED"] if failed else []
    lost += [f"{plural(receipt.cut, 'connection')} cut"] if receipt.cut else []
    if not lost:
        return "requests not counted" if receipt.uncounted else "no request failed"
    return " and ".join(lost)


def _tone(receipt: Receipt) -> str:
    if receipt.outcome != "deployed":
        return RED
    return YELLOW if receipt.failed_requests or receipt.cut else GREEN


def _requests(receipt: Receipt) -> str:
    if receipt.uncounted:
        return f"not counted: {receipt.uncounted}"
    counted = sorted(receipt.requests.items(), key=lambda item: int(item[0]))
    told = [f"revision {number}: {c.requests:,} ({c.failed:,} failed)" for number, c in counted]
    return ", ".join(told).replace("revision 0:", "unknown revision:") or "none"


def _usage(receipt: Receipt) -> str:
    sides = [("old", receipt.old), ("new", receipt.new)]
    return ", ".join(f"{side} {_used(usage)}" for side, usage in sides if usage is not None)


def _used(usage: Usage) -> str:
    return f"{duration(usage.cpu_seconds)} CPU {memory(usage.memory_bytes)}"

"""rollout history"""

from __future__ import annotations

from typing import Any

import click

from rollout.cli.moments import moment
from rollout.cli.options import global_options
from rollout.cli.session import Session, session
from rollout.cli.terminal import table

MOST = 1_000_000  # no journal has more, and it counts in 64 bits


@click.command()
@click.argument("service", required=False)
@click.option("--limit", type=click.IntRange(1, MOST), default=20, show_default=True, help="At most this many.")
@global_options
@click.pass_context
def command(ctx: click.Context, service: str | None, limit: int) -> None:
    """Past rollouts, newest first, with what they cost. `rollout rollback SERVICE --to N` takes a REVISION."""
    with session(ctx, document=True) as running:
        found = _by_sidecar(running, service, limit)
        found = _here(running, service, limit) if found is None else found
        running.show(found, lambda: _text(found))


def _by_sidecar(running: Session, service: str | None, limit: int) -> list[dict[str, Any]] | None:
    from urllib.parse import urlencode

    from rollout.cli.sidecar import ask

    found = ask(
        running.said, "/v1/rollouts?" + urlencode({"limit": limit, **({"service": service} if service else {})})
    )
    return None if found is None else list(found["rollouts"])


def _here(running: Session, service: str | None, limit: int) -> list[dict[str, Any]]:
    with running.project((service,) if service else (), looks_only=True) as wired:
        from rollout import actions

        return actions.history(wired, service, limit)


def _text(rollouts: list[dict[str, Any]]) -> str:
    if not rollouts:
        return "no rollout yet"
    head = ("ROLLOUT", "STARTED", "SERVICE", "WHAT", "REVISION", "OUTCOME", "TOOK", "REQUESTS", "IMAGE")
    return table([head, *map(_row, rollouts)])


def _row(rollout: dict[str, Any]) -> tuple[str, ...]:
    from rollout.receipt import Receipt
    from rollout.report.words import duration

    receipt = Receipt.from_json(rollout["receipt"]) if rollout["receipt"] else None
    revision = rollout["revision"]
    was = f" (was {receipt.previous})" if receipt and receipt.previous not in (None, revision) else ""
    return (
        str(rollout["rollout"]),
        moment(rollout["started_at"]),
        rollout["service"],
        rollout["what"],
        f"{revision}{was}",
        rollout["state"],
        duration(receipt.seconds) if receipt else "-",
        _requests(receipt) if receipt else "-",
        rollout["image"],
    )


def _requests(receipt: Any) -> str:
    if receipt.uncounted:
        return "uncounted"
    total = sum(c.requests for c in receipt.requests.values())
    return f"{total:,}" + (f", {receipt.failed_requests:,} failed" if receipt.failed_requests else "")

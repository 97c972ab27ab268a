"""rollout history"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rollout.cli.moments import moment
from rollout.cli.options import global_options
from rollout.cli.session import session
from rollout.cli.terminal import table

if TYPE_CHECKING:
    from rollout.ports import RolloutRecord


@click.command()
@click.argument("service", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most this many.")
@global_options
@click.pass_context
def command(ctx: click.Context, service: str | None, limit: int) -> None:
    """Past rollouts, newest first, with what they cost. `rollout rollback SERVICE --to N` takes a REVISION."""
    wanted = (service,) if service else ()
    with session(ctx) as running, running.project(wanted, looks_only=True) as wired:
        records = wired.ports.journal.history(service, limit)
        running.show([_as_json(r) for r in records], lambda: _text(records))


def _as_json(record: RolloutRecord) -> dict[str, Any]:
    return {
        "rollout": record.id,
        "service": record.service,
        "what": record.what,
        "state": record.state,
        "strategy": record.strategy,
        "revision": record.target.number,
        "image": record.target.image,
        "started_at": record.started_at,
        "receipt": dict(record.receipt),
    }


def _text(records: list[RolloutRecord]) -> str:
    if not records:
        return "no rollout yet"
    head = ("ROLLOUT", "STARTED", "SERVICE", "WHAT", "REVISION", "OUTCOME", "TOOK", "REQUESTS", "IMAGE")
    return table([head, *map(_row, records)])


def _row(record: RolloutRecord) -> tuple[str, ...]:
    from rollout.receipt import Receipt
    from rollout.report.words import duration

    receipt = Receipt.from_json(record.receipt) if record.receipt else None
    was = f" (was {receipt.previous})" if receipt and receipt.previous not in (None, record.target.number) else ""
    return (
        str(record.id),
        moment(record.started_at),
        record.service,
        record.what,
        f"{record.target.number}{was}",
        record.state,
        duration(receipt.seconds) if receipt else "-",
        _requests(receipt) if receipt else "-",
        record.target.image,
    )


def _requests(receipt: Any) -> str:
    if receipt.uncounted:
        return "uncounted"
    total = sum(c.requests for c in receipt.requests.values())
    return f"{total:,}" + (f", {receipt.failed_requests:,} failed" if receipt.failed_requests else "")

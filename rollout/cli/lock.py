"""rollout lock"""

from __future__ import annotations

import click

from rollout.cli.options import global_options
from rollout.cli.session import session
from rollout.cli.status import lock_text


@click.command()
@global_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """Who holds the lock of which service. A lock is freed when its process ends, however it ends."""
    with session(ctx, document=True) as running, running.project(looks_only=True) as wired:
        holders = {service: wired.lock.holder(service) for service in wired.project.services}
        running.show(holders, lambda: "\n".join(
            f"{service}: {lock_text(holder) if holder else 'free'}" for service, holder in holders.items()
        ))  # fmt: skip

"""rollout rollback"""

from __future__ import annotations

import click

from rollout.cli.options import as_seconds, global_options
from rollout.cli.session import session


@click.command()
@click.argument("service")
@click.option("--to", "number", type=click.IntRange(min=1), metavar="N", help="The revision; see `rollout history`.")
@click.option("--wait-lock", default="0", callback=as_seconds, metavar="TIME", help="Wait for another rollout: 10m.")
@global_options
@click.pass_context
def command(ctx: click.Context, service: str, number: int | None, wait_lock: float) -> None:
    """Go back to the revision that was deployed before the live one, or to revision N.

    Where its replicas are kept warm it is only a switch; else they are made again from the configuration stored then.
    The Compose file is left alone: put the old version into it as well, or the next deploy brings the new one back.
    """
    with session(ctx) as running, running.project((service,)) as wired:
        from rollout import actions
        from rollout.cli.sidecar import delegate

        body = {"to": number, "wait_lock": wait_lock, "config": wired.loaded.config}
        if delegate(running, wired, f"/v1/services/{service}/rollback", lambda: body) is None:
            actions.rollback(wired, service, number, running.teller(wired), running.interruption, wait_lock=wait_lock)

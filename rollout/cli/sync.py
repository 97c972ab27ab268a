"""rollout sync"""

from __future__ import annotations

import click

from rollout.cli.options import as_seconds, global_options
from rollout.cli.session import session


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--wait-lock", default="0", callback=as_seconds, metavar="TIME", help="Wait for another rollout: 10m.")
@global_options
@click.pass_context
def command(ctx: click.Context, services: tuple[str, ...], wait_lock: float) -> None:
    """Finish what an interrupted run left, and make the proxy follow the replicas.

    Right after a replica was restarted, stopped or scaled by hand, and from cron where no sidecar runs.
    """
    with session(ctx) as running, running.project(services) as wired:
        from rollout import actions
        from rollout.cli.sidecar import delegate

        body = {"services": list(services), "wait_lock": wait_lock, "config": wired.loaded.config}
        done = delegate(running, wired, "/v1/sync", lambda: body)
        if done is not None:
            pools = done["pools"]
        else:
            pools = actions.sync(wired, services, running.told, running.interruption, wait_lock=wait_lock)
        running.show({"event": "synced", "pools": pools}, lambda: _text(pools), indent=None)  # the last of its events


def _text(pools: dict[str, list[str]]) -> str:
    nothing = "no replica is ready: requests are answered 503"
    return "\n".join(f"{service}: {', '.join(pool) or nothing}" for service, pool in pools.items())

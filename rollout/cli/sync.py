"""rollout sync"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rollout.cli.options import as_seconds, global_options
from rollout.cli.session import session

if TYPE_CHECKING:
    from rollout.wiring import Wired


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--wait-lock", default="0", callback=as_seconds, metavar="TIME", help="Wait for another rollout: 10m.")
@global_options
@click.pass_context
def command(ctx: click.Context, services: tuple[str, ...], wait_lock: float) -> None:
    """Finish what an interrupted run left, and make the proxy follow the replicas.

    Right after a replica was restarted, stopped or scaled by hand, and from cron where no sidecar runs: with -q it says
    nothing when nothing had changed.
    """
    with session(ctx) as running, running.project(services) as wired:
        from rollout import actions
        from rollout.cli.sidecar import delegate

        before = _in_force(wired, services)
        body = {"services": list(services), "wait_lock": wait_lock, "config": wired.loaded.config}
        done = delegate(running, wired, "/v1/sync", lambda: body)
        if done is not None:
            pools = done["pools"]
        else:
            pools = actions.sync(wired, services, running.told, running.interruption, wait_lock=wait_lock)
        told = _news(before, pools) if running.said.quiet else pools
        if told or running.said.json:
            last = {"event": "synced", "pools": pools}
            running.show(last, lambda: _text(told), indent=None)


def _in_force(wired: Wired, services: tuple[str, ...]) -> dict[str, set[str]]:
    """The addresses in each service's pool."""
    pools = {service: wired.proxy.pool(service) for service in services or wired.project.services}
    return {service: {u.address for u in pool.upstreams} if pool else set() for service, pool in pools.items()}


def _news(before: dict[str, set[str]], pools: dict[str, list[str]]) -> dict[str, list[str]]:
    """For cron, which mails every word: what is as it was is no news; that there is no replica is, each time."""
    return {service: pool for service, pool in pools.items() if not pool or set(pool) != before[service]}


def _text(pools: dict[str, list[str]]) -> str:
    nothing = "no replica is ready: requests are answered 503"
    return "\n".join(f"{service}: {', '.join(pool) or nothing}" for service, pool in pools.items())

"""rollout status"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rollout.cli.moments import moment
from rollout.cli.options import global_options
from rollout.cli.session import session
from rollout.cli.terminal import table

if TYPE_CHECKING:
    from rollout.model import Pool, Replica
    from rollout.ports import Journal, RolloutRecord
    from rollout.wiring import Wired


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@global_options
@click.pass_context
def command(ctx: click.Context, services: tuple[str, ...]) -> None:
    """What runs, what takes traffic, who is at work. Touches nothing."""
    with session(ctx) as running, running.project(services, looks_only=True) as wired:
        names = services or tuple(wired.project.services)
        found = {
            "project": wired.project.name,
            "proxy": {"type": wired.project.proxy.type.value, "where": wired.process.describe(), **_proxy(wired)},
            "services": [service_status(wired, name) for name in names],
        }
        running.show(found, lambda: _text(found))


def service_status(wired: Wired, service: str) -> dict[str, Any]:
    """Everything known of a service, JSON-able."""
    from rollout.targets import live_revision

    ports = wired.ports
    replicas, pool = ports.engine.replicas(service), ports.proxy.pool(service)
    live = live_revision(ports.journal, service, replicas, pool)
    warm, unfinished = ports.journal.warm(service), ports.journal.unfinished(service)
    return {
        "service": service,
        "live": {"revision": live.number, "image": live.image, **asdict(live.key)} if live else None,
        "wanted": wired.project.services[service].replicas,
        "replicas": _replicas(wired, replicas, pool, frozenset(warm.replicas if warm else ())),
        "warm": {"revision": warm.revision, "until": warm.until} if warm else None,
        "unfinished": _unfinished(ports.journal, unfinished),
        "lock": wired.lock.holder(service),
    }


def _unfinished(journal: Journal, record: RolloutRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    from rollout.control import condition, standing

    wishes = journal.wishes(record.id)
    now = standing(wishes)
    return {
        "rollout": record.id,
        "what": record.what,
        "state": condition(record, now, journal.last_step(record.id)),
        "revision": record.target.number,
        "since": record.started_at,
        "switched": record.switched,
        "by": now.aborted or now.paused,
        "wishes": [asdict(wish) for wish in wishes],
    }


def _proxy(wired: Wired) -> dict[str, Any]:
    from rollout.errors import ProxyUnreachable

    try:
        wired.process.identity()
    except ProxyUnreachable as error:
        return {"running": False, "reason": error.message}
    return {"running": True, "where": wired.process.describe()}


def _replicas(
    wired: Wired, replicas: Sequence[Replica], pool: Pool | None, warm: frozenset[str]
) -> list[dict[str, Any]]:
    from rollout.steps.run import routed_ids, upstream_name

    numbers = {r.key: r.number for replica in replicas[:1] for r in wired.ports.journal.revisions(replica.service)}
    routed = routed_ids(pool, replicas)
    addresses = {u.name: u.address for u in pool.upstreams} if pool else {}

    def one(replica: Replica) -> dict[str, Any]:
        own = next(iter(replica.addresses.values()), "")
        return {
            "name": replica.name,
            "id": replica.id,
            "state": replica.state.value,
            "health": replica.health.value,
            "revision": numbers.get(replica.key),
            "image": replica.image,
            "address": addresses.get(upstream_name(replica), own),
            "pool": "in" if replica.id in routed else "warm" if replica.id in warm else "out",
        }

    return [one(replica) for replica in replicas]


def _text(found: dict[str, Any]) -> str:
    proxy = found["proxy"]
    about = f"{proxy['type']}, {proxy['where']}" if proxy["running"] else f"{proxy['type']}: {proxy['reason']}"
    return "\n\n".join([f"project {found['project']}, proxy {about}", *map(_service_text, found["services"])])


def _service_text(one: dict[str, Any]) -> str:
    live, replicas = one["live"], one["replicas"]
    routed = sum(r["pool"] == "in" for r in replicas)
    what = f"revision {live['revision']} ({live['image']})" if live else "not deployed by rollout yet"
    lines = [f"{one['service']}: {what}, {routed} of {one['wanted']} replicas in the pool"]
    if replicas:
        head = ("REPLICA", "STATE", "HEALTH", "REVISION", "ADDRESS", "POOL")
        rows = [
            (r["name"], r["state"], r["health"], str(r["revision"] or "-"), r["address"] or "-", r["pool"])
            for r in replicas
        ]
        lines.append(table([head, *rows], indent="  "))
    if one["warm"]:
        lines.append(f"  revision {one['warm']['revision']} is kept warm until {moment(one['warm']['until'])}")
    if left := one["unfinished"]:
        lines.append(f"  {unfinished_text(one['service'], left, at_work=bool(one['lock']))}")
    if one["lock"]:
        lines.append(f"  locked: {lock_text(one['lock'])}")
    return "\n".join(lines)


def unfinished_text(service: str, left: dict[str, Any], *, at_work: bool) -> str:
    """One line: what the rollout does, and what somebody can do about it."""
    what = f"rollout {left['rollout']} ({left['what']} of revision {left['revision']})"
    since = f"begun {moment(left['since'])}"
    state = f"{left['state']} by {left['by']}" if left["by"] else left["state"]
    ways = {
        "held": f"`rollout promote {service}` switches, `rollout abort {service}` takes it back",
        "paused": f"`rollout resume {service}` or `rollout abort {service}`",
    }
    if at_work:
        way = ways.get(left["state"], "")
        return f"under way: {what}, {since}: {state}" + (f"; {way}" if way else "")
    way = f"{ways['paused']}, then `rollout sync`" if left["state"] == "paused" else "`rollout sync`"
    return f"unfinished: {what}, {since}: {state}; {way} or the next deploy sees to it"


def lock_text(holder: dict[str, Any]) -> str:
    since = f" since {moment(float(holder['since']))}" if holder.get("since") else ""
    return f"{holder.get('what', 'unknown')} by pid {holder.get('pid', '?')} on {holder.get('host', '?')}{since}"

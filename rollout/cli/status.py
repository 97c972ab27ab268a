"""rollout status"""

from __future__ import annotations

from typing import Any

import click

from rollout.cli.moments import moment
from rollout.cli.options import global_options
from rollout.cli.session import Session, session
from rollout.cli.terminal import table


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@global_options
@click.pass_context
def command(ctx: click.Context, services: tuple[str, ...]) -> None:
    """What runs, what takes traffic, who is at work. Touches nothing."""
    with session(ctx, document=True) as running:
        found = _by_sidecar(running, services) or _here(running, services)
        running.show(found, lambda: _text(found))


def _by_sidecar(running: Session, services: tuple[str, ...]) -> dict[str, Any] | None:
    from rollout.cli.sidecar import ask

    found = ask(running.said, "/v1/project")
    if found is None:
        return None
    by_name = {one["service"]: one for one in found["services"]}
    if not set(services) <= by_name.keys():
        return None
    return {**found, "services": [by_name[name] for name in services or by_name]}


def _here(running: Session, services: tuple[str, ...]) -> dict[str, Any]:
    with running.project(services, looks_only=True) as wired:
        from rollout import actions

        return actions.status(wired, services)


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

"""rollout plan"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rollout.cli.deploy import STRATEGIES
from rollout.cli.options import global_options
from rollout.cli.session import Session, session

if TYPE_CHECKING:
    from rollout.plan import Plan
    from rollout.wiring import Wired


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--force", is_flag=True, help="As if for `deploy --force`.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Instead of the one in x-rollout.")
@click.option("--show-secrets", is_flag=True, help="Show the values of environment variables.")
@global_options
@click.pass_context
def command(
    ctx: click.Context, services: tuple[str, ...], force: bool, strategy: str | None, show_secrets: bool
) -> None:
    """Show what deploy would do, and what has changed since the live revision. Touches nothing."""
    with session(ctx, document=True) as running, running.project(services, looks_only=True) as wired:
        from rollout import preflight
        from rollout.targets import in_order
        from rollout.wishes import with_strategy

        names = in_order(wired.loaded, wired.project, services)
        for name in names:
            wired.override(name, with_strategy(strategy))
        preflight.refuse(wired.findings(names))
        plans = [_one(wired, name, force, show_secrets) for name in names]
        running.show(plans, lambda: "\n\n".join(_text(running, p) for p in plans))


def _one(wired: Wired, service: str, force: bool, show_secrets: bool) -> dict[str, Any]:
    from rollout import strategies
    from rollout.cli.changes import service_diff
    from rollout.deploy import observe
    from rollout.model import RevisionKey
    from rollout.targets import image_reference, live_revision

    ports, settings = wired.ports, wired.project.services[service]
    reference = image_reference(wired.project, service)
    image_id = ports.images.image_id(reference)
    key = RevisionKey(wired.loaded.hashes[service], image_id or "")
    observed = observe(ports, service, key, force=force)
    if not observed.routed:  # the first deploy begins by putting what runs into the pool
        running = frozenset(r.id for r in observed.replicas if r.running and r.id not in observed.warm)
        observed = replace(observed, routed=running)
    revisions = ports.journal.revisions(service)
    live = live_revision(ports.journal, service, observed.replicas, ports.proxy.pool(service))
    left = ports.journal.unfinished(service)
    known = next((r.number for r in revisions if r.key == key), None)
    return {
        "service": service,
        "strategy": settings.strategy.value,
        "replicas": settings.replicas,
        "revision": known or max((r.number for r in revisions), default=0) + 1,
        "live": live.number if live else None,
        "image": reference,
        "image_here": image_id is not None,
        "unfinished": left.id if left else None,
        "steps": list(_named(strategies.plan(settings, observed), observed.replicas)),
        "diff": service_diff(service, live, wired.loaded, key, show_secrets),
    }


def _named(plan: Plan, replicas: Any) -> list[str]:
    """The steps with the replicas' names, which are what people know them by."""
    names = {r.short_id: r.name for r in replicas}
    texts = []
    for text in plan.texts():
        for short_id, name in names.items():
            text = text.replace(short_id, name)  # noqa: PLW2901
        texts.append(text)
    return texts


def _text(running: Session, one: dict[str, Any]) -> str:
    from rollout.report.words import plural

    was = f" (live: {one['live']})" if one["live"] is not None else ""
    head = (
        f"{one['service']}: {one['strategy']} to revision {one['revision']}{was}, {plural(one['replicas'], 'replica')}"
    )
    if not one["steps"]:
        return f"{one['service']}: nothing to do: revision {one['revision']} runs already"
    lines = [head]
    if one["unfinished"]:
        lines.append(f"  first: what rollout {one['unfinished']} left unfinished is finished or taken back")
    if not one["image_here"]:
        lines.append(f"  first: {one['image']} is not here and is fetched")
    lines += [f"  {number:>2}. {text}" for number, text in enumerate(one["steps"], 1)]
    if one["diff"]:
        lines += ["", *(_colored(running, line) for line in one["diff"])]
    return "\n".join(lines)


def _colored(running: Session, line: str) -> str:
    color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
    return click.style(line, fg=color) if color and running.colors else line

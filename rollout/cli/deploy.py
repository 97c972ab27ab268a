"""rollout deploy, and what `rollback` and `docker rollout` share with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from rollout.cli.options import as_seconds, global_options
from rollout.cli.session import Session, session

if TYPE_CHECKING:
    from rollout.deploy import Request
    from rollout.events import Event, Sink
    from rollout.model import Finding, ServiceSettings
    from rollout.wiring import Wired

STRATEGIES = ("rolling", "blue-green", "recreate")
PULL = ("always", "missing", "never")


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options of a deploy. `change` is what the command line makes of a service's settings."""

    image: str = ""
    pull: str = "missing"
    build: bool = False
    force: bool = False
    wait_lock: float = 0.0
    change: Callable[[ServiceSettings], ServiceSettings] = lambda settings: settings


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--image", default="", metavar="REF", help="Deploy this image, not the Compose file's; one SERVICE.")
@click.option("--pull", type=click.Choice(PULL), default="missing", show_default=True, help="When to pull the image.")
@click.option("--build", is_flag=True, help="Build the image first.")
@click.option("--force", is_flag=True, help="Replace the replicas even if nothing changed.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Instead of the one in x-rollout.")
@click.option("--wait-lock", default="0", callback=as_seconds, metavar="TIME", help="Wait for another rollout: 10m.")
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    services: tuple[str, ...],
    image: str,
    pull: str,
    build: bool,
    force: bool,
    strategy: str | None,
    wait_lock: float,
) -> None:
    """Bring services to what the Compose file says now, losing no request.

    Without SERVICE: every service with x-rollout, each after those it depends on, until one fails.
    """
    with session(ctx) as running:
        deploy(running, services, Wishes(image, pull, build, force, wait_lock, with_strategy(strategy)))


def with_strategy(name: str | None) -> Callable[[ServiceSettings], ServiceSettings]:
    from rollout.model import Strategy

    return lambda settings: replace(settings, strategy=Strategy(name)) if name else settings


def deploy(running: Session, wanted: Sequence[str], wishes: Wishes) -> None:
    """Deploy the services in order, up to the first failure. Faults of all of them are told before any is touched."""
    _fitting(wanted, wishes)
    with running.project(wanted) as wired:
        from rollout import preflight
        from rollout.targets import in_order

        names = in_order(wired.loaded, wired.project, wanted)
        for name in names:
            wired.override(name, wishes.change)
        found = wired.findings(names)
        preflight.refuse(found)
        emit = with_findings(running, wired, found)
        requests = [target(wired, name, wishes) for name in names]
        for position, (name, request) in enumerate(zip(names, requests, strict=True)):
            running.stop_if_interrupted(names[position:])
            roll(running, wired, name, replace(request, force=wishes.force, wait_lock=wishes.wait_lock), emit)


def with_findings(running: Session, wired: Wired, found: Sequence[Finding] = ()) -> Sink:
    """The report, with what the proxy's configuration would lose (and `found`) as warnings, and replicas by name."""
    from rollout.report.naming import Naming
    from rollout.report.relay import Relay

    relay = Relay(running.report, lambda: [*found, *wired.proxy.findings()])
    return relay if running.said.json else Naming(relay, wired.ports.engine.replicas)


def roll(running: Session, wired: Wired, service: str, request: Request, emit: Sink) -> None:
    """One service to its target."""
    from rollout.deploy import deploy as carry_out

    def told(event: Event) -> None:
        running.interruption.follow(event)
        emit(event)

    carry_out(wired.ports, wired.project.services[service], request, told, running.interruption)


def target(wired: Wired, service: str, wishes: Wishes) -> Request:
    """What is to be deployed, its image fetched as wished. Raises ImageNotFound, ComposeError."""
    from rollout import targets

    loaded, project, images = wired.loaded, wired.project, wired.ports.images
    if wishes.image:
        config = targets.with_other_image(loaded, service, wishes.image)
        _fetch(wired, service, wishes.image, config, wishes)
        return targets.image_target(loaded, project, service, wishes.image, images, wired.compose.hashes)
    _fetch(wired, service, targets.image_reference(project, service), None, wishes)
    return targets.deploy_target(loaded, project, service, images)


def _fetch(wired: Wired, service: str, reference: str, config: str | None, wishes: Wishes) -> None:
    images = wired.ports.images
    built = "build" in wired.loaded.document["services"][service] and config is None
    missing = images.image_id(reference) is None
    if wishes.build or (built and missing and wishes.pull == "missing"):
        images.build(service)
    elif wishes.pull == "always" or (missing and wishes.pull == "missing"):
        images.pull(service, config)


def _fitting(wanted: Sequence[str], wishes: Wishes) -> None:
    from rollout.errors import UsageError
    from rollout.spec.faults import Refused
    from rollout.spec.values import image

    if wishes.image and len(wanted) != 1:
        raise UsageError("--image needs exactly one SERVICE", hint="rollout deploy SERVICE --image REF")
    if wishes.image and wishes.build:
        raise UsageError("--image and --build exclude each other", hint="name the image, or let Compose build its own")
    try:
        image(wishes.image or "none")
    except Refused as error:
        raise UsageError(f"--image: {error.message}", hint=error.hint) from error

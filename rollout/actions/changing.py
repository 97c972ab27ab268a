"""Deploy, roll back, sync: each on some services of a project, in order, up to the first that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rollout import preflight, targets
from rollout.deploy import Request
from rollout.deploy import deploy as carry_out
from rollout.errors import Interrupted
from rollout.events import Sink
from rollout.model import Finding, Revision
from rollout.receipt import Receipt
from rollout.report.relay import Relay
from rollout.wiring import Wired
from rollout.wishes import Wishes

Asked = Callable[[], bool]  # whether somebody asked for an end


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a deploy will do, in this order; nothing but images was touched yet. `findings` are warnings to tell."""

    requests: Sequence[tuple[str, Request]]
    findings: Sequence[Finding]


def deploy(wired: Wired, wanted: Sequence[str], wishes: Wishes, emit: Sink, interrupted: Asked) -> list[Receipt]:
    """Bring the services (default: all with x-rollout) to what the project says. Faults of all of them are told before
    any is touched. Answers the receipts, none for a service that was there already. Raises RolloutError."""
    preflight.refuse(wired.writing())
    prepared = prepare(wired, wanted, wishes, interrupted)
    told = Relay(emit, lambda: [*prepared.findings, *wired.proxy.findings()])
    receipts = []
    for position, (name, request) in enumerate(prepared.requests):
        _go_on(interrupted, [service for service, _ in prepared.requests[position:]])
        receipts.append(carry_out(wired.ports, wired.project.services[name], request, told, interrupted))
    return [receipt for receipt in receipts if receipt is not None]


def prepare(wired: Wired, wanted: Sequence[str], wishes: Wishes, interrupted: Asked = bool) -> Prepared:
    """Refuse what cannot be deployed, fetch the images as wished. Raises UsageError, SpecError, ImageNotFound,
    BuildFailed, ComposeError, Interrupted."""
    wishes.refuse_for(wanted)
    names = targets.in_order(wired.loaded, wired.project, wanted)
    for name in names:
        wired.override(name, wishes.apply)
    found = wired.findings(names)
    preflight.refuse(found)
    requests = []
    for name in names:
        _go_on(interrupted, names)
        requests.append((name, _target(wired, name, wishes)))
    return Prepared(requests, found)


def rollback(
    wired: Wired, service: str, number: int | None, emit: Sink, interrupted: Asked, *, wait_lock: float = 0.0
) -> Receipt | None:
    """Go back to the revision with this number, without one to the one before the live one, as that is when its turn
    comes: a deploy may be under way. None: it is live already.
    Raises UsageError, ImageNotFound, and what `deploy` raises."""
    ports = wired.ports

    def choose() -> Revision:
        live = targets.live_revision(ports.journal, service, ports.engine.replicas(service), ports.proxy.pool(service))
        return targets.choose_revision(ports.journal, service, number, live)

    def request_for(revision: Revision) -> Request:
        hashes = wired.compose.hashes
        request = targets.rollback_target(wired.project, revision, ports.images, ports.engine, hashes)
        return replace(request, wait_lock=wait_lock)

    preflight.refuse(wired.writing())
    request = request_for(choose())  # what cannot be is told before it waits
    settings, told = wired.project.services[service], Relay(emit, wired.proxy.findings)
    return carry_out(ports, settings, request, told, interrupted, lambda: request_for(choose()))


def sync(
    wired: Wired, wanted: Sequence[str], emit: Sink, interrupted: Asked, *, wait_lock: float = 0.0
) -> dict[str, list[str]]:
    """Finish what an interrupted run left, let the pools follow the replicas. Answers the addresses in each service's
    pool. Raises LockHeld, NotUndone, ProxyUnreachable."""
    from rollout.controller import sync_once  # a deploy does without

    pools: dict[str, list[str]] = {}
    names = list(wanted or wired.project.services)
    for position, service in enumerate(names):
        _go_on(interrupted, names[position:])
        sync_once(wired.ports, wired.project.services[service], emit, wait_lock=wait_lock)
        pool = wired.ports.proxy.pool(service)
        pools[service] = [u.address for u in pool.upstreams] if pool else []
    return pools


def _go_on(interrupted: Asked, left: Sequence[str]) -> None:
    if interrupted():
        raise Interrupted(f"interrupted before {', '.join(left)}: not begun")


def _target(wired: Wired, service: str, wishes: Wishes) -> Request:
    """What is to be deployed, its image fetched as wished."""
    loaded, project, images = wired.loaded, wired.project, wired.ports.images
    if wishes.image:
        config = targets.with_other_image(loaded, service, wishes.image)
        _fetch(wired, service, wishes.image, config, wishes)
        request = targets.image_target(loaded, project, service, wishes.image, images, wired.compose.hashes)
    else:
        _fetch(wired, service, targets.image_reference(project, service), None, wishes)
        request = targets.deploy_target(loaded, project, service, images)
    return replace(request, force=wishes.force, wait_lock=wishes.wait_lock)


def _fetch(wired: Wired, service: str, reference: str, config: str | None, wishes: Wishes) -> None:
    images = wired.ports.images
    built = "build" in wired.loaded.document["services"][service] and config is None
    missing = images.image_id(reference) is None
    if wishes.build or (built and missing and wishes.pull == "missing"):
        images.build(service)
    elif wishes.pull == "always" or (missing and wishes.pull == "missing"):
        images.pull(service, config)

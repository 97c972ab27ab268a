"""Reading: services, revisions, replicas, rollouts, receipts, operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollout import actions
from rollout.server.http.endpoints import Call
from rollout.server.http.site import Site
from rollout.server.operations import Operation
from rollout.server.view import NoSuchThing

LARGEST = 2**53  # of a number in an address


def project(site: Site, call: Call) -> dict[str, Any]:
    return site.view.status()


def services(site: Site, call: Call) -> dict[str, Any]:
    return {"services": site.view.status()["services"]}


def service(site: Site, call: Call) -> dict[str, Any]:
    return _service(site, call.path["service"])


def replicas(site: Site, call: Call) -> dict[str, Any]:
    return {"replicas": _service(site, call.path["service"])["replicas"]}


def revisions(site: Site, call: Call) -> dict[str, Any]:
    name = call.path["service"]
    site.view.known(name)
    with site.view.looking() as wired:
        return {"revisions": actions.revisions(wired, name)}


def rollouts(site: Site, call: Call) -> dict[str, Any]:
    if call.query.service:
        site.view.known(call.query.service)
    with site.view.looking() as wired:
        return {"rollouts": actions.history(wired, call.query.service, call.query.limit)}


def rollout(site: Site, call: Call) -> dict[str, Any]:
    number = call.path["id"]
    with site.view.looking() as wired:
        found = actions.rollout(wired, number) if number <= LARGEST else None
    if found is None:
        raise NoSuchThing(f"there is no rollout {number}", hint="GET /v1/rollouts lists them")
    return found


def receipt(site: Site, call: Call) -> dict[str, Any]:
    found: dict[str, Any] = rollout(site, call)["receipt"]
    if not found:
        raise NoSuchThing(f"rollout {call.path['id']} has no receipt yet", hint="it is under way, or was cut short")
    return found


def operations(site: Site, call: Call) -> dict[str, Any]:
    wanted: Sequence[str] = (call.query.service,) if call.query.service else ()
    site.view.known(*wanted)
    return {"operations": [as_json(o) for o in site.operations.recent(wanted)]}


def as_json(operation: Operation) -> dict[str, Any]:
    """An operation as the API shows it: what was asked without the project that came with it."""
    asked = operation.asked
    return {
        "id": operation.id,
        "kind": asked.kind,
        "services": list(asked.services),
        "who": asked.who,
        "image": asked.image,
        "state": operation.state,
        "created_at": operation.created_at,
        "ended_at": operation.ended_at,
        "exit_code": operation.exit_code,
        "error": operation.error,
        "message": operation.message,
        "hint": operation.hint,
        "details": list(operation.details),
        "receipts": [dict(receipt) for receipt in operation.receipts],
        "pools": {service: list(pool) for service, pool in operation.pools.items()},
    }


def operation_of(site: Site, number: int) -> Operation:
    found = site.operations.get(number)
    if found is None:
        raise NoSuchThing(f"there is no operation {number}", hint="GET /v1/operations lists the recent ones")
    return found


def _service(site: Site, name: str) -> dict[str, Any]:
    site.view.known(name)
    return next(one for one in site.view.status()["services"] if one["service"] == name)

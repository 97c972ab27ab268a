"""Writing: deploy, rollback, sync, and the wishes for a rollout under way. All is recorded before it is begun."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from rollout import actions
from rollout.control import Wish
from rollout.server.http import problems
from rollout.server.http.endpoints import Call
from rollout.server.http.reading import as_json, operation_of
from rollout.server.http.site import Site
from rollout.server.operations import Asked, Operation


def deploy(site: Site, call: Call) -> JSONResponse:
    body = call.body
    asked = Asked(
        "deploy", tuple(body.services), call.who, body.image or "", body.pull, body.build, body.force,
        body.strategy or "", config=_config(call), key=call.key, wait_lock=body.wait_lock,
    )  # fmt: skip
    return begin(site, asked)


def rollback(site: Site, call: Call) -> JSONResponse:
    services = (call.path["service"],)
    asked = Asked(
        "rollback", services, call.who, to=call.body.to, config=_config(call), key=call.key,
        wait_lock=call.body.wait_lock,
    )  # fmt: skip
    return begin(site, asked)


def sync(site: Site, call: Call) -> JSONResponse:
    body = call.body
    asked = Asked(
        "sync", tuple(body.services), call.who, config=_config(call), key=call.key, wait_lock=body.wait_lock
    )  # fmt: skip
    return begin(site, asked)


def promote(site: Site, call: Call) -> dict[str, Any]:
    return _wish(site, call, Wish.PROMOTE)


def pause(site: Site, call: Call) -> dict[str, Any]:
    return _wish(site, call, Wish.PAUSE)


def resume(site: Site, call: Call) -> dict[str, Any]:
    return _wish(site, call, Wish.RESUME)


def abort(site: Site, call: Call) -> dict[str, Any]:
    return _wish(site, call, Wish.ABORT)


def interrupt(site: Site, call: Call) -> dict[str, Any]:
    """As a first Ctrl-C would."""
    number = call.path["id"]
    found = operation_of(site, number)
    if not found.ended:
        site.audit.write(call.who, "interrupt", operation=number)
        site.operations.abort(number)
    return as_json(operation_of(site, number))


def begin(site: Site, asked: Asked) -> JSONResponse:
    """Submit it."""
    asked.refuse()
    if not asked.config:
        site.view.known(*asked.services)
    return begun(site.operations.submit(asked))


def begun(operation: Operation) -> JSONResponse:
    return JSONResponse(as_json(operation), 202, {"Location": f"/v1/operations/{operation.id}"})


def _config(call: Call) -> str:
    """A resolved project says what runs on this host: only who has the socket may send one."""
    if call.body.config and not call.trusted:
        raise problems.Forbidden("`config` is taken over the UNIX socket only; nothing was begun")
    return call.body.config or ""


def _wish(site: Site, call: Call, wish: Wish) -> dict[str, Any]:
    service = call.path["service"]
    site.view.known(service)
    site.audit.write(call.who, wish.value, services=[service])
    with site.view.looking() as wired:
        return actions.ask(wired, service, wish, call.who)

"""An endpoint as a value: what it takes, who answers it, what comes back. Routes and the OpenAPI document are made of
the same table."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rollout.errors import Bug, RolloutError, SpecError
from rollout.events import Notice
from rollout.server.http import problems
from rollout.server.http.judging import judge
from rollout.server.http.schemas import Answer, Asked, NoQuery, Query
from rollout.server.http.site import Site
from rollout.spec.faults import Faults

LONGEST_KEY = 200


class _Number(IntegerConvertor):
    """Of an operation or a rollout. Longer ones are no address: Python refuses to read thousands of digits."""

    regex = "[0-9]{1,30}"


register_url_convertor("number", _Number())


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was understood. `trusted`: it came over the UNIX socket."""

    who: str
    trusted: bool
    path: Mapping[str, Any]
    query: Any
    body: Any
    key: str
    headers: Mapping[str, str]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`handler(site, call)` answers what `answer` describes, or a Response of its own; it may be a coroutine.
    `keyed`: takes an Idempotency-Key. `streams`: server-sent events, each of them an `answer`. `signed`: the body is
    judged by its signature, not by who sends it."""

    method: str
    path: str
    summary: str
    handler: Callable[[Site, Call], Any]
    answer: type[Answer]
    body: type[Asked] | None = None
    query: type[Query] = NoQuery
    status: int = 200
    keyed: bool = False
    streams: bool = False
    signed: bool = False

    @property
    def name(self) -> str:
        return self.handler.__name__


def route(endpoint: Endpoint, site: Site) -> Route:
    async def serve(request: Request) -> Response:
        try:
            call = await _understood(endpoint, request)
            if inspect.iscoroutinefunction(endpoint.handler):
                found = await endpoint.handler(site, call)
            else:
                found = await run_in_threadpool(endpoint.handler, site, call)
        except RolloutError as error:
            return problems.answer(error)
        except Exception as error:  # noqa: BLE001  # nothing shows a traceback
            site.bus(Notice("", f"{endpoint.method} {endpoint.path}: {Bug(error).message}"))
            return problems.answer(Bug(error))
        return found if isinstance(found, Response) else JSONResponse(found, endpoint.status)

    path = endpoint.path.replace("{id}", "{id:number}")
    return Route(path, serve, methods=[endpoint.method], name=endpoint.name)


async def _understood(endpoint: Endpoint, request: Request) -> Call:
    raw = await request.body() if endpoint.body is not None else b""
    return Call(
        who=request.state.who,
        trusted=request.state.trusted,
        path=request.path_params,
        query=_judged(endpoint.query, _query(request), "query"),
        body=_judged(endpoint.body, _json(raw, request), "body") if endpoint.body is not None else None,
        key=_key(request) if endpoint.keyed else "",
        headers=request.headers,
        raw=raw,
    )


def _judged(model: type[Asked], values: object, where: str) -> Asked:
    faults = Faults()
    found = judge(model, values, (where,), faults)
    if found is None:
        listed = faults.as_errors()
        # the same errors as for a Compose file, but of this request
        raise problems.Refused(
            f"the {where} is not what it should be; nothing was begun",
            details=SpecError(listed).details,
            hint="see /v1/openapi.json",
        )
    return found


def _query(request: Request) -> dict[str, Any]:
    items = request.query_params.multi_items()
    values = dict(items)
    if len(values) != len(items):
        raise problems.Refused("a query parameter is given twice", hint="give each once")
    return values


def _json(raw: bytes, request: Request) -> Any:
    if not raw:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise problems.NotJson(f"a body of type {kind or 'unknown'!r} is not understood", hint="send application/json")
    try:
        value = json.loads(raw, parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise problems.Refused(f"the body is not JSON: {error}") from error
    if value is None:
        raise problems.Refused("the body must be an object, not null")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _key(request: Request) -> str:
    key = str(request.headers.get("idempotency-key", ""))
    if len(key) > LONGEST_KEY or not key.isprintable() or not key.isascii():
        raise problems.Refused(
            "the Idempotency-Key is not usable", hint=f"printable ASCII, {LONGEST_KEY} characters at most"
        )
    return key

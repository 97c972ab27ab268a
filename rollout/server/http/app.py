"""The ASGI application: the API's endpoints, metrics, the page, behind one gate."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from rollout.errors import RolloutError
from rollout.server.http import openapi, page, problems
from rollout.server.http.access import Access
from rollout.server.http.endpoints import route
from rollout.server.http.gate import Gate
from rollout.server.http.limits import Limits
from rollout.server.http.site import Site
from rollout.server.http.table import ENDPOINTS
from rollout.server.metrics import CONTENT_TYPE


def application(site: Site, access: Access, limits: Limits) -> ASGIApp:
    document = openapi.document(ENDPOINTS)

    async def served_document(request: Request) -> Response:
        return JSONResponse(document)

    async def metrics(request: Request) -> Response:
        return Response(await run_in_threadpool(site.metrics.text), media_type=CONTENT_TYPE)

    routes = [
        *(route(endpoint, site) for endpoint in ENDPOINTS),
        Route("/v1/openapi.json", served_document),
        Route("/metrics", metrics),
        *page.routes(site, access),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_route, RolloutError: _refused})
    app.router.redirect_slashes = False
    return Gate(app, access, limits, site.clock)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        headers = dict(error.headers or {})
        refused: RolloutError = problems.WrongMethod(
            f"{request.method} is not for this address", hint=f"allowed: {headers.get('Allow', '')}"
        )
        return problems.answer(refused, headers)
    return problems.answer(problems.NotHere("there is nothing at this address", hint="see /v1/openapi.json"))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RolloutError)
    return problems.answer(error)

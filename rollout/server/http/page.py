"""The page: what runs, what is under way, what was. Its script only asks for it again, and sends wishes."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from rollout import __version__, actions, events
from rollout.errors import ProxyUnreachable, RolloutError
from rollout.report.words import duration, memory, plural
from rollout.server.http import problems
from rollout.server.http.access import COOKIE, CSRF_HEADER, SESSION, Access
from rollout.server.http.peer import Peer
from rollout.server.http.plots import plots
from rollout.server.http.site import Site
from rollout.server.metrics import in_sync, ready_count, weights

PAGES = Path(__file__).parent.parent / "pages"
STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
HISTORY = 15
REVISIONS = 6


def routes(site: Site, access: Access) -> list[Route]:
    async def index(request: Request) -> Response:
        return await _rendered("page.html", request)

    async def fragment(request: Request) -> Response:
        answer = await _rendered("main.html", request)
        answer.headers[CSRF_HEADER] = request.state.csrf  # another one since the sidecar was started anew
        return answer

    async def _rendered(template: str, request: Request) -> Response:
        return await run_in_threadpool(_page, site, template, request)

    async def login(request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            return _html("login.html", refused=False)
        return await _log_in(request, site, access)

    async def logout(request: Request) -> Response:
        access.log_out(request.headers.get("cookie", ""))
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE)
        return answer

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise problems.NotHere("there is nothing at this address")
        return FileResponse(PAGES / name, media_type=STATIC[name], headers={"Cache-Control": "no-cache"})

    return [
        Route("/", index),
        Route("/fragment", fragment),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/static/{name}", static),
    ]


async def _log_in(request: Request, site: Site, access: Access) -> Response:
    form = parse_qs((await request.body()).decode(errors="replace"))
    name = access.holder(form.get("token", [""])[0])
    peer: Peer = request.scope["state"].get("peer") or Peer()
    if not name:
        await run_in_threadpool(site.audit.refused, peer.address, "login refused")
        return _html("login.html", 401, refused=True)
    await run_in_threadpool(site.audit.write, f"api:{name}", "login")
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE, access.log_in(name), max_age=int(SESSION), httponly=True, samesite="strict", secure=peer.encrypted
    )
    return answer


def _page(site: Site, template: str, request: Request) -> Response:
    state = request.state
    about = {"csrf": state.csrf, "who": state.who, "trusted": state.trusted}
    try:
        return _html(template, **about, **_shown(site), problem=None)
    except RolloutError as error:
        return _html(template, 503, **about, project="", proxy=None, services=[], rollouts=[], problem=error)


def _shown(site: Site) -> dict[str, Any]:
    """Everything that is on the page."""
    with suppress(ProxyUnreachable):
        site.traffic.look()
    status = site.view.status()
    with site.view.looking() as wired:
        rollouts = actions.history(wired, None, HISTORY)
        revisions = {name: actions.revisions(wired, name)[:REVISIONS] for name in wired.project.services}
    services = [_service(site, _short_names(one, status["project"]), revisions.get(one["service"], []))
                for one in status["services"]]  # fmt: skip
    return {"project": status["project"], "proxy": status["proxy"], "services": services, "rollouts": rollouts}


def _short_names(one: dict[str, Any], project: str) -> dict[str, Any]:
    """Within a project's page its name goes without saying."""
    replicas = [{**r, "short": r["name"].removeprefix(f"{project}-")} for r in one["replicas"]]
    return {**one, "replicas": replicas}


def _service(site: Site, one: dict[str, Any], revisions: list[dict[str, Any]]) -> dict[str, Any]:
    name, live = one["service"], one["live"]
    names = {replica["id"][:12]: replica["short"] for replica in one["replicas"]}
    series = {number: points for (service, number), points in site.traffic.points.items() if service == name}
    return {
        **one,
        "ready": ready_count(one),
        "in_sync": in_sync(one),
        "shares": _shares(one),
        "rollout": site.progress.of(name, names),
        "revisions": revisions,
        "plots": plots(series, live["revision"] if live else None, site.clock.wall()),
        "uncounted": site.traffic.missing.get(name) or site.traffic.missing.get(""),
    }


def _shares(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The pool by revision, as parts of 100 that follow each other."""
    live = one["live"]["revision"] if one["live"] else None
    at, found = 0.0, []
    for revision, share in sorted((number, share) for number, share in weights(one).items() if share):
        part = 100.0 * share
        found.append({"revision": revision, "at": round(at, 2), "part": round(part, 2), "live": revision == live})
        at += part
    return found


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall).astimezone().strftime("%d %b %H:%M:%S")


def _machine(wall: float) -> str:
    return datetime.fromtimestamp(wall).astimezone().isoformat(timespec="seconds")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(moment=_moment, machine=_machine, duration=duration, memory=memory, plural=plural)
    kinds = " ".join(sorted(events.kind_of(one) for one in events.Event.__subclasses__()))
    made.globals.update(version=__version__, kinds=kinds)
    return made


def _html(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(_environment().get_template(template).render(values), status)

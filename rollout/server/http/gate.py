"""What every request passes before it is looked at: how often, by whom, from which page, how large, how slow."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollout.errors import RolloutError
from rollout.ports import Clock
from rollout.server.http import problems
from rollout.server.http.access import Access, Visitor, refuse_foreign_page, same_origin
from rollout.server.http.limits import Bucket, Limits, bounded
from rollout.server.http.peer import Peer

READS = ("GET", "HEAD", "OPTIONS")
LOGIN, WEBHOOK, STATIC = "/login", "/v1/webhook", "/static/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """ASGI middleware. Puts `who`, `trusted` and `csrf` into the request's state."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, clock: Clock) -> None:
        self._app, self._access, self._limits, self._clock = app, access, limits, clock
        self._reads, self._writes = Bucket(limits.reads, clock), Bucket(limits.writes, clock)
        self._logins, self._webhooks = Bucket(limits.logins, clock), Bucket(limits.writes, clock)
        self._strangers = Bucket(limits.reads, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer: Response | None = None
        try:
            visitor = self._admit(scope)
        except RolloutError as error:
            wants_page = scope["path"] == "/" and isinstance(error, problems.NotAllowed)
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, problems.NotAllowed) else None
            answer = RedirectResponse(LOGIN, 303) if wants_page else problems.answer(error, headers)
            await answer(scope, receive, _with_headers(send))
            return
        scope["state"].update(who=visitor.who, trusted=visitor.trusted, csrf=visitor.csrf)
        if scope["method"] not in READS:  # of the others no body is read
            limit = self._limits.project if visitor.trusted else self._limits.body
            receive = bounded(receive, limit, self._clock)
        await self._app(scope, receive, _with_headers(send))

    def _admit(self, scope: Scope) -> Visitor:
        headers, path, reads = Headers(scope=scope), scope["path"], scope["method"] in READS
        peer: Peer = scope.setdefault("state", {}).get("peer") or Peer()
        if path == LOGIN or path.startswith(STATIC):
            (self._strangers if reads else self._logins).take(peer.address)
            if not reads:
                same_origin(headers)
            return Visitor("nobody", False, True, "")
        if path == WEBHOOK:
            self._webhooks.take(peer.address)
            return Visitor("webhook", False, False, "")
        try:
            visitor = self._access.visitor(peer, headers)
        except problems.NotAllowed:
            self._strangers.take(peer.address)
            raise
        # by name, since behind a proxy all come from one address: no stranger takes a share of those who are known
        (self._reads if reads else self._writes).take(visitor.who)
        if not reads:
            refuse_foreign_page(visitor, headers)
        return visitor


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending

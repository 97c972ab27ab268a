"""Who may come in: the owner of the UNIX socket, a client's certificate, a token, or a browser that logged in with one.

A browser sends its cookie whoever made the page, so what changes something must also come from our own page: the same
origin, and the word that page holds.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import cookie_parser

from rollout.ports import Clock
from rollout.server.http.peer import Peer
from rollout.server.http.problems import Forbidden, NotAllowed
from rollout.server.listening import digest

COOKIE = "rollout_session"
CSRF_HEADER = "rollout-csrf"
SESSION = 12 * 3600.0  # seconds
SESSIONS = 500
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "rollout"})


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who makes a request. `csrf` is the word that our own page holds."""

    who: str
    trusted: bool  # over the UNIX socket
    browser: bool
    csrf: str


@dataclass(frozen=True, slots=True)
class _Session:
    who: str
    csrf: str
    until: float  # clock.now()


class Access:
    """Safe from any thread."""

    def __init__(self, tokens: Mapping[str, bytes], clock: Clock) -> None:
        self._tokens, self._clock = tokens, clock
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._csrf = secrets.token_urlsafe(24)  # of pages that need no login

    def visitor(self, peer: Peer, headers: Mapping[str, str]) -> Visitor:
        """Raises NotAllowed for one we do not know, Forbidden for a page of somebody else."""
        browser = "sec-fetch-site" in headers or "origin" in headers or "cookie" in headers
        if peer.unix:
            _local_only(headers)
            kind = "cli" if headers.get("user-agent", "").startswith("rollout/") else "api"
            return Visitor(f"{kind}:{peer.name}", True, browser, self._csrf)
        if peer.name:
            return Visitor(f"api:{peer.name}", False, browser, self._csrf)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (name := self.holder(token.strip())):
            return Visitor(f"api:{name}", False, False, "")
        session = self._session(headers.get("cookie", ""))
        if session is None:
            raise NotAllowed("who are you?", hint="Authorization: Bearer TOKEN, or log in at /login")
        return Visitor(session.who, False, True, session.csrf)

    def holder(self, token: str) -> str:
        """The name of who holds this token, empty for none. Every token is compared, in constant time."""
        given, found = digest(token), ""
        for name, known in self._tokens.items():
            if hmac.compare_digest(given, known):
                found = name
        return found

    def log_in(self, name: str) -> str:
        """A new session; what its cookie holds."""
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        with self._lock:
            self._sessions = {key: s for key, s in self._sessions.items() if s.until > now}
            while len(self._sessions) >= SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[secret] = _Session(f"api:{name}", secrets.token_urlsafe(24), now + SESSION)
        return secret

    def log_out(self, cookies: str) -> None:
        with self._lock:
            self._sessions.pop(_cookie(cookies), None)

    def _session(self, cookies: str) -> _Session | None:
        with self._lock:
            session = self._sessions.get(_cookie(cookies))
        return session if session and session.until > self._clock.now() else None


def refuse_foreign_page(visitor: Visitor, headers: Mapping[str, str]) -> None:
    """Raise Forbidden for a change that a browser asks for and our own page does not."""
    same_origin(headers)
    given = headers.get(CSRF_HEADER, "")
    if visitor.browser and not hmac.compare_digest(given.encode(), visitor.csrf.encode()):
        raise Forbidden("this did not come from the sidecar's own page; nothing was begun", hint="load the page anew")


def same_origin(headers: Mapping[str, str]) -> None:
    """Raise Forbidden when a browser says that another site's page asks."""
    origin = headers.get("origin")
    foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if foreign or (origin is not None and origin.partition("://")[2] != headers.get("host", "")):
        raise Forbidden("this came from another site's page; nothing was begun")


def _local_only(headers: Mapping[str, str]) -> None:
    """Behind a forwarded socket there is no login: a foreign name that was made to mean this host must not work."""
    try:
        name = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        name = None
    if name not in LOCAL_NAMES:
        raise Forbidden("the UNIX socket is only spoken to as localhost", hint="curl --unix-socket … http://localhost/")


def _cookie(text: str) -> str:
    """Cookies know no port: those of another application on this host are there as well, whatever they look like."""
    return cookie_parser(text).get(COOKIE, "")

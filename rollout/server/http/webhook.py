"""The signed webhook: a CI job deploys an image that matches one of the allowed patterns.

    X-Rollout-Signature: t=1764054000,v1=HEX        HMAC-SHA256(secret, t + "." + body), as notifications are signed

A signature counts once, and within five minutes of its time. It is the key of what it begins: sent again, as one does
whose answer was lost, it is answered with that for as long as it is known. The audit record, where it is written with
what it begins, survives a restart; a signature that began nothing is not there, and may be sent again.
"""

from __future__ import annotations

import hmac
import re
import threading
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from starlette.responses import JSONResponse

from rollout.errors import StateError
from rollout.model import WebhookSettings
from rollout.notify.message import signature
from rollout.server.audit import Audit
from rollout.server.http import problems
from rollout.server.http.endpoints import Call
from rollout.server.http.site import Site
from rollout.server.http.writing import begin, begun
from rollout.server.operations import Asked

WINDOW = 300.0  # seconds a signature is good for
WHO = "webhook"
HEADER = "X-Rollout-Signature"
_FORM = re.compile(r"t=([0-9]{1,12}),v1=[0-9a-f]{64}\Z")
SHORTEST_SECRET = 16

_deciding = threading.Lock()  # two copies of one request must not both find that it is new


def webhook(site: Site, call: Call) -> JSONResponse:
    with site.view.looking() as wired:
        settings = wired.project.webhook
    if settings is None:
        raise problems.NotHere("no webhook is configured", hint="x-rollout.serve.webhook says what it may deploy")
    with _deciding:
        given = _genuine(site, settings, call.headers, call.raw)
        before = next((o for o in site.operations.recent() if (o.asked.who, o.asked.key) == (WHO, given)), None)
        if before is not None:
            return begun(before)
        _refuse_seen(site.audit, given, site.clock.wall())
        image = call.body.image
        if not any(_allowed(image, pattern) for pattern in settings.images):
            raise problems.Forbidden(f"{image} matches no pattern of x-rollout.serve.webhook.images; nothing was begun")
        return begin(site, Asked("deploy", (call.body.service,), WHO, image=image, pull=call.body.pull, key=given))


def _genuine(site: Site, settings: WebhookSettings, headers: Mapping[str, str], raw: bytes) -> str:
    """The signature, when it is right and in time."""
    given = headers.get(HEADER, "")
    found = _FORM.match(given)
    at = int(found[1]) if found else 0
    if not hmac.compare_digest(signature(_secret(settings), at, raw).encode(), given.encode(errors="replace")):
        site.audit.refused(WHO, "refused: wrong signature")
        raise problems.NotAllowed("the signature is wrong", hint=f"{HEADER}: t=SECONDS,v1=HMAC-SHA256(SECONDS.BODY)")
    if abs(site.clock.wall() - at) > WINDOW:
        raise problems.NotAllowed(f"its time is not within {WINDOW:g} s of now", hint="is a clock wrong?")
    return given


def _allowed(image: str, pattern: str) -> bool:
    """Name by name and tag by tag: `web:*` is not `web:5000/other`, an image of a registry called web. A pattern that
    names no tag allows any, and any digest; one that names a tag allows only the digest that it names, if any."""
    (name, tag, digest), (names, tags, digests) = _parted(image), _parted(pattern)
    # the engine goes by the digest, whatever tag stands before it
    any_digest = "*" if not tags else ""
    return fnmatchcase(name, names) and fnmatchcase(tag, tags or "*") and fnmatchcase(digest, digests or any_digest)


def _parted(reference: str) -> tuple[str, str, str]:
    """Name, tag and digest. A colon before a slash is of a registry's port."""
    tagged, _, digest = reference.partition("@")
    at = re.search(r":[^/]*\Z", tagged)
    return (tagged[: at.start()], tagged[at.start() :], digest) if at else (tagged, "", digest)


def _secret(settings: WebhookSettings) -> bytes:
    try:
        secret = Path(settings.secret_file).read_bytes().strip()
    except OSError as error:
        raise StateError(f"the webhook's secret_file cannot be read: {error.strerror}; nothing was begun") from error
    if len(secret) < SHORTEST_SECRET:
        message = f"the webhook's secret is shorter than {SHORTEST_SECRET} bytes; nothing was begun"
        raise StateError(message, hint="openssl rand -hex 32")
    return secret


def _refuse_seen(audit: Audit, given: str, now: float) -> None:
    for line in audit.lines():
        if (line.get("who"), line.get("key")) == (WHO, given) and abs(now - float(line.get("at", 0))) <= 3 * WINDOW:
            raise problems.Forbidden(
                "this request was made before and is not begun again", hint="`rollout history` says what came of it"
            )

"""One attempt to deliver a message. Neither the address nor the secret is in any error: both may be secrets."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import requests

from rollout import __version__
from rollout.model import NotifySettings
from rollout.notify.message import Message, body, signature

CONNECT, ANSWER = 5.0, 10.0  # seconds
_LATER = frozenset({408, 425, 429})  # and all from 500 on: the same may be taken later


class Undelivered(Exception):
    """Why, in a few words; `passing`: it may go through later."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.reason, self.passing = reason, passing


def deliver(settings: NotifySettings, message: Message, now: float) -> None:
    """POST it once. `now` is wall clock. Raises Undelivered."""
    url = settings.url or _line(settings.url_file, "url_file")
    content = body(message, settings.format)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"rollout/{__version__}",
        "X-Rollout-Delivery": message.id,
    }
    if settings.secret_file:
        secret = _line(settings.secret_file, "secret_file")
        headers["X-Rollout-Signature"] = signature(secret.encode(), int(now), content)
    status = _status(url, content, headers)
    if not 200 <= status < 300:
        raise Undelivered(f"it answered {status}", passing=status in _LATER or status >= 500)


def where(settings: NotifySettings) -> str:
    """The host alone, for messages."""
    try:
        return urlsplit(settings.url or _line(settings.url_file, "url_file")).hostname or "the web hook"
    except (Undelivered, ValueError):
        return "the web hook"


def _status(url: str, content: bytes, headers: dict[str, str]) -> int:
    try:
        with requests.post(
            url, data=content, headers=headers, timeout=(CONNECT, ANSWER), allow_redirects=False, stream=True,
            auth=lambda request: request,  # else requests would look into ~/.netrc
        ) as response:  # fmt: skip
            return response.status_code
    except requests.exceptions.SSLError:
        raise Undelivered("its certificate is not trusted", passing=False) from None
    except requests.exceptions.Timeout:
        raise Undelivered("it did not answer in time", passing=True) from None
    except requests.exceptions.ConnectionError:
        raise Undelivered("it cannot be reached", passing=True) from None
    except (requests.exceptions.RequestException, ValueError):
        raise Undelivered("its address cannot be used", passing=False) from None
    except OSError:
        reason = "the certificates named by REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE cannot be read"
        raise Undelivered(reason, passing=False) from None


def _line(path: str, key: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise Undelivered(f"{key} cannot be read: {reason}", passing=False) from None
    if not text:
        raise Undelivered(f"{key} is empty", passing=False)
    return text

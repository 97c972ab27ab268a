"""Single values: durations, names, hosts, header lines. Each function answers the value or raises Refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from rollout.model import Window
from rollout.spec.faults import Refused, shown, unknown_word

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")
_HOST_HEADER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)(?::[0-9]{1,5})?\Z")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
LONGEST_NAME = 180
LONGEST_URL = 2048
SERVICE_PATTERN = r"^[A-Za-z0-9._-]+$"
_SERVICE = re.compile(SERVICE_PATTERN[:-1] + r"\Z")
IMAGE_PATTERN = (
    r"^(?:(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?/)?"  # registry
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"  # name
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z0-9_+.-]+:[0-9a-fA-F]{32,})?$"  # tag, digest
)
_IMAGE = re.compile(IMAGE_PATTERN[:-1] + r"\Z")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = rf"(?:{'|'.join(DAYS)})"
_TIME = r"([01]?[0-9]|2[0-3]):([0-5][0-9])"
_WINDOW = re.compile(
    rf"(?:({_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*)\s+)?{_TIME}-(?:{_TIME}|(24):(00))\Z", re.IGNORECASE
)
_STATUS = re.compile(r"([1-5][0-9]{2})(?:\s*-\s*([1-5][0-9]{2}))?\Z")


def seconds(value: object) -> float:
    """A duration as Compose writes them (`1m30s`, `500ms`); a bare 0 is one too."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == 0:
            return 0.0
        raise Refused(f"{value} has no unit", f"write {abs(value)}s for seconds")
    if not isinstance(value, str):
        raise Refused("must be a duration", "like 30s, 1m30s or 500ms")
    text = value.strip()
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        hint = "durations are not negative" if text.startswith("-") else "like 30s, 1m30s or 500ms"
        raise Refused(f"{shown(value)} is not a duration", hint)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def whole(low: int, high: int | None = None) -> Callable[[object], int]:
    """A whole number, `high` included; also as text, as a variable brings it."""

    def read(value: object) -> int:
        number = _number(value)
        if number is None or not number.is_integer():
            raise Refused(f"must be a whole number, not {shown(value)}")
        return int(_between(number, low, high, value))

    return read


def ratio(value: object) -> float:
    """A number from 0 to 1."""
    number = _number(value)
    if number is None:
        raise Refused(f"must be a number, not {shown(value)}")
    return _between(number, 0, 1, value)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _between(number: float, low: int, high: int | None, value: object) -> float:
    if number < low:
        raise Refused(f"must be at least {low}, not {shown(value)}")
    if high is not None and number > high:
        raise Refused(f"must be at most {high}, not {shown(value)}")
    return number


def flag(value: object) -> bool:
    """True or false; also as text, as a variable brings it."""
    word = value.lower() if isinstance(value, str) else value
    if word in ("true", "yes", "on", "1", 1):
        return True
    if word in ("false", "no", "off", "0", 0):
        return False
    raise Refused(f"must be true or false, not {shown(value)}")


def one_of(*words: str) -> Callable[[object], str]:
    """One of these words."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise unknown_word(value, words)

    return read


def printable(value: object) -> str:
    """Text without control characters."""
    if not isinstance(value, str):
        raise Refused("must be text", "put it in quotes")
    if _CONTROL.search(value):
        raise Refused(f"{shown(value)} holds a line break or control character", "write it on one line")
    return value


def image(value: object) -> str:
    """An image's reference, `[registry/]name[:tag][@digest]`, or its id. The engine judges the details; here it is kept
    from being taken for something else."""
    text = printable(value)
    if not _IMAGE.match(text):
        raise Refused(f"{shown(text)} is not an image", "like registry.example/shop/web:1.2; the name in lower case")
    return text


def service_name(value: object) -> str:
    """A Compose service's name."""
    text = printable(value)
    if not _SERVICE.match(text):
        raise Refused(f"{shown(text)} is not a service name", "letters, digits, dot, underscore and dash only")
    if len(text) > LONGEST_NAME:
        raise Refused(f"{shown(text)} is too long", f"{LONGEST_NAME} characters at most: files are named after it")
    return text


def host_name(value: object) -> str:
    """A host that a proxy can match: `shop.example`, `*.shop.example`."""
    text = printable(value)
    if not _HOST.match(text) or len(text) > 253:
        raise Refused(
            f"{shown(text)} is not a host name", "like shop.example or *.shop.example, without scheme or path"
        )
    return text


def host_header(value: object) -> str:
    """What may stand in a Host header: a name or address, and a port."""
    text = printable(value)
    if not _HOST_HEADER.match(text) or len(text) > 260:
        raise Refused(f"{shown(text)} is not a host", "like shop.example or shop.example:8080")
    return text


def url_path(value: object) -> str:
    """A request's path, with its query if need be."""
    text = printable(value)
    if not text.startswith("/"):
        raise Refused(f"{shown(text)} does not begin with /", f"write /{text.split('://')[-1].split('/', 1)[-1]}")
    if not text.isascii() or re.search(r"[\s\"'<>\\^`{|}#]", text):
        raise Refused(f"{shown(text)} holds a character that a path cannot", "percent-encode it: a space is %20")
    return text


def file_path(value: object) -> str:
    """A path of this host. Quotes and the like are refused: the path reaches the proxy's configuration."""
    text = printable(value)
    if not text.strip():
        raise Refused("must not be empty")
    if re.search(r"[\"';{}$\\]", text):
        raise Refused(f"{shown(text)} holds a quote or another character proxies treat specially", "rename it")
    return text


def headers(value: object) -> tuple[tuple[str, str], ...]:
    """Request headers, a mapping of name to value."""
    if not isinstance(value, Mapping):
        raise Refused("must be a mapping of header names to values", "like { X-Probe: rollout }")
    return tuple(_header(name, content) for name, content in value.items())


def _header(name: object, content: object) -> tuple[str, str]:
    if not isinstance(name, str) or not _HEADER_NAME.match(name):
        raise Refused(f"{shown(name)} is not a header name", "letters, digits and dashes, like X-Probe")
    if name.lower() == "host":
        raise Refused("the Host header has a key of its own", "write it as health.host")
    if isinstance(content, bool) or not isinstance(content, (str, int, float)):
        raise Refused(f"the value of {name} must be text", "put it in quotes")
    text = str(content)
    if _CONTROL.search(text):
        raise Refused(f"the value of {name} holds a line break or control character", "write it on one line")
    if text != text.strip():
        raise Refused(f"the value of {name} begins or ends with a space", "remove it: HTTP does not keep it")
    if any(character > "\xff" for character in text):
        raise Refused(
            f"the value of {name} holds a character that a header cannot", "encode it, by percent for instance"
        )
    return name, text


def web_address(value: object) -> str:
    """An http(s) URL. It is not shown in messages: those of chat services are secrets."""
    parts = urlsplit(value) if isinstance(value, str) and not _CONTROL.search(value) and " " not in value else None
    try:
        fits = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        fits = False
    if not fits or not isinstance(value, str) or len(value) > LONGEST_URL:
        raise Refused("is not the URL of a web hook", "like https://ops.example/hooks/rollout")
    return value


def statuses(value: object) -> tuple[tuple[int, int], ...]:
    """Accepted HTTP statuses: `200`, `200-399`, or a list of such, as inclusive ranges."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    if not listed:
        raise Refused("accepts no status at all", "like 200, 200-399 or [200, 401]")
    return tuple(_status(item) for item in listed)


def _status(value: object) -> tuple[int, int]:
    found = _STATUS.match(str(value).strip()) if not isinstance(value, bool) else None
    if found is None:
        raise Refused(f"{shown(value)} is not an HTTP status", "like 200, 200-399 or [200, 401]")
    low, high = int(found[1]), int(found[2] or found[1])
    if high < low:
        raise Refused(f"{value} is empty", f"write {high}-{low}")
    return low, high


def argv(value: object) -> tuple[str, ...]:
    """A program and its arguments, run as they are: there is no shell to take anything in them for its own."""
    if isinstance(value, str):
        raise Refused("must be a list: no shell runs it", 'like ["./manage.py", "migrate"], or ["sh", "-c", "…"]')
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(part, str) for part in value):
        raise Refused("must be a list of texts", 'like ["./manage.py", "migrate"]')
    if not value[0] or any("\x00" in part for part in value):
        raise Refused("names no program, or holds a NUL", 'like ["./manage.py", "migrate"]')
    return tuple(value)


def command(value: object) -> tuple[str, ...]:
    """What is run inside the replica: a list is run as it is, text by /bin/sh."""
    if isinstance(value, str) and value.strip() and "\x00" not in value:
        return ("/bin/sh", "-c", value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, str) and part for part in value):
        return tuple(str(part) for part in value)
    raise Refused("must be a command", 'like ["curl", "-f", "localhost/health"] or a line of shell')


def windows(value: object) -> tuple[Window, ...]:
    """Maintenance windows: `Sat,Sun 02:00-04:00`, `Mon-Fri 22:00-02:00`, `03:00-05:00`, or a list of such."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    if not listed:
        raise Refused("is never open", "like Sat,Sun 02:00-04:00")
    return tuple(_window(item) for item in listed)


def _window(value: object) -> Window:
    found = _WINDOW.match(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise Refused(f"{shown(value)} is not a window", "like Sat,Sun 02:00-04:00, Mon-Fri 22:00-02:00 or 03:00-05:00")
    days, begin_hour, begin_minute, *ends = found.groups()
    end_hour, end_minute = (int(part) for part in ends if part is not None)
    begins = 60 * int(begin_hour) + int(begin_minute)
    return Window(_days(days or "mon-sun"), begins, (60 * end_hour + end_minute) % (24 * 60))


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        begin = DAYS.index(first)
        length = (DAYS.index(last or first) - begin) % 7  # Fri-Mon is four days
        found.update((begin + offset) % 7 for offset in range(length + 1))
    return frozenset(found)

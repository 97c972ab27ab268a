"""Requests per upstream, from the access log in the format `rollout` (templates/nginx/status.conf.j2)."""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.model import Counted, Counters
from rollout.proxies.nginx_config import LoadedConfig

FORMAT = "rollout"
MISSING = (
    "nginx's access log does not name upstreams: write `access_log /dev/stdout rollout;` in http {}, "
    "below the include of rollout's directory"
)
UNKNOWN = -1  # a size; none of ours, so that nobody takes a whole log for what came after a mark
_STDOUT = ("/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/proc/self/fd/2", "/dev/fd/1", "/dev/fd/2")

# A quote within a field is written as \x22, so nothing that a client sends can end one.
_LINE = re.compile(r'\] "[^"]*" (?P<status>\d{3}) .* rollout="(?P<addresses>[^"]*)" "[^"]*" (?P<seconds>[\d.]+)$')
_ADDRESS = re.compile(r"(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]):\d+")


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the logs went at some moment: wall clock for the proxy's own output, bytes for each file."""

    at: float
    sizes: Mapping[str, int]

    def text(self) -> str:
        return json.dumps({"since": self.at, "sizes": dict(self.sizes)})

    @classmethod
    def read(cls, text: str) -> Mark:
        """Raises ValueError, TypeError or KeyError for a text that is none."""
        known = json.loads(text)
        return cls(float(known["since"]), {file: int(size) for file, size in dict(known["sizes"]).items()})


def log_files(config: LoadedConfig) -> list[str]:
    """The files that the active access logs in rollout's format are written to; those that can be read again."""
    logs = {d.args[0] for d in config.walk() if d.name == "access_log" and d.args[1:2] == (FORMAT,)}
    readable = (log for log in logs if not log.startswith("syslog:") and "$" not in log)
    return sorted(posixpath.join(config.prefix, log) for log in readable)


def to_output(file: str) -> bool:
    """Whether what is written to this file is the proxy's own output."""
    return file in _STDOUT


def size(path: str) -> int:
    """The file's length in bytes, 0 when there is none yet, UNKNOWN when it may not be looked at."""
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
    except OSError:
        return UNKNOWN


def lines(path: str, start: int, end: int | None = None) -> Iterator[str]:
    """The lines behind `start` bytes, up to `end` bytes; from the first on when the file has become shorter (it was
    rotated). Raises OSError when it cannot be read, ValueError when `start` or `end` is UNKNOWN."""
    with Path(path).open("rb") as file:
        if UNKNOWN in (start, end):
            raise ValueError(f"it is not known how far {path} went")
        at = start if (size(path) if end is None else end) >= start else 0
        file.seek(at)
        for line in file:
            at += len(line)
            if end is not None and at > end:
                return
            yield line.rstrip(b"\r\n").decode(errors="replace")


def counted(log: Iterable[str]) -> Counted:
    """Requests by upstream address. A request that was tried on several counts for each; where it could not be
    answered it failed, and a 5xx answer is the last one's failure, as is the time it took."""
    requests: dict[str, int] = defaultdict(int)
    failed: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    for line in log:
        found = _LINE.search(line)
        addresses = _ADDRESS.findall(found["addresses"]) if found else []
        for address in addresses:
            requests[address] += 1
        for address in addresses[:-1]:
            failed[address] += 1
        if addresses and found:
            seconds[addresses[-1]] += _seconds(found["seconds"])
            failed[addresses[-1]] += found["status"] >= "500"
    by_address = {address: Counters(count, failed[address]) for address, count in requests.items()}
    return Counted(by_address, seconds=dict(seconds))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # what somebody else wrote into the log
        return 0.0

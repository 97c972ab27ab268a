"""What the load saw: counting, and the report made of it."""

from __future__ import annotations

import json
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Self

KEPT_FAILURES = 200
DESCRIBED_FAILURES = 20
LONG_KINDS = frozenset({"stream", "upgrade", "upload"})


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that did not get its right answer.

    `monotonic` is CLOCK_MONOTONIC, which all processes and containers of a machine share; `wall` is Unix time.
    `version` is the X-Version of the answer or else the last one seen on the connection ("" if none).
    """

    monotonic: float
    wall: float
    kind: str
    cls: str
    version: str
    detail: str

    def __str__(self) -> str:
        clock = datetime.fromtimestamp(self.wall, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        version = f" version {self.version}" if self.version else ""
        return f"{clock} ({self.monotonic:.3f}) {self.kind}: {self.cls}{version}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a load. Times are seconds.

    by_class      failures by class: refused, connect_timeout, connect_error, fresh_reset, stale_reset, truncated,
                  http_NNN, malformed, unexpected_bytes, wrong_body, timeout, stream_cut, upgrade_cut, upload_failed
    by_kind       for each kind of client, `ok` and each class of failure
    by_version    answers by X-Version, whatever their status
    idle_closes   kept-alive connections found closed before anything was written: not failures
    not_begun     HTTP/2 requests that the server said it never began, and that were sent again: not failures
    p50 .. max    latency of the short requests that succeeded (no streams, uploads, upgrades)
    longest_gap   the longest time, until the load was stopped, in which no request at all succeeded
    failures      the first 200
    """

    seconds: float
    total: int
    ok: int
    failed: int
    idle_closes: int
    connections: int
    by_class: dict[str, int]
    by_kind: dict[str, dict[str, int]]
    by_version: dict[str, int]
    not_begun: int
    p50: float
    p95: float
    p99: float
    max: float
    longest_gap: float
    failures: list[Failure] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        fields["failures"] = [Failure(**failure) for failure in fields["failures"]]
        return cls(**fields)

    def describe(self) -> str:
        """Several lines for people: rates, versions, latency, and the failures with their times."""
        rate = self.total / self.seconds if self.seconds else 0.0
        kinds = ", ".join(f"{kind} {sum(counts.values()):,}" for kind, counts in sorted(self.by_kind.items()))
        versions = ", ".join(f"{version}: {count:,}" for version, count in sorted(self.by_version.items()))
        lines = [
            f"{self.total:,} requests in {self.seconds:.1f} s ({rate:.0f}/s): {self.ok:,} ok, {self.failed:,} failed",
            f"  kinds     {kinds}",
            f"  versions  {versions or 'none seen'}",
            f"  latency   p50 {_ms(self.p50)}, p95 {_ms(self.p95)}, p99 {_ms(self.p99)}, max {_ms(self.max)}",
            f"  longest time without an answer {_ms(self.longest_gap)}",
            f"  {self.connections:,} connections, {self.idle_closes:,} found closed while idle",
        ]
        if self.not_begun:
            lines.append(f"  {self.not_begun:,} HTTP/2 requests never begun, as the server said, and sent again")
        for cls, count in sorted(self.by_class.items(), key=lambda item: -item[1]):
            per_kind = ", ".join(f"{kind} {counts[cls]:,}" for kind, counts in self.by_kind.items() if cls in counts)
            lines.append(f"  failed    {cls} {count:,} ({per_kind})")
        lines += [f"    {failure}" for failure in self.failures[:DESCRIBED_FAILURES]]
        if self.failed > DESCRIBED_FAILURES:
            lines.append(f"    ... and {self.failed - DESCRIBED_FAILURES:,} more")
        return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


class Tally:
    """Counts while the load runs. `changed` is called after each request that was counted."""

    def __init__(self) -> None:
        self.started = self.last_ok = time.monotonic()
        self.total = self.ok = self.idle_closes = self.connections = self.not_begun = 0
        self.longest_gap = 0.0
        self.stopped = False
        self.kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.versions: Counter[str] = Counter()
        self.latencies = array("d")
        self.failures: list[Failure] = []
        self.changed: Callable[[], None] = lambda: None

    @property
    def failed(self) -> int:
        return self.total - self.ok

    def succeed(self, kind: str, seconds: float) -> None:
        self.mark()
        self.total += 1
        self.ok += 1
        self.kinds[kind]["ok"] += 1
        if kind not in LONG_KINDS:
            self.latencies.append(seconds)
        self.changed()

    def fail(self, kind: str, cls: str, version: str, detail: str) -> None:
        self.total += 1
        self.kinds[kind][cls] += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(Failure(time.monotonic(), time.time(), kind, cls, version, detail))
        self.changed()

    def mark(self) -> None:
        """End the current gap, unless the load is being stopped: then fewer and fewer clients are left by intention."""
        if not self.stopped:
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - self.last_ok)
            self.last_ok = now

    def stop(self) -> None:
        self.mark()
        self.stopped = True

    def report(self) -> Report:
        now = time.monotonic()
        current_gap = 0.0 if self.stopped else now - self.last_ok
        by_class: Counter[str] = Counter()
        for counts in self.kinds.values():
            by_class.update({cls: count for cls, count in counts.items() if cls != "ok"})
        ranked = sorted(self.latencies)
        p50, p95, p99, slowest = (_quantile(ranked, share) for share in (0.5, 0.95, 0.99, 1.0))
        return Report(
            seconds=now - self.started,
            total=self.total,
            ok=self.ok,
            failed=self.failed,
            idle_closes=self.idle_closes,
            connections=self.connections,
            by_class=dict(by_class),
            by_kind={kind: dict(counts) for kind, counts in self.kinds.items()},
            by_version=dict(self.versions),
            not_begun=self.not_begun,
            p50=p50,
            p95=p95,
            p99=p99,
            max=slowest,
            longest_gap=max(self.longest_gap, current_gap),
            failures=list(self.failures),
        )


def _quantile(ranked: list[float], share: float) -> float:
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))] if ranked else 0.0

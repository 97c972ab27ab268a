"""`/metrics`: what Prometheus is told, gathered when it asks.

What rollouts cost comes from the journal, so it holds for those that ran without the sidecar too. Requests are counted
from the first scrape on.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import generate_latest

from rollout import __version__
from rollout.errors import ProxyUnreachable
from rollout.ports import Clock
from rollout.server.tally import Tally
from rollout.server.traffic import Traffic
from rollout.server.view import View

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Values = Iterable[tuple[tuple[str, ...], float]]  # by labels


ENDED = ("deployed", "undone", "aborted", "interrupted", "failed")  # what a rollout's record can end as


class Metrics:
    """Safe from any thread: one scrape at a time."""

    def __init__(self, view: View, traffic: Traffic, tally: Tally, clock: Clock) -> None:
        self._view, self._traffic, self._tally, self._clock = view, traffic, tally, clock
        self._in_sync: dict[str, float] = {}  # service -> clock.now() when its pool was last seen to be right
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._lock = threading.Lock()

    def text(self) -> bytes:
        """The exposition. Raises RolloutError when the project cannot be read."""
        with self._lock:
            self._look()
            return generate_latest(self._registry)

    def _look(self) -> None:
        self._status = self._view.status()
        with self._view.looking() as wired:
            self._past = wired.journal.totals()
        try:
            self._traffic.look()
            with self._view.looking() as wired:
                self._old_workers = wired.proxy.old_workers()
        except ProxyUnreachable:
            self._old_workers = 0

    def describe(self) -> Iterable[Metric]:
        return ()  # gathered only when asked for

    def collect(self) -> Iterable[Metric]:
        project = self._status["project"]
        yield _gauge("build_info", "Version of rollout.", ("version",), [((__version__,), 1)])
        yield _gauge(
            "proxy_up", "Whether the proxy runs.", ("project",), [((project,), self._status["proxy"]["running"])]
        )
        yield from self._of_rollouts(project)
        yield from self._of_services(project)
        yield from self._of_traffic(project)
        yield from self._of_proxy(project)

    def _of_rollouts(self, project: str) -> Iterable[Metric]:
        past, labels = self._past, ("project", "service")
        # a counter that appears with its first event at 1 has, for `increase`, never increased
        names = [service["service"] for service in self._status["services"]]
        outcomes: dict[tuple[str, ...], float] = {(name, outcome): 0 for name in names for outcome in ENDED}
        outcomes.update(past.outcomes.items())
        cut: dict[tuple[str, ...], float] = {
            (name,): count for name, count in {**dict.fromkeys(names, 0), **past.cut}.items()
        }
        yield _counter("rollouts", "Rollouts that have ended.", (*labels, "outcome"), _with(project, outcomes))
        phases = SummaryMetricFamily(
            "rollout_phase_duration_seconds", "Time rollouts spent in each phase.", labels=(*labels, "phase")
        )
        drains = SummaryMetricFamily("rollout_drain_seconds", "Time until old replicas had drained.", labels=labels)
        for (service, phase), (count, seconds) in sorted(past.phases.items()):
            phases.add_metric((project, service, phase), count, seconds)
            if phase == "drain":
                drains.add_metric((project, service), count, seconds)
        yield phases
        yield drains
        yield _counter(
            "connections_cut", "Connections closed by force at the drain limit.", labels, _with(project, cut)
        )

    def _of_services(self, project: str) -> Iterable[Metric]:
        labels, services = ("project", "service"), self._status["services"]
        live = {(project, s["service"]): s["live"]["revision"] for s in services if s["live"]}
        yield _gauge("revision", "Number of the live revision.", labels, live.items())
        shares: dict[tuple[str, ...], float] = {}
        for service in services:
            for revision, part in weights(service).items():
                shares[project, service["service"], str(revision)] = part
        yield _gauge(
            "revision_weight",
            "Part of the pool that is of this revision, 0 to 1.",
            (*labels, "revision"),
            shares.items(),
        )
        ready = {(project, s["service"]): ready_count(s) for s in services}
        yield _gauge("replicas_ready", "Replicas that have passed their health check.", labels, ready.items())
        wanted = {(project, s["service"]): s["wanted"] for s in services}
        yield _gauge("replicas_wanted", "Replicas that are declared.", labels, wanted.items())
        lag = {(project, s["service"]): self._lag(s) for s in services}
        yield _gauge(
            "sync_lag_seconds",
            "Time since the pool was last seen equal to the ready live replicas.",
            labels,
            lag.items(),
        )

    def _of_traffic(self, project: str) -> Iterable[Metric]:
        labels, proxy = ("project", "service", "revision", "proxy"), self._status["proxy"]["type"]
        totals = self._traffic.totals.items()
        requests = {(project, service, str(n), proxy): c.requests for (service, n), c in totals}
        failed = {(project, service, str(n), proxy): c.failed for (service, n), c in totals}
        yield _counter("requests", "Requests as the proxy counted them.", labels, requests.items())
        yield _counter("request_errors", "Requests that the proxy saw fail: 5xx, or no answer.", labels, failed.items())

    def _of_proxy(self, project: str) -> Iterable[Metric]:
        tally = self._tally
        yield _counter(
            "proxy_reloads", "Reloads of the proxy by the sidecar.", ("project",), [((project,), tally.reloads)]
        )
        yield _counter(
            "proxy_refusals", "Configurations the proxy refused.", ("project",), [((project,), tally.refusals)]
        )
        text = "Processes of the proxy that only finish what they have."
        yield _gauge("old_workers", text, ("project",), [((project,), self._old_workers)])

    def _lag(self, service: Mapping[str, Any]) -> float:
        now, name = self._clock.now(), service["service"]
        if in_sync(service):
            self._in_sync[name] = now
        return now - self._in_sync.setdefault(name, now)


def ready_count(service: Mapping[str, Any]) -> int:
    """Of those that serve or would: warm ones take no requests."""
    return sum(replica["ready"] for replica in service["replicas"] if replica["pool"] != "warm")


def in_sync(service: Mapping[str, Any]) -> bool:
    """Whether the pool is the ready replicas of the live revision, or a rollout's, which sees to it or is paused. One
    that nobody performs any more sees to nothing."""
    if service["lock"] or (service["unfinished"] and service["unfinished"]["state"] == "paused"):
        return True
    if service["stale"]:
        return False
    live = service["live"]["revision"] if service["live"] else None
    return all((replica["pool"] == "in") == (replica["ready"] and replica["revision"] == live)
               for replica in service["replicas"] if replica["pool"] != "warm")  # fmt: skip


def weights(service: Mapping[str, Any]) -> dict[int, float]:
    """Revision 0 is nobody's: what the pool names and is not there. One that is there and takes nothing has 0."""
    sums: Counter[int] = Counter({0: len(service["stale"])} if service["stale"] else {})
    for replica in service["replicas"]:
        sums[replica["revision"] or 0] += replica["weight"]
    total = sum(sums.values())
    return {revision: weight / total for revision, weight in sums.items() if total}


def _with(project: str, values: Mapping[tuple[str, ...], float]) -> Values:
    return [((project, *labels), value) for labels, value in sorted(values.items())]


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Values) -> Metric:
    found = GaugeMetricFamily(f"rollout_{name}", text, labels=labels)
    for key, value in values:
        found.add_metric(key, float(value))
    return found


def _counter(name: str, text: str, labels: tuple[str, ...], values: Values) -> Metric:
    found = CounterMetricFamily(f"rollout_{name}", text, labels=labels)
    for key, value in values:
        found.add_metric(key, float(value))
    return found

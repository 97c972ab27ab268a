"""The part that keeps every pool equal to its ready replicas: engine events as the hint, looking again as the truth.

Everything is looked at in one thread. What takes its time is done aside: probes (`proving`), and what a dead run left
(`settling`). A dead replica leaves at once. Those that come are let in together when reloads are many, so that a
hundred replicas that bounce cost a few.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress

from rollout.controller import Controller, Pass
from rollout.errors import ProxyUnreachable, RolloutError
from rollout.events import Notice, Sink, Warned
from rollout.model import ServiceSettings
from rollout.ports import Clock
from rollout.report.words import plural
from rollout.server.hints import hints
from rollout.server.news import News
from rollout.server.project import LiveProject
from rollout.server.proving import Proving
from rollout.server.readiness import Readiness
from rollout.server.settling import Settling

RESYNC = 10.0  # seconds between two looks at everything, whatever the engine says or does not say
HELD_PAUSE = 0.5  # seconds until a service is looked at again that a rollout has the lease of
TROUBLE_PAUSE = 0.5  # seconds until everything is looked at again after a look that failed; doubled up to RESYNC
POLL = 0.5  # seconds; so soon an end is noticed
AT_ONCE, ONE_MORE = 3, 2.0  # reloads without a pause, and seconds until there may be one more


class Membership:
    name = "membership"

    def __init__(self, project: LiveProject, clock: Clock, emit: Sink, readiness: Readiness) -> None:
        self._project, self._clock, self._emit, self._readiness = project, clock, emit, readiness
        self._news = News()
        self._settling = Settling(
            project.options, lambda: project.wired.loaded.config, clock, emit, self._news.tell, project.adapt
        )
        self._pace = Pace(clock)
        self._held: dict[str, float] = {}  # service -> when to look at it again: its lease is held, or it has to wait
        self._resync_at = clock.now()
        self._trouble, self._pause = "", TROUBLE_PAUSE

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self._project.take_up()
                self._follow(stop)
        finally:
            self._settling.close()

    def _follow(self, stop: threading.Event) -> None:
        """Follow the replicas of the project as it is, until its files have changed."""
        wired = self._project.wired
        services, ports = wired.project.services, wired.ports
        proving = Proving(ports.prober, self._clock, self._news.tell)
        controller = Controller(ports, self._emit, proving.proven)
        try:
            with hints(ports.engine, wired.project.proxy, self._news):
                self._news.tell_all()
                while self._wait(stop, proving):
                    self._look(controller, proving, services, self._news.take(set(services)))
                    if self._clock.now() >= self._resync_at:
                        self._resync_at = self._clock.now() + RESYNC
                        self._look(controller, proving, services, None)
                        self._relieve(services)
        finally:
            proving.close()

    def _wait(self, stop: threading.Event, proving: Proving) -> bool:
        """Until there is something to look at; False when it is the end, of all or of the project as it was."""
        while not (stop.is_set() or self._project.changed()):
            probe_in = proving.due()
            now = self._clock.now()
            for service in [s for s, at in self._held.items() if at <= now]:
                del self._held[service]
                self._news.tell(service)
            if self._news.there() or self._resync_at <= now:
                return True
            self._news.wait(min(self._resync_at - now, POLL, POLL if probe_in is None else probe_in))
        return False

    def _look(
        self,
        controller: Controller,
        proving: Proving,
        services: Mapping[str, ServiceSettings],
        concerned: set[str] | None,
    ) -> None:
        if concerned is not None and not concerned:
            return
        try:
            additions, stuck = self._pace.wait() == 0.0, self._settling.stuck
            done = controller.one_pass(services, concerned, additions=additions, stuck=stuck)
        except RolloutError as error:
            self._in_trouble(error, concerned or ())
            return
        if self._trouble:
            self._emit(Notice("", "the replicas are followed again"))
        self._trouble, self._pause = "", TROUBLE_PAUSE
        looked_at = set(services if concerned is None else concerned)
        self._readiness.heard(looked_at - done.held - done.unsettled, done.unproven)
        # whose pool waits has proved itself; whom another has the lease of was not decided about
        proving.want(done.unproven, looked_at - done.waiting - done.held - done.unsettled)
        self._leave(done)

    def _relieve(self, services: Mapping[str, ServiceSettings]) -> None:
        """Every reload leaves old workers behind that wait for their clients; deploys are not all that reloads."""
        limit = max(one.drain_timeout for one in services.values())
        with suppress(RolloutError):  # the engine or the proxy is away: the look has said so
            ended = self._project.wired.proxy.relieve(limit)
            if ended.workers:
                what = f"{plural(ended.workers, 'old worker')} with {plural(ended.connections, 'connection')}"
                text = f"ended {what}: the oldest of too many, which had {limit:g} s to end by themselves"
                self._emit(Warned("", "old-workers", text))

    def _leave(self, done: Pass) -> None:
        """Do aside, or later, what the pass has left."""
        if done.reloaded:
            self._pace.reloaded()
        now = self._clock.now()
        self._held.update(dict.fromkeys(done.held, now + HELD_PAUSE))
        self._held.update(dict.fromkeys(done.postponed, now + self._pace.wait()))
        for service in sorted(done.unsettled):
            self._settling.settle(service)
        self._project.wired.state.pass_done()

    def _in_trouble(self, error: RolloutError, concerned: Iterable[str]) -> None:
        """Told once; what was to be seen is looked for again soon."""
        again = self._clock.now() + self._pause
        self._resync_at = min(self._resync_at, again)
        self._held.update(dict.fromkeys(concerned, again))
        self._pause = min(2 * self._pause, RESYNC)
        if isinstance(error, ProxyUnreachable):
            self._project.wired.state.pass_done()  # a proxy that waits for this sidecar's health is not up yet
        if error.message != self._trouble:
            self._trouble = error.message
            self._emit(Warned("", "not-followed", "; ".join([error.message, *error.details])))


class Pace:
    """How soon the proxy may be reloaded to add: AT_ONCE times without a pause, then once every ONE_MORE seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._back: deque[float] = deque(maxlen=AT_ONCE)  # when each of the last reloads may be had again

    def reloaded(self) -> None:
        now = self._clock.now()
        self._back.append(max([now, *self._back]) + ONE_MORE)

    def wait(self) -> float:
        """Seconds."""
        spent = sum(at > self._clock.now() for at in self._back)
        return min(self._back) - self._clock.now() if spent == AT_ONCE else 0.0

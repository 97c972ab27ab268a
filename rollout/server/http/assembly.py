"""The sidecar's parts that answer people and programs, put together."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from rollout.compose import Options
from rollout.events import Event, Sink
from rollout.ports import Clock
from rollout.server.audit import Audit
from rollout.server.bus import Bus
from rollout.server.http.access import Access
from rollout.server.http.app import application
from rollout.server.http.limits import Limits
from rollout.server.http.serving import Http
from rollout.server.http.site import Site
from rollout.server.listening import Tcp
from rollout.server.metrics import Metrics
from rollout.server.operations import Asked, ThreadOperations
from rollout.server.progress import Progress, telling
from rollout.server.project import LiveProject
from rollout.server.readiness import Readiness
from rollout.server.tally import Tally, counting
from rollout.server.traffic import Traffic
from rollout.server.view import View
from rollout.state import StateDirectory
from rollout.wiring import Wired, wire


def parts(
    options: Options,
    clock: Clock,
    bus: Bus,
    state: StateDirectory,
    tcp: Tcp,
    tally: Tally,
    progress: Progress,
    readiness: Readiness,
) -> tuple[ThreadOperations, Http]:
    """Raises UsageError for files that `tcp` names and cannot be used."""

    @contextmanager
    def wired(asked: Asked, emit: Sink) -> Iterator[Wired]:
        with wire(options, asked.services, clock, emit, config=asked.config) as made:
            counting(made, tally)
            yield made

    audit = Audit(state.path, clock)
    operations = ThreadOperations(wired, telling(progress, bus), clock, audit.begun)
    view = View(LiveProject(options, clock, _unheard), readiness, clock)
    traffic = Traffic(view, clock)
    metrics = Metrics(view, traffic, tally, clock)
    site = Site(
        view, operations, bus, progress, traffic, metrics, audit, clock, boot=secrets.token_hex(4)
    )  # fmt: skip

    def settle() -> None:
        operations.join()
        site.closing.set()
        bus.wake()

    app = application(site, Access(tcp.tokens(), clock), Limits())
    return operations, Http(app, state.socket, tcp, settle, bus, clock)


def _unheard(event: Event) -> None:
    """The membership tells what is wrong with the project's files."""

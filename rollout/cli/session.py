"""What every verb that works on a project shares: the report, the signals, the project with its ports."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rollout.cli import terminal
from rollout.cli.options import Globals, gathered

if TYPE_CHECKING:
    from rollout.compose import Options
    from rollout.events import Event, Sink
    from rollout.ports import Clock, Lock
    from rollout.report.sinks import Report
    from rollout.signals import Interruption
    from rollout.wiring import Wired


class Session:
    """One command under way. Made by `session`."""

    def __init__(self, said: Globals, report: Report, interruption: Interruption, clock: Clock) -> None:
        self.said, self.report, self.interruption, self.clock = said, report, interruption, clock
        self.notify: Callable[[Event], None] = lambda event: None
        self.colors = terminal.colors(sys.stdout, said)

    @contextmanager
    def project(self, wanted: Sequence[str] = (), *, looks_only: bool = False) -> Iterator[Wired]:
        """The project with its ports; `wanted` are the services named on the command line. `looks_only`: nothing is
        created for it. Raises what `wiring.wire` raises."""
        from rollout.wiring import wire

        options = compose_options(self.said)
        live = terminal.style(self.said).live and not looks_only

        def needed_soon() -> None:
            import rollout.actions  # noqa: F401

            if live:
                import rich.live  # noqa: F401

        with wire(options, wanted, self.clock, self.report, keeps_state=not looks_only, meanwhile=needed_soon) as wired:
            wired.ports = replace(wired.ports, lock=_Guarding(wired.ports.lock, self.interruption))
            with self._notifying(wired):
                yield wired

    @contextmanager
    def _notifying(self, wired: Wired) -> Iterator[None]:
        """`notify` tells the project's web hooks; what is under way at the end is waited for a while."""
        if not wired.project.notify:
            yield
            return
        from rollout.notify import Notifier

        notifier = Notifier(wired.project.name, wired.project.notify, self.clock, self.report)
        self.notify = notifier
        try:
            yield
        finally:
            before = self.interruption()  # the signal that ended the rollout is told of as well
            with self.interruption.guarded():
                notifier.close(given_up=lambda: self.interruption() and not before)

    def told(self, event: Event) -> None:
        """A Sink: the report, and whoever wants to be notified."""
        self.report(event)
        self.notify(event)

    def show(self, data: Any, text: Callable[[], str], indent: int | None = 2) -> None:
        """The command's result: `data` with --json, else what `text` makes of it."""
        self.report.close()
        click.echo(json.dumps(data, indent=indent) if self.said.json else text())

    def teller(self, wired: Wired, *, notify: bool = True) -> Sink:
        """Where a rollout's events go: the report, with replicas by name where people read it, and the web hooks; not
        these when the sidecar performs it, which tells them itself."""
        from rollout.report.naming import Naming

        show = self.report if self.said.json else Naming(self.report, wired.ports.engine.replicas)

        def told(event: Event) -> None:
            self.interruption.follow(event)
            show(event)
            if notify:
                self.notify(event)

        return told


def compose_options(said: Globals) -> Options:
    """Compose's global flags, as the user gave them."""
    from rollout.compose import Options

    return Options(
        tuple(said.files), said.project_name, said.project_directory, tuple(said.env_files), tuple(said.profiles)
    )


@contextmanager
def session(ctx: click.Context, *, document: bool = False) -> Iterator[Session]:
    """A report that fits where the output goes, and signals that end the command well. `document`: with --json the
    result is one document, so nothing else may stand on stdout."""
    from rollout.clock import SystemClock
    from rollout.compose import terminate_all
    from rollout.report.sinks import report_for
    from rollout.signals import Interruption

    said, clock = gathered(ctx), SystemClock()
    style = terminal.style(said)
    if document and said.json:
        style = replace(style, json=False, live=False)
    report = report_for(style, sys.stdout, sys.stderr, clock)

    def leave() -> None:
        report.close()
        terminate_all()

    interruption = Interruption(report.interrupting, leave)
    try:
        with interruption.watching():
            yield Session(said, report, interruption, clock)
    finally:
        report.close()


class _Guarding:
    """`ports.Lock`: while it is held, a signal is the rollout's business; before, it simply ends the wait."""

    def __init__(self, lock: Lock, interruption: Interruption) -> None:
        self._lock = lock
        self._interruption = interruption

    @contextmanager
    def hold(self, service: str, what: str, wait: float) -> Iterator[None]:
        with self._lock.hold(service, what, wait), self._interruption.guarded():
            yield

    @contextmanager
    def attempt(self, service: str, what: str) -> Iterator[bool]:
        with self._lock.attempt(service, what) as mine, self._interruption.guarded():
            yield mine

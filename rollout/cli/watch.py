"""rollout watch"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from rollout.cli.options import global_options
from rollout.cli.session import Session, session

if TYPE_CHECKING:
    from rollout.watch.decision import Seen, Work
    from rollout.wiring import Wired

WAIT = 600.0  # seconds for a rollout that somebody else began


@click.command()
@global_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """Deploy what the files say, now and after every change of them, until interrupted.

    Watched are the Compose and env files, your own templates, and the build contexts of services with x-rollout.
    """
    with session(ctx) as running:
        from rollout.cli.failure import tell
        from rollout.errors import Interrupted
        from rollout.events import Notice
        from rollout.watch.watching import Watching

        here = _Here(running)
        watching = Watching(here, running.clock, lambda error: _told(tell(error, running.said)), first=_all)
        running.report(Notice("", f"watching {', '.join(sorted(watching.seen.scope.places()))}"))
        try:
            watching.run(running.interruption)
        except Interrupted:
            if watching.busy:
                raise
        finally:
            here.close()


def _told(_code: int) -> None:
    """Watching goes on after an error: its exit code is nobody's."""


def _all(seen: Seen) -> Work:
    from rollout.watch.decision import Work

    return Work(deploy=frozenset(seen.project.services))


class _Here:
    """`watch.watching.Doing` by this process. The project stays loaded until its files change: loading it would be a
    good part of what an edit of a source waits for."""

    def __init__(self, running: Session) -> None:
        self._running = running
        self._open = ExitStack()
        self._wired: Wired | None = None

    def close(self) -> None:
        self._open.close()

    def read(self) -> Seen:
        from rollout.actions.seen import seen

        with ExitStack() as fresh:
            wired = fresh.enter_context(self._running.project())
            found = seen(wired, self._running.said.env_files)
            self._open.close()
            self._wired, self._open = wired, fresh.pop_all()
        return found

    def apply(self, services: Sequence[str]) -> None:
        from rollout import actions

        if services:  # none would mean all
            self.read()  # the proxy's adapter keeps the templates it has loaded
            wired, running = self._loaded(), self._running
            actions.sync(wired, services, running.teller(wired), running.interruption, wait_lock=WAIT)

    def deploy(self, service: str, *, build: bool) -> None:
        from rollout import actions
        from rollout.wishes import Wishes

        wired, running = self._loaded(), self._running
        wishes = Wishes(build=build, wait_lock=WAIT)
        actions.deploy(wired, [service], wishes, running.teller(wired), running.interruption)

    def _loaded(self) -> Wired:
        assert self._wired is not None, "read first"
        return self._wired

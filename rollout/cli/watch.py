"""rollout watch"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from rollout.cli.options import global_options
from rollout.cli.session import Session, session

if TYPE_CHECKING:
    from rollout.watch.decision import Seen, Work

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

        watching = Watching(_Here(running), running.clock, lambda error: _told(tell(error, running.said)), first=_all)
        running.report(Notice("", f"watching {', '.join(sorted(watching.seen.scope.places()))}"))
        try:
            watching.run(running.interruption)
        except Interrupted:
            if watching.busy:
                raise


def _told(_code: int) -> None:
    """Watching goes on after an error: its exit code is nobody's."""


def _all(seen: Seen) -> Work:
    from rollout.watch.decision import Work

    return Work(deploy=frozenset(seen.project.services))


class _Here:
    """`watch.watching.Doing` by this process, each time with the project as its files are then."""

    def __init__(self, running: Session) -> None:
        self._running = running

    def read(self) -> Seen:
        from rollout.actions.seen import seen

        with self._running.project(looks_only=True) as wired:
            return seen(wired, self._running.said.env_files)

    def apply(self, services: Sequence[str]) -> None:
        from rollout import actions

        running = self._running
        if not services:  # none would mean all
            return
        with running.project(services) as wired:
            actions.sync(wired, services, running.teller(wired), running.interruption, wait_lock=WAIT)

    def deploy(self, service: str, *, build: bool) -> None:
        from rollout.cli.deploy import deploy
        from rollout.wishes import Wishes

        deploy(self._running, [service], Wishes(build=build, wait_lock=WAIT))

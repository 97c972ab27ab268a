"""What `promote`, `pause`, `resume` and `abort` share: one wish for the rollout that is under way, in any process."""

from __future__ import annotations

import getpass
import os

import click

from rollout.cli.session import session

SAID = {
    "promote": "promoted: it switches now",
    "pause": "asked to pause before its next step; `rollout resume {service}` lets it go on",
    "resume": "asked to go on",
    "abort": "asked to take back what it did",
}
PROMOTED_AND_PAUSED = "promoted; it is paused: `rollout resume {service}` lets it switch"
NOBODY = "; its process has ended: `rollout sync {service}` sees to it"


def ask(ctx: click.Context, service: str, wish: str) -> None:
    """Write the wish down and say what comes of it. Raises UsageError for what makes no sense, StateError."""
    with session(ctx) as running, running.project((service,), looks_only=True) as wired:
        from rollout import actions
        from rollout.control import standing
        from rollout.server.audit import Audit

        audit = Audit(wired.state.path, running.clock)
        if audit.kept:  # else there was never a sidecar, and who asked is in the journal alone
            audit.write(user(), wish, services=[service])
        told = actions.ask(wired, service, wish, user())
        waits = wish == "promote" and standing(wired.ports.journal.wishes(told["rollout"])).paused
        said = PROMOTED_AND_PAUSED if waits else SAID[wish]
        text = f"{service}: rollout {told['rollout']} is {said}" + ("" if told["at_work"] else NOBODY)
        running.show({"event": "asked", **told}, lambda: text.format(service=service), indent=None)


def user() -> str:
    """Who runs this program, for the record: `cli:anna`."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # no name for this user id, as in many containers
        return f"cli:{os.getuid()}"

"""The sidecar's notifications: of all that goes on in it, as the project's files say now, until its very end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rollout.notify import Notifier
from rollout.ports import Clock
from rollout.server.bus import Bus, Subscription
from rollout.server.project import LiveProject

POLL = 0.5  # seconds; so soon the end is noticed


@contextmanager
def notifying(project: LiveProject, bus: Bus, clock: Clock) -> Iterator[None]:
    """For the length of the block, which the parts run in: also what they say when they end is told."""
    over = threading.Event()
    with bus.listening() as subscription:
        thread = threading.Thread(target=_tell, args=(subscription, project, bus, clock, over), name="notifications")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _tell(subscription: Subscription, project: LiveProject, bus: Bus, clock: Clock, over: threading.Event) -> None:
    known = project.wired.project
    notifier = Notifier(known.name, known.notify, clock, bus)
    last = False
    while not last:
        last = over.is_set()  # then what was said before is taken, and nothing comes after
        for numbered in subscription.take(0.0 if last else POLL):
            current = project.wired.project
            if current.notify != known.notify:
                notifier.close(0.0)
                known, notifier = current, Notifier(current.name, current.notify, clock, bus)
            notifier(numbered.event)
    notifier.close()

"""`rollout serve`, told once: one sidecar a project, made of parts that run in threads.

The first signal lets the parts end well, the second ends the process at once (`signals`). A part that fails ends the
sidecar: whoever runs it (Compose's `restart:`) starts it anew, and the next one begins by looking.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from rollout import preflight
from rollout.compose import Options
from rollout.errors import LockHeld, UsageError
from rollout.events import Notice
from rollout.initial import make_loadable
from rollout.lock import FileLock
from rollout.ports import Clock
from rollout.server.bus import Bus
from rollout.server.listening import Tcp
from rollout.server.membership import Membership
from rollout.server.notifications import notifying
from rollout.server.operations import ThreadOperations
from rollout.server.progress import Progress, telling
from rollout.server.project import LiveProject
from rollout.server.readiness import Readiness
from rollout.server.scheduling import Scheduling, looking
from rollout.server.tally import Tally, counting
from rollout.server.watching import FileWatch
from rollout.state import StateDirectory

LOCK = "serve"  # a file of its own in the state directory, beside those of the services
# seconds; the main thread, where Python handles signals, waits no longer than this at once: a signal that comes just as
# a wait begins (after the interpreter's lock is let go, before the thread sleeps) is handled when the wait ends
DEAF = 0.5
# seconds without a look at the replicas, and a sidecar does not follow them (as in scripts/sidecar-healthy); the same
# ahead of the clock, which was set back: such a look would count until the clock has come there
LATE = 30.0


class Part(Protocol):
    """Something the sidecar does, in a thread of its own."""

    name: str

    def run(self, stop: threading.Event) -> None:
        """Returns soon after `stop` is set. What it raises ends the sidecar."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What the parts are made from. `ended`: put None there to end the sidecar well (safe in a signal handler), or the
    error that ends it."""

    options: Options
    clock: Clock
    bus: Bus
    ended: SimpleQueue[BaseException | None]
    tcp: Tcp = field(default_factory=Tcp)
    watch: bool = False  # the project's files


def serve(sidecar: Sidecar) -> None:
    """Serve until told to end. Raises what a part raised, LockHeld when the project has a sidecar, and what
    `wiring.wire` raises: without a project there is nothing to begin with."""
    tally = Tally()
    with LiveProject(sidecar.options, sidecar.clock, sidecar.bus, partial(counting, tally=tally)) as project:
        wired = project.wired
        preflight.refuse(wired.placement())
        with _alone(wired.state, wired.project.name, sidecar.clock):
            wired.state.forget_passes()
            make_loadable(wired, sidecar.bus)
            sidecar.bus(Notice("", f"serving project {wired.project.name}: {', '.join(wired.project.services)}"))
            with notifying(project, sidecar.bus, sidecar.clock):
                _run(_parts(sidecar, project, tally), sidecar.ended)
            sidecar.bus(Notice("", "the sidecar has ended"))


def why_not_healthy(state: StateDirectory, clock: Clock) -> str:
    """Empty when this project's sidecar runs and has lately looked at the replicas. Creates nothing."""
    if FileLock(state.path, clock).holder(LOCK) is None:
        return "no sidecar of this project runs"
    last = state.last_pass()  # its own: `serve` forgets the former sidecar's
    if not last:
        return "the sidecar has not looked at the replicas yet"
    late = clock.wall() - last
    if late < -LATE:
        return f"the sidecar last looked at the replicas {-late:.0f} s from now: the clock was set back"
    return f"the sidecar last looked at the replicas {late:.0f} s ago" if late > LATE else ""


def _parts(sidecar: Sidecar, project: LiveProject, tally: Tally) -> Sequence[Part]:
    options, clock, bus = sidecar.options, sidecar.clock, sidecar.bus
    progress, readiness = Progress(clock), Readiness()
    operations, http = _answering(sidecar, project, tally, progress, readiness)
    parts: list[Part] = [
        Membership(project, clock, telling(progress, bus), readiness),
        operations,
        http,
        Scheduling(lambda: project.wired.project, looking(options, clock, bus), operations, clock, bus),
    ]
    if sidecar.watch:
        parts.append(FileWatch(options, operations, clock, bus))
    return parts


def _answering(
    sidecar: Sidecar, project: LiveProject, tally: Tally, progress: Progress, readiness: Readiness
) -> tuple[ThreadOperations, Part]:
    try:
        from rollout.server.http import assembly
    except ImportError as error:
        raise UsageError(
            f"the sidecar needs packages that are not installed: {error.name}", hint="pip install 'rollout[server]'"
        ) from error
    state = project.wired.state
    return assembly.parts(sidecar.options, sidecar.clock, sidecar.bus, state, sidecar.tcp, tally, progress, readiness)


def _run(parts: Sequence[Part], ended: SimpleQueue[BaseException | None]) -> None:
    stop = threading.Event()

    def run(part: Part) -> None:
        try:
            part.run(stop)
        except BaseException as error:  # noqa: BLE001  # raised again below, in the main thread
            ended.put(error)

    threads = [threading.Thread(target=run, args=(part,), name=part.name) for part in parts]
    for thread in threads:
        thread.start()
    error = _waited_for(ended)
    stop.set()
    for thread in threads:
        while thread.is_alive():
            thread.join(DEAF)
    if error is not None:
        raise error


def _waited_for(ended: SimpleQueue[BaseException | None]) -> BaseException | None:
    while True:
        with suppress(Empty):
            return ended.get(timeout=DEAF)


@contextmanager
def _alone(state: StateDirectory, project: str, clock: Clock) -> Iterator[None]:
    lock = FileLock(state.path, clock)
    with lock.attempt(LOCK, f"serve of project {project}") as mine:
        if not mine:
            holder = lock.holder(LOCK) or {}
            raise LockHeld(
                f"project {project} has a sidecar already: pid {holder.get('pid', '?')} on {holder.get('host', '?')}",
                hint="one is enough; stop that one first",
            )
        yield

"""The part that watches the project's files (`serve --watch`): what they ask for is asked of the operations."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from rollout.actions.seen import seen
from rollout.compose import Options
from rollout.errors import DeployFailed, ExitCode, Interrupted, RolloutError
from rollout.events import Sink, Warned
from rollout.ports import Clock
from rollout.server.operations import Asked, Operation, Operations
from rollout.waiting import LONGEST_RETRY
from rollout.watch.decision import Seen, Work
from rollout.watch.watching import Watching
from rollout.wiring import wire

GLANCE = 0.5  # seconds within which the end is noticed while an operation is waited for


class FileWatch:
    name = "watch"

    def __init__(self, options: Options, operations: Operations, clock: Clock, emit: Sink) -> None:
        self._options, self._operations, self._clock, self._emit = options, operations, clock, emit

    def run(self, stop: threading.Event) -> None:
        doing = _Asking(self._options, self._operations, self._clock, self._emit, stop)
        told = ""
        while not stop.is_set():
            try:
                # nothing at first: whoever starts the sidecar starts the services as well
                Watching(doing, self._clock, self._told, first=lambda _: Work()).run(stop.is_set)
            except Interrupted:
                return
            except RolloutError as error:  # no watches are left, for instance: the replicas are followed all the same
                if error.message != told:
                    told = error.message
                    self._told(error)
                stop.wait(LONGEST_RETRY)

    def _told(self, error: RolloutError) -> None:
        self._emit(Warned("", "watch", "; ".join([error.message, *error.details])))


class _Asking:
    """`watch.watching.Doing` by operations, waited for one by one."""

    def __init__(
        self, options: Options, operations: Operations, clock: Clock, emit: Sink, stop: threading.Event
    ) -> None:
        self._options, self._operations, self._clock, self._emit = options, operations, clock, emit
        self._stop = stop

    def read(self) -> Seen:
        with wire(self._options, (), self._clock, self._emit, keeps_state=False) as wired:
            return seen(wired, self._options.env_files)

    def apply(self, services: Sequence[str]) -> None:
        if services:  # none would mean all
            self._carried_out(Asked("sync", tuple(services), "watch"))

    def deploy(self, service: str, *, build: bool) -> None:
        self._carried_out(Asked("deploy", (service,), "watch", build=build))

    def _carried_out(self, asked: Asked) -> None:
        number = self._operations.submit(asked).id
        while not self._stop.is_set():
            operation = self._operations.wait(number, GLANCE)
            if operation is not None and operation.exit_code is not None:
                return _raise_failure(operation)
        raise Interrupted("the sidecar is stopping")


def _raise_failure(operation: Operation) -> None:
    if operation.exit_code == ExitCode.OK:
        return
    tried = operation.exit_code in (ExitCode.FAILED, ExitCode.NOT_UNDONE)
    raise (DeployFailed if tried else RolloutError)(operation.message, hint=operation.hint, details=operation.details)

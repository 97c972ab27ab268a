"""Deploys and rollbacks asked of the sidecar: each in a thread of its own, with its own project and ports.

What is deployed is what the Compose files say when the operation begins, or the resolved project that came with it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from rollout import actions
from rollout.compose import Compose
from rollout.errors import Bug, Interrupted, LockHeld, RolloutError, UsageError
from rollout.events import Event, Finished, Sink
from rollout.model import Strategy
from rollout.ports import Clock, Lock
from rollout.server.bus import Bus
from rollout.wiring import Wired
from rollout.wishes import Wishes

KINDS = ("deploy", "rollback", "sync")
KEPT = 50  # ended operations that can still be asked for
UNDER_WAY = 50  # operations that may wait or run at once
QUEUE = 600.0  # seconds an operation waits for the rollouts before it, where nothing else is said
LOADING = 4  # operations that load their project at once, each by two processes of Compose
GLANCE = 0.5  # seconds between two looks whether a waiting operation is still wanted


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted. `who` is for the audit record: `webhook`, `schedule`, `watch`, `api:NAME`, `cli:USER`.

    `config`: a resolved project (YAML) to deploy instead of the sidecar's own files; `key` makes asking twice one.
    """

    kind: str  # deploy | rollback | sync
    services: tuple[str, ...]  # empty: all of the project
    who: str
    image: str = ""
    pull: str = "missing"
    build: bool = False
    force: bool = False
    strategy: str = ""
    to: int | None = None  # rollback: the revision
    config: str = ""
    key: str = ""
    wait_lock: float = QUEUE  # seconds

    def refuse(self) -> None:
        """Raise UsageError for what cannot be meant."""
        if self.kind not in KINDS:
            raise UsageError(f"{self.kind!r} is not an operation", hint=f"known: {', '.join(KINDS)}")
        if self.kind == "rollback" and len(self.services) != 1:
            raise UsageError("a rollback is of exactly one service")
        if self.strategy and self.strategy not in list(Strategy):
            raise UsageError(f"{self.strategy!r} is not a strategy", hint=f"known: {', '.join(Strategy)}")
        self.wishes().refuse_for(self.services)

    def wishes(self) -> Wishes:
        return Wishes(self.image, self.pull, self.build, self.force, self.strategy, self.wait_lock)


@dataclass(frozen=True, slots=True)
class Operation:
    """One request and how far it has come. Times are wall clock, seconds since the epoch."""

    id: int
    asked: Asked
    state: str  # queued | running | succeeded | failed
    created_at: float
    ended_at: float = 0.0
    exit_code: int | None = None  # what the command line would have answered
    error: str = ""  # RolloutError.kind
    message: str = ""  # why it failed
    hint: str = ""
    details: tuple[str, ...] = ()
    receipts: tuple[Mapping[str, Any], ...] = field(default=())
    pools: Mapping[str, Sequence[str]] = field(default_factory=dict)  # sync: addresses by service

    @property
    def ended(self) -> bool:
        return self.exit_code is not None


class Operations(Protocol):
    """Safe from any thread."""

    def submit(self, asked: Asked) -> Operation:
        """Begin it; answers at once. One with the same non-empty `key` is answered instead of begun again.
        Raises UsageError for what cannot be meant, nothing begun; LockHeld when too many wait already; StateError when
        it cannot be recorded."""

    def get(self, number: int) -> Operation | None: ...

    def recent(self, services: Sequence[str] = ()) -> list[Operation]:
        """Newest first, unfinished ones included."""

    def wait(self, number: int, timeout: float) -> Operation | None:
        """The operation once it has ended, as it is when `timeout` seconds have passed."""

    def abort(self, number: int) -> Operation | None:
        """Ask it to end as a first Ctrl-C would: before the switch it is taken back, after it it is finished."""

    def events(self, number: int) -> Bus | None:
        """What this operation alone says, numbered from 1."""


Wire = Callable[[Asked, Sink], AbstractContextManager[Wired]]


class _Job:
    """One operation and its thread."""

    def __init__(self, operation: Operation, clock: Clock) -> None:
        self.operation = operation
        self.wanted = _digest(operation.asked)
        self.events = Bus(clock)
        self.abort = threading.Event()
        self.compose: Compose | None = None  # once the project is loaded
        self.thread: threading.Thread | None = None

    def interrupt(self) -> None:
        """As a first Ctrl-C: a pull or build ends at once, a rollout knows itself when it may."""
        self.abort.set()
        if (compose := self.compose) is not None:
            compose.abandon()


class ThreadOperations:
    """`Operations`, and a part of the sidecar: when it stops, what is under way is asked to end and waited for."""

    name = "operations"

    def __init__(self, wire: Wire, emit: Sink, clock: Clock, record: Callable[[Asked], None]) -> None:
        """`wire` makes the project with its ports for one operation; `emit` hears what all of them say; `record` writes
        down each that is begun, whoever asked for it. What it raises keeps it from being begun."""
        self._wire, self._emit, self._clock, self._record = wire, emit, clock, record
        self._jobs: dict[int, _Job] = {}
        self._ended: deque[int] = deque()  # in the order in which they ended: the wall clock may be set back
        self._changed = threading.Condition()
        self._loading = threading.BoundedSemaphore(LOADING)
        self._last = 0
        self._closed = False

    def run(self, stop: threading.Event) -> None:
        stop.wait()
        with self._changed:
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.interrupt()
        self.join()

    def join(self) -> None:
        """Wait until nothing is under way."""
        with self._changed:
            self._changed.wait_for(lambda: all(job.operation.ended for job in self._jobs.values()))

    def submit(self, asked: Asked) -> Operation:
        asked.refuse()
        with self._changed:
            known = self._known(asked)
            if known is not None:
                return known
            if self._closed:
                raise Interrupted("the sidecar is stopping; nothing was begun")
            if sum(not job.operation.ended for job in self._jobs.values()) >= UNDER_WAY:
                raise LockHeld(f"{UNDER_WAY} operations are under way already; nothing was begun", hint="try it later")
            self._record(asked)
            self._last += 1
            job = _Job(Operation(self._last, asked, "queued", self._clock.wall()), self._clock)
            self._jobs[self._last] = job
            self._forget_old()
        number = job.operation.id
        job.thread = threading.Thread(target=self._perform, args=(job,), name=f"operation-{number}")
        try:
            job.thread.start()
        except RuntimeError as error:
            with self._changed:
                del self._jobs[number]
            raise LockHeld(f"no thread can be started: {error}; nothing was begun", hint="try it later") from error
        return job.operation

    def get(self, number: int) -> Operation | None:
        job = self._jobs.get(number)
        return job.operation if job else None

    def recent(self, services: Sequence[str] = ()) -> list[Operation]:
        with self._changed:
            found = [job.operation for job in reversed(self._jobs.values())]
        return [o for o in found if not services or not o.asked.services or set(services) & set(o.asked.services)]

    def wait(self, number: int, timeout: float) -> Operation | None:
        with self._changed:
            self._changed.wait_for(lambda: (found := self.get(number)) is None or found.ended, timeout)
        return self.get(number)

    def abort(self, number: int) -> Operation | None:
        job = self._jobs.get(number)
        if job is None:
            return None
        job.interrupt()
        return job.operation

    def events(self, number: int) -> Bus | None:
        job = self._jobs.get(number)
        return job.events if job else None

    # --- one operation ------------------------------------------------------------------------------------------

    def _perform(self, job: _Job) -> None:
        receipts: list[Mapping[str, Any]] = []

        def told(event: Event) -> None:
            if isinstance(event, Finished):
                receipts.append(event.receipt)
            job.events(event)
            self._emit(event)

        try:
            pools = self._carry_out(job, told)
        except RolloutError as error:
            self._end(job, error, receipts, {})
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this operation's end and not the sidecar's
            self._end(job, Bug(error), receipts, {})
        else:
            self._end(job, None, receipts, pools)

    def _carry_out(self, job: _Job, emit: Sink) -> Mapping[str, Sequence[str]]:
        asked, aborted = job.operation.asked, job.abort.is_set
        with ExitStack() as stack:
            with self._loading:
                wired = stack.enter_context(self._wire(asked, emit))
            job.compose = wired.compose
            lock = _Queue(wired.ports.lock, self._clock, aborted, lambda: self._change(job, state="running"))
            wired.ports = replace(wired.ports, lock=lock)
            if asked.kind == "sync":
                return actions.sync(wired, asked.services, emit, aborted, wait_lock=asked.wait_lock)
            if asked.kind == "rollback":
                service = asked.services[0]
                actions.rollback(wired, service, asked.to, emit, aborted, wait_lock=asked.wait_lock)
            else:
                actions.deploy(wired, asked.services, asked.wishes(), emit, aborted)
        return {}

    def _end(
        self,
        job: _Job,
        error: RolloutError | None,
        receipts: Sequence[Mapping[str, Any]],
        pools: Mapping[str, Sequence[str]],
    ) -> None:
        said = {} if error is None else _said(error)
        asked = replace(job.operation.asked, config="")  # it may be large, and is not needed any more
        self._change(
            job, asked=asked, state="failed" if error else "succeeded", ended_at=self._clock.wall(),
            receipts=tuple(receipts), pools=pools, exit_code=int(error.exit_code) if error else 0, **said,
        )  # fmt: skip

    def _change(self, job: _Job, **values: Any) -> None:
        with self._changed:
            job.operation = replace(job.operation, **values)
            if job.operation.ended:
                self._ended.append(job.operation.id)
            job.compose = None
            self._changed.notify_all()
        job.events.wake()

    # --- under the lock -----------------------------------------------------------------------------------------

    def _known(self, asked: Asked) -> Operation | None:
        """The operation that was begun under this key."""
        if not asked.key:
            return None
        for job in self._jobs.values():
            before = job.operation.asked
            if (before.key, before.who) == (asked.key, asked.who):
                if job.wanted != _digest(asked):
                    raise UsageError(
                        f"the idempotency key {asked.key!r} was used for another request; nothing was begun",
                        hint="a key names one request: take a new one",
                    )
                return job.operation
        return None

    def _forget_old(self) -> None:
        while len(self._ended) > KEPT:
            del self._jobs[self._ended.popleft()]


def _digest(asked: Asked) -> str:
    """Of all that is wanted; `config` is given up when the operation ends."""
    return hashlib.sha256(repr(asked).encode()).hexdigest()


class _Queue:
    """`ports.Lock` of an operation: says when it was its turn, and ends the wait of one that is no longer wanted."""

    def __init__(self, lock: Lock, clock: Clock, aborted: Callable[[], bool], begun: Callable[[], None]) -> None:
        self._lock, self._clock, self._aborted, self._begun = lock, clock, aborted, begun

    @contextmanager
    def hold(self, service: str, what: str, wait: float) -> Iterator[None]:
        with ExitStack() as stack:
            self._enter(stack, service, what, self._clock.now() + wait)
            self._begun()
            yield

    def attempt(self, service: str, what: str) -> AbstractContextManager[bool]:
        return self._lock.attempt(service, what)

    def _enter(self, stack: ExitStack, service: str, what: str, deadline: float) -> None:
        while True:
            left = deadline - self._clock.now()
            try:
                stack.enter_context(self._lock.hold(service, what, max(0.0, min(left, GLANCE))))
            except LockHeld:
                if self._aborted():
                    raise Interrupted(f"interrupted before {service}: not begun") from None
                if left <= GLANCE:
                    raise
            else:
                return


def _said(error: RolloutError) -> dict[str, Any]:
    details = (*error.details, *getattr(error, "__notes__", ()))
    return {"error": error.kind, "message": error.message, "hint": error.hint, "details": details}

"""What takes its time and concerns one service: to finish or undo what a dead run left, and to stop replicas that have
been warm for long enough. Each with its own ports, as any other run would do it; few at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from rollout.compose import Options
from rollout.controller import RECOVERY, sync_once
from rollout.errors import LockHeld, RolloutError
from rollout.events import Sink, Warned
from rollout.ports import Clock
from rollout.wiring import Wired, wire

AT_ONCE = 4  # each loads the project by a process of Compose
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0  # seconds between two attempts at a service that cannot be settled


@dataclass(slots=True)
class _Failure:
    message: str
    pause: float
    again_at: float


class Settling:
    """`config` answers the project (YAML) that is followed: its files may be broken by now. `tell(service)` is called
    when a service has been settled, or cannot be; `adapt` may change the ports of each project that is wired for it."""

    def __init__(
        self,
        options: Options,
        config: Callable[[], str],
        clock: Clock,
        emit: Sink,
        tell: Callable[[str], None],
        adapt: Callable[[Wired], None] = lambda wired: None,
    ) -> None:
        self._options, self._config, self._clock = options, config, clock
        self._emit, self._tell, self._adapt = emit, tell, adapt
        self._workers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="settle")
        self._under_way: dict[str, Future[None]] = {}
        self._failures: dict[str, _Failure] = {}
        self._bug: Exception | None = None

    def settle(self, service: str) -> None:
        """Begin, unless that is under way or has failed lately. Raises what must not happen in such a thread."""
        if self._bug is not None:
            raise self._bug
        under_way, failed = self._under_way.get(service), self._failures.get(service)
        if under_way is not None and not under_way.done():
            return
        if failed is not None and self._clock.now() < failed.again_at:
            return
        self._under_way[service] = self._workers.submit(self._run, service)

    @property
    def stuck(self) -> frozenset[str]:
        """Services that could not be settled when it was last tried."""
        return frozenset(self._failures.copy())

    def close(self) -> None:
        """Wait for what is under way: it ends with the service in order, or is taken up again by the next run."""
        self._workers.shutdown(cancel_futures=True)

    def _run(self, service: str) -> None:
        try:
            self._sync(service)
            self._failures.pop(service, None)
        except LockHeld:
            pass  # somebody else was quicker
        except RolloutError as error:
            self._failed(service, error)
        except Exception as error:  # noqa: BLE001  # nobody looks at a thread's end: the next `settle` raises it
            self._bug = error
        self._tell(service)

    def _sync(self, service: str) -> None:
        with wire(self._options, [service], self._clock, self._emit, config=self._config()) as wired:
            self._adapt(wired)
            sync_once(wired.ports, wired.project.services[service], self._emit, what=RECOVERY)

    def _failed(self, service: str, error: RolloutError) -> None:
        before = self._failures.get(service)
        pause = FIRST_PAUSE if before is None else min(2 * before.pause, LONGEST_PAUSE)
        self._failures[service] = _Failure(error.message, pause, self._clock.now() + pause)
        if before is None or before.message != error.message:
            self._emit(Warned(service, "not-settled", "; ".join([error.message, *error.details])))

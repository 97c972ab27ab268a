"""What one web hook has still to be told, and the thread that tells it, one after the other, with retries."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from rollout.model import NotifySettings
from rollout.notify.message import Message
from rollout.ports import Clock

RETRY_FOR = 600.0  # seconds from the first attempt on
LONGEST_PAUSE = 30.0
LONGEST_QUEUE = 100
LOOK = 0.1  # seconds between two looks whether the end need not be waited for

Undeliverable = Callable[[NotifySettings, Message, str], None]  # and why


class Mailbox:
    """`failed` is called once for each message that was not delivered. Safe from any thread."""

    def __init__(self, settings: NotifySettings, clock: Clock, failed: Undeliverable) -> None:
        self.settings = settings
        self._clock, self._failed = clock, failed
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._reason = "it was not reached yet"

    def put(self, message: Message) -> None:
        with self._changed:
            full = len(self._waiting) >= LONGEST_QUEUE
            if not full:
                self._waiting.append(message)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        if full:
            self._failed(self.settings, message, f"{LONGEST_QUEUE} others wait already")

    def close(self, patience: float, given_up: Callable[[], bool]) -> None:
        """Wait up to `patience` seconds for what is under way; what is left then has failed."""
        until = self._clock.now() + patience
        with self._changed:
            while self._waiting and (left := until - self._clock.now()) > 0 and not given_up():
                self._changed.wait(min(left, LOOK))
            self._ended.set()
            rest = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for message in rest:
            self._failed(self.settings, message, self._reason)

    def _work(self) -> None:
        while (message := self._next()) is not None:
            reason = self._deliver(message)
            with self._changed:
                if self._ended.is_set():
                    return  # who closed has told of it
                if reason:
                    self._failed(self.settings, message, reason)  # first: who closes goes when nothing waits any more
                self._waiting.popleft()
                self._changed.notify_all()

    def _next(self) -> Message | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended.is_set())
            return None if self._ended.is_set() else self._waiting[0]

    def _deliver(self, message: Message) -> str:
        """Empty when it was delivered, else why not."""
        # lazily: most projects notify nobody
        from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
        from tenacity.nap import sleep_using_event

        from rollout.notify.delivery import Undelivered, deliver

        until = self._clock.now() + RETRY_FOR

        def passing(error: BaseException) -> bool:
            self._reason = error.reason if isinstance(error, Undelivered) else str(error)
            return isinstance(error, Undelivered) and error.passing

        def enough(_: RetryCallState) -> bool:
            return self._ended.is_set() or self._clock.now() >= until

        retrying = Retrying(
            retry=retry_if_exception(passing),
            wait=wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE),
            stop=enough,
            sleep=sleep_using_event(self._ended),
            reraise=True,
        )
        try:
            retrying(lambda: deliver(self.settings, message, self._clock.wall()))
        except Undelivered as error:
            return error.reason
        return ""

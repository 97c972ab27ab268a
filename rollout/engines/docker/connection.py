"""One connection to the Docker engine: opened when first used, foreign errors translated, short outages waited out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, TypeVar, cast

from rollout.engines.docker import reading
from rollout.errors import EngineError
from rollout.ports import Clock

if TYPE_CHECKING:
    from docker.api.client import APIClient

T = TypeVar("T")

ANSWER_TIMEOUT = 60  # seconds; a start on a busy machine may take a while
RETRY_FOR = 10.0  # seconds; an engine restart takes about two
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Retry(Enum):
    """What a failed call may be repeated for."""

    NEVER = 0  # the call is not idempotent
    LOST = 1  # the connection broke: for calls that do no harm when repeated
    ANY = 2  # also a 5xx answer: for reads


class EngineAnswer(EngineError):
    """The engine answered, but not with what was asked for. `status` is HTTP's, `words` the engine's own."""

    def __init__(self, message: str, *, status: int, words: str, hint: str = "") -> None:
        super().__init__(message, hint=hint, transient=status >= 500)
        self.status = status
        self.words = words

    @property
    def gone(self) -> bool:
        return self.status == 404 and "no such container" in self.words.lower()


class Connection:
    """A lazily opened connection, shared by everything that speaks to the engine. Safe to use from several threads.

    Opening imports the Docker SDK, about 100 ms; `warm` does that much ahead. `timeout` are the seconds for one answer.
    """

    def __init__(self, clock: Clock, environ: Mapping[str, str] | None = None, timeout: int = ANSWER_TIMEOUT) -> None:
        self.clock = clock
        self._timeout = timeout
        self._environ = os.environ if environ is None else environ
        self._client: APIClient | None = None
        self._opening = threading.Lock()
        self._answered = False
        self._at_close: list[Callable[[], None]] = []

    def warm(self) -> None:
        """Import the SDK now: to be called while something else is waited for, a Compose process for instance."""
        import rollout.engines.docker.client  # noqa: F401

    def at_close(self, do: Callable[[], None]) -> None:
        """Have `do` called before the sockets are closed."""
        self._at_close.append(do)

    def close(self) -> None:
        """Close the sockets. The connection opens again when it is used again."""
        for do in self._at_close:
            do()
        with self._opening:
            if self._client is not None:
                self._client.close()
                self._client = None

    @property
    def client(self) -> APIClient:
        """The SDK's low-level client. Raises EngineError when there is no engine or it refuses us."""
        if self._client is None:
            with self._opening:
                if self._client is None:
                    from rollout.engines.docker.client import connect

                    self._client = connect(self._environ, self._timeout)
        return self._client

    def call(self, what: str, do: Callable[[APIClient], T], retry: Retry = Retry.LOST) -> T:
        """`do(client)`, repeated for about RETRY_FOR seconds while it fails in a way that may pass.

        `what` names the call for messages ("list containers"). Raises EngineAnswer when the engine said no,
        EngineError when it did not answer.
        """
        try:
            return self._once(what, do)
        except EngineError as error:
            if not self._may_pass(error, retry):
                raise
        return self._again(what, do, retry)

    def _once(self, what: str, do: Callable[[APIClient], T]) -> T:
        client = self.client
        from rollout.engines.docker.client import FOREIGN, translate

        try:
            result = do(client)
        except FOREIGN as error:
            raise translate(error, what, where=client.base_url) from error
        # the SDK takes for granted what an answer holds, and how deep
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise reading.nonsense(f"{type(error).__name__}: {str(error)[:80]}") from error
        self._answered = True
        return result

    def _may_pass(self, error: EngineError, retry: Retry) -> bool:
        if isinstance(error, EngineAnswer):
            return retry is Retry.ANY and error.transient
        # An engine that never answered is not there; one that did and now does not is being restarted.
        return retry is not Retry.NEVER and error.transient and self._answered

    def _again(self, what: str, do: Callable[[APIClient], T], retry: Retry) -> T:
        from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

        deadline = self.clock.now() + RETRY_FOR

        def too_late(_: RetryCallState) -> bool:
            return self.clock.now() >= deadline

        retrying = Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, EngineError) and self._may_pass(e, retry)),
            wait=wait_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
            stop=too_late,
            sleep=self.clock.sleep,
            reraise=True,
        )
        self.clock.sleep(FIRST_PAUSE)
        return cast("T", retrying(self._once, what, do))

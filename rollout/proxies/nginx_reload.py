"""A reload that is seen through: the new generation live and the old one accepting nothing, or the former live again.

Proof that it is live: workers that were not there before, every earlier worker gone or shutting down, and the status
listener answering with the new digest. An answer alone is none: for 100 ms both generations answer. Where somebody else
reloads at the same time there may be a third in between, which knows what nobody here has asked for: more workers than
before, or some that came after others, are not taken for one generation until they stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollout.errors import NotUndone, ProxyRejected, RolloutError
from rollout.ports import Clock, Process, ProxyProcess
from rollout.proxies.nginx_program import Program, shortened
from rollout.proxies.nginx_workers import Workers, workers
from rollout.waiting import DeadlinePassed, wait_for

# A port that is taken is tried for 2.5 s before nginx gives up.
_TIMEOUT = 5.0
_BYTES_A_SECOND = 1_000_000  # of configuration that nginx reads, on a slow machine
# Between starting new workers and telling the old ones to quit nginx's master pauses for 100 ms (its source, and
# PROXIES 1: 113 ms at the least): earlier looks see nothing, and cost 10 ms each where only the engine can list them.
_NOT_BEFORE = 0.097
_LOOK = 0.002
_LONGEST = 0.03
_SETTLED = 0.5  # seconds; longer than two generations serve side by side
_LOG_AFTER = 0.2  # a good reload is over by then: the log is only read when it is not


class _Refused(Exception):
    """nginx said that it keeps the configuration it has."""

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.words = words


class Reload:
    """Reloads of one nginx. `digest` answers which configuration is live."""

    def __init__(self, process: ProxyProcess, program: Program, clock: Clock, digest: Callable[[], str]) -> None:
        self._process = process
        self._program = program
        self._clock = clock
        self._digest = digest
        self._seen: Sequence[Process] = ()

    def workers(self) -> Workers:
        self._seen = self._process.processes()
        return workers(self._seen)

    def load(self, before: Workers, digest: str, size: int, undo: Callable[[], str]) -> Workers:
        """Load what is in force on disk now: `size` bytes that answer `digest`; `before` are the workers until now.
        Answers those there are once it is live.

        When nginx does not take it, call `undo`, which puts the former configuration in force on disk and returns its
        digest (empty: it has none), make sure that it is the live one, and raise ProxyRejected. Raises NotUndone when
        that cannot be seen either.
        """
        since, timeout = self._clock.wall(), _TIMEOUT + size / _BYTES_A_SECOND
        self._program.reload(self._seen)
        try:
            return self._confirm(before, digest, since, timeout)
        except _Refused as refused:
            words, definite = refused.words, True
        except DeadlinePassed:
            words, definite = [], False
        former = undo()
        now = self.workers()
        # a refusal ends before any worker is started: nothing is left to take back
        if not (definite and before.serving <= now.serving and not now.serving - before.all):
            self._again(now, former, timeout, words)
        raise ProxyRejected(
            "nginx refused to load the new configuration; the former one is in force"
            if definite
            else f"nginx did not load the new configuration within {timeout:.0f} s; the former one is in force",
            hint="" if words else "its error log says why",
            details=words,
        )

    def _again(self, before: Workers, digest: str, timeout: float, words: list[str]) -> None:
        since = self._clock.wall()
        try:
            self._program.reload(self._seen)
            self._confirm(before, digest, since, timeout)
        except (_Refused, DeadlinePassed, RolloutError) as error:
            raise NotUndone(
                "nginx did not load the new configuration, nor the former one, which is in force on disk again",
                hint=f"see the error log of {self._process.describe()}, then restart it: it will load the former one",
                details=[*words, *(error.words if isinstance(error, _Refused) else [])],
            ) from error

    def _confirm(self, before: Workers, digest: str, since: float, timeout: float) -> Workers:
        began = self._clock.now()
        serving, since_when = before.serving, began
        first: frozenset[int] = frozenset()  # the new workers that were seen first, as far as they still serve

        def look() -> Workers | None:
            nonlocal serving, since_when, first
            now = self.workers()
            if now.serving != serving:
                serving, since_when = now.serving, self._clock.now()
            new = serving - before.all
            first = (first & new) or new
            at_once = len(serving) <= len(before.serving) and new == first
            one = at_once or self._clock.now() - since_when >= _SETTLED
            if serving and one and not serving & before.all and digest in ("", self._digest()):
                return now
            if self._clock.now() - began > _LOG_AFTER and (words := refusal(self._process.output(since))):
                raise _Refused(words)
            return None

        self._clock.sleep(_NOT_BEFORE)
        return wait_for(self._clock, look, timeout=timeout, first=_LOOK, longest=_LONGEST)


def refusal(lines: list[str]) -> list[str]:
    """Why nginx keeps its former configuration, by its log; empty while it has not said so."""
    emergencies = [line for line in lines if "[emerg]" in line]
    # a port that is taken is tried again five times: only then is it nginx's last word
    final = [line for line in emergencies if "still could not bind()" in line or "bind() to" not in line]
    return list(dict.fromkeys(shortened(line) for line in emergencies)) if final else []

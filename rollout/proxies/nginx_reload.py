"""A reload that is seen through: the new generation live and the old one accepting nothing, or the former live again.

Proof that it is live: workers that were not there before, every earlier worker gone or shutting down, and the status
listener answering with the new digest. An answer alone is none: for 100 ms both generations answer. Where somebody else
reloads at the same time there may be a third in between, which knows what nobody here has asked for: more workers than
before, or some that came after others, are not taken for one generation until they stay as they are.

Proof that it is refused there is none: the log holds what clients ask for as well, and what other programs of the
container say. So nginx's words only end the wait, and the former configuration is loaded again: nginx does that after
whatever else it was doing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rollout.errors import NotUndone, ProxyRejected, ProxyUnreachable, RolloutError
from rollout.ports import Clock, Process, ProxyProcess
from rollout.proxies.nginx_program import Program, shortened
from rollout.proxies.nginx_workers import Workers, workers
from rollout.waiting import DeadlinePassed, wait_for

# A port that is taken is tried for 2.5 s before nginx gives up.
_TIMEOUT = 5.0
_BYTES_A_SECOND = 1_000_000  # of configuration that nginx reads, on a slow machine
# Certificates and names that are looked up may take far longer than the text, in a test as in a reload; beside its
# reload nginx still answers requests.
_TESTS = 4
# Between starting new workers and telling the old ones to quit nginx's master pauses for 100 ms (its source, and
# PROXIES 1: 113 ms at the least): earlier looks see nothing, and cost 10 ms each where only the engine can list them.
_NOT_BEFORE = 0.097
_LOOK = 0.002
_LONGEST = 0.03
_SETTLED = 0.5  # seconds; longer than two generations serve side by side
_LOG_AFTER = 0.2  # a good reload is over by then: the log is only read when it is not
_START = 5.0  # seconds; workers come once the configuration is loaded
_REFUSAL = re.compile(r"(?:(?:nginx|angie): \[emerg\]|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[emerg\] \d+#\d+:) ")


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
        """Those of now. One serves as long as nginx runs; where it has only just started that is waited for. Raises
        ProxyUnreachable where none is seen: no reload could ever be confirmed."""

        def look() -> Workers | None:
            now = self._now()
            return now if now.serving else None

        try:
            return wait_for(self._clock, look, timeout=_START)
        except DeadlinePassed:
            raise ProxyUnreachable(
                f"no worker process of nginx is seen in {self._process.describe()}",
                hint="its titles must tell its workers (`nginx: worker process`): remove `master_process off;`, "
                "and where it does not run, see its error log",
            ) from None

    def load(self, before: Workers, digest: str, size: int, undo: Callable[[], str], *, tested: float = 0.0) -> Workers:
        """Load what is in force on disk now: `size` bytes that answer `digest`, and that nginx took `tested` seconds to
        test; `before` are the workers until now. Answers those there are once it is live.

        When nginx does not take it, call `undo`, which puts the former configuration in force on disk and returns its
        digest (empty: it has none), make sure that it is the live one, and raise ProxyRejected. Raises NotUndone when
        that cannot be seen either.
        """
        since, timeout = self._clock.wall(), _TIMEOUT + size / _BYTES_A_SECOND + _TESTS * tested
        self._program.reload(self._seen)
        words: list[str] = []
        try:
            return self._confirm(before, digest, timeout, since)
        except _Refused as refused:
            words = refused.words
        except DeadlinePassed:
            pass
        hint = self._again(before, undo(), timeout, words)
        raise ProxyRejected(
            "nginx refused to load the new configuration; the former one is in force"
            if words
            else f"nginx did not load the new configuration within {timeout:.0f} s; the former one is in force",
            hint=hint or ("" if words else "its error log says why"),
            details=words,
        )

    def _again(self, before: Workers, digest: str, timeout: float, words: list[str]) -> str:
        """See the former configuration live: loaded again or, where nginx refuses that as well and has had the time for
        both, never left. Answers a hint, empty when there is none to give. Raises NotUndone."""
        more: list[str] = []
        try:
            since, now = self._clock.wall(), self._now()
            self._program.reload(self._seen)
            try:
                self._confirm(now, digest, 2 * timeout)  # one that is still being loaded comes before it
            except DeadlinePassed:
                more = refusal(self._process.output(since))
                if words and more and self._now().serving == before.serving and digest == self._digest():
                    return "mend what it says before it is restarted: it refuses to load the former one again as well"
                raise
            return ""
        except (DeadlinePassed, RolloutError) as error:
            raise NotUndone(
                "nginx did not load the new configuration, nor the former one, which is in force on disk again",
                hint=f"see the error log of {self._process.describe()}, then restart it: it will load the former one",
                details=[*words, *more],
            ) from error

    def _now(self) -> Workers:
        self._seen = self._process.processes()
        return workers(self._seen)

    def _confirm(self, before: Workers, digest: str, timeout: float, since: float | None = None) -> Workers:
        """See it live. What nginx has said from `since` (wall clock) on may end the wait; None: it is not asked."""
        began = self._clock.now()
        serving, since_when = before.serving, began
        first: frozenset[int] = frozenset()  # the new workers that were seen first, as far as they still serve

        def look() -> Workers | None:
            nonlocal serving, since_when, first
            now = self._now()
            if now.serving != serving:
                serving, since_when = now.serving, self._clock.now()
            new = serving - before.all
            first = (first & new) or new
            at_once = len(serving) <= len(before.serving) and new == first
            one = at_once or self._clock.now() - since_when >= _SETTLED
            if serving and one and not serving & before.all and digest == self._digest():
                return now
            late = since is not None and self._clock.now() - began > _LOG_AFTER
            if since is not None and late and (words := refusal(self._process.output(since))):
                raise _Refused(words)
            return None

        self._clock.sleep(_NOT_BEFORE)
        return wait_for(self._clock, look, timeout=timeout, first=_LOOK, longest=_LONGEST)


def refusal(lines: list[str]) -> list[str]:
    """Why nginx keeps its former configuration, by its log; empty while it has not said so."""
    emergencies = [line for line in lines if _REFUSAL.match(line)]
    # a port that is taken is tried again five times: only then is it nginx's last word
    final = [line for line in emergencies if "still could not bind()" in line or "bind() to" not in line]
    return list(dict.fromkeys(shortened(line) for line in emergencies)) if final else []

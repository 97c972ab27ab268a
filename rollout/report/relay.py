"""Between the core and a report: the proxy's findings join the events as warnings, once, before the receipt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from rollout.errors import RolloutError
from rollout.events import Event, Finished, NothingToDo, Sink, StepStarted, Warned
from rollout.model import Finding

# A stop waits for the application, and the processor has nothing else to do; before it there is much.
_IDLE = "stop"
PATIENCE = 2.0  # seconds the receipt waits for findings that are still being looked for


class Relay:
    """A sink that looks for findings beside the rollout, so that they cost it no time and cannot fail it."""

    def __init__(self, sink: Sink, look: Callable[[], Sequence[Finding]]) -> None:
        self._sink = sink
        self._look = look
        self._found: list[Finding] = []
        self._told = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._search, name="findings", daemon=True)

    def __call__(self, event: Event) -> None:
        ended = isinstance(event, Finished | NothingToDo)
        if not self._thread.ident and (ended or (isinstance(event, StepStarted) and event.step == _IDLE)):
            self._thread.start()
        if ended:
            self._thread.join(PATIENCE)
        self.tell(event.service)
        self._sink(event)

    def tell(self, service: str) -> None:
        """Emit what was found, if the search is over and this was not done yet."""
        with self._lock:
            if self._told or not self._thread.ident or self._thread.is_alive():
                return
            self._told = True
        for finding in dict.fromkeys(self._found):
            self._sink(Warned(service, finding.code, _line(finding)))

    def _search(self) -> None:
        with suppress(RolloutError):  # the rollout itself meets the same trouble, and tells it
            self._found = list(self._look())


def _line(finding: Finding) -> str:
    where = f"{finding.where}: " if finding.where else ""
    return where + finding.message + (f"; write: {finding.fix}" if finding.fix else "")

"""One JSON object an event, one event a line, the receipt in the last one (`finished`)."""

from __future__ import annotations

import json
import threading
from typing import TextIO

from rollout.events import Event
from rollout.report.sinks import at_once


class JsonReport:
    """A Report for programs. A reader that has gone away does not end the rollout."""

    def __init__(self, results: TextIO) -> None:
        self._results = results
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        line = json.dumps(event.as_json(), separators=(",", ":"))
        with self._lock:
            try:
                self._results.write(line + "\n")
                self._results.flush()
            except OSError:
                pass

    def interrupting(self, text: str) -> None:
        at_once(text)

    def close(self) -> None:
        """Every line was written when it came."""

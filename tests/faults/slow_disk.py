"""The program on a disk that takes its time for every write.

python -m tests.faults.slow_disk deploy web
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from rollout.cli import main
from rollout.journal import SqliteJournal
from tests.faults.killed import _changes

WRITE = 0.2  # seconds


def slow(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def delayed(*args: Any, **kwargs: Any) -> Any:
        time.sleep(WRITE)
        return function(*args, **kwargs)

    return delayed


def on_file(event: str, args: tuple[Any, ...]) -> None:
    if event not in ("http.client.send", "subprocess.Popen") and _changes(event, args):
        time.sleep(WRITE)


if __name__ == "__main__":
    os.fsync = slow(os.fsync)
    for name in ("begin", "step_begun", "mark_state", "finish", "revision", "set_warm"):  # what sqlite writes
        setattr(SqliteJournal, name, slow(getattr(SqliteJournal, name)))
    sys.addaudithook(on_file)
    sys.exit(main())

"""The project as its files say now: loaded anew when one of them changes, the last good one kept when that fails."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from rollout.compose import Options
from rollout.compose.sources import sources
from rollout.errors import RolloutError
from rollout.events import Notice, Sink, Warned
from rollout.ports import Clock
from rollout.wiring import Wired, wire

Signature = tuple[tuple[str, int, int, int], ...]  # path, inode, size, modified (ns) of the files that are there


class LiveProject:
    """A `Wired` for as long as the block lasts; `refresh` may replace it. For one thread at a time."""

    wired: Wired

    def __init__(self, options: Options, clock: Clock, emit: Sink) -> None:
        self.options, self._clock, self._emit = options, clock, emit
        self._open = ExitStack()
        self._signature: Signature = ()

    def __enter__(self) -> Self:
        self.wired = self._open.enter_context(wire(self.options, [], self._clock, self._emit))
        self._signature = self._look()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def refresh(self) -> bool:
        """Load it anew if a file has changed; whether it is another now. A broken one is told once."""
        now = self._look()
        if now == self._signature:
            return False
        self._signature = now
        fresh = ExitStack()
        try:
            wired = fresh.enter_context(wire(self.options, [], self._clock, self._emit))
            if wired.project.name != self.wired.project.name:
                raise RolloutError(
                    f"its name is {wired.project.name} now", hint="a renamed project needs a new sidecar"
                )
        except RolloutError as error:
            fresh.close()
            text = f"the project's files have changed; going on with the last good ones: {error.message}"
            self._emit(Warned("", "project-refused", "; ".join([text, *error.details])))
            return False
        self._open.close()
        self._open, self.wired = fresh, wired
        self._signature = self._look()  # it may name other files now
        self._emit(Notice("", "the project's files have changed and were read again"))
        return True

    def _look(self) -> Signature:
        wired = self.wired
        named = sources(wired.loaded.files, self.options.env_files, wired.loaded.directory)
        return tuple(entry for path in named if (entry := _entry(path)))


def _entry(path: Path) -> tuple[str, int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return str(path), seen.st_ino, seen.st_size, seen.st_mtime_ns

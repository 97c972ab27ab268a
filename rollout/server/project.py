"""The project as its files say now: loaded anew when one of them changes, the last good one kept when that fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from rollout.compose import Options
from rollout.compose.sources import sources
from rollout.errors import RolloutError, UsageError
from rollout.events import Notice, Sink, Warned
from rollout.ports import Clock
from rollout.waiting import Backoff
from rollout.wiring import Wired, wire

Signature = tuple[tuple[str, int, int, int], ...]  # path, inode, size, modified (ns) of the files that are there


class LiveProject:
    """A `Wired` for as long as the block lasts; `take_up` may replace it. For one thread at a time."""

    wired: Wired

    def __init__(
        self, options: Options, clock: Clock, emit: Sink, adapt: Callable[[Wired], None] = lambda wired: None
    ) -> None:
        """`adapt` may change the ports of each one that is loaded."""
        self.options, self.adapt, self._clock, self._emit = options, adapt, clock, emit
        self._open = ExitStack()
        self._files: tuple[Path, ...] = ()
        self._signature: Signature = ()  # of the files when they were loaded, or refused
        self._last: Signature = ()
        self._next: tuple[ExitStack, Wired] | None = None  # read, and waits to be taken up
        self._refused, self._again = "", Backoff(clock)

    def __enter__(self) -> Self:
        self.wired = self._open.enter_context(wire(self.options, [], self._clock, self._emit))
        self.adapt(self.wired)
        self._remember(())
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()
        self._open.close()

    def changed(self) -> bool:
        """Whether there is another project to take up. Cheap, unless its files are others than when they were loaded,
        or refused, and have been so since the last call (an editor may still be writing): then they are read. What was
        refused is read again by and by: it may have wanted what was not there yet, or met trouble that has passed."""
        last, self._last = self._last, self._look()
        if (self._last == last and self._last != self._signature) or self._again.due():
            self._load()
        return self._next is not None

    def take_up(self) -> bool:
        """Replace it by the one that was read, if there is one; whether it is another now."""
        if self._next is None:
            return False
        self._open.close()
        (self._open, self.wired), self._next = self._next, None
        self.adapt(self.wired)
        self._remember(self._signature)
        self._emit(Notice("", "the project's files have changed and were read again"))
        return True

    def refresh(self) -> bool:
        """Both at once, without waiting for the files to rest."""
        self._last = self._look()
        self.changed()
        return self.take_up()

    # --- within

    def _load(self) -> None:
        """A broken one is told once, and the last good project stays."""
        self._drop()
        self._signature = self._look()
        with ExitStack() as fresh:
            try:
                wired = fresh.enter_context(wire(self.options, [], self._clock, self._emit))
                if wired.project.name != self.wired.project.name:
                    raise UsageError(f"the project is named {wired.project.name} now: it needs another sidecar")
            except RolloutError as error:
                self._refuse("; ".join([error.message, *error.details]))
                return
            self._refused = ""
            self._again.reset()
            self._next = fresh.pop_all(), wired

    def _refuse(self, reason: str) -> None:
        self._again.failed()
        if reason != self._refused:
            self._refused = reason
            text = f"the project's files have changed; going on with the last good ones: {reason}"
            self._emit(Warned("", "project-refused", text))

    def _drop(self) -> None:
        if self._next is not None:
            self._next[0].close()
            self._next = None

    def _remember(self, before: Signature) -> None:
        """It may name other files now. One that has changed since it was looked at is looked at again."""
        loaded = self.wired.loaded
        self._files = sources(loaded.files, self.options.env_files, loaded.directory)
        known = {entry[0]: entry for entry in before}
        self._signature = tuple(known.get(entry[0], entry) for entry in self._look())

    def _look(self) -> Signature:
        own = self.wired.project.proxy.templates
        # the proxy's adapter keeps the templates it has loaded, also where the user's own are new
        templates = sorted(_templates_in(own)) if own else []
        return tuple(entry for path in (*self._files, *templates) if (entry := _entry(path)))


def _templates_in(directory: str) -> Iterator[Path]:
    """Not by `rglob`, which raises where a directory vanishes meanwhile."""
    for place, _, names in os.walk(directory):
        yield from (Path(place, name) for name in names if name.endswith(".j2"))


def _entry(path: Path) -> tuple[str, int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return str(path), seen.st_ino, seen.st_size, seen.st_mtime_ns

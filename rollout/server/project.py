"""The project as its files say now: loaded anew when one of them changes, the last good one kept when that fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from rollout.compose import Options
from rollout.compose.sources import sources
from rollout.errors import RolloutError, UsageError
from rollout.events import Notice, Sink, Warned
from rollout.ports import Clock
from rollout.wiring import Wired, wire

Signature = tuple[tuple[str, int, int, int], ...]  # path, inode, size, modified (ns) of the files that are there


class LiveProject:
    """A `Wired` for as long as the block lasts; `refresh` may replace it. For one thread at a time."""

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

    def __enter__(self) -> Self:
        self.wired = self._open.enter_context(wire(self.options, [], self._clock, self._emit))
        self.adapt(self.wired)
        self._remember(())
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def changed(self) -> bool:
        """Whether one of its files is another than when it was loaded, or refused, and has been so since the last call:
        an editor may still be writing. Cheap."""
        last, self._last = self._last, self._look()
        return self._last == last and self._last != self._signature

    def refresh(self) -> bool:
        """Load it anew if a file has changed; whether it is another now. A broken one is told once, and the last good
        project stays."""
        before = self._look()
        if before == self._signature:
            return False
        self._signature = before
        with ExitStack() as fresh:
            try:
                wired = fresh.enter_context(wire(self.options, [], self._clock, self._emit))
                if wired.project.name != self.wired.project.name:
                    raise UsageError(f"the project is named {wired.project.name} now: it needs another sidecar")
            except RolloutError as error:
                text = f"the project's files have changed; going on with the last good ones: {error.message}"
                self._emit(Warned("", "project-refused", "; ".join([text, *error.details])))
                return False
            self._open.close()
            self._open, self.wired = fresh.pop_all(), wired
            self.adapt(wired)
        self._remember(before)
        self._emit(Notice("", "the project's files have changed and were read again"))
        return True

    def _remember(self, before: Signature) -> None:
        """It may name other files now. One that has changed since it was looked at is looked at again."""
        loaded = self.wired.loaded
        self._files = sources(loaded.files, self.options.env_files, loaded.directory)
        known = {entry[0]: entry for entry in before}
        self._signature = tuple(known.get(entry[0], entry) for entry in self._look())

    def _look(self) -> Signature:
        own = self.wired.project.proxy.templates
        # the proxy's adapter keeps the templates it has loaded, also where the user's own are new
        templates = sorted(Path(own).rglob("*.j2")) if own else []
        return tuple(entry for path in (*self._files, *templates) if (entry := _entry(path)))


def _entry(path: Path) -> tuple[str, int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return str(path), seen.st_ino, seen.st_size, seen.st_mtime_ns

"""Directories watched by the operating system, through watchdog. The only module that knows watchdog."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rollout.errors import StateError

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import ObservedWatch

# reading a file, as a build does, is an event as well
CHANGES = frozenset({"created", "modified", "moved", "deleted"})


class Observer:
    """Tells `changed` each path at which something was written, made, moved or removed, from a thread of its own."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        from watchdog.observers import Observer as Native

        self._changed = changed
        self._native = Native()
        self._wanted: Mapping[str, bool] = {}
        self._watched: dict[str, _Watched] = {}
        self._ended: set[str] = set()  # a new directory may have the number of the one before

    def __enter__(self) -> Self:
        self._native.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._native.stop()
        self._native.join()

    def watch(self, places: Mapping[str, bool]) -> None:
        """Watch these directories, and no others any more; the value says whether with all below. One that is not
        there is watched when it is (`renew`). Raises StateError when the system has no more watches."""
        self._wanted = places
        for place, watched in list(self._watched.items()):
            if places.get(place) is not watched.below:
                self._forget(place)
        for place in places:
            if place not in self._watched:
                self._add(place)

    def renew(self) -> None:
        """Watch those that have come, or were made anew (a checkout, an unpacked archive): the system's watch ends with
        the directory. What is in them has changed. Raises as `watch` does."""
        at_work = {emitter.watch for emitter in self._native.emitters if emitter.is_alive()}
        for place in self._wanted:
            watched = self._watched.get(place)
            whole = watched is not None and watched.watch in at_work and place not in self._ended
            if watched is not None and whole and watched.identity == _identity(place):
                continue
            self._ended.discard(place)
            if watched is not None:
                self._forget(place)
            if self._add(place):
                self._changed(place)
                # what the former watch had not told yet went with it, however deep it was
                for path in _inside(place, below=self._wanted[place]):
                    self._changed(path)

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog, which asks no more of a handler than this."""
        if event.event_type not in CHANGES or (event.is_directory and event.event_type == "modified"):
            return
        for path in (event.src_path, event.dest_path):
            if path:
                name = path if isinstance(path, str) else path.decode(errors="surrogateescape")
                if event.event_type == "deleted" and name in self._wanted:
                    self._ended.add(name)
                self._changed(name)

    def _forget(self, place: str) -> None:
        with suppress(KeyError):  # watchdog has seen its end
            self._native.unschedule(self._watched.pop(place).watch)

    def _add(self, place: str) -> bool:
        """Whether it is there."""
        below, identity = self._wanted[place], _identity(place)
        if identity is None:
            return False
        try:
            watch = self._native.schedule(self, place, recursive=below)  # type: ignore[arg-type]  # see dispatch
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            hint = ""
            if error.errno in (errno.ENOSPC, errno.EMFILE):
                hint = "raise it: sysctl fs.inotify.max_user_watches, fs.inotify.max_user_instances"
            raise StateError(f"{place} cannot be watched: {error.strerror or error}", hint=hint) from error
        self._watched[place] = _Watched(below, identity, watch)
        return True


@dataclass(frozen=True, slots=True)
class _Watched:
    below: bool
    identity: tuple[int, int]
    watch: ObservedWatch


def _inside(place: str, *, below: bool) -> Iterator[str]:
    for folder, folders, files in os.walk(place):
        yield from (os.path.join(folder, name) for name in (*folders, *files))  # noqa: PTH118  # as the events name them
        if not below:
            return


def _identity(place: str) -> tuple[int, int] | None:
    try:
        seen = Path(place).stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino

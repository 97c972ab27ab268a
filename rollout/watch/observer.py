"""Directories watched by the operating system, through watchdog. The only module that knows watchdog."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
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
        self._watched: dict[str, tuple[bool, ObservedWatch]] = {}

    def __enter__(self) -> Self:
        self._native.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._native.stop()
        self._native.join()

    def watch(self, places: Mapping[str, bool]) -> None:
        """Watch these directories, and no others any more; the value says whether with all below. One that is not
        there is left out. Raises StateError when the system has no more watches."""
        for place, (below, watched) in list(self._watched.items()):
            if places.get(place) is not below:
                self._native.unschedule(watched)
                del self._watched[place]
        for place, below in places.items():
            if place not in self._watched:
                self._add(place, below)

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog, which asks no more of a handler than this."""
        if event.event_type not in CHANGES or (event.is_directory and event.event_type == "modified"):
            return
        for path in (event.src_path, event.dest_path):
            if path:
                self._changed(path if isinstance(path, str) else path.decode(errors="surrogateescape"))

    def _add(self, place: str, below: bool) -> None:
        try:
            watched = self._native.schedule(self, place, recursive=below)  # type: ignore[arg-type]  # see dispatch
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            hint = ""
            if error.errno in (errno.ENOSPC, errno.EMFILE):
                hint = "raise it: sysctl fs.inotify.max_user_watches, fs.inotify.max_user_instances"
            raise StateError(f"{place} cannot be watched: {error.strerror or error}", hint=hint) from error
        self._watched[place] = (below, watched)

"""What of a project is watched, and which of its parts a changed path belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from rollout.paths import is_directory
from rollout.watch.ignored import Matches, is_passing, left_out


@dataclass(frozen=True, slots=True)
class BuildContext:
    """A directory that a service's image is built from. Absolute paths."""

    directory: str
    dockerfile: str  # may lie outside of the directory; empty: it has none
    left_out: Matches = field(default=lambda _: False, compare=False, repr=False)  # of paths relative to it

    def holds(self, path: str) -> bool:
        """Whether the builder reads it. An ignore file says what the builder reads."""
        if path == self.dockerfile or path in self.ignore_files:
            return True
        return _within(path, self.directory) and not self.left_out(
            PurePath(path).relative_to(self.directory).as_posix()
        )

    @property
    def ignore_files(self) -> tuple[str, ...]:
        """Where it may be said what the builder does not read; the first there is counts."""
        own = (f"{self.dockerfile}.dockerignore",) if self.dockerfile else ()
        return (*own, str(Path(self.directory, ".dockerignore")))


@dataclass(frozen=True, slots=True)
class Scope:
    """Absolute paths. `files` are those that say what the project is, or what is watched of it: Compose, env and ignore
    files. `own` are the directories that rollout itself writes into."""

    files: frozenset[str]
    templates: str  # a directory; empty: the user has none
    contexts: Mapping[str, tuple[BuildContext, ...]]  # by service
    own: tuple[str, ...] = ()

    def concerns(self, path: str) -> bool:
        """Whether a change there can mean anything."""
        return self.is_file(path) or self.is_template(path) or bool(self.services(path))

    def is_file(self, path: str) -> bool:
        return path in self.files

    def is_template(self, path: str) -> bool:
        return bool(self.templates) and _within(path, self.templates) and not is_passing(path)

    def services(self, path: str) -> frozenset[str]:
        """The services whose image is built from it."""
        if is_passing(path) or any(_within(path, own) for own in self.own):
            return frozenset()
        return frozenset(name for name, contexts in self.contexts.items() if any(c.holds(path) for c in contexts))

    def places(self) -> dict[str, bool]:
        """The directories to watch, and whether with all below them: a file is watched by its directory, since
        editors put a new file in its place."""
        below = {c.directory for contexts in self.contexts.values() for c in contexts} | {self.templates} - {""}
        beside = {str(Path(file).parent) for file in self.files}
        beside |= {
            str(Path(c.dockerfile).parent) for contexts in self.contexts.values() for c in contexts if c.dockerfile
        }
        whole = {place: True for place in below if not any(_within(place, other) for other in below - {place})}
        return whole | {place: False for place in beside if not any(_within(place, other) for other in whole)}


def scope(
    files: Iterable[str], templates: str, contexts: Mapping[str, tuple[BuildContext, ...]], own: Iterable[str]
) -> Scope:
    """What is watched of a project: `files` are its Compose and env files."""
    every = [context for some in contexts.values() for context in some]
    ignoring = {file for context in every for file in context.ignore_files}
    return Scope(frozenset(files) | ignoring, templates, contexts, tuple(own))


def build_contexts(document: Mapping[str, Any], services: Iterable[str]) -> dict[str, tuple[BuildContext, ...]]:
    """The local build contexts of these services, by service. `document` is the project as Compose resolved it."""
    sections = {name: (document["services"][name] or {}).get("build") for name in services}
    return {name: _of_build(section) for name, section in sections.items() if section}


def _of_build(section: Mapping[str, Any]) -> tuple[BuildContext, ...]:
    main = str(section.get("context") or "")
    found = []
    if _is_local(main):
        found.append(BuildContext(main, os.path.normpath(Path(main, section.get("dockerfile") or "Dockerfile"))))
    further = map(str, (section.get("additional_contexts") or {}).values())
    found += [BuildContext(directory, "") for directory in further if _is_local(directory)]
    return tuple(replace(context, left_out=left_out(context.ignore_files)) for context in found)


def _is_local(context: str) -> bool:
    """Elsewhere are git repositories and other images. One that may not be looked at is none; pathlib would raise."""
    return Path(context).is_absolute() and is_directory(context)


def _within(path: str, directory: str) -> bool:
    return PurePath(path).is_relative_to(directory)

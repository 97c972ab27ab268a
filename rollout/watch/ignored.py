"""Paths whose changes mean nothing: editors' own files, version control's, and what `.dockerignore` keeps out."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import Pattern

EDITORS_FILES = (
    ".*.sw?",  # vim's swap file
    "4913",  # vim tries with it whether it may write here
    "*~",  # the copy that vim, Emacs and gedit keep
    ".#*",  # Emacs's lock
    "#*#",  # Emacs's unsaved text
    "*___jb_tmp___",  # JetBrains, before it renames
    "*___jb_old___",
    ".goutputstream-*",  # GNOME, before it renames
    "*.kate-swp",
    ".DS_Store",
)
VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})

Matches = Callable[[str], bool]  # of a path relative to the build context, with slashes


def is_passing(path: str) -> bool:
    """Whether it is an editor's or version control's own: there for a moment, or nothing that is served."""
    parts = PurePath(path).parts
    name = parts[-1] if parts else ""
    return any(fnmatchcase(name, pattern) for pattern in EDITORS_FILES) or not VERSION_CONTROL.isdisjoint(parts)


def left_out(ignore_files: Iterable[str]) -> Matches:
    """What the builder does not get to see of a build context, as the first of these files says that there is; without
    any, nothing is left out."""
    for file in ignore_files:
        try:
            return docker_patterns(Path(file).read_text(encoding="utf-8", errors="replace").splitlines())
        except OSError:
            continue
    return lambda _: False


def docker_patterns(lines: Iterable[str]) -> Matches:
    """Docker's rules, by git's patterns. They differ: one without a slash is for the top of the context alone, and the
    last pattern that matches the path or a directory above it counts. One that makes no sense is left out."""
    patterns = [pattern for line in lines for pattern in _compiled(_anchored(line))]

    def matches(path: str) -> bool:
        above = [path, *map(str, PurePosixPath(path).parents[:-1])]
        found = (bool(p.include) for p in reversed(patterns) if any(p.match_file(part) for part in above))
        return next(found, False)

    return matches


def _compiled(pattern: str) -> list[Pattern]:
    from pathspec import PathSpec

    try:
        return [p for p in PathSpec.from_lines("gitignore", [pattern]).patterns if p.include is not None]
    except (ValueError, re.error):
        return []


def _anchored(line: str) -> str:
    pattern = line.strip()
    if not pattern or line.startswith("#"):
        return ""
    negated = pattern.startswith("!")
    cleaned = posixpath.normpath("/" + pattern.lstrip("!").strip()).lstrip("/")
    if not cleaned:  # `.` and `/`, which Docker ignores
        return ""
    return f"{'!' if negated else ''}/{cleaned}"

"""Paths of this host, as people write them. Asked of os.path: pathlib raises where one may not look, for a name that is
too long, and for the home of a user that there is not."""

from __future__ import annotations

import os
from pathlib import Path


def absolute(path: str, directory: str) -> str:
    """The path as seen from `directory`, `..` resolved; symbolic links stay as they are, as in Compose's labels."""
    return os.path.normpath(Path(directory, path).absolute())


def expanded(path: str) -> str:
    """`~` as the home it means; where there is none it stays."""
    return os.path.expanduser(path)  # noqa: PTH111


def is_file(path: str | Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


def is_directory(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110

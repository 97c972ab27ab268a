"""Paths of this host, as people write them. Asked of os.path: pathlib raises where one may not look, for a name that is
too long, and for the home of a user that there is not."""

from __future__ import annotations

import errno
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


def unwritable(directory: str) -> str:
    """Why nothing can be made in this directory, in the system's words; empty when it can."""
    if os.access(directory, os.W_OK | os.X_OK):
        return ""
    try:
        read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
    except OSError as error:
        return error.strerror or str(error)
    return os.strerror(errno.EROFS if read_only else errno.EACCES)

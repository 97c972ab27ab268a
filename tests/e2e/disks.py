"""Disks that fill up."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

AS_ROOT = () if os.geteuid() == 0 else ("sudo", "-nE")


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A disk of 1 MiB on `place`."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run([*AS_ROOT, "mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run([*AS_ROOT, "umount", "--lazy", place], check=True)


@contextlib.contextmanager
def full(place: Path) -> Iterator[None]:
    filler = place / ".filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    assert os.statvfs(place).f_bavail == 0
    try:
        yield
    finally:
        filler.unlink()

"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker


def describe(images: list[str]) -> dict[str, Any]:
    """The machine and the programs on it; `images` are the proxies' and the application's."""
    client = docker.APIClient(version="auto")
    try:
        engine = client.version()["Version"]
        storage = client.info()["Driver"]
    finally:
        client.close()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": _system(),
        "kernel": platform.release(),
        "engine": f"{engine} ({storage})",
        "compose": _said("docker", "compose", "version", "--short"),
        "python": platform.python_version(),
        "images": images,
    }


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _system() -> str:
    release = platform.freedesktop_os_release()
    return release.get("PRETTY_NAME", release["NAME"])


def _said(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"

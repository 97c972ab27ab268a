"""CPU, memory and processes of a container from its control group, where the engine runs here and we may see it.

Up to engine 20.10 the API answers a single sample only after a second of its own (1004 ms measured), and for a list of
processes it runs `ps` (10 to 15 ms); these files take less than 1 ms.
"""

from __future__ import annotations

from pathlib import Path

from rollout.model import Usage
from rollout.ports import Process

ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def usage(pid: int, container_id: str, root: Path = ROOT, proc: Path = PROC) -> Usage | None:
    """What the container of process `pid` has used; None when that cannot be seen from here.

    `pid` is the engine's view. In another pid namespace (a sidecar, a remote engine) it is some other process or none:
    only a control group that carries the container's id counts.
    """
    try:
        groups = _groups((proc / str(pid) / "cgroup").read_text(), container_id)
        if "cpuacct" in groups and "memory" in groups:
            return _version_1(root / "cpuacct" / groups["cpuacct"], root / "memory" / groups["memory"])
        if "" in groups:
            return _version_2(root / groups[""])
    except (OSError, ValueError, KeyError):
        return None
    return None


def processes(pid: int, container_id: str, root: Path = ROOT, proc: Path = PROC) -> list[Process] | None:
    """Every process of the container of process `pid`, as `ps` in this pid namespace names it; None when that cannot be
    seen from here. `pid` as for `usage`."""
    try:
        groups = _groups((proc / str(pid) / "cgroup").read_text(), container_id)
        group = root / "pids" / groups["pids"] if "pids" in groups else root / groups[""]
        # the kernel's own list misses none that stays, which the children of a process in /proc do not promise
        found = [int(word) for listed in group.rglob("cgroup.procs") for word in listed.read_text().split()]
        seen = [Process(one, title) for one in found if (title := _title(proc / str(one))) is not None]
    except (OSError, ValueError, KeyError):
        return None
    return seen if seen and 0 not in found else None  # 0: one of another pid namespace


def _title(process: Path) -> str | None:
    """None when it has ended. Raises OSError when it may not be read."""
    try:
        return (process / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _groups(text: str, container_id: str) -> dict[str, str]:
    """Controller → path below the mount, of those lines that name the container. Version 2's controller is empty."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if container_id in path:
            found.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    return found


def _version_1(cpu: Path, memory: Path) -> Usage:
    used = int((memory / "memory.usage_in_bytes").read_text())
    cache = _fields(memory / "memory.stat").get("total_inactive_file", 0)
    return Usage(int((cpu / "cpuacct.usage").read_text()) / 1e9, max(0, used - cache))


def _version_2(group: Path) -> Usage:
    used = int((group / "memory.current").read_text())
    cache = _fields(group / "memory.stat").get("inactive_file", 0)
    return Usage(_fields(group / "cpu.stat")["usage_usec"] / 1e6, max(0, used - cache))


def _fields(path: Path) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in path.read_text().splitlines())}

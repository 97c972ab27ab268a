"""A proxy process that does not run, but says how it was started and what its files hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.errors import ProxyUnreachable
from rollout.ports import ExecResult, Mount, Process

ARGV = "haproxy -W -db -S /run/haproxy/master.sock,level,admin -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/rollout.d"


class FakeProcess:
    """`shared`: proxy directory -> host directory."""

    def __init__(self, config: Path, files: Mapping[str, str] | None = None, argv: str = ARGV) -> None:
        self.files = files or {}
        self.command = argv
        self.shared = {"/etc/haproxy/rollout.d": str(config), "/run/haproxy": "/host/run"}

    def describe(self) -> str:
        return "container edge"

    def identity(self) -> str:
        raise ProxyUnreachable("container edge is not running")

    def argv(self) -> list[str]:
        return self.command.split()

    def exec(self, argv: Sequence[str], *, user: str = "", timeout: float = 30.0) -> ExecResult:
        raise ProxyUnreachable("container edge is not running")

    def warm_up(self) -> None:
        """Nothing is cold here."""

    def signal(self, name: str) -> None:
        raise ProxyUnreachable("container edge is not running")

    def processes(self) -> list[Process]:
        return []

    def output(self, since: float, until: float | None = None) -> list[str]:
        return []

    def networks(self) -> Mapping[str, str]:
        return {"front": "172.20.0.2"}

    def mount(self, host_path: str) -> Mount | None:
        return next((Mount(inside) for inside, here in self.shared.items() if here == host_path), None)

    def host_path(self, path: str) -> str | None:
        for inside, here in self.shared.items():
            if path == inside or path.startswith(inside + "/"):
                return here + path[len(inside) :]
        return None

    def read(self, path: str) -> bytes | None:
        text = self.files.get(path)
        return None if text is None else text.encode()

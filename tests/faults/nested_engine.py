"""An engine of another version as a host of its own, in a container: its containers and networks are inside.

    with NestedEngine("28.5", directory) as engine:
        engine.load("rollout-test/app:1")
        ran = engine.inside(["python", "-m", "tests.faults.smoke", ...])

Its socket is in `directory`, which it sees at the same path, so that bind mounts mean the same there. Addresses of its
containers are reached by programs that run in its network: `inside` starts them there, with this machine's own files.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.e2e.projects import docker, eventually

ROOT = Path(__file__).resolve().parents[2]
BASE = "debian:trixie-slim"
TLS_PORT = 2376
# What an engine needs, one by one: --privileged asks for more than some machines may give.
LIKE_A_HOST = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--device-cgroup-rule", "a *:* rwm"),
    *(part for what in ("seccomp", "apparmor", "systempaths") for part in ("--security-opt", f"{what}=unconfined")),
)


class NestedEngine:
    """`flags` are dockerd's own; with `tls` it also listens on port 2376, with the certificates in `directory`/tls."""

    def __init__(self, version: str, directory: Path, *flags: str, tls: bool = False) -> None:
        self.name = f"rollout-engine-{uuid.uuid4().hex[:8]}"
        self.directory, self.socket = directory, directory / "docker.sock"
        self.image = f"rollout-test/engine:{version}"
        self._flags = ["-H", f"unix://{self.socket}", *flags, *(_tls_flags(directory / "tls") if tls else ())]

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def __enter__(self) -> Self:
        # an engine's pools of addresses would be those of the host, which the load's own network may use
        pool = ["--default-address-pool", "base=172.30.0.0/16,size=24", "--bip", "172.29.0.1/24"]
        mounted = ["-v", "/var/lib/docker", "-v", f"{self.directory}:{self.directory}"]
        docker("run", "-d", "--init", *LIKE_A_HOST, "--name", self.name, *mounted, self.image, *self._flags, *pool)
        try:
            eventually(self.answers, "an answer of the nested engine", 60)
        except BaseException:
            print(docker("logs", "--tail", "30", self.name, check=False))
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        docker("rm", "-f", "-v", self.name)

    def answers(self) -> str:
        return docker("-H", self.url, "version", "--format", "{{.Server.Version}}", check=False)

    def load(self, *images: str) -> None:
        """Copy images from this machine's engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "-H", self.url, "load", "-q"], stdin=saving.stdout, check=True, capture_output=True
            )
        assert saving.returncode == 0

    def restart(self) -> list[str]:
        """What to ask of this machine's engine to end the nested one, which is then started again."""
        return ["exec", self.name, "sh", "-c", "kill $(cat /var/run/docker.pid)"]

    def inside(self, argv: Sequence[str], env: Mapping[str, str], timeout: float = 300) -> str:
        """Run a program of this machine in the engine's network; what it printed. Fails when it does."""
        given = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
        chroot = ["docker", "run", "--rm", "--network", f"container:{self.name}", "-v", "/:/host", *given]
        command = [*chroot, BASE, "chroot", "/host", "sh", "-c", 'cd "$0" && exec "$@"', str(ROOT), *argv]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        assert ran.returncode == 0, f"{' '.join(argv)}: exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def address(self) -> str:
        return docker("inspect", self.name, "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")


def environment(**changes: str) -> dict[str, str]:
    """What a program needs of ours to run, and these."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **changes}


def _tls_flags(folder: Path) -> list[str]:
    files = ["--tlscacert", "ca.pem", "--tlscert", "cert.pem", "--tlskey", "key.pem"]
    paths = [str(folder / part) if part.endswith(".pem") else part for part in files]
    return ["-H", f"tcp://0.0.0.0:{TLS_PORT}", "--tlsverify", *paths]

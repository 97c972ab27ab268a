"""The project that is deployed over and over: one replica of the test application behind a proxy, from examples/."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rollout.clock import SystemClock
from rollout.compose import Options
from rollout.deploy import deploy
from rollout.events import Event
from rollout.receipt import Receipt
from rollout.targets import deploy_target
from rollout.wiring import Wired, wire

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROGRAM = str(Path(sys.executable).with_name("rollout"))
VERSIONS = ("1", "2")
ONE_REPLICA = "services: { web: { deploy: { replicas: 1 } } }\n"
KEPT_IMAGES = "rollout-keep/"


@dataclass
class Stand:
    """A running proxy and its service. `times` are seconds; `phases` those of the receipts, by step."""

    proxy: str
    project: str
    directory: Path
    wired: Mapping[str, Wired]
    turn: int = 0
    times: dict[str, list[float]] = field(default_factory=lambda: {"process": [], "command": []})
    phases: dict[str, list[float]] = field(default_factory=dict)

    def deploy_in_process(self) -> float:
        """`deploy()` in this warm process, Compose's creation of the container included. Seconds."""
        wired = self.wired[self._next()]
        request = deploy_target(wired.loaded, wired.project, "web", wired.ports.images)
        began = time.perf_counter()
        receipt = deploy(wired.ports, wired.project.services["web"], request, _unheard, lambda: False)
        took = time.perf_counter() - began
        assert receipt is not None, "there was nothing to deploy: the measurement means nothing"
        self._keep(receipt, took)
        return took

    def deploy_by_command(self) -> float:
        """The whole command, from the start of its process to its end. Seconds."""
        argv = [PROGRAM, *_flags(self.project), "--json", "deploy", "web"]
        environment = environment_of(self.proxy, self._next())
        began = time.perf_counter()
        done = subprocess.run(argv, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        took = time.perf_counter() - began
        assert done.returncode == 0, done.stdout + done.stderr
        assert '"outcome":"deployed"' in done.stdout, done.stdout
        return took

    def _next(self) -> str:
        self.turn += 1
        return VERSIONS[self.turn % 2]

    def _keep(self, receipt: Receipt, took: float) -> None:
        for name, seconds in receipt.phases.items():
            self.phases.setdefault(name, []).append(seconds)
        self.phases.setdefault("around the steps", []).append(took - sum(receipt.phases.values()))


def environment_of(proxy: str, version: str) -> dict[str, str]:
    """The variables of the examples' Compose files, for the images of the tests."""
    edge = {"nginx": "rollout-test/nginx:1.30", "haproxy": "rollout-test/haproxy:3.0"}[proxy]
    # port 0: the engine picks one; nobody asks through it
    return {**os.environ, "EDGE_IMAGE": edge, "WEB_IMAGE": "rollout-test/app", "TAG": version, "EDGE_PORT": "0"}


@contextmanager
def standing(proxy: str, parent: Path) -> Iterator[Stand]:
    """The project up, with version 1 deployed; removed at the end."""
    project = f"rollout-bench-{proxy}"
    directory = parent / proxy
    shutil.copytree(EXAMPLES / proxy, directory)
    (directory / "bench.yaml").write_text(ONE_REPLICA)
    with ExitStack() as stack:
        stack.callback(_remove, project, directory, proxy)
        _run([PROGRAM, *_flags(project), "render"], directory, proxy)
        _run(["docker", "compose", *_flags(project), "up", "-d", "edge"], directory, proxy)
        stand = Stand(
            proxy, project, directory, {v: stack.enter_context(_wired(project, directory, proxy, v)) for v in VERSIONS}
        )
        stand.deploy_by_command()
        for _ in VERSIONS:
            stand.deploy_in_process()
        stand.times, stand.phases = {"process": [], "command": []}, {}
        yield stand


def _flags(project: str) -> list[str]:
    return ["-p", project, "-f", "compose.yaml", "-f", "bench.yaml"]


@contextmanager
def _wired(project: str, directory: Path, proxy: str, version: str) -> Iterator[Wired]:
    files = tuple(str(directory / name) for name in ("compose.yaml", "bench.yaml"))
    options = Options(files, project)
    environ = environment_of(proxy, version)
    with wire(options, ["web"], SystemClock(), _unheard, environ=environ) as wired:
        yield wired


def _remove(project: str, directory: Path, proxy: str) -> None:
    _run(["docker", "compose", *_flags(project), "down", "-v", "--remove-orphans", "--timeout", "0"], directory, proxy)
    listed = subprocess.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{KEPT_IMAGES}{project}/web"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    if listed:
        subprocess.run(["docker", "image", "rm", *listed], capture_output=True, check=True)


def _run(argv: list[str], directory: Path, proxy: str) -> None:
    done = subprocess.run(
        argv, cwd=directory, env=environment_of(proxy, VERSIONS[0]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"


def _unheard(_event: Event) -> None:
    """Nobody watches."""

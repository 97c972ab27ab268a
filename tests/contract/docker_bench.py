"""A real Compose project on the real engine, with every request to the engine recorded."""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from rollout.clock import SystemClock
from rollout.compose import Compose, Options
from rollout.engines.docker import Connection, DockerEngine
from rollout.engines.docker.calls import matching
from rollout.ports import Clock, Engine, Images

APP = "rollout-test/app:1"
QUIET = {"image": APP, "stop_grace_period": "1s"}


def compose(directory: Path, project: str, *arguments: str) -> str:
    command = ["docker", "compose", "--project-name", project, "--file", str(directory / "compose.yaml"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


class ComposeProject:
    """A project of its own in a folder of its own; `close` removes both, and everything Compose made."""

    def __init__(self, services: Mapping[str, Any], **others: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rollout-test-")
        self.directory = Path(self._folder.name)
        self.name = f"rollout-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.write(services, **others)

    def write(self, services: Mapping[str, Any], **others: Any) -> None:
        (self.directory / "compose.yaml").write_text(yaml.safe_dump({"services": dict(services), **others}))

    def __call__(self, *arguments: str) -> str:
        return compose(self.directory, self.name, *arguments)

    def create(self, service: str, total: int, config: str | None) -> None:
        assert config is None
        self("up", "--no-start", "--no-deps", "--no-recreate", "--scale", f"{service}={total}", service)

    def close(self) -> None:
        self("down", "--volumes", "--remove-orphans", "--timeout", "0")
        self._folder.cleanup()


class Requests:
    """What is really sent to the engine."""

    def __init__(self, connection: Connection) -> None:
        self.made: set[tuple[str, str]] = set()
        connection.client.hooks["response"].append(self._record)

    def _record(self, response: Any, **_: Any) -> None:
        self.made.add((response.request.method, urlsplit(response.request.url).path))

    def unlisted(self) -> set[tuple[str, str]]:
        """Those that the published table does not have."""
        return {request for request in self.made if matching(*request) is None}


class DockerBench:
    """`tests/contract/test_engine.py` says what a bench is."""

    def __init__(self, services: Mapping[str, Any] | None = None, **others: Any) -> None:
        self.project = ComposeProject(services or {"web": QUIET}, **others)
        self.clock: Clock = SystemClock()
        self.connection = Connection(self.clock)
        self.requests = Requests(self.connection)
        self.docker = self.make_engine(self.project.create)
        self.engine: Engine = self.docker
        self.images: Images = self.docker
        self.service = "web"
        self.config = self.project("config")
        self.image = APP

    def make_engine(self, create: Callable[[str, int, str | None], None]) -> DockerEngine:
        job = Compose(Options(project_name=self.project.name), cwd=str(self.project.directory)).start_job
        return DockerEngine(self.project.name, create, self.clock, compose_job=job, connection=self.connection)

    def die(self, replica_id: str) -> None:

        subprocess.run(["docker", "kill", "--signal", "KILL", replica_id], check=True, capture_output=True)

    def close(self) -> None:
        self.connection.close()
        self.project.close()
        assert self.requests.unlisted() == set()

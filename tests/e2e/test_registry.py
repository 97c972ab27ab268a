"""`--pull always|missing|never`, from a real registry that wants a password."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from rollout.clock import SystemClock
from rollout.compose import Options
from rollout.events import Event, Notice, Warned
from rollout.server.operations import Asked, Operation
from rollout.server.scheduling import Scheduling, looking
from rollout.wiring import wire
from tests.e2e.projects import EDGES, Shop, docker, eventually, free_ports, project

pytestmark = [pytest.mark.e2e]

NGINX = EDGES[1]
REGISTRY = "rollout-test/registry"
USER, PASSWORD = "deployer", "secret"
WEB = {
    "init": True,  # busybox as process 1 would ignore SIGTERM
    "deploy": {"replicas": 1},
    "x-rollout": {"health": {"path": "/version"}},
}


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry on this machine. `login` is a DOCKER_CONFIG directory that knows the password."""

    name: str  # of its container
    address: str
    login: Path
    busybox: bytes
    repository: str = "shop/web"

    def image(self, version: str, tag: str) -> str:
        """Make an image here that serves its version; answers its id."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, mode, content in (("bin/busybox", 0o755, self.busybox), ("www/version", 0o644, version.encode())):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
        serve = 'CMD ["/bin/busybox", "httpd", "-f", "-p", "8000", "-h", "/www"]'
        argv = ["docker", "import", "--change", serve, "-", self.reference(tag)]
        return subprocess.run(argv, input=archive.getvalue(), capture_output=True, check=True).stdout.decode().strip()

    def reference(self, tag: str) -> str:
        return f"{self.address}/{self.repository}:{tag}"

    def push(self, tag: str) -> None:
        docker("--config", str(self.login), "push", "-q", self.reference(tag))

    def forget(self, tag: str) -> None:
        """Remove it here; the registry keeps it."""
        docker("rmi", "-f", self.reference(tag))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    name = f"rollout-registry-{uuid.uuid4().hex[:8]}"
    address = f"127.0.0.1:{free_ports(1)[0]}"  # a port that it has again after a restart
    docker("run", "-d", "--name", name, "-p", f"{address}:5000", REGISTRY)
    try:
        login = tmp_path_factory.mktemp("login")
        eventually(lambda: logged_in(login, address), "the registry lets us in")
        read = ["docker", "exec", name, "cat", "/bin/busybox"]
        yield Registry(name, address, login, subprocess.run(read, capture_output=True, check=True).stdout)
    finally:
        docker("rm", "-f", "-v", name)


def logged_in(directory: Path, address: str) -> bool:
    argv = ["docker", "--config", str(directory), "login", "-u", USER, "--password-stdin", address]
    return subprocess.run(argv, input=PASSWORD, capture_output=True, text=True, check=False).returncode == 0


@contextmanager
def selling(registry: Registry, directory: Path) -> Iterator[Shop]:
    """A service whose image the registry has and this machine has not: version 1, and 2 under another tag."""
    registry.image("1", "1")
    registry.image("2", "2")
    for tag in ("1", "2"):
        registry.push(tag)
        registry.forget(tag)
    web = {**WEB, "image": registry.reference("${TAG}")}
    with project(NGINX, directory, **web) as shop:
        shop.env["DOCKER_CONFIG"] = str(registry.login)
        shop.up("edge")
        yield shop
        kept = docker("images", "-q", f"{registry.address}/{registry.repository}").split()
        shop.down()
        for image in set(kept):
            docker("rmi", "-f", image, check=False)


def version(shop: Shop) -> str:
    """What is served through the proxy."""
    argv = ["curl", "-sf", "-m", "10", "-H", "Host: web", f"{shop.url()}/version"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def is_here(reference: str) -> bool:
    return docker("images", "-q", reference) != ""


@pytest.fixture(scope="module")
def deployed(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Deployed for the first time, with `--pull missing` as the default. Each test leaves it as it was, and its tags:
    they run in any order."""
    with selling(registry, tmp_path_factory.mktemp("p")) as shop:
        assert not is_here(registry.reference("1"))
        done = shop.rollout("deploy")
        assert is_here(registry.reference("1"))
        assert version(shop) == "1"
        assert "Pulling" in done.err and "Pulled" in done.err, f"progress is shown: {done}"
        yield shop


@pytest.fixture
def moving(registry: Registry) -> Registry:
    """Where one test alone moves the tags."""
    return replace(registry, repository=f"shop/{uuid.uuid4().hex[:8]}")


@pytest.fixture
def alone(moving: Registry, short_directory: Path) -> Iterator[Shop]:
    """Deployed from there."""
    with selling(moving, short_directory) as shop:
        shop.rollout("deploy")
        yield shop


def test_missing_pulls_what_is_not_here_and_only_that(deployed: Shop) -> None:
    done = deployed.rollout("deploy")
    assert "nothing to do" in done.out
    assert "Pull" not in done.said


def test_never_pulls_nothing(deployed: Shop, registry: Registry) -> None:
    before = deployed.snapshot()
    deployed.tag("2")
    done = deployed.rollout("deploy", "web", "--pull", "never", code=1)
    deployed.tag("1")
    assert f"there is no image {registry.reference('2')} here" in done.err
    assert "hint: " in done.err
    assert not is_here(registry.reference("2"))
    assert (deployed.snapshot(), version(deployed)) == (before, "1")


@pytest.mark.parametrize("wrong", ["no", "another"], ids=["no password", "a wrong password"])
def test_the_registry_s_refusal_is_told_in_its_words(
    wrong: str, deployed: Shop, registry: Registry, tmp_path: Path
) -> None:
    token = base64.b64encode(f"{USER}:{wrong}".encode()).decode()
    auths: Mapping[str, object] = {} if wrong == "no" else {registry.address: {"auth": token}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    before = deployed.snapshot()
    deployed.tag("2")
    deployed.env["DOCKER_CONFIG"] = str(tmp_path)
    try:
        done = deployed.rollout("deploy", "web", code=1)
    finally:
        deployed.env["DOCKER_CONFIG"] = str(registry.login)
        deployed.tag("1")
    assert "no basic auth credentials" in done.err or "unauthorized: authentication required" in done.err, done
    assert "docker login" in done.err
    assert not is_here(registry.reference("2"))
    assert (deployed.snapshot(), version(deployed)) == (before, "1")


def test_an_image_that_the_registry_has_not(deployed: Shop) -> None:
    before = deployed.snapshot()
    deployed.tag("never-pushed")
    done = deployed.rollout("deploy", "web", code=1)
    deployed.tag("1")
    assert "manifest unknown" in done.err or "not found" in done.err, done
    assert (deployed.snapshot(), version(deployed)) == (before, "1")


def test_always_rolls_to_what_the_tag_means_now(alone: Shop, moving: Registry) -> None:
    old = docker("images", "-q", "--no-trunc", moving.reference("1"))
    new = moving.image("1, mended", "1")
    moving.push("1")
    docker("tag", old, moving.reference("1"))  # as if somebody else had pushed it
    assert "nothing to do" in alone.rollout("deploy", "--pull", "missing").out
    assert version(alone) == "1"
    done = alone.rollout("deploy", "--pull", "always")
    assert version(alone) == "1, mended"
    assert [c.image for c in alone.containers()] == [docker("images", "-q", "--no-trunc", moving.reference("1"))]
    assert old != new and "Pulled" in done.err
    assert "nothing to do" in alone.rollout("deploy", "--pull", "always").out, "the same digest is the same revision"
    alone.settled(replicas=1)


class ThatClock(SystemClock):
    """Real but for the time of day, which is set by hand: nothing here waits for an hour."""

    time = 0.0

    def wall(self) -> float:
        return self.time


class Deploying:
    """`Operations` that are carried out at once, by the real program."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.asked = shop, list[Asked]()

    def submit(self, asked: Asked) -> Operation:
        self.asked.append(asked)
        self.shop.rollout("deploy", *asked.services, "--pull", asked.pull)
        return Operation(len(self.asked), asked, "succeeded", 0.0, exit_code=0)

    def get(self, number: int) -> Operation:
        return Operation(number, self.asked[number - 1], "succeeded", 0.0, exit_code=0)


@pytest.fixture
def scheduled(alone: Shop, moving: Registry, monkeypatch: pytest.MonkeyPatch) -> Shop:
    alone.service("web", **{"x-rollout": {"schedule": {"interval": "1h", "jitter": "0"}}})
    monkeypatch.setenv("DOCKER_CONFIG", str(moving.login))
    return alone


def test_the_schedule_deploys_what_is_new(scheduled: Shop, moving: Registry) -> None:
    said, clock, operations = list[Event](), ThatClock(), Deploying(scheduled)
    options = Options(files=(str(scheduled.directory / "compose.yaml"),))
    with wire(options, (), clock, said.append) as wired:
        project = wired.project
    part = Scheduling(
        lambda: project, looking(options, clock, said.append), cast("Any", operations), clock, said.append
    )

    def later(seconds: float) -> int:
        """What has been deployed so far, after a round at that later time."""
        clock.time += seconds
        part.round()
        return len(operations.asked)

    assert later(0) == 0, "what runs is what the registry has"
    push_elsewhere(moving, "by the clock")
    assert later(3599) == 0
    assert later(1) == 1
    assert version(scheduled) == "by the clock"
    assert later(3600) == 1
    assert operations.asked == [Asked("deploy", ("web",), "schedule", pull="always")]
    assert [type(event) for event in said] == [Notice]

    docker("stop", "-t", "0", moving.name)
    assert (later(3600), later(10)) == (1, 1)
    assert [event.text for event in said[1:] if isinstance(event, Warned)] == [said[1].text]  # type: ignore[attr-defined]
    assert moving.address in said[1].text  # type: ignore[attr-defined]
    docker("start", moving.name)
    eventually(lambda: logged_in(moving.login, moving.address), "the registry is back")  # and has forgotten all
    push_elsewhere(moving, "after the outage")
    assert later(20) == 2
    assert version(scheduled) == "after the outage"

    scheduled.rollout("rollback", "web")
    assert version(scheduled) == "by the clock"
    assert later(3600) == 2, "a rollback is not overruled"

    config = moving.login / "config.json"
    known = config.read_text()
    config.write_text("{}")
    later(3600)
    config.write_text(known)
    assert isinstance(said[-1], Warned)
    assert "no basic auth credentials" in said[-1].text or "unauthorized" in said[-1].text, said[-1]


def push_elsewhere(registry: Registry, content: str) -> None:
    """Push this as tag 1, as if from another machine: here the tag means what it did."""
    before = docker("images", "-q", "--no-trunc", registry.reference("1"))
    registry.image(content, "1")
    registry.push("1")
    registry.forget("1")
    docker("tag", before, registry.reference("1"))

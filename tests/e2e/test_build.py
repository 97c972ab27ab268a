"""`--build`: a service that Compose builds from a Dockerfile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, Shop, docker, project

pytestmark = [pytest.mark.e2e]

NGINX = EDGES[1]
DOCKERFILE = "FROM rollout-test/app:1\nENV VERSION={version}\nRUN echo building {version}{then}\n"


@pytest.fixture
def built(short_directory: Path) -> Iterator[Shop]:
    """A service that Compose builds. Its image is removed at the end."""
    (short_directory / "web").mkdir()
    write_dockerfile(short_directory, "1")
    web = {"image": None, "build": "./web", "deploy": {"replicas": 1}}
    with project(NGINX, short_directory, **web) as shop:
        shop.up("edge")
        yield shop
        shop.down()
        docker("rmi", "-f", f"{shop.name}-web", check=False)


def write_dockerfile(directory: Path, version: str, then: str = "") -> None:
    (directory / "web/Dockerfile").write_text(DOCKERFILE.format(version=version, then=then))


def test_build(built: Shop) -> None:
    done = built.rollout("deploy")
    assert built.answers() == "1"
    assert "building 1" in done.err, "what is not here is built, and the builder is heard"

    write_dockerfile(built.directory, "2")
    assert "nothing to do" in built.rollout("deploy").out
    done = built.rollout("deploy", "--build")
    assert built.answers() == "2"
    assert "building 2" in done.err
    assert "nothing to do" in built.rollout("deploy", "--build").out
    built.settled(replicas=1)

    before = built.snapshot()
    image = docker("images", "-q", f"{built.name}-web")
    write_dockerfile(built.directory, "3", "; echo the tests do not pass; exit 3")
    done = built.rollout("deploy", "web", "--build", code=1)
    assert "the tests do not pass" in done.err
    assert "exit code: 3" in done.err or "returned a non-zero code: 3" in done.err
    assert "Traceback" not in done.err
    assert docker("images", "-q", f"{built.name}-web") == image
    assert built.snapshot() == before
    assert built.answers() == "2"


def test_state_that_a_builder_would_read_is_told(built: Shop) -> None:
    built.service("web", build={"context": ".", "dockerfile": "web/Dockerfile"})

    def told() -> list[str]:
        done = built.rollout("check", "--json", code=None)
        return [f["where"] for f in json.loads(done.out)["findings"] if f["code"] == "state-in-image"]

    assert told() == ["services.web.build"]
    (built.directory / ".dockerignore").write_text(".rollout\n")
    assert told() == []

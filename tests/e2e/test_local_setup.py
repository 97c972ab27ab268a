"""docker-compose.yml at the top: Compose and rollout understand it, and it works as its own comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from rollout.compose import Compose, Options
from rollout.model import ProxyType
from rollout.spec import read_project
from tests.e2e.projects import docker

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"


def test_plain_compose_reads_it() -> None:
    resolved = yaml.safe_load(docker("compose", "-f", str(FILE), "config"))
    (config,) = [v for v in resolved["services"]["edge"]["volumes"] if v["target"] == "/etc/nginx/rollout.d"]
    assert config["source"] == str(ROOT / ".rollout.d"), "not the example's own, which the demo copies"


def test_rollout_reads_it(tmp_path: Path) -> None:
    loaded = Compose(Options(files=(str(FILE),))).load()
    (tmp_path / ".rollout.d").mkdir()  # its comments say so
    project = read_project(loaded.document, str(tmp_path), loaded.config, files=loaded.files)
    assert (project.proxy.type, project.proxy.service) == (ProxyType.NGINX, "edge")
    assert project.proxy.config == str(tmp_path / ".rollout.d")
    assert list(project.services) == ["web"]
    web = project.services["web"]
    assert (web.port, web.replicas, web.health.path) == (8000, 2, "/healthz")


def test_its_comments_name_what_there_is() -> None:
    text = FILE.read_text()
    named = set(re.findall(r"\$\{(\w+)", (ROOT / "examples/nginx/compose.yaml").read_text()))
    assert set(re.findall(r"\b([A-Z]+_IMAGE|TAG)=", text)) <= named
    assert "/.rollout.d/" in (ROOT / ".gitignore").read_text().splitlines()

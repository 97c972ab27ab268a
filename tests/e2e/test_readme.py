"""The projects that README and examples/ show work as written: Compose and rollout load them, nginx and HAProxy accept
them with what `rollout render` writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROLLOUT = str(Path(sys.executable).with_name("rollout"))
CHECKS = {
    "nginx": (
        "rollout-test/nginx:1.30",
        ("nginx.conf:/etc/nginx/nginx.conf", "rollout.d:/etc/nginx/rollout.d"),
        ["nginx", "-t"],
    ),
    "haproxy": (
        "rollout-test/haproxy:3.0",
        ("haproxy.cfg:/etc/haproxy/haproxy.cfg", "rollout.d:/etc/haproxy/rollout.d"),
        ["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg", "-f", "/etc/haproxy/rollout.d"],
    ),
}


def run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def snippets(language: str) -> list[str]:
    readme = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)


def from_readme(proxy: str, directory: Path) -> None:
    compose = {"nginx": snippets("yaml")[0], "haproxy": snippets("yaml")[1]}[proxy]
    (config,) = snippets(proxy)
    (directory / "edge" / "rollout.d").mkdir(parents=True)
    (directory / "compose.yaml").write_text(compose)
    (directory / "edge" / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[proxy]).write_text(config)


def from_examples(proxy: str, directory: Path) -> None:
    shutil.copytree(ROOT / "examples" / proxy, directory, dirs_exist_ok=True)


def verdict(proxy: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """The proxy's own test of its configuration in `directory`."""
    image, mounted, check = CHECKS[proxy]
    mounts = [word for mount in mounted for word in ("-v", f"{directory}/edge/{mount}:ro")]
    argv = ["docker", "run", "--rm", "--network", "none", *mounts, image, *check]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.e2e
@pytest.mark.parametrize("source", [from_readme, from_examples])
@pytest.mark.parametrize("proxy", CHECKS)
def test_a_project_works_as_shown(proxy: str, source: Callable[[str, Path], None], tmp_path: Path) -> None:
    source(proxy, tmp_path)
    project = f"rollout-readme-{uuid.uuid4().hex[:8]}"
    rendered = run(ROLLOUT, "-p", project, "render", cwd=tmp_path)
    assert "web." in rendered
    assert verdict(proxy, tmp_path).returncode == 0


@pytest.mark.e2e
@pytest.mark.parametrize("proxy", CHECKS)
def test_the_proxies_refuse_the_configuration_without_what_is_rendered(proxy: str, tmp_path: Path) -> None:
    """Else the test above proves nothing."""
    from_examples(proxy, tmp_path)
    assert verdict(proxy, tmp_path).returncode not in (0, 125)


@pytest.mark.e2e
def test_the_application_of_the_examples_answers_and_obeys_sigterm() -> None:
    app = ROOT / "examples" / "nginx" / "web" / "app.py"
    assert app.read_bytes() == (ROOT / "examples" / "haproxy" / "web" / "app.py").read_bytes()
    name = f"rollout-readme-{uuid.uuid4().hex[:8]}"
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/healthz').status)"
    mount = f"{app}:/app.py:ro"
    run(
        "docker",
        "run",
        "-d",
        "--name",
        name,
        "-e",
        "VERSION=7",
        "-v",
        mount,
        "rollout-test/python",
        "python3",
        "/app.py",
    )
    try:
        deadline = time.monotonic() + 20
        while (
            "200"
            not in subprocess.run(
                ["docker", "exec", name, "python3", "-c", ask], capture_output=True, text=True, check=False
            ).stdout
        ):
            assert time.monotonic() < deadline
        run("docker", "stop", "-t", "30", name)
        assert run("docker", "inspect", "-f", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        run("docker", "rm", "-f", name)

"""docker-compose.yml at the top and its overlays: Compose and rollout understand them, and they work as they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rollout.compose import Compose, Options
from rollout.model import ProxyType
from rollout.spec import read_project
from tests.e2e.projects import PROGRAM, containers, docker, eventually
from tests.load import Load, Mix

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]
BASE, HAPROXY, FILTER, PROD = (f"docker-compose{part}.yml" for part in ("", ".haproxy", ".socket-proxy", ".prod"))
COMBINATIONS = [(), (HAPROXY,), (FILTER,), (PROD,), (HAPROXY, FILTER), (FILTER, PROD), (HAPROXY, FILTER, PROD)]
OWNER = 4242  # nobody here
SOCKET = "/var/run/docker.sock"
WHO = {"ROLLOUT_UID": str(OWNER), "ROLLOUT_GID": str(OWNER), "DOCKER_GID": str(Path(SOCKET).stat().st_gid)}
STAND_INS = {
    "EDGE_IMAGE": "rollout-test/nginx:1.30",
    "HAPROXY_IMAGE": "rollout-test/haproxy:3.0",
    "PYTHON_IMAGE": "rollout-test/python",
    "ROLLOUT_IMAGE": "rollout-test/rollout",
    "EDGE_PORT": "0",
    "ROLLOUT_PORT": "0",
}


@pytest.mark.parametrize("overlays", COMBINATIONS, ids=lambda names: " ".join(names) or "alone")
def test_compose_and_rollout_read_it(overlays: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(ROOT))
    for name, value in WHO.items():
        monkeypatch.setenv(name, value)
    files = tuple(str(ROOT / name) for name in (BASE, *overlays))
    loaded = Compose(Options(files=files)).load()
    project = read_project(loaded.document, str(ROOT), loaded.config, files=loaded.files)
    proxy = ProxyType.HAPROXY if HAPROXY in overlays else ProxyType.NGINX
    assert (project.proxy.type, project.proxy.service) == (proxy, "edge")
    assert project.proxy.config == str(ROOT / ".rollout.d" / proxy), "not the example's own, which the demo copies"
    web = project.services["web"]
    assert (list(project.services), web.port, web.replicas, web.health.path) == (["web"], 8000, 2, "/healthz")
    who_has_the_socket(loaded.document, "engine" if FILTER in overlays else "rollout")
    published = loaded.document["services"]["rollout"].get("ports")
    assert not published if PROD in overlays else published[0]["host_ip"] == "127.0.0.1"


def who_has_the_socket(document: Mapping[str, Any], service: str) -> None:
    mounts = [(name, m) for name, s in document["services"].items() for m in s.get("volumes") or ()]
    assert [name for name, mount in mounts if mount["source"] == SOCKET] == [service]


@pytest.mark.parametrize("overlay", [HAPROXY, PROD])
def test_an_overlay_says_what_it_needs(overlay: str) -> None:
    argv = ["docker", "compose", "-f", str(ROOT / BASE), "-f", str(ROOT / overlay), "config", "-q"]
    environment = {name: value for name, value in os.environ.items() if name not in WHO}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "say in .env who" in done.stderr and overlay in done.stderr


def test_the_comments_name_what_there_is() -> None:
    texts = [(ROOT / name).read_text() for name in (BASE, HAPROXY, FILTER, PROD)]
    known = set(re.findall(r"\$\{(\w+)", "".join([*texts, (ROOT / "examples/nginx/compose.yaml").read_text()])))
    for text in texts:
        comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
        assert set(re.findall(r"\b([A-Z_]+)=", comments)) - {"COMPOSE_FILE"} <= known
        for name in re.findall(r"docker-compose[\w.-]*\.yml", comments):
            assert (ROOT / name).exists()


def test_git_keeps_the_proxy_s_directories() -> None:
    for name in ("nginx", "haproxy", "run"):
        assert (
            subprocess.run(["git", "check-ignore", "-q", f".rollout.d/{name}/x"], cwd=ROOT, check=False).returncode == 0
        )
        assert docker_free_git("ls-files", f".rollout.d/{name}") == f".rollout.d/{name}/.gitignore"


def docker_free_git(*argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


# --- brought up ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Up:
    name: str
    directory: Path

    def compose(self, *argv: str) -> str:
        return self.run("docker", "compose", "--ansi", "never", "--progress", "plain", *argv)

    def run(self, *argv: str, **exported: str) -> str:
        environment = {**os.environ, "PWD": str(self.directory), "NO_COLOR": "1", **exported}
        done = subprocess.run(
            argv, cwd=self.directory, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}\n{self.describe()}"
        return done.stdout

    def write(self, **variables: str) -> None:
        (self.directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))

    def url(self) -> str:
        return f"http://{next(iter(containers(self.name, 'edge')[0].addresses.values()))}"

    def version(self) -> str:
        argv = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%header{x-version}", f"{self.url()}/work"]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def api(self, path: str) -> Any:
        socket = str(self.directory / ".rollout/api.sock")
        return json.loads(self.run("curl", "-sf", "--unix-socket", socket, f"http://rollout{path}"))

    def inspected(self, service: str) -> dict[str, Any]:
        seen: dict[str, Any] = json.loads(docker("inspect", containers(self.name, service)[0].id))[0]
        return seen

    def users(self) -> set[str]:
        """Who the sidecar is; its init and its health check are left out."""
        lines = docker("top", containers(self.name, "rollout")[0].id, "-o", "pid,uid,args").splitlines()[1:]
        programs = [line.split(maxsplit=2) for line in lines if "tini" not in line and "--healthy" not in line]
        return {uid for _, uid, args in programs if "/opt/rollout/bin/rollout serve" in args}

    def describe(self) -> str:
        lines = [f"{c.name}: {c.state} {c.health}" for c in containers(self.name)]
        for service in ("rollout", "edge"):
            for container in containers(self.name, service):
                argv = ["docker", "logs", "--tail", "60", container.id]
                log = subprocess.run(argv, capture_output=True, text=True, check=False)
                lines += [f"--- {service}", log.stdout, log.stderr]
        return "\n".join(lines)


def copied(directory: Path, *overlays: str) -> None:
    for name in (BASE, *overlays):
        shutil.copy(ROOT / name, directory)
    shutil.copytree(ROOT / "examples", directory / "examples")
    shutil.copy(ROOT / "tests/load/app.py", directory / "examples/nginx/web/app.py")  # bears every kind of load
    for name in ("nginx", "haproxy", "run"):
        (directory / ".rollout.d" / name).mkdir(parents=True)


def test_another_path_inside_is_explained(short_directory: Path) -> None:
    copied(short_directory)
    argv = ["docker", "run", "--rm", "-v", f"{short_directory}:/project", "-w", "/project", "-e", "PWD=/project"]
    argv += ["-v", f"{SOCKET}:{SOCKET}", "rollout-test/rollout"]
    served = subprocess.run([*argv, "serve"], capture_output=True, text=True, check=False)
    assert served.returncode == 2, served
    checked = subprocess.run([*argv, "check"], capture_output=True, text=True, check=False)
    assert checked.returncode != 0, checked
    for said in (served.stderr, checked.stdout):
        assert f"mount it at the same path, {short_directory}:{short_directory}" in " ".join(said.split()), said


@contextmanager
def brought_up(directory: Path, *overlays: str) -> Iterator[Up]:
    """A copy of the set-up, owned by nobody here, started as its comments say, but for the images."""
    copied(directory, *overlays)
    up = Up(f"rollout-local-{uuid.uuid4().hex[:8]}", directory)
    up.write(**variables(up, "1", *overlays))
    subprocess.run(["chown", "-R", f"{OWNER}:{OWNER}", str(directory)], check=True)
    try:
        up.compose("up", "-d")
        yield up
    except AssertionError as error:
        error.add_note(up.describe())
        raise
    finally:
        up.compose("down", "--volumes", "--timeout", "20")
        for tag in docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines():
            if tag.startswith((f"rollout-keep/{up.name}/", f"{up.name}-web:")):
                docker("rmi", tag, check=False)


def variables(up: Up, tag: str, *overlays: str) -> dict[str, str]:
    files = ":".join((BASE, *overlays))
    own = {"COMPOSE_PROJECT_NAME": up.name, "COMPOSE_FILE": files, "WEB_IMAGE": f"{up.name}-web", "TAG": tag}
    return {**STAND_INS, **WHO, **own}


def lost_nothing(up: Up, load: Load) -> None:
    load.wait_for(load.progress()["total"] + 20)
    report = load.report()
    assert report.failed == 0, f"{report.describe()}\n{up.describe()}"


def hardened(up: Up) -> None:
    seen = up.inspected("rollout")
    assert seen["HostConfig"]["ReadonlyRootfs"]
    assert seen["HostConfig"]["CapDrop"] == ["ALL"]
    assert seen["State"]["Health"]["Status"] == "healthy"
    assert up.users() == {str(OWNER)}
    for path in (up.directory / ".rollout").rglob("*"):
        assert path.stat().st_uid == OWNER, path


@pytest.mark.timeout(300)
def test_as_it_is(short_directory: Path) -> None:
    with brought_up(short_directory) as up:
        eventually(lambda: up.version() == "1", "the application")
        hardened(up)
        port = docker("port", containers(up.name, "rollout")[0].id, "8088/tcp")
        assert port.startswith("127.0.0.1:")
        token = short_directory / ".rollout/token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert len(token.read_text().strip()) > 40
        page = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{port}/v1/services"]
        assert up.run(*page) == "401"
        assert up.run(*page, "-H", f"Authorization: Bearer {token.read_text().strip()}") == "200"
        with Load(up.url(), Mix.light(), host="web") as load:
            load.wait_for(30)
            up.write(**variables(up, "2"))
            eventually(lambda: up.version() == "2", "what .env says now is served")
            up.run("docker", "compose", "build", "-q", "web", TAG="3")
            up.run(
                PROGRAM, "deploy", "--wait-lock", "60s", TAG="3"
            )  # on this host: asks the sidecar, with what is exported here
            assert up.version() == "3"
            lost_nothing(up, load)


@pytest.mark.timeout(300)
def test_with_haproxy_behind_a_filter_as_on_a_server(short_directory: Path) -> None:
    with brought_up(short_directory, HAPROXY, FILTER, PROD) as up:
        eventually(lambda: up.version() == "1", "the application")
        hardened(up)
        assert up.inspected("rollout")["Config"]["User"] == f"{OWNER}:{OWNER}"
        assert [s["service"] for s in up.api("/v1/services")["services"]] == ["web"]
        with Load(up.url(), Mix.light(), host="web") as load:
            load.wait_for(30)
            up.run("docker", "compose", "build", "-q", "web", TAG="2")
            up.run(PROGRAM, "deploy", TAG="2")
            assert up.version() == "2"
            lost_nothing(up, load)
        refused = "import http.client as h; c = h.HTTPConnection('engine', 2375); c.request('GET', '/secrets'); "
        refused += "print(c.getresponse().status)"
        asked = ["exec", "-T", "rollout", "/opt/rollout/bin/python", "-c", refused]
        assert up.compose(*asked).strip() == "403"

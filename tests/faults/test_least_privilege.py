"""What the controller may do is what it needs: the published requests, no root; and the proxy never sees the socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.clock import SystemClock
from rollout.engines.docker import Connection, DockerRegistry
from rollout.engines.docker.calls import COMPOSE_CALLS, ENGINE_CALLS, Row, matching
from rollout.errors import EngineError
from tests.e2e.projects import Edge, Shop, docker, in_pool, project, serving
from tests.faults.engine_proxy import ENGINE, Call, EngineProxy, Fault
from tests.faults.spoilt import HAPROXY, NGINX

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
BLIND = (sys.executable, str(Path(__file__).with_name("blind.py")))


class Filter:
    """Lets through what the tables list, by who asks. `used` are the rows that a request met."""

    def __init__(self, ours: tuple[Row, ...] = ENGINE_CALLS, composes: tuple[Row, ...] = COMPOSE_CALLS) -> None:
        self.tables = {False: ours, True: composes}
        self.used: dict[bool, set[Row]] = {False: set(), True: set()}

    def __call__(self, call: Call) -> Fault | None:
        row = matching(call.method, call.path, self.tables[call.by_compose])
        if row is None:
            return Fault.REFUSE
        self.used[call.by_compose].add(row)
        return None


# --- the published requests -----------------------------------------------------------------------------------------


@contextmanager
def filtered(edge: Edge, directory: Path, allowed: Filter, **web: Any) -> Iterator[tuple[Shop, EngineProxy]]:
    with project(edge, directory, **web) as shop, EngineProxy(directory / "engine.sock", allowed) as proxy:
        shop.up()
        shop.env["DOCKER_HOST"] = proxy.url
        try:
            yield shop, proxy
        finally:
            shop.env.clear()
            print(f"refused: {[str(call) for call, _ in proxy.spoilt]}")


def nothing_refused(proxy: EngineProxy) -> None:
    assert [str(call) for call, _ in proxy.spoilt] == []


def everything_behind_nginx(directory: Path, allowed: Filter) -> None:
    """Deploys of all kinds, a failing one, a sidecar; the look-ups of an engine whose control groups are not seen."""
    one_kept = {"keep": 1, "health": {"command": "true", "path": None}}
    with filtered(NGINX, directory, allowed, **{"x-rollout": one_kept}) as (shop, proxy):
        shop.program = BLIND
        shop.rollout("check")
        shop.rollout("deploy")
        shop.service("web", environment={"EXIT_AT_START": "1"}, command=["sh", "-c", "echo dying; exit 1"])
        shop.rollout("deploy", "web", code=1)
        hooks = {name: {"command": ["true"]} for name in ("pre_deploy", "post_switch", "pre_stop")}
        shop.service("web", environment={"EXIT_AT_START": None}, command=None, **{"x-rollout": {"hooks": hooks}})
        shop.tag("2")
        shop.rollout("deploy", "web")
        assert shop.answers() == "2"
        shop.settled()
        ask_a_registry(proxy)
        with serving(shop):
            docker("restart", "-t", "0", shop.running()[0].id)
            in_pool(shop)
        nothing_refused(proxy)


def ask_a_registry(proxy: EngineProxy) -> None:
    """As the sidecar's schedule does; nothing answers at that port, which is the registry's affair."""
    with closing(Connection(SystemClock(), {"DOCKER_HOST": proxy.url})) as connection, pytest.raises(EngineError):
        DockerRegistry(connection).offered("127.0.0.1:9/shop/web:1")


def everything_behind_haproxy(directory: Path, allowed: Filter) -> None:
    """A new network and volume, a build, a pull that fails, a rollback, sync."""
    with filtered(HAPROXY, directory, allowed) as (shop, proxy):
        shop.rollout("deploy")
        extra = {"networks": ["default", "side"], "volumes": ["./term:/term", "data:/data"]}
        shop.networks["side"] = {}
        shop.service("web", **extra)
        file = shop.directory / "compose.yaml"
        file.write_text(f"{file.read_text()}volumes: {{data: {{}}}}\n")
        shop.tag("2")
        shop.rollout("deploy", "web")
        shop.rollout("rollback", "web")
        shop.rollout("sync")
        shop.rollout("status")
        shop.tag("no-such")
        shop.rollout("deploy", "web", "--pull", "always", code=1)
        built = f"{shop.name}:built"
        (shop.directory / "Dockerfile").write_text("FROM rollout-test/app:1\nLABEL built=yes\n")
        shop.service("web", build=".", image=built)
        file.write_text(f"{file.read_text()}volumes: {{data: {{}}}}\n")
        shop.rollout("deploy", "web", "--build")
        nothing_refused(proxy)
        docker("rmi", "-f", built)


def test_the_published_requests_are_exactly_those_that_are_made(tmp_path: Path, short_directory: Path) -> None:
    allowed = Filter()
    everything_behind_nginx(short_directory / "nginx", allowed)
    everything_behind_haproxy(short_directory / "haproxy", allowed)
    assert set(ENGINE_CALLS) - allowed.used[False] == set(), "listed, but not used by rollout"
    assert set(COMPOSE_CALLS) - allowed.used[True] == set(), "listed, but not used by Compose"


@pytest.mark.daily
def test_what_is_not_listed_is_not_done(short_directory: Path) -> None:
    """The filter does filter: without its row for a start, nothing is started, and all is taken back."""
    without = tuple(row for row in ENGINE_CALLS if not row[1].endswith("/start"))
    with project(NGINX, short_directory) as shop:
        shop.up()
        shop.rollout("deploy")
        before = shop.snapshot()
        shop.tag("2")
        with EngineProxy(short_directory / "engine.sock", Filter(without)) as proxy:
            shop.env["DOCKER_HOST"] = proxy.url
            done = shop.rollout("deploy", "web", code=None)
            shop.env.clear()
        assert done.code in {1, 4}, done
        assert "403" in done.err
        assert {call.path.rpartition("/")[2] for call, _ in proxy.spoilt} == {"start"}
        assert shop.snapshot() == before


# --- no root --------------------------------------------------------------------------------------------------------


def as_nobody(group: int) -> tuple[str, ...]:
    """The program as an ordinary user of the engine's group; by an interpreter that this user may run."""
    python = sys.executable
    if any(not part.stat().st_mode & 0o001 for part in Path(python).resolve().parents):
        python = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin") or python
    user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(group), "--clear-groups", "--inh-caps=-all"]
    path = f"PYTHONPATH={ROOT}:{sysconfig.get_path('purelib')}"
    return (*user, "env", path, python, "-c", "import sys; from rollout.cli import main; sys.exit(main())")


def own(directory: Path, group: int) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, NOBODY, group)


@pytest.mark.daily
@pytest.mark.skipif(os.geteuid() != 0, reason="not root already: all other tests show it")
@pytest.mark.parametrize("edge", [NGINX, HAPROXY], ids=str)
def test_without_root(edge: Edge, short_directory: Path) -> None:
    group = Path(ENGINE).stat().st_gid
    assert Path(ENGINE).stat().st_mode & 0o060 == 0o060, "the socket is its group's, as packages make it"
    with project(edge, short_directory) as shop:
        if edge.type == "haproxy":
            shop.services["edge"]["user"] = f"{NOBODY}:{group}"  # as examples/haproxy says: whose socket it is
            shop.write()
        shop.program, shop.env = as_nobody(group), {"HOME": str(short_directory)}
        own(short_directory, group)
        shop.up()
        with shop.load() as load:
            for version in ("1", "2"):
                shop.tag(version)
                shop.rollout("deploy")
                assert shop.answers() == version
                load.wait_for(load.progress()["total"] + 20)
            shop.rollout("rollback", "web")
            assert shop.answers() == "1"
            shop.settled()
            written = {path.stat().st_uid for path in (short_directory / ".rollout").rglob("*")}
            assert written == {NOBODY}


# --- the proxy ------------------------------------------------------------------------------------------------------


def sees_the_socket(service: dict[str, Any]) -> list[str]:
    """Its mounts in which an engine's socket is, or could be; and other ways to the engine."""
    sockets = [Path("/var/run/docker.sock"), Path("/run/docker.sock")]
    sources = [Path(v["source"]) for v in service.get("volumes", []) if v["type"] == "bind"]
    mounts = [str(s) for s in sources if s.name.endswith(".sock") or any(s in socket.parents for socket in sockets)]
    return mounts + [name for name in service.get("environment") or {} if name.startswith("DOCKER_")]


@pytest.mark.daily
@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/*/compose.yaml")), ids=lambda file: str(file.parent.name))
def test_no_proxy_of_the_examples_sees_the_engine(file: Path, short_directory: Path) -> None:
    config = subprocess.run(
        ["docker", "compose", "-f", str(file), "config"], check=True, capture_output=True, text=True
    ).stdout
    document = yaml.safe_load(config)
    name = document["x-rollout"]["proxy"]["service"]
    assert sees_the_socket(document["services"][name]) == []
    others = [s for n, s in document["services"].items() if "x-rollout" in s]
    assert others
    assert [sees_the_socket(service) for service in others] == [[]] * len(others)


def test_a_socket_would_be_seen() -> None:
    for source in ("/var/run/docker.sock", "/run", "/", "/srv/filter.sock"):
        assert sees_the_socket({"volumes": [{"type": "bind", "source": source}]})
    assert not sees_the_socket({"volumes": [{"type": "bind", "source": "/srv/edge"}]})
    assert sees_the_socket({"environment": {"DOCKER_HOST": "tcp://engine:2375"}})

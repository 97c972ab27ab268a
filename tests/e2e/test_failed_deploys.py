"""A failed deploy changes nothing: same containers, same configuration bytes, same traffic, and it says why."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, Done, Edge, Shop, docker, eventually, free_ports, project, running
from tests.load import Mix

pytestmark = [pytest.mark.e2e]

BY_RELOAD_AND_BY_SOCKET = (EDGES[0], EDGES[2])
HEALTHY_DEADLINE = 5.0  # where nothing is to get healthy
DEADLINE = {"health": {"healthy_deadline": f"{HEALTHY_DEADLINE:g}s"}}
PATIENT = {"health": {"healthy_deadline": "60s"}}  # for what is to pass, also on a machine that does other things
UNHEALTHY = {"test": ["CMD-SHELL", "echo the disk is full; exit 1"], "interval": "300ms", "retries": 2}
# the test application, sick from when the test says so
SICK_WHEN_TOLD = """\
import os, sys
sys.path.insert(0, "/app")
import app
answer = app.App.answer_probe
async def answer_probe(self, conn, request):
    self.settings.health = "fail" if os.path.exists("/term/sick") else "ok"
    return await answer(self, conn, request)
app.App.answer_probe = answer_probe
sys.exit(app.main())
"""


@pytest.fixture(params=BY_RELOAD_AND_BY_SOCKET, ids=str, scope="module")
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One project for the whole module: each test leaves it as it found it, which is what each test asserts."""
    edge: Edge = request.param
    with running(edge, tmp_path_factory.mktemp("p"), **{"x-rollout": PATIENT}) as shop:
        yield shop


@contextmanager
def nothing_changes(shop: Shop) -> Iterator[None]:
    """Under load, whatever is deployed in the block: 0 failed requests, and every byte and container as before."""
    before = shop.snapshot()
    with shop.load() as load:
        load.wait_for(20)
        yield
        assert shop.snapshot() == before, shop.describe()
        load.wait_for(load.progress()["total"] + 20)
        report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
        assert set(report.by_version) == {"1"}
    shop.settled()


@contextmanager
def changed(shop: Shop, **web: object) -> Iterator[None]:
    """The Compose file with this change of `web`, for as long as the block lasts."""
    file = shop.directory / "compose.yaml"
    good = file.read_text()
    former = copy.deepcopy(shop.services["web"])
    shop.service("web", **web)
    try:
        yield
    finally:
        shop.services["web"] = former
        file.write_text(good)


def failed(shop: Shop, *words: str, codes: tuple[int, ...] = (1,)) -> Done:
    done = shop.rollout("deploy", "web", code=None)
    assert done.code in codes, f"{done}\n{shop.describe()}"
    missing = [word for word in words if word not in done.said]
    assert not missing, f"not said: {missing}\n{done}"
    assert "Traceback" not in done.said, done
    return done


def test_never_healthy(shop: Shop) -> None:
    with changed(shop, environment={"HEALTH": "fail"}, **{"x-rollout": DEADLINE}), nothing_changes(shop):
        done = failed(shop, "HTTP 503", f"not ready after {HEALTHY_DEADLINE:.0f}", '"event":"listening"')
        assert done.seconds > HEALTHY_DEADLINE


def test_unhealthy_for_docker_ends_the_wait_at_once(shop: Shop) -> None:
    with changed(shop, healthcheck=UNHEALTHY), nothing_changes(shop):
        done = failed(shop, "unhealthy", "the disk is full")
        assert "not ready after" not in done.said, "it waited for the deadline"


@pytest.mark.timeout(300)
def test_exits_at_once_many_times(shop: Shop) -> None:
    times = 20 if shop.edge.type == "nginx" else 3  # where nothing is reloaded there is less to wear out
    crash = {"CRASH_AT_START": "there is no database"}
    with changed(shop, environment=crash), nothing_changes(shop):
        for _ in range(times):
            done = failed(shop, "exited with code 1", "there is no database")
            assert "not ready after" not in done.said, "it waited for the deadline"


def test_restarted_by_its_policy(shop: Shop) -> None:
    """A container that dies and is brought back by `restart: always` would look alive to whoever asks just then."""
    crash = {"CRASH_AT_START": "1"}
    with changed(shop, restart="always", environment=crash), nothing_changes(shop):
        done = failed(shop, "exit")
        assert "not ready after" not in done.said, "it waited for the deadline"


def test_bad_command(shop: Shop) -> None:
    with changed(shop, command=["/no/such/program"]), nothing_changes(shop):
        failed(shop, "/no/such/program")


def test_unknown_image(shop: Shop) -> None:
    with changed(shop, image="rollout-test/app:never-built"), nothing_changes(shop):
        failed(shop, "image of web could not be pulled")


def test_image_that_must_not_be_pulled(shop: Shop) -> None:
    with changed(shop, image="rollout-test/app:never-built"), nothing_changes(shop):
        done = shop.rollout("deploy", "web", "--pull", "never", code=1)
        assert "rollout-test/app:never-built" in done.said


@pytest.mark.parametrize("text", ["{% if %}", "{{ no_such_name }}", "no { such ( directive"])
def test_broken_template(shop: Shop, text: str) -> None:
    with templates(shop, text):
        shop.tag("2")
        with nothing_changes(shop):
            failed(shop, codes=(1, 4))
        shop.tag("1")


@contextmanager
def templates(shop: Shop, text: str) -> Iterator[Path]:
    """The user's own template in place of the built-in one."""
    name = "nginx/upstream.conf.j2" if shop.edge.type == "nginx" else "haproxy/backend.cfg.j2"
    folder = shop.directory / "templates"
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    shop.proxy["templates"] = "./templates"
    shop.write()
    try:
        yield file
    finally:
        del shop.proxy["templates"]
        shop.write()


LISTENS = {
    "nginx": "server { listen 9999; return 204; }\n",
    "haproxy": "frontend extra\n    bind :9999\n",
}
BUILT_IN = {"nginx": "nginx/upstream.conf.j2", "haproxy": "haproxy/backend.cfg.j2"}


def test_refused_reload(shop: Shop) -> None:
    """The port is taken, which no test of the configuration can see: only the reload itself fails."""
    taker = docker(
        "run", "-d", "--network", f"container:{shop.running('edge')[0].id}", "-e", "PORT=9999", "rollout-test/app:1"
    )
    try:
        eventually(lambda: "listening" in docker("logs", taker) or None, "the program that takes the port")
        built_in = Path("templates", BUILT_IN[shop.edge.type]).absolute().read_text()
        text = LISTENS[shop.edge.type] + built_in if shop.edge.type == "nginx" else built_in + LISTENS["haproxy"]
        with templates(shop, text):
            shop.tag("2")
            with nothing_changes(shop):
                failed(shop, "9999")
            shop.tag("1")
    finally:
        docker("rm", "-f", "-v", taker)


def test_sick_after_the_switch(shop: Shop) -> None:
    """Found out by `monitor`, when the new version has taken traffic: the old one, still running, gets it back."""
    monitored = {"update_config": {"monitor": "60s"}}
    before = shop.snapshot()
    pool = shop.pool()
    told = shop.directory / "term/sick"
    with changed(shop, command=["python3", "-c", SICK_WHEN_TOLD], deploy=monitored), shop.load() as load:
        load.wait_for(20)
        shop.tag("2")
        run = shop.spawn("deploy", "web")
        run.wait_for("step_started", step="monitor")
        load.wait_for(20, version="2")
        told.touch()
        done = run.end()
        told.unlink()
        shop.tag("1")
        assert done.code == 1 and "503" in done.said and "Traceback" not in done.said, f"{done}\n{shop.describe()}"
        report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
        assert set(report.by_version) == {"1", "2"}
    assert shop.snapshot().containers == before.containers
    assert shop.pool() == pool
    shop.settled()


def test_proxy_not_running(shop: Shop) -> None:
    shop.compose("stop", "--timeout", "1", "edge")
    before = shop.snapshot()
    shop.tag("2")
    try:
        done = shop.rollout("deploy", "web", code=4)
        assert "edge" in done.err
        assert shop.snapshot() == before
    finally:
        shop.tag("1")
        shop.compose("start", "edge")
        shop.wait_for_edge()
    assert shop.answers() == "1"


def test_no_shared_network(short_directory: Path) -> None:
    with project(EDGES[0], short_directory, networks=["private"]) as shop:
        shop.networks["private"] = {}
        shop.write()
        shop.up("edge")
        before = shop.snapshot()
        done = shop.rollout("deploy", "web", code=2)
        assert "network" in done.err
        assert shop.snapshot().containers == before.containers


def test_bound_to_localhost(shop: Shop) -> None:
    """The container's own health check passes; what counts is whether the proxy can reach it."""
    listens = "import socket, time; s = socket.create_server(('127.0.0.1', 8000)); time.sleep(1000)"
    check = {"test": ["CMD", "true"], "interval": "200ms"}
    change = {"command": ["python3", "-c", listens], "healthcheck": check, "init": True, "x-rollout": DEADLINE}
    with changed(shop, **change), nothing_changes(shop):
        failed(shop, "connection refused")


@pytest.mark.parametrize("edge", BY_RELOAD_AND_BY_SOCKET, ids=str)
def test_first_deploy_fails_when_nothing_gets_healthy(edge: Edge, short_directory: Path) -> None:
    with project(edge, short_directory, environment={"HEALTH": "fail"}, **{"x-rollout": DEADLINE}) as shop:
        shop.up("edge")
        before = shop.snapshot()
        failed(shop, "HTTP 503")
        assert shop.containers() == []
        assert shop.answers() == "503"
        assert shop.snapshot().config == before.config
        shop.service("web", environment={"HEALTH": "ok"}, **{"x-rollout": PATIENT})
        shop.rollout("deploy")
        assert shop.answers() == "1"
        shop.settled()


@pytest.mark.timeout(180)
def test_slow_boot_is_waited_for(short_directory: Path) -> None:
    """Ten seconds of boot, within what the Compose healthcheck allows; nobody has to repeat it in x-rollout."""
    check = {
        "test": ["CMD", "python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz')"],
        "interval": "1s", "timeout": "5s", "retries": 3, "start_period": "30s",
    }  # fmt: skip
    slow = {"BOOT_DELAY": "10"}
    with running(EDGES[1], short_directory, deploy={"replicas": 1}) as shop, shop.load(Mix.light()) as load:
        load.wait_for(20)
        shop.tag("2")
        shop.service("web", environment=slow, healthcheck=check)
        done = shop.rollout("deploy", "web")
        assert done.seconds > 10
        load.wait_for(20, version="2")
        assert load.report().failed == 0, load.report().describe()
        shop.settled(replicas=1)


@pytest.mark.parametrize("edge", BY_RELOAD_AND_BY_SOCKET, ids=str)
def test_recreate_gives_name_and_port_back_to_the_image_that_had_them(edge: Edge, short_directory: Path) -> None:
    """One name, one host port: the new container has to be gone before the old one is there again. The tag names the
    new image by then, as it does after each build."""
    (port,) = free_ports(1)
    image = f"rollout-test/recreated-{uuid.uuid4().hex[:8]}:latest"
    alone = {"deploy": {"replicas": 1}, "ports": [f"127.0.0.1:{port}:8000"], "image": image}
    settings = {"x-rollout": {"strategy": "recreate", **PATIENT}}
    docker("tag", "rollout-test/app:2", image)
    try:
        with project(edge, short_directory, **alone, **settings) as shop:
            shop.service("web", container_name=f"{shop.name}-only")
            shop.up()
            shop.rollout("deploy")
            docker("tag", "rollout-test/app:3", image)
            shop.service("web", healthcheck=UNHEALTHY)  # it runs, and what was made again has time to get healthy
            for _ in range(2):  # what was made again has to be known well enough to be made again
                failed(shop, "unhealthy")
                assert shop.answers() == "2", shop.describe()
                shop.settled(replicas=1)
            shop.service("web", healthcheck=None)
            shop.rollout("deploy")
            assert shop.answers() == "3"
            shop.rollout("rollback", "web")
            assert shop.answers() == "2"
            shop.settled(replicas=1)
    finally:
        docker("rmi", image)

"""`rollout watch` at work: an edit is saved, and served about a second later, with no request lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, Edge, Running, Shop, docker, eventually, project
from tests.load import Load

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "tests/load/app.py"
DOCKERFILE = 'FROM rollout-test/python\nCOPY app.py /app/app.py\nCMD ["python3", "/app/app.py"]\n'
SLOWEST = 60.0  # seconds from a save until it is served, on a machine that does other things as well


def app(version: str) -> str:
    return APP.read_text().replace('env.get("VERSION") or "0"', f'"{version}"')


def save(path: Path, text: str) -> float:
    """As vim does it: a swap file, a trial, a backup, a new file in the old one's place. Answers when."""
    (path.parent / f".{path.name}.swp").write_text("swap")
    (path.parent / "4913").touch()
    (path.parent / "4913").unlink()
    if path.exists():
        path.rename(f"{path}~")
    path.write_text(text)
    Path(f"{path}~").unlink(missing_ok=True)
    (path.parent / f".{path.name}.swp").unlink()
    return time.monotonic()


def save_at_once(path: Path, text: str) -> float:
    """As careful programs do it: written aside, then renamed."""
    aside = path.parent / f"{path.name}.new"
    aside.write_text(text)
    aside.rename(path)
    return time.monotonic()


@contextmanager
def watched(edge: Edge, directory: Path) -> Iterator[tuple[Shop, Running]]:
    """A project whose one service is built here, deployed, under `rollout watch`. Its image is removed at the end."""
    (directory / "web").mkdir()
    (directory / "web/Dockerfile").write_text(DOCKERFILE)
    (directory / "web/.dockerignore").write_text("*.md\nlogs\n")
    (directory / "web/app.py").write_text(app("1"))
    (directory / "templates").mkdir()
    with project(edge, directory, image=None, build="./web") as shop:
        shop.proxy = {"templates": "./templates"}
        shop.service("web")
        shop.up("edge")
        watching = shop.spawn("watch")
        try:
            watching.wait_for("finished", outcome="deployed")
            eventually(lambda: shop.answers() == "1", "the first version")
            yield shop, watching
        finally:
            watching.signal(signal.SIGKILL)
            watching.end()
            shop.down()
            docker("rmi", "-f", f"{shop.name}-web", check=False)


def served(shop: Shop, version: str, since: float) -> float:
    """Seconds from then until this version answers."""
    eventually(lambda: shop.answers() == version, f"version {version} is served", SLOWEST)
    return time.monotonic() - since


def lost_nothing(load: Load) -> None:
    load.wait_for(load.progress()["total"] + 20)
    report = load.report()
    assert report.failed == 0, report.describe()


def finished(watching: Running) -> int:
    return sum(event["event"] == "finished" for event in list(watching.events))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("edge", [EDGES[1], EDGES[2]], ids=str)
def test_an_edit_is_served_about_a_second_later(edge: Edge, short_directory: Path) -> None:
    with watched(edge, short_directory) as (shop, watching), shop.load() as load:
        load.wait_for(50)
        began = time.monotonic()
        docker("compose", "--project-directory", str(shop.directory), "build", "web")
        seconds = [time.monotonic() - began]
        source = shop.directory / "web/app.py"
        for number, way in enumerate((save, save_at_once), 2):
            before = finished(watching)
            seconds.append(served(shop, str(number), way(source, app(str(number)))))
            deploy_ends(watching, before)
        lost_nothing(load)
        print(f"{edge}: a build from the cache {seconds[0]:.2f} s; saved to served {seconds[1:]}")
        assert finished(watching) == 3, "a save is one change"
        watching.signal(signal.SIGINT)
        done = watching.end()
        assert (done.code, done.err) == (0, ""), done


@pytest.mark.timeout(300)
def test_everything_else_that_can_change(short_directory: Path) -> None:
    with watched(EDGES[1], short_directory) as (shop, watching), shop.load() as load:
        load.wait_for(50)
        web, compose = shop.directory / "web", shop.directory / "compose.yaml"
        right = compose.read_text()

        # what means nothing
        (web / "README.md").write_text("words")
        (web / "logs").mkdir()
        (web / "logs/today").write_text("a line")

        # a broken file, saved twice: told once
        for _ in range(2):
            save_at_once(compose, right.replace("port: 8000", "port: many"))
            eventually(lambda: errors(watching) == ["SpecError"], "the fault is told")
        assert shop.answers() == "1"

        # a setting of the proxy's, and of the container's
        before = shop.pool()
        shop.services["web"]["x-rollout"]["keepalive"] = 7
        shop.write()
        upstream = shop.directory / "edge/rollout.d/current/web.conf"
        eventually(lambda: "keepalive 7;" in upstream.read_text(), "the setting is in force")
        assert shop.pool() == before, "nothing was replaced for it"

        # a template: first one that nginx refuses, then a right one
        (shop.directory / "templates/nginx").mkdir()
        template = shop.directory / "templates/nginx/upstream.conf.j2"
        own = (ROOT / "templates/nginx/upstream.conf.j2").read_text()
        save_at_once(template, own.replace("upstream {{ service }} {", "upstream {{ service }} { nonsense;"))
        eventually(lambda: errors(watching) == ["SpecError", "ProxyRejected"], "nginx's refusal is told")
        save_at_once(template, own.replace("upstream {{ service }} {", "# mine\nupstream {{ service }} {"))
        eventually(lambda: "# mine" in upstream.read_text(), "the template is in force")

        # a build that fails, and changes during a deploy
        source = web / "app.py"
        save_at_once(web / "Dockerfile", DOCKERFILE + "RUN exit 3\n")
        eventually(lambda: errors(watching)[2:] == ["BuildFailed"], "the failed build is told")
        before_it = len(watching.events)
        # in this order, and from where nobody watches: whatever is built in between can be built
        (shop.directory / "aside").write_text(DOCKERFILE)
        (shop.directory / "aside").rename(web / "Dockerfile")
        save_at_once(source, app("2"))
        eventually(
            lambda: any(e["event"] == "rollout_started" for e in watching.events[before_it:]), "a deploy under way"
        )
        save_at_once(source, app("3"))
        served(shop, "3", time.monotonic())
        lost_nothing(load)
        assert errors(watching) == ["SpecError", "ProxyRejected", "BuildFailed"]
        os.kill(watching.process.pid, signal.SIGTERM)
        assert watching.end().code == 0


def deploy_ends(watching: Running, before: int) -> None:
    eventually(lambda: finished(watching) > before, "the end of the deploy")


def errors(watching: Running) -> list[str]:
    return [event["error"] for event in list(watching.events) if event["event"] == "error"]

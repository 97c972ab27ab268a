"""Watching without a file system that tells: what is watched, what a change asks for, and what is done about it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from rollout.compose import Options
from rollout.errors import BuildFailed, DeployFailed, Fault, Interrupted, LockHeld, RolloutError, SpecError, StateError
from rollout.events import Event, Warned
from rollout.model import PoolOptions, Project, ProxySettings, ProxyType, ServiceSettings
from rollout.server import watching as sidecar_watching
from rollout.server.watching import FileWatch
from rollout.watch.changes import LONGEST, QUIET, Changes, rest
from rollout.watch.decision import Seen, Work, decide, difference
from rollout.watch.ignored import docker_patterns, is_passing
from rollout.watch.observer import Observer
from rollout.watch.scope import BuildContext, Scope, build_contexts, scope
from rollout.watch.watching import Watching
from tests.clocks import HandClock

ROOT = "/shop"
SCOPE = scope(
    [f"{ROOT}/compose.yaml", f"{ROOT}/.env"],
    f"{ROOT}/templates",
    {
        "web": (BuildContext(f"{ROOT}/web", f"{ROOT}/web/Dockerfile", docker_patterns(["*.md", "logs"])),),
        "job": (BuildContext(ROOT, f"{ROOT}/job.Dockerfile", docker_patterns(["web"])),),
    },
    [f"{ROOT}/.rollout", f"{ROOT}/edge/rollout.d"],
)


def one(*names: str) -> frozenset[str]:
    return frozenset(names)


# --- what is ignored ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [".app.py.swp", ".app.py.swx", "4913", "app.py~", ".#app.py", "#app.py#", "app.py___jb_tmp___", ".git/index"],
)
def test_editors_and_version_control_are_ignored(name: str) -> None:
    assert is_passing(f"/shop/web/{name}")


@pytest.mark.parametrize("name", ["app.py", "a.sh", ".env", "49133", "swap.swp.py", ".gitignore", "#notes"])
def test_what_only_looks_like_it_is_not(name: str) -> None:
    assert not is_passing(f"/shop/web/{name}")


@pytest.mark.parametrize(
    ("patterns", "left_out", "kept"),
    [
        (["*.md"], ["a.md"], ["docs/a.md", "a.mdx"]),
        (["**/*.md"], ["a.md", "docs/a.md"], []),
        (["node_modules"], ["node_modules", "node_modules/a/b"], ["src/node_modules/a"]),
        (["**/node_modules"], ["node_modules/a", "src/x/node_modules/a/b"], ["src"]),
        (["/build/", "./dist"], ["build/a", "dist/a"], ["src/build/a"]),
        (["*", "!src"], ["README", "a/b"], ["src", "src/a"]),
        (["docs", "!docs/api"], ["docs/a"], ["docs/api/a"]),
        (["# a comment", "", ".", "a/../b"], ["b"], ["a", "#"]),
        (["temp?"], ["temp1"], ["temp", "temp12"]),
        (["bin\\", "*.md", "[z-a]", "!\\", "logs"], ["a.md", "logs/a"], ["bin", "z"]),  # what makes no sense is skipped
    ],
)
def test_dockerignore_as_docker_reads_it(patterns: list[str], left_out: list[str], kept: list[str]) -> None:
    matches = docker_patterns(patterns)
    assert [path for path in left_out if not matches(path)] == []
    assert [path for path in kept if matches(path)] == []


def test_a_dockerfile_s_own_ignore_file_counts_first(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("a\n")
    (tmp_path / "prod.Dockerfile.dockerignore").write_text("b\n")
    document = {
        "services": {
            "web": {"build": {"context": str(tmp_path), "dockerfile": "prod.Dockerfile"}},
            "job": {"build": {"context": str(tmp_path), "additional_contexts": {"x": "docker-image://y"}}},
            "far": {"build": {"context": "https://git.example/x.git"}},
            "odd": {"build": {"context": f"/{'a' * 300}"}},
            "pulled": {"image": "x"},
        }
    }
    found = build_contexts(document, document["services"])
    assert {name: len(contexts) for name, contexts in found.items()} == {"web": 1, "job": 1, "far": 0, "odd": 0}
    (web,), (job,) = found["web"], found["job"]
    assert (web.holds(f"{tmp_path}/a"), web.holds(f"{tmp_path}/b")) == (True, False)
    assert (job.holds(f"{tmp_path}/a"), job.holds(f"{tmp_path}/b")) == (False, True)
    assert job.holds(f"{tmp_path}/.dockerignore"), "what the builder reads has changed with it"


def test_a_dockerfile_outside_of_its_context_is_heard(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    build = {"context": f"{tmp_path}/app", "dockerfile": "../docker/app.Dockerfile"}
    found = scope([], "", build_contexts({"services": {"web": {"build": build}}}, ["web"]), [])
    assert found.services(f"{tmp_path}/docker/app.Dockerfile") == {"web"}
    assert found.is_file(f"{tmp_path}/docker/app.Dockerfile.dockerignore")
    assert f"{tmp_path}/docker" in found.places()


# --- what a change asks for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "work"),
    [
        ("compose.yaml", Work(read=True, build=one("job"), deploy=one("job"))),  # in that context as well
        ("web/app.py", Work(build=one("web"), deploy=one("web"))),
        ("web/Dockerfile", Work(build=one("web"), deploy=one("web"))),
        ("web/.dockerignore", Work(read=True, build=one("web"), deploy=one("web"))),
        ("web/README.md", Work()),
        ("web/logs/today", Work()),
        ("web/.app.py.swp", Work()),
        ("job.py", Work(build=one("job"), deploy=one("job"))),
        ("templates/nginx/upstream.conf.j2", Work(apply=True, build=one("job"), deploy=one("job"))),
        ("templates/nginx/upstream.conf.j2~", Work()),
        (".rollout/state.db", Work()),
        ("edge/rollout.d/current/web.conf", Work()),
    ],
)
def test_what_a_path_asks_for(path: str, work: Work) -> None:
    assert decide(SCOPE, [f"{ROOT}/{path}"]) == work
    assert SCOPE.concerns(f"{ROOT}/{path}") is (work != Work())


def test_a_project_elsewhere_is_not_concerned() -> None:
    assert not SCOPE.concerns("/shop2/web/app.py")


def test_directories_to_watch() -> None:
    assert SCOPE.places() == {ROOT: True}
    apart = Scope(one("/p/compose.yaml", "/env/.env"), "", {"web": (BuildContext("/src", "/src/d/Dockerfile"),)})
    assert apart.places() == {"/src": True, "/p": False, "/env": False}


def project(*services: ServiceSettings, **proxy: str) -> Project:
    where = ProxySettings(ProxyType.NGINX, "/shop/edge/rollout.d", service="edge", **proxy)  # type: ignore[arg-type]
    return Project("shop", ROOT, where, {s.name: s for s in services}, "")


WEB, JOB = ServiceSettings("web", 8000, image="web:1"), ServiceSettings("job", 8000)
SEEN = Seen(project(WEB, JOB), {"web": "h1", "job": "h1"}, {"web": {"context": "/shop/web"}}, ("job", "web"), SCOPE)


@pytest.mark.parametrize(
    ("now", "work"),
    [
        (SEEN, Work()),
        (replace(SEEN, hashes={"web": "h2", "job": "h1"}), Work(deploy=one("web"))),
        (replace(SEEN, builds={"web": {"context": "/other"}}), Work(build=one("web"), deploy=one("web"))),
        (
            replace(SEEN, project=project(replace(WEB, image="web:2"), JOB), hashes={"web": "h2", "job": "h1"}),
            Work(build=one("web"), deploy=one("web")),
        ),
        (
            replace(SEEN, project=project(WEB, replace(JOB, pool=PoolOptions(keepalive=8)))),
            Work(deploy=one("job")),
        ),
        (replace(SEEN, project=project(WEB, JOB, templates="/shop/t")), Work(apply=True)),
        (replace(SEEN, project=project(JOB), builds={}), Work()),  # no longer rollout's business
        (
            replace(SEEN, project=project(WEB, JOB, ServiceSettings("api", 80)), hashes={**SEEN.hashes, "api": "h"}),
            Work(deploy=one("api")),
        ),
    ],
    ids=["nothing", "config", "build section", "image", "settings", "proxy", "gone", "new"],
)
def test_what_a_new_reading_asks_for(now: Seen, work: Work) -> None:
    assert difference(SEEN, now) == work


# --- quiet --------------------------------------------------------------------------------------------------------


def test_a_save_in_several_steps_is_one_change() -> None:
    assert rest(first=0.0, last=0.0, now=0.0) == QUIET
    assert rest(first=0.0, last=0.09, now=0.1) == pytest.approx(QUIET - 0.01)
    assert rest(first=0.0, last=0.5, now=0.5 + QUIET) == 0


def test_what_never_rests_is_taken_up_all_the_same() -> None:
    assert rest(first=0.0, last=LONGEST, now=LONGEST) == 0


def test_changes_are_taken_together_and_once() -> None:
    clock = HandClock()
    changes = Changes(clock)
    changes.add("a")
    changes.add("b")
    changes.add("a")
    clock.time = QUIET
    assert changes.take(0.0) == {"a", "b"}
    assert changes.take(0.0) == frozenset()


# --- what is done -------------------------------------------------------------------------------------------------


@dataclass
class Doing:
    """`watch.watching.Doing`: writes down what it is asked for, fails as told."""

    now: Seen = SEEN
    failing: dict[str, RolloutError] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def _do(self, what: str) -> None:
        self.done.append(what)
        for name, error in self.failing.items():
            if what.startswith(name):
                raise error

    def read(self) -> Seen:
        self._do("read")
        return self.now

    def apply(self, services: Sequence[str]) -> None:
        self._do(f"apply {' '.join(services)}")

    def deploy(self, service: str, *, build: bool) -> None:
        self._do(f"{'build and ' if build else ''}deploy {service}")


@dataclass
class Watched:
    doing: Doing
    watching: Watching
    told: list[RolloutError]
    clock: HandClock

    def change(self, *paths: str) -> list[str]:
        """What is done after these changes."""
        self.doing.done.clear()
        self.watching.take_up(frozenset(f"{ROOT}/{path}" for path in paths))
        return list(self.doing.done)


@pytest.fixture
def watched() -> Watched:
    doing, told, clock = Doing(), list[RolloutError](), HandClock()
    return Watched(doing, Watching(doing, clock, told.append, first=lambda seen: Work()), told, clock)


BROKEN = SpecError([Fault("services.web", "is odd")])


def test_a_source_is_built_and_deployed(watched: Watched) -> None:
    assert watched.change("web/app.py", "web/other.py") == ["build and deploy web"]
    assert watched.change("web/README.md") == []


def test_a_template_is_applied_to_what_is_not_deployed_anyway(watched: Watched) -> None:
    watched.doing.now = replace(SEEN, scope=replace(SCOPE, contexts={"web": SCOPE.contexts["web"]}))
    watched.change("compose.yaml")
    assert watched.change("templates/t.j2") == ["apply job web"]
    assert watched.change("templates/t.j2", "web/app.py") == ["apply job", "build and deploy web"]


def test_a_broken_file_is_told_once_and_changes_nothing(watched: Watched) -> None:
    watched.doing.failing["read"] = BROKEN
    assert watched.change("compose.yaml") == ["read"]
    assert watched.change("compose.yaml") == ["read"]
    assert watched.change("web/app.py") == ["read"], "what would be deployed is not known"
    assert watched.told == [BROKEN]
    watched.doing.failing.clear()
    watched.doing.now = replace(SEEN, hashes={"web": "h1", "job": "h2"})
    assert watched.change("compose.yaml") == ["read", "build and deploy job", "build and deploy web"]
    watched.doing.failing["read"] = BROKEN
    watched.change("compose.yaml")
    assert watched.told == [BROKEN, BROKEN], "it was right in between"


def test_a_failed_deploy_is_told_each_time_and_left_to_the_next_edit(watched: Watched) -> None:
    error = watched.doing.failing["build and deploy job"] = BuildFailed("no")
    assert watched.change("web/app.py", "job.py") == ["build and deploy job", "build and deploy web"]
    assert watched.change("web/app.py") == ["read", "build and deploy web"]
    watched.change("job.py")
    assert watched.told == [error, error]


def test_after_a_failed_deploy_the_project_is_read_again(watched: Watched) -> None:
    """A file that is not watched may have changed, and made it fail: the project as it was read would fail for ever."""
    watched.doing.failing["build and deploy web"] = DeployFailed("the Compose file changed meanwhile")
    assert watched.change("web/app.py") == ["build and deploy web"]
    watched.doing.failing.clear()
    watched.doing.now = replace(SEEN, hashes={"web": "h2", "job": "h2"})
    assert watched.change("web/app.py") == ["read", "deploy job", "build and deploy web"]
    assert watched.change("web/app.py") == ["build and deploy web"]


def test_what_could_not_be_begun_is_done_with_the_next_change(watched: Watched) -> None:
    watched.doing.failing["build and deploy web"] = LockHeld("held")
    watched.change("web/app.py")
    watched.doing.failing.clear()
    assert watched.change("job.py") == ["build and deploy job", "build and deploy web"]


def test_what_could_not_be_begun_holds_up_no_other(watched: Watched) -> None:
    held = watched.doing.failing["build and deploy job"] = LockHeld("held")
    assert watched.change("job.py", "web/app.py") == ["build and deploy job", "build and deploy web"]
    assert watched.told == [held]
    assert watched.change() == ["build and deploy job"]
    watched.doing.failing["build and deploy job"] = Interrupted("enough")
    with pytest.raises(Interrupted):
        watched.change("web/app.py")
    assert watched.doing.done == ["build and deploy job"]


def test_what_could_not_be_begun_is_tried_again_by_and_by(watched: Watched) -> None:
    """What stood in the way may be gone without a change that could be seen: a lease, an env file that came later."""
    held = watched.doing.failing["build and deploy web"] = LockHeld("held")
    watched.change("web/app.py")
    pauses = []
    for _ in range(8):
        assert not watched.watching.due()
        began = watched.clock.now()
        while not watched.watching.due():
            watched.clock.sleep(0.5)
        pauses.append(watched.clock.now() - began)
        assert watched.change() == ["build and deploy web"]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60] and watched.told == [held]
    watched.doing.failing.clear()
    assert watched.change() == ["build and deploy web"]
    watched.clock.sleep(1000)
    assert not watched.watching.due()


def test_a_change_is_not_lost_where_watching_fails(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Observer, places: Mapping[str, bool]) -> None:
        raise StateError("no more watches")

    watched.doing.now = replace(SEEN, hashes={"web": "h2", "job": "h1"}, scope=replace(SCOPE, contexts={}))
    with monkeypatch.context() as patch:
        patch.setattr(Observer, "watch", refuse)
        assert watched.change("compose.yaml") == ["read"]
    assert [error.message for error in watched.told] == ["no more watches"]
    assert "deploy web" in " ".join(watched.change())


class Heard:
    """A real Observer, and the paths it has told."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.observer = Observer(self.paths.add)

    def until(self, path: Path, limit: float = 60.0) -> None:
        end = time.monotonic() + limit
        while str(path) not in self.paths:
            assert time.monotonic() < end, f"{path} was not told, but {self.paths}"
            self.observer.renew()
            time.sleep(0.01)


def unpack(directory: Path) -> None:
    (directory / "deep").mkdir(parents=True)
    (directory / "app.py").write_text("1")


@pytest.mark.parametrize("below", [True, False], ids=["all below", "its files"])
def test_a_directory_made_anew_is_watched_anew(tmp_path: Path, below: bool) -> None:
    place, heard = tmp_path / "web", Heard()
    unpack(place)
    with heard.observer as observer:
        observer.watch({str(place): below})
        for round_ in range(3):
            shutil.rmtree(place)
            if round_ == 1:
                observer.renew()  # the other times the new one is there before anybody looks
            unpack(place)
            heard.paths.clear()
            heard.until(place / "app.py")
            heard.paths.clear()
            (place / "new.py").write_text("2")
            heard.until(place / "new.py")
            if below:
                (place / "deep" / "new.py").write_text("3")
                heard.until(place / "deep" / "new.py")


@pytest.mark.parametrize("below", [True, False], ids=["all below", "its files"])
def test_a_new_watch_tells_all_that_there_is(tmp_path: Path, below: bool) -> None:
    """What the one before it had heard and not told yet is lost with it."""
    place, heard = tmp_path / "web", Heard()
    with heard.observer as observer:
        observer.watch({str(place): below})
        unpack(place)
        (place / "deep" / "new.py").write_text("1")
        observer.renew()
        told = set(heard.paths)
    assert {str(place), str(place / "app.py"), str(place / "deep")} <= told
    assert (str(place / "deep" / "new.py") in told) is below


def test_a_directory_that_comes_later_is_watched(tmp_path: Path) -> None:
    place, heard = tmp_path / "templates", Heard()
    with heard.observer as observer:
        observer.watch({str(place): True})
        observer.renew()
        place.mkdir()
        (place / "t.j2").write_text("1")
        heard.until(place / "t.j2")
        (place / "u.j2").write_text("1")
        heard.until(place / "u.j2")


def test_a_template_that_the_proxy_refuses_holds_up_deploys(watched: Watched) -> None:
    watched.doing.failing["apply"] = SpecError([Fault("x", "y")])
    assert watched.change("templates/t.j2", "web/app.py") == ["apply "]
    watched.doing.failing.clear()
    assert watched.change("templates/t.j2") == ["apply ", "build and deploy job", "build and deploy web"]


def test_what_there_is_to_do_first() -> None:
    doing = Doing()
    watching = Watching(doing, HandClock(), list[RolloutError]().append, first=lambda s: Work(deploy=one("web", "job")))
    watching.take_up(frozenset())
    assert doing.done == ["read", "deploy job", "deploy web"]


# --- the sidecar's part -----------------------------------------------------------------------------------------


def test_a_sidecar_that_cannot_watch_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build context may have more directories than the system has watches; the replicas are followed all the same."""
    stop, told, tried = threading.Event(), list[Event](), list[None]()

    class NoWatches:
        def __init__(self, *_: object, **__: object) -> None:
            tried.append(None)

        def run(self, ended: object) -> None:
            if len(tried) == 3:
                stop.set()
            raise StateError("/shop cannot be watched: no space left on device", hint="raise it")

    monkeypatch.setattr(sidecar_watching, "Watching", NoWatches)
    monkeypatch.setattr(sidecar_watching, "LONGEST_RETRY", 0.01)
    FileWatch(Options(), cast("Any", None), HandClock(), told.append).run(stop)
    assert len(tried) == 3
    assert [event.text for event in told if isinstance(event, Warned)] == [
        "/shop cannot be watched: no space left on device"
    ]

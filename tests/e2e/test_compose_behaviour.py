"""A deploy is Compose's own project with other containers: counts, left-overs, variables, dependencies, neighbours."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, PROJECT, SERVICE, Edge, Shop, containers, docker, eventually, project, running

pytestmark = [pytest.mark.e2e]

BOTH = (EDGES[1], EDGES[2])


def compose_up_changes_nothing(shop: Shop, *services: str) -> None:
    """What users type out of habit, after a deploy."""
    before = {name: shop.containers(name) for name in services or ("web", "edge")}
    said = shop.compose("up", "-d").stderr
    after = {name: shop.containers(name) for name in before}
    assert after == before, f"{said}\n{shop.describe()}"
    assert "Recreate" not in said


@pytest.mark.parametrize("edge", BOTH, ids=str)
def test_replica_counts_change_within_a_deploy(edge: Edge, short_directory: Path) -> None:
    with running(edge, short_directory, deploy={"replicas": 3}) as shop, shop.load() as load:
        load.wait_for(20)
        for replicas, tag in ((2, "2"), (4, "3")):
            shop.tag(tag)
            shop.service("web", deploy={"replicas": replicas})
            shop.rollout("deploy", "web")
            assert shop.answers() == tag
            shop.settled(replicas=replicas)
            compose_up_changes_nothing(shop)
        for replicas in (2, 3):  # the same version, only the count
            same = {c.id for c in shop.containers()}
            shop.service("web", deploy={"replicas": replicas})
            shop.rollout("deploy", "web")
            shop.settled(replicas=replicas)
            assert len(same & {c.id for c in shop.containers()}) == min(len(same), replicas)
        report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
        assert {line["in_flight"] for line in shop.term_lines()} == {0}


def leftover(shop: Shop, tag: str, *, started: bool) -> str:
    """A container of `web` as Compose itself labels them, of an earlier version, that ran once or never did."""
    like = shop.containers()[0]
    labels = {
        PROJECT: shop.name,
        SERVICE: "web",
        "com.docker.compose.container-number": "17" if started else "18",
        "com.docker.compose.config-hash": like.config_hash,
        "com.docker.compose.oneoff": "False",
        "com.docker.compose.image": f"sha256:{tag * 64}",
    }
    flags = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    made = docker("create", *flags, "--network", f"{shop.name}_default", f"rollout-test/app:{tag}")
    if started:
        docker("start", made)
        docker("kill", made)
    return made


@contextmanager
def starts(shop: Shop) -> Iterator[Callable[[], set[str]]]:
    """The ids of the project's containers that are started in the block, in whatever state they are by then."""
    argv = ["docker", "events", "--since", f"{time.time():.9f}", "--filter", f"label={PROJECT}={shop.name}"]
    argv += ["--filter", "event=start", "--format", "{{.ID}}"]
    told = shop.directory / "starts"
    with told.open("w") as file, subprocess.Popen(argv, stdout=file) as listening:
        try:
            yield lambda: set(told.read_text().split())
        finally:
            listening.terminate()


def test_leftovers_are_never_started_never_counted_and_cleaned(short_directory: Path) -> None:
    with running(EDGES[2], short_directory) as shop:
        left = [leftover(shop, "3", started=True), leftover(shop, "3", started=False)]
        shop.tag("2")
        with starts(shop) as started:
            shop.rollout("deploy", "web")
            shop.settled()
            new = {c.id for c in shop.containers()}
            another = leftover(shop, "3", started=True)
            eventually(lambda: another in started(), "its start, and so all those before it")
        assert new <= started()
        assert not set(left) & started()
        # with nothing else to do they go as well
        done = shop.rollout("deploy", "web")
        assert "nothing to do" in done.out
        shop.settled()


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_nothing_to_do_is_quick_and_says_one_line(short_directory: Path) -> None:
    with running(EDGES[1], short_directory) as shop:
        before = shop.snapshot()
        runs, deploying, looking = [], 0.0, 0.0
        for _ in range(3):
            began = cpu_of_children()
            runs.append(shop.rollout("deploy", "web"))
            deployed = cpu_of_children()
            shop.rollout("status")
            deploying, looking = deploying + deployed - began, looking + cpu_of_children() - deployed
        assert shop.snapshot() == before
        assert {run.out for run in runs} == {"web: nothing to do: revision 1 runs already (2 replicas)\n"}
        # of the processor, Compose's work included, and beside what a look takes: seconds are as the machine is
        assert deploying < 1.5 * looking, (deploying, looking)


@pytest.mark.parametrize("edge", BOTH, ids=str)
def test_force_replaces_what_did_not_change(edge: Edge, short_directory: Path) -> None:
    with running(edge, short_directory) as shop, shop.load() as load:
        load.wait_for(20)
        before = {c.id for c in shop.containers()}
        shop.rollout("deploy", "web", "--force")
        assert not before & {c.id for c in shop.containers()}
        shop.settled()
        compose_up_changes_nothing(shop)
        assert load.report().failed == 0, f"{load.report().describe()}\n{shop.describe()}"


def test_the_same_tag_with_another_image_is_a_change(short_directory: Path) -> None:
    name = f"rollout-e2e-moving-{short_directory.name.lower().replace('_', '-').strip('-')}"
    docker("tag", "rollout-test/app:1", f"{name}:latest")
    try:
        with running(EDGES[1], short_directory, image=f"{name}:latest") as shop:
            docker("tag", "rollout-test/app:2", f"{name}:latest")
            shop.rollout("deploy", "web")
            assert shop.answers() == "2"
            shop.settled()
            compose_up_changes_nothing(shop)
    finally:
        docker("rmi", f"{name}:latest")


def test_compose_up_after_a_rollback_to_what_the_files_say(short_directory: Path) -> None:
    with running(EDGES[2], short_directory) as shop:
        shop.tag("2")
        shop.rollout("deploy", "web")
        shop.rollout("rollback", "web")
        shop.tag("1")  # as `rollout rollback` asks of its user
        compose_up_changes_nothing(shop)
        done = shop.rollout("deploy", "web")
        assert "nothing to do" in done.out
        shop.settled()


def test_compose_up_beside_warm_replicas_is_mended(short_directory: Path) -> None:
    """Compose counts warm replicas as its own, and where it scales down it may keep those and remove what serves (2.26
    does): requests fail until the next run. That run finds the pool's replicas gone and puts in what is there."""
    with running(EDGES[2], short_directory, **{"x-rollout": {"keep_warm": "10m"}}) as shop:
        shop.tag("2")
        shop.rollout("deploy", "web")
        assert len(shop.containers()) == 4
        shop.compose("up", "-d")
        assert len(shop.containers()) == 2
        shop.rollout("deploy", "web")
        assert shop.answers() == "2"
        shop.settled()


def test_another_project_with_the_same_service_is_untouched(short_directory: Path) -> None:
    for folder in ("a", "b"):
        (short_directory / folder).mkdir()
    with running(EDGES[1], short_directory / "a") as ours, running(EDGES[1], short_directory / "b") as theirs:
        before = theirs.snapshot()
        ours.tag("2")
        ours.rollout("deploy", "web")
        assert (ours.answers(), theirs.answers()) == ("2", "1")
        assert theirs.snapshot() == before
        ours.settled()


def test_exported_variables_reach_compose(short_directory: Path) -> None:
    """Names that a tool could easily take for its own."""
    spoken = {"VERSION": "${VERSION:-unset}", "ASKED": "${SERVICE:-unset} ${NAME:-unset}"}
    with project(EDGES[1], short_directory, environment=spoken) as shop:
        shop.env = {"TAG": "2", "SERVICE": "mine", "VERSION": "exported", "NAME": "n"}
        shop.up()
        shop.rollout("deploy")
        shop.env["VERSION"] = "changed"
        shop.rollout("deploy")
        assert shop.answers() == "changed"
        assert all('"ASKED=mine n"' in docker("inspect", "-f", "{{json .Config.Env}}", c.id) for c in shop.containers())
        assert {docker("inspect", "-f", "{{.Config.Image}}", c.id) for c in shop.containers()} == {"rollout-test/app:2"}
        compose_up_changes_nothing(shop)


def two_services(shop: Shop) -> None:
    shop.service("api", deploy={"replicas": 1})
    shop.service("web", depends_on=["api"], deploy={"replicas": 1})


def test_dependency_order_and_stop_at_the_first_failure(short_directory: Path) -> None:
    with project(EDGES[1], short_directory) as shop:
        two_services(shop)
        shop.up()
        shop.rollout("deploy")
        shop.tag("2")
        done = shop.rollout("deploy", "web", "api")
        assert done.out.index("api: deployed") < done.out.index("web: deployed")
        assert (shop.answers("api"), shop.answers("web")) == ("2", "2")
        before = shop.containers("web")
        shop.tag("3")
        shop.service("api", environment={"CRASH_AT_START": "1"})
        done = shop.rollout("deploy", "web", "api", code=1)
        assert "web: deployed" not in done.out
        assert shop.containers("web") == before
        assert (shop.answers("api"), shop.answers("web")) == ("2", "2")


BROKEN_FOR_API = {
    "nginx": ("nginx/upstream.conf.j2", "{% if service == 'api' %}{{ no_such_name }}{% endif %}\n"),
    "haproxy": ("haproxy/backend.cfg.j2", "{% if service == 'api' %}{{ no_such_name }}{% endif %}\n"),
}


@pytest.mark.parametrize("edge", BOTH, ids=str)
def test_a_broken_template_of_one_service_does_not_stop_the_other(edge: Edge, short_directory: Path) -> None:
    with project(edge, short_directory) as shop:
        two_services(shop)
        shop.up()
        shop.rollout("deploy")
        name, broken = BROKEN_FOR_API[edge.type]
        file = shop.directory / "templates" / name
        file.parent.mkdir(parents=True)
        file.write_text(broken + Path("templates", name).read_text())
        shop.proxy["templates"] = "./templates"
        shop.write()
        shop.tag("2")
        pool = shop.pool("api")
        done = shop.rollout("deploy", "api", code=1)
        assert "no_such_name" in done.err
        shop.rollout("deploy", "web")
        assert (shop.answers("api"), shop.answers("web")) == ("1", "2")
        assert shop.pool("api") == pool
        shop.settled("web", replicas=1)
        shop.settled("api", replicas=1)


def test_the_right_one_of_two_networks(short_directory: Path) -> None:
    """The service's first network is not the proxy's: the address that counts is that on the other."""
    with project(EDGES[1], short_directory, networks=["aback", "front"]) as shop:
        shop.networks = {"aback": {}, "front": {}}
        shop.services["edge"]["networks"] = ["front"]
        shop.write()
        shop.up()
        shop.rollout("deploy")
        shop.tag("2")
        shop.rollout("deploy")
        assert shop.answers() == "2"
        assert shop.pool() == {f"{c.addresses[f'{shop.name}_front']}:8000" for c in shop.containers()}


def test_neighbours_survive_a_deploy(short_directory: Path) -> None:
    """Neither what it depends on nor the proxy is recreated, though their configuration changed meanwhile."""
    with project(EDGES[1], short_directory) as shop:
        two_services(shop)
        shop.up()
        shop.rollout("deploy")
        before = [*shop.containers("api"), *shop.containers("edge")]
        shop.tag("2")
        shop.service("api", environment={"NEW": "yes"})
        shop.rollout("deploy", "web")
        assert shop.answers("web") == "2"
        assert [*shop.containers("api"), *shop.containers("edge")] == before
        assert {c.state for c in containers(shop.name)} == {"running"}

"""Going back: a switch while the old replicas are warm, from the stored configuration and the kept image when not."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, Edge, Shop, docker, running

pytestmark = [pytest.mark.e2e]

EDGE_PAIR = (EDGES[1], EDGES[2])


def deploy(shop: Shop, tag: str) -> None:
    shop.tag(tag)
    shop.rollout("deploy", "web")
    assert shop.answers() == tag


def image_id(reference: str) -> str:
    return docker("image", "inspect", "-f", "{{.Id}}", reference)


@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_back_to_the_one_before_and_to_any_number(edge: Edge, short_directory: Path) -> None:
    with running(edge, short_directory) as shop, shop.load() as load:
        load.wait_for(20)
        for tag in ("2", "3"):
            deploy(shop, tag)
        shop.rollout("rollback", "web")
        assert shop.answers() == "2"
        shop.settled()
        shop.rollout("rollback", "web", "--to", "1")
        assert shop.answers() == "1"
        shop.settled()
        again = shop.rollout("rollback", "web", "--to", "1")
        assert "nothing to do" in again.out
        unknown = shop.rollout("rollback", "web", "--to", "99", code=2)
        assert "99" in unknown.err
        report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
        assert {line["in_flight"] for line in shop.term_lines()} == {0}


@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_warm_replicas_make_it_only_a_switch(edge: Edge, short_directory: Path) -> None:
    with running(edge, short_directory, **{"x-rollout": {"keep_warm": "10m"}}) as shop, shop.load() as load:
        load.wait_for(20)
        old = shop.containers()
        deploy(shop, "2")
        new = [c for c in shop.containers() if c not in old]
        assert [c for c in shop.containers() if c in old] == old, "the old replicas run on, never restarted"
        assert shop.pool() == {f"{next(iter(c.addresses.values()))}:8000" for c in new}
        done = shop.rollout("rollback", "web")
        assert shop.answers() == "1"
        assert shop.pool() == {f"{next(iter(c.addresses.values()))}:8000" for c in old}
        assert "start" not in done.out, done
        assert {c.id for c in shop.containers()} >= {c.id for c in old}
        assert [c for c in shop.containers() if c in old] == old
        report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"


def test_warm_replicas_end_with_their_time(short_directory: Path) -> None:
    with running(EDGES[1], short_directory, **{"x-rollout": {"keep_warm": "1s"}}) as shop:
        deploy(shop, "2")
        done = shop.rollout("deploy", "web")
        while len(shop.containers()) > 2:  # the next run after that second retires them
            done = shop.rollout("deploy", "web")
        assert "warm replicas of revision 1 were stopped" in done.err
        shop.settled()


@pytest.fixture
def image() -> Iterator[str]:
    """An image name of the user's own that the test may move and remove."""
    name = f"rollout-e2e-{uuid.uuid4().hex[:8]}"
    names = {"1": "1", "2": "2", "latest": "1"}
    for tag, version in names.items():
        docker("tag", f"rollout-test/app:{version}", f"{name}:{tag}")
    # an image that nothing else names: only rollout's own tag can keep it alive
    text = f"FROM rollout-test/app:1\nENV VERSION=once\nLABEL of={name}\n"
    subprocess.run(
        ["docker", "build", "-q", "-t", f"{name}:once", "-"], input=text, text=True, check=True,
        capture_output=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DOCKER_BUILDKIT": "0"},
    )  # fmt: skip
    yield name
    for tag in (*names, "once"):
        docker("rmi", f"{name}:{tag}", check=False)


def test_image_is_kept_when_the_user_removes_the_tag(image: str, short_directory: Path) -> None:
    with running(EDGES[2], short_directory, image=f"{image}:${{TAG}}") as shop:
        deploy(shop, "once")
        wanted = image_id(f"{image}:once")
        deploy(shop, "2")
        docker("rmi", f"{image}:once")
        assert image_id(wanted) == wanted, "nothing else names it"
        shop.rollout("rollback", "web")
        assert shop.answers() == "once"
        assert {c.image for c in shop.containers()} == {wanted}
        shop.settled()
        shop.rollout("rollback", "web")
        assert shop.answers() == "2"


def test_image_is_kept_when_the_user_moves_the_tag(image: str, short_directory: Path) -> None:
    with running(EDGES[2], short_directory, image=f"{image}:latest") as shop:
        wanted = image_id(f"{image}:1")
        assert shop.answers() == "1"
        docker("tag", f"{image}:2", f"{image}:latest")
        shop.rollout("deploy", "web")
        assert shop.answers() == "2", "the same tag, another image: a new revision"
        shop.rollout("rollback", "web")
        assert shop.answers() == "1"
        assert {c.image for c in shop.containers()} == {wanted}
        shop.settled()


def test_images_are_pruned_to_what_is_kept(short_directory: Path) -> None:
    with running(EDGES[2], short_directory, deploy={"replicas": 1}, **{"x-rollout": {"keep": 2}}) as shop:
        for number in range(4):
            shop.service("web", environment={"NUMBER": str(number)})
            shop.rollout("deploy", "web")
            assert len(shop.keep_tags()) <= 2
        numbers = sorted(int(tag.rpartition(":r")[2]) for tag in shop.keep_tags())
        assert numbers == [4, 5], "the live one and the one before; the first was revision 1"
        gone = shop.rollout("rollback", "web", "--to", "99", code=2)
        assert "99" in gone.err

"""The application misbehaves, before, at and after the switch, under load.

What never gets healthy, exits at once, is sick within `monitor` or cannot be reached is in e2e/test_failed_deploys.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.projects import Done, Edge, Shop, eventually, running
from tests.faults.middle import EDGE_PAIR
from tests.faults.sweep import MIX
from tests.load import Load

pytestmark = [pytest.mark.faults, pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)]

CHECK = {
    "test": ["CMD", "python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz')"],
    "interval": "500ms", "timeout": "5s", "retries": 1,
}  # fmt: skip


def lossless(load: Load, shop: Shop, more: int = 50) -> None:
    load.wait_for(load.progress()["total"] + more)
    report = load.report()
    print(f"{shop.edge}: {report.total} requests, {report.failed} failed")
    assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"


def receipt(shop: Shop) -> dict[str, Any]:
    """Of the last rollout."""
    found: dict[str, Any] = json.loads(shop.rollout("history", "web", "--json").out)[0]["receipt"]
    return found


def refused(shop: Shop, *says: str, **web: Any) -> Done:
    """A deploy of version 2 with this change fails, says why, and leaves everything as it was."""
    before, good = shop.snapshot(), (shop.directory / "compose.yaml").read_text()
    shop.service("web", **web)
    shop.tag("2")
    done = shop.rollout("deploy", "web", code=1)
    assert all(word in done.said for word in says), done
    shop.tag("1")
    (shop.directory / "compose.yaml").write_text(good)
    assert shop.snapshot().in_force() == before.in_force(), shop.describe()
    return done


@pytest.mark.timeout(240)
def test_it_ignores_sigterm(edge: Edge, short_directory: Path) -> None:
    """It serves on when it is told to end, and is killed when the grace period is over: nobody asks it any more."""
    deaf = {"environment": {"ON_TERM": "ignore"}, "stop_grace_period": "2s"}
    with running(edge, short_directory, **deaf) as shop, shop.load(MIX) as load:
        for version in ("2", "3"):
            shop.tag(version)
            shop.rollout("deploy", "web")
            shop.settled()
        assert {line["in_flight"] for line in shop.term_lines()} == {0}
        lossless(load, shop)


@pytest.mark.timeout(240)
def test_it_accepts_and_never_answers(edge: Edge, short_directory: Path) -> None:
    health = {"x-rollout": {"health": {"healthy_deadline": "3s", "timeout": "1s"}}}
    with running(edge, short_directory, **health) as shop, shop.load(MIX) as load:
        refused(shop, "not ready after 3", "timed out", environment={"ACCEPT_ONLY": "1"})
        lossless(load, shop)


@pytest.mark.timeout(240)
def test_it_dies_again_and_again_after_the_switch(edge: Edge, short_directory: Path) -> None:
    """Requests that it was serving die with it; `monitor` sees it, and the old replicas have the traffic back."""
    with running(edge, short_directory, deploy={"update_config": {"monitor": "30s"}}) as shop, shop.load(MIX) as load:
        load.wait_for(50)
        done = refused(shop, "exit", restart="always", environment={"EXIT_AFTER": "3"})
        assert done.seconds < 25, done
        lost = load.progress()["failed"]
        with shop.load(MIX) as after:
            lossless(after, shop)
        told = receipt(shop)
        print(f"{edge}: {lost} lost with the dying replicas; the receipt says {told['requests']}")
        assert told["outcome"] == "undone"
        new, old = (told["requests"][str(told[which])] for which in ("revision", "previous"))
        assert new["requests"] > 0 and (new["failed"] > 0 or not lost), (
            "the receipt says that they were lost, and whose"
        )
        assert old["failed"] == 0


@pytest.mark.timeout(240)
def test_it_turns_unhealthy_just_after_the_deploy(edge: Edge, short_directory: Path) -> None:
    """One of its replicas: `sync` takes it out. All: the pool stays, since 503 for everyone is no better; a rollback
    helps, and loses nothing."""
    with running(edge, short_directory, healthcheck=CHECK) as shop, shop.load(MIX) as load:
        shop.service("web", environment={"HEALTH": "fail-after:6"})
        shop.tag("2")
        shop.rollout("deploy", "web")
        shop.settled()
        eventually(lambda: {c.health for c in shop.containers()} == {"unhealthy"}, "Docker's verdict", 60)
        pool = shop.pool()
        said = shop.rollout("sync").said
        assert "no replica of web is ready" in said, said
        assert shop.pool() == pool
        shop.rollout("rollback", "web")
        assert shop.answers() == "1"
        shop.settled()
        lossless(load, shop)


@pytest.mark.timeout(240)
def test_it_closes_kept_connections_early(edge: Edge, short_directory: Path) -> None:
    """After every fifth answer, without a word: the proxy must not be caught by it, nor the drain."""
    rude = {"environment": {"CLOSE_EARLY": "5"}}
    with running(edge, short_directory, **rude) as shop, shop.load(MIX) as load:
        for version in ("2", "3", "1"):
            shop.tag(version)
            shop.rollout("deploy", "web")
            shop.settled()
        assert {line["in_flight"] for line in shop.term_lines()} == {0}
        lossless(load, shop, 300)


@pytest.mark.timeout(240)
def test_it_boots_for_half_a_minute(edge: Edge, short_directory: Path) -> None:
    slow = {**CHECK, "retries": 3, "start_period": "60s"}
    with running(edge, short_directory, deploy={"replicas": 1}) as shop, shop.load(MIX) as load:
        shop.service("web", environment={"BOOT_DELAY": "30"}, healthcheck=slow)
        shop.tag("2")
        done = shop.rollout("deploy", "web")
        assert 30 < done.seconds < 60, done
        assert shop.answers() == "2"
        shop.settled(replicas=1)
        lossless(load, shop)


@pytest.mark.daily
@pytest.mark.timeout(240)
def test_it_answers_the_probe_and_fails_at_its_work(edge: Edge, short_directory: Path) -> None:
    """No health check can see it. The receipt says how many of the new revision's answers were errors."""
    with running(edge, short_directory, deploy={"update_config": {"monitor": "2s"}}) as shop, shop.load(MIX) as load:
        load.wait_for(50)
        shop.service("web", environment={"WORK_STATUS": "500"})
        shop.tag("2")
        done = shop.rollout("deploy", "web")
        counted = receipt(shop)["requests"]
        assert counted["1"]["failed"] == 0, counted
        # counted as asked and not yet as answered, at most: one of each client, and the arrivals of a second
        clients = (MIX.get, MIX.post, MIX.think, MIX.fresh, MIX.preconnected, MIX.uploads, MIX.streams, MIX.upgrades)
        under_way = sum(clients) + MIX.arrivals
        assert counted["2"]["requests"] - under_way <= counted["2"]["failed"] > 20, counted
        assert f"({counted['2']['failed']:,} failed)" in done.out, done
        report = load.report()
        assert set(report.by_class) == {"http_500"}, report.describe()
        assert report.by_class["http_500"] >= counted["2"]["failed"]

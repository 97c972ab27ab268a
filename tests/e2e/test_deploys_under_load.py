"""The promise itself: twenty deploys in a row lose no request, whatever the client is doing at the time."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, Edge, Shop, eventually, running
from tests.load import Load, Mix

pytestmark = [pytest.mark.e2e]

DEPLOYS = 20
REQUESTS = 10_000
VERSIONS = ("2", "3", "1")


def deploy_in_turn(shop: Shop, load: Load, deploys: int) -> None:
    """Each deploy begins when its predecessor is seen to serve."""
    for number in range(deploys):
        version = VERSIONS[number % 3]
        shop.tag(version)
        shop.rollout("deploy", "web")
        failed = load.progress()["failed"]
        assert failed == 0, f"deploy {number + 1}:\n{load.report().describe()}\n{shop.describe()}"
        assert shop.answers() == version
        shop.settled()


def nothing_was_lost(shop: Shop, load: Load, at_least: int) -> int:
    """Answers how many requests there were."""
    load.wait_for(at_least)
    report = load.report()
    print(f"{shop.edge}: {report.describe()}")
    assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
    assert report.total >= at_least
    return report.total


def begun(shop: Shop) -> int:
    """Requests that the replicas which run have begun."""
    total = 0
    for one in shop.running():
        address = next(iter(one.addresses.values()))
        with contextlib.closing(http.client.HTTPConnection(address, 8000, timeout=20)) as client:
            client.request("GET", "/stats")
            total += json.loads(client.getresponse().read())["begun"]
    return total


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("edge", "parallelism"), list(zip(EDGES, (2, 2, 1), strict=True)), ids=str)
def test_twenty_deploys_in_a_row_lose_nothing(edge: Edge, parallelism: int, short_directory: Path) -> None:
    batches = {"update_config": {"parallelism": parallelism}}
    with running(edge, short_directory, deploy=batches) as shop, shop.load(Mix.standard()) as load:
        first = len(shop.term_lines())
        load.wait_for(200)
        deploy_in_turn(shop, load, DEPLOYS)
        asked = nothing_was_lost(shop, load, REQUESTS)
        stopped = shop.term_lines()[first:]
        assert len(stopped) == 2 * DEPLOYS
        assert [line["in_flight"] for line in stopped] == [0] * len(stopped), stopped
        # else that none was in flight would prove nothing: each was begun where it was counted
        assert sum(line["begun"] for line in stopped) + begun(shop) >= asked
        eventually(lambda: not shop.old_workers(), "the end of the old workers")
        assert len(shop.keep_tags()) <= 3
        shop.settled()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("edge", [Edge("nginx", "1.22"), Edge("haproxy", "2.6"), Edge("haproxy", "3.2")], ids=str)
def test_other_versions_lose_nothing_either(edge: Edge, short_directory: Path) -> None:
    one_by_one = {"update_config": {"parallelism": 1}}
    with running(edge, short_directory, deploy=one_by_one) as shop, shop.load() as load:
        load.wait_for(50)
        deploy_in_turn(shop, load, 3)
        nothing_was_lost(shop, load, 300)
        assert {line["in_flight"] for line in shop.term_lines()} == {0}


def with_compose(shop: Shop) -> None:
    shop.compose("up", "-d", "web")


def by_hand(shop: Shop) -> None:
    """Stop, then start: what a restart does."""
    shop.compose("stop", "web")
    shop.compose("up", "-d", "web")


@pytest.mark.parametrize("naive", [with_compose, by_hand])
@pytest.mark.parametrize("edge", [EDGES[0], EDGES[2]], ids=str)
def test_the_load_sees_what_a_naive_deploy_loses(
    edge: Edge, naive: Callable[[Shop], None], short_directory: Path
) -> None:
    """The negative control: a load that found nothing here would prove nothing above."""
    with running(edge, short_directory) as shop, shop.load(Mix.standard()) as load:
        load.wait_for(300)
        shop.tag("2")
        naive(shop)
        shop.rollout("sync")
        load.wait_for(load.progress()["total"] + 50)
        report = load.report()
        # how many depends on the proxy: HAProxy lets a new request wait seconds for a server to come back
        assert report.failed > 0, report.describe()
        assert {"stream", "upgrade"} <= {kind for kind, seen in report.by_kind.items() if set(seen) != {"ok"}}
        assert any(line["in_flight"] > 0 for line in shop.term_lines()), shop.term_lines()
        assert shop.answers() == "2"

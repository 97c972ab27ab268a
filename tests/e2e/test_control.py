"""A second process promotes, pauses, resumes and aborts a rollout that another performs, under load."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, Edge, Running, Shop, addresses, docker, eventually, running
from tests.load import Load

pytestmark = [pytest.mark.e2e]

BY_HAND = {"x-rollout": {"strategy": "blue-green", "promotion": "manual"}}
# each old replica stays, drained, until the file is there: the rollout is found between two batches
WAITS = {"command": ["sh", "-c", "until test -e /term/go; do sleep 0.05; done"], "timeout": "60s"}
IN_BATCHES = {
    "deploy": {"replicas": 2, "update_config": {"parallelism": 1}},
    "x-rollout": {"hooks": {"pre_stop": WAITS}},
}


def lossless(shop: Shop, load: Load) -> None:
    load.wait_for(load.progress()["total"] + 20)
    report = load.report()
    assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
    assert {line["in_flight"] for line in shop.term_lines()} <= {0}, shop.term_lines()


def halfway(shop: Shop, tag: str) -> Running:
    """A deploy that has switched its first batch, and goes on when it is `let_go`."""
    (shop.directory / "term/go").unlink(missing_ok=True)
    shop.tag(tag)
    run = shop.spawn("deploy", "web")
    run.wait_for("step_started", step="pre_stop")
    return run


def let_go(shop: Shop) -> None:
    (shop.directory / "term/go").touch()


def state(shop: Shop) -> str:
    (web,) = json.loads(shop.rollout("status", "web", "--json").out)["services"]
    return str(web["unfinished"]["state"])


def test_held_until_another_process_promotes(short_directory: Path) -> None:
    with running(EDGES[1], short_directory, **BY_HAND) as shop, shop.load() as load:
        nothing = shop.rollout("promote", "web", code=2)
        assert "no rollout is under way" in nothing.err
        shop.tag("2")
        run = shop.spawn("deploy", "web")
        held = run.wait_for("held")
        assert set(held["addresses"]).isdisjoint(shop.pool()) and len(held["addresses"]) == 2
        assert shop.answers() == "1" and state(shop) == "held"
        assert "`rollout promote web` switches" in shop.rollout("status").out
        told = shop.rollout("promote", "web", "--json")
        assert json.loads(told.out)["wish"] == "promote"
        done = run.end()
        assert done.code == 0, done
        assert run.wait_for("promoted")["who"].startswith("cli:")
        assert shop.answers() == "2"
        shop.settled()
        back = shop.rollout("rollback", "web")
        assert shop.answers() == "1" and "hold" not in back.err, "who goes back is not held"
        lossless(shop, load)


@pytest.mark.parametrize("edge", EDGES[1:], ids=str)
def test_while_it_is_held_the_pool_follows_what_serves(edge: Edge, short_directory: Path) -> None:
    with running(edge, short_directory, **BY_HAND) as shop:
        kept, other = shop.containers()
        shop.tag("2")
        run = shop.spawn("deploy", "web")
        run.wait_for("held")
        docker("kill", other.id)
        eventually(lambda: shop.pool() == addresses([kept]), "a pool without the dead replica")
        docker("start", other.id)
        eventually(
            lambda: shop.pool() == addresses([c for c in shop.containers() if c.id in (kept.id, other.id)]), "both"
        )
        assert shop.answers() == "1"
        shop.rollout("promote", "web")
        assert run.end().code == 0
        assert shop.answers() == "2"
        shop.settled()


def test_paused_between_two_batches_and_resumed_then_aborted(short_directory: Path) -> None:
    with running(EDGES[2], short_directory, **IN_BATCHES) as shop, shop.load() as load:
        run = halfway(shop, "2")
        shop.rollout("pause", "web")
        let_go(shop)
        paused = run.wait_for("paused")
        assert paused["before"].startswith("stop") and state(shop) == "paused"
        again = shop.rollout("pause", "web", code=2)
        assert "is paused already" in again.err and "rollout resume web" in again.err
        shop.rollout("resume", "web")
        run.wait_for("resumed")
        assert run.end().code == 0
        shop.settled()

        old = {c.id for c in shop.containers()}
        run = halfway(shop, "1")
        shop.rollout("abort", "web")
        let_go(shop)
        done = run.end()
        assert done.code == 1, done
        assert run.wait_for("finished")["outcome"] == "aborted"
        assert {c.id for c in shop.containers()} == old, shop.describe()
        assert shop.answers() == "2"
        shop.settled()
        lossless(shop, load)


def test_killed_while_paused_it_waits_for_a_person_and_killed_while_held_it_is_taken_back(
    short_directory: Path,
) -> None:
    with running(EDGES[2], short_directory, **IN_BATCHES) as shop, shop.load() as load:
        old = {c.id for c in shop.containers()}
        run = halfway(shop, "2")
        shop.rollout("pause", "web")
        let_go(shop)
        run.wait_for("paused")
        run.signal(signal.SIGKILL)
        run.end()
        left = {c.id for c in shop.containers()}
        assert "paused by cli:" in shop.rollout("sync").err
        assert {c.id for c in shop.containers()} == left and left != old
        refused = shop.rollout("promote", "web", code=2)
        assert "nothing to promote" in refused.err
        assert "rollout sync web" in shop.rollout("abort", "web").out
        shop.rollout("sync", "web")
        assert {c.id for c in shop.containers()} == old and shop.answers() == "1"
        shop.settled()

        shop.service("web", deploy={"update_config": None}, **BY_HAND)
        run = shop.spawn("deploy", "web")
        run.wait_for("held")
        run.signal(signal.SIGKILL)
        run.end()
        refused = shop.rollout("promote", "web", code=2)
        assert "has lost the process that held it" in refused.err
        shop.rollout("sync", "web")
        eventually(lambda: {c.id for c in shop.containers()} == old, "the old ones alone")
        shop.settled()
        lossless(shop, load)

"""Signals and sudden death of the program at chosen moments, under load: the next run converges and nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, PROGRAM, Edge, Running, Shop, eventually, running
from tests.faults.middle import STARTED, SWITCHED, spawn, stopped_at
from tests.load import Load

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

BOTH = (EDGES[0], EDGES[2])
BOOT = {"environment": {"BOOT_DELAY": "30"}}  # gives the check a length in which it can be interrupted


def lossless(shop: Shop, load: Load) -> None:
    load.wait_for(load.progress()["total"] + 20)
    report = load.report()
    assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
    assert {line["in_flight"] for line in shop.term_lines()} <= {0}, shop.term_lines()


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.daily), signal.SIGTERM, signal.SIGHUP]
)
def test_before_the_switch_it_is_undone(number: signal.Signals, short_directory: Path) -> None:
    with running(EDGES[0], short_directory) as shop, shop.load() as load:
        before = shop.snapshot()
        shop.service("web", **BOOT)
        shop.tag("2")
        run = shop.spawn("deploy", "web")
        run.wait_for("step_started", step="check")
        run.signal(number)
        done = run.end()
        assert done.code == 130, done
        assert "taking back" in done.err
        assert shop.snapshot() == before, shop.describe()
        lossless(shop, load)
        assert shop.answers() == "1"


@pytest.mark.parametrize("edge", [pytest.param(EDGES[0], marks=pytest.mark.daily), EDGES[2]], ids=str)
def test_after_the_switch_it_is_finished(edge: Edge, short_directory: Path) -> None:
    with running(edge, short_directory) as shop, shop.load() as load:
        load.wait_for(20)
        shop.tag("2")
        done = spawn(shop, SWITCHED.at, "INT", "deploy", "web").end()
        assert "finished first" in done.err
        assert done.code == 0, done
        shop.settled()
        lossless(shop, load)
        assert shop.answers() == "2"


@pytest.mark.daily
def test_the_second_signal_leaves_at_once(short_directory: Path) -> None:
    # the undo stops what ignores SIGTERM, for the whole grace period: there the second signal arrives
    slow = {"environment": {"BOOT_DELAY": "60", "ON_TERM": "ignore"}, "stop_grace_period": "30s"}
    with running(EDGES[0], short_directory) as shop, shop.load() as load:
        before = shop.snapshot()
        good = (shop.directory / "compose.yaml").read_text()
        shop.service("web", **slow)
        run = shop.spawn("deploy", "web")
        run.wait_for("step_started", step="check")
        run.signal(signal.SIGINT)
        run.wait_for("undo_started")
        run.signal(signal.SIGINT)
        done = run.end(15)  # half of the grace period
        assert done.code == 130, done
        (shop.directory / "compose.yaml").write_text(good)
        shop.rollout("deploy", "web")
        assert shop.snapshot().containers == before.containers, shop.describe()
        lossless(shop, load)


@pytest.fixture(scope="module", params=BOTH, ids=str)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One project for all the deaths: each is followed by a deploy after which everything is in order again."""
    edge: Edge = request.param
    with running(edge, tmp_path_factory.mktemp("p")) as shop:
        yield shop


def killed_at(shop: Shop, point: str) -> None:
    """A deploy that kills itself at that point (tests/faults/killed.py): seen from outside, a step may be over by the
    time the signal arrives."""
    root = str(Path(__file__).parents[2])
    shop.program = (sys.executable, "-m", "tests.faults.killed", "--at", point, "--")
    shop.env["PYTHONPATH"] = root
    try:
        shop.rollout("deploy", "web", code=-signal.SIGKILL)
    finally:
        shop.program = (PROGRAM,)
        del shop.env["PYTHONPATH"]


@pytest.mark.parametrize("step", ["1 start", "2 check", "3 switch", "4 drain", "5 stop", "6 remove"])
def test_killed_when_a_step_begins(shop: Shop, step: str) -> None:
    version = "2" if shop.answers() != "2" else "3"
    with shop.load() as load:
        load.wait_for(20)
        shop.tag(version)
        killed_at(shop, f"{step.split(maxsplit=1)[0]}:begun")
        again = shop.rollout("deploy", "web")
        assert "recovering" in again.err, again
        assert shop.answers() == version
        shop.settled()
        lossless(shop, load)


@pytest.mark.parametrize("edge", BOTH, ids=str)
def test_killed_again_and_again(edge: Edge, short_directory: Path) -> None:
    """Each run is killed one step later than the one before it; the last one is left alone."""
    with running(edge, short_directory, deploy={"update_config": {"parallelism": 1}}) as shop, shop.load() as load:
        load.wait_for(20)
        shop.tag("2")
        # a run that recovers counts the steps of that too: check; then an undo's two and switch; the same and drain;
        # then what is left, at start and at stop
        for point in ("2:begun", "5:begun", "6:begun", "1:begun", "5:begun"):
            killed_at(shop, point)
        shop.rollout("deploy", "web")
        assert shop.answers() == "2"
        shop.settled()
        lossless(shop, load)


@pytest.mark.parametrize("edge", BOTH, ids=str)
def test_killed_while_it_undoes(edge: Edge, short_directory: Path) -> None:
    health = {"healthy_deadline": "1s", "timeout": "500ms"}
    with running(edge, short_directory) as shop, shop.load() as load:
        before = shop.snapshot()
        good = (shop.directory / "compose.yaml").read_text()
        shop.service("web", environment={"HEALTH": "fail"}, **{"x-rollout": {"health": health}})
        run = shop.spawn("deploy", "web")
        run.wait_for("undo_started")
        run.signal(signal.SIGKILL)
        run.end()
        (shop.directory / "compose.yaml").write_text(good)
        shop.rollout("deploy", "web")
        assert shop.snapshot().containers == before.containers, shop.describe()
        shop.settled()
        lossless(shop, load)


@pytest.mark.daily
def test_sync_finishes_what_was_left(short_directory: Path) -> None:
    with running(EDGES[2], short_directory) as shop, shop.load() as load:
        load.wait_for(20)
        shop.tag("2")
        killed_at(shop, SWITCHED.at)
        shop.rollout("sync")
        assert shop.answers() == "2"
        shop.settled()
        lossless(shop, load)


@pytest.mark.daily
def test_two_at_once_one_wins(short_directory: Path) -> None:
    with running(EDGES[0], short_directory) as shop, shop.load() as load:
        shop.tag("2")
        with stopped_at(STARTED, shop, "deploy", "web") as first:
            second = shop.rollout("deploy", "web", code=3)
        assert f"pid {first.process.pid}" in second.err
        assert "deploy" in second.err
        assert "Traceback" not in second.err
        assert first.end().code == 0
        shop.settled()
        lossless(shop, load)


def test_waiting_for_the_lock(short_directory: Path) -> None:
    with running(EDGES[0], short_directory) as shop:
        shop.tag("2")
        with stopped_at(STARTED, shop, "deploy", "web") as first:
            second = shop.spawn("deploy", "web", "--wait-lock", "60s")
            eventually(lambda: has_open(second, shop.directory / ".rollout/locks/web.lock"), "the second at the lock")
            assert second.process.poll() is None
        assert first.end().code == 0
        waited = second.end()
        assert (waited.code, second.events[-1]["event"]) == (0, "nothing_to_do"), waited
        shop.settled()


def has_open(run: Running, path: Path) -> bool:
    """Whether the program has opened this file, and not closed it again."""
    found = Path(f"/proc/{run.process.pid}/fd").iterdir()
    with contextlib.suppress(OSError):  # of two that come and go while one looks
        return any(link.readlink() == path.resolve() for link in found)
    return False


@pytest.mark.parametrize("edge", [EDGES[1], EDGES[2]], ids=str)
def test_proxy_restarted_between_deploys(edge: Edge, short_directory: Path) -> None:
    """It starts with what rollout wrote last, on the disk, and the next deploy is like any other."""
    with running(edge, short_directory) as shop:
        shop.tag("2")
        shop.rollout("deploy", "web")
        shop.compose("restart", "--timeout", "2", "edge")
        shop.wait_for_edge()
        eventually(lambda: shop.answers() == "2", "the same version from the restarted proxy")
        with shop.load() as load:
            load.wait_for(20)
            shop.tag("3")
            shop.rollout("deploy", "web")
            assert shop.answers() == "3"
            shop.settled()
            lossless(shop, load)


def test_proxy_killed_while_it_drains(short_directory: Path) -> None:
    """Its clients are lost with it, and only then: what comes back is right, and the rollout ends well."""
    with running(EDGES[2], short_directory) as shop:
        shop.tag("2")
        with shop.load() as load:
            load.wait_for(20)
            run = shop.spawn("deploy", "web")
            run.wait_for("step_started", step="drain")
            shop.compose("kill", "edge")
            code = run.end().code
            assert code in (0, 5), code
            shop.compose("start", "edge")
            shop.wait_for_edge()
        shop.rollout("deploy", "web")
        assert shop.answers() == "2"
        shop.settled()

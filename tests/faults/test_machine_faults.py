"""The machine misbehaves: a full or slow disk, a clock that is set, few files, little memory.

A config directory that is read-only, and disks that are full before a deploy begins, are in e2e/test_bad_world.py.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.disks import full, small_disk
from tests.e2e.projects import Edge, project, running
from tests.faults.middle import EDGE_PAIR, MIDDLES, STARTED, SWITCHED, begin, lossless, rolling, spawn, stops, true_end
from tests.faults.sweep import MIX, Point, Sweep, Way, query

pytestmark = [pytest.mark.faults]

NGINX, HAPROXY = EDGE_PAIR
HOUR = 3600
AT_ONCE = Way("rolling, all at once", {})


# --- the disk --------------------------------------------------------------------------------------------------


@contextmanager
def on_small_disks(edge: Edge, directory: Path) -> Iterator[Sweep]:
    """What rollout writes, each on a disk of its own."""
    config, state = directory / "edge/rollout.d", directory / ".rollout"
    with project(edge, directory) as shop, small_disk(config), small_disk(state):
        shop.up()
        shop.rollout("deploy")
        with shop.load(MIX) as load:
            load.wait_for(30)
            yield Sweep(shop, load, AT_ONCE)
        shop.down()  # before the disks go


def fill_up(sweep: Sweep, point: Point, *codes: int) -> bool:
    """Both disks are full from there on until the run has ended, with one of these codes; False: it ended before."""
    shop, version = sweep.shop, sweep.live_version()
    target, _ = sweep.targets()
    shop.tag(target)
    run = spawn(shop, point.at, "STOP", "deploy", "web")
    if not stops(run):
        true_end(run.end(), 0)
        return False
    with full(shop.directory / ".rollout"), full(shop.directory / "edge/rollout.d"):
        run.signal(signal.SIGCONT)
        done = true_end(run.end(), *codes)
    if done.code in (1, 4):
        assert sweep.live_version() == version, f"{point}: {done}"
    shop.rollout("deploy", "web")
    print(f"{shop.edge} | full disk | {point} | exit {done.code} | {sweep.load.progress()['total']} requests")
    sweep.converged(f"disks full from {point} on", target, sweep.load.progress())
    lossless(sweep)
    return True


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_the_disks_are_full_from_any_change_on(edge: Edge, short_directory: Path) -> None:
    """Configuration, journal, receipt: full before each of the changes that a deploy makes, and from there on."""
    with on_small_disks(edge, short_directory) as sweep:
        number = 1
        while fill_up(sweep, Point(number, "change"), 0, 1, 4, 5):
            number += 1
        assert number > 20, "a deploy makes more changes than that"


@pytest.mark.daily
@pytest.mark.timeout(240)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_the_disks_fill_up_before_and_after_the_switch(edge: Edge, short_directory: Path) -> None:
    with on_small_disks(edge, short_directory) as sweep:
        assert fill_up(sweep, STARTED, 4)
        assert fill_up(sweep, SWITCHED, 0)  # the journal cannot be written, but ending well matters more


@pytest.mark.timeout(300)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_a_disk_that_takes_a_fifth_of_a_second_for_every_write(edge: Edge, short_directory: Path) -> None:
    """No deadline runs while something is written that is not what it is for."""
    with rolling(edge, short_directory) as sweep:
        target, _ = sweep.targets()
        sweep.shop.service("web", **{"x-rollout": {"health": {"healthy_deadline": "5s"}}})
        sweep.shop.tag(target)
        done = true_end(begin(sweep.shop, ["tests.faults.slow_disk"], "deploy", "web").end(180), 0)
        print(f"{edge} | slow disk | {done.seconds:.0f} s | {sweep.load.progress()['total']} requests")
        assert done.seconds > 6, "the disk was not slow"
        sweep.converged("a slow disk", target, sweep.load.progress())
        lossless(sweep)


# --- the clock -------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_the_clock_is_set_by_an_hour(edge: Edge, short_directory: Path) -> None:
    """Ahead and back, before, in and after a switch: nothing is waited for by it, nothing is cut short."""
    with rolling(edge, short_directory) as sweep:
        for point in MIDDLES:
            for seconds in (HOUR, -HOUR):
                set_clock(sweep, point, seconds)


@pytest.mark.daily
@pytest.mark.timeout(240)
def test_the_clock_is_set_ahead_while_new_replicas_boot(short_directory: Path) -> None:
    with rolling(HAPROXY, short_directory) as sweep:
        set_clock(sweep, STARTED, HOUR)


def set_clock(sweep: Sweep, point: Point, seconds: float) -> None:
    target, _ = sweep.targets()
    sweep.shop.tag(target)
    module = ["tests.faults.killed", "--at", point.at, f"--jump={seconds}", "--"]
    done = true_end(begin(sweep.shop, module, "deploy", "web").end(), 0)
    print(f"{sweep.shop.edge} | clock {seconds:+.0f} s | {point} | {done.seconds:.1f} s")
    assert done.seconds < 60, done
    last = "SELECT abs(max(begun_at) - min(begun_at)) FROM step WHERE rollout = (SELECT max(rollout) FROM step)"
    assert query(sweep.shop, last)[0][0] > HOUR / 2, "the clock was not set"
    sweep.converged(f"{seconds} s at {point}", target, sweep.load.progress())
    lossless(sweep)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_the_clock_is_set_while_old_replicas_are_warm(edge: Edge, short_directory: Path) -> None:
    """Ahead: they are not kept as long as was said. They go as ever, drained."""
    warm = {"x-rollout": {"strategy": "blue-green", "keep_warm": "10m"}}
    with running(edge, short_directory, **warm) as shop, shop.load(MIX) as load:
        sweep = Sweep(shop, load, Way("warm", warm))
        shop.tag("2")
        shop.rollout("deploy", "web")
        assert sweep.warm_versions() == {"1"}
        module = ["tests.faults.killed", "--at", "0:begun", f"--jump={HOUR}", "--"]
        true_end(begin(shop, module, "deploy", "web").end(), 0)
        assert sweep.warm_versions() == set()
        shop.settled()
        lossless(sweep)


# --- files and memory ------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
@pytest.mark.parametrize("edge", [pytest.param(NGINX, marks=pytest.mark.daily), HAPROXY], ids=str)
def test_two_hundred_open_files(edge: Edge, short_directory: Path) -> None:
    """Eight replicas at once fit into them."""
    eight = {"replicas": 8, "update_config": {"parallelism": 8}}
    with running(edge, short_directory, deploy=eight) as shop, shop.load(MIX) as load:
        shop.tag("2")
        shop.program = ("prlimit", "--nofile=200", *shop.program)
        shop.rollout("deploy", "web")
        shop.settled(replicas=8)
        load.wait_for(50, version="2")
        assert load.report().failed == 0, load.report().describe()


@pytest.mark.timeout(600)
def test_hardly_any_open_files(short_directory: Path) -> None:
    """Whatever fails first: it is said, and nothing has changed or the next run finds its way."""
    with rolling(NGINX, short_directory) as sweep:
        program, version = sweep.shop.program, sweep.live_version()
        for files in (8, 14, 20, 32):
            target, _ = sweep.targets()
            sweep.shop.tag(target)
            sweep.shop.program = ("prlimit", f"--nofile={files}", *program)
            done = sweep.shop.rollout("deploy", "web", code=None)
            print(f"{files} open files: exit {done.code}: {done.err.strip().splitlines()[-1:]}")
            assert done.code in (0, 1, 4, 5), done
            sweep.shop.program = program
            if done.code in (1, 4):
                assert sweep.live_version() == version, done
            sweep.shop.rollout("deploy", "web", "--force")  # which clears away what could not be opened to be removed
            sweep.converged(f"{files} open files", target, sweep.load.progress())
            version = target
            lossless(sweep)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("edge", [NGINX, pytest.param(HAPROXY, marks=pytest.mark.daily)], ids=str)
def test_no_memory_for_the_new_containers(edge: Edge, short_directory: Path) -> None:
    """The kernel kills them as they start; the old ones serve on."""
    with rolling(edge, short_directory) as sweep:
        shop, before = sweep.shop, sweep.shop.snapshot()
        good = (shop.directory / "compose.yaml").read_text()
        shop.service("web", mem_limit="6m", memswap_limit="6m")
        shop.tag("2")
        done = shop.rollout("deploy", "web", code=1)
        assert "memory" in done.err, done
        shop.tag("1")
        (shop.directory / "compose.yaml").write_text(good)
        assert shop.snapshot() == before, shop.describe()
        sweep.load.wait_for(sweep.load.progress()["total"] + 50)
        lossless(sweep)

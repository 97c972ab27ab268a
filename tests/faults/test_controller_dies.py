"""SIGKILL of the program before and after every step it journals: the next run converges and no request is lost.

One project and one load serve a whole sweep; the points are read from the journal of one run that was left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.projects import EDGES, Edge, running
from tests.faults.sweep import BLUE_GREEN, MIX, ROLLING, UNDO, WAYS, Point, Sweep, Way

pytestmark = [pytest.mark.faults]

NGINX, HAPROXY = EDGES[1], EDGES[2]
EDGE_PAIR = (NGINX, HAPROXY)
DIED_TWICE = 0.7  # of those that died once, at least
FEWEST = {"rolling": 22, "blue-green": 10, "recreate": 14, "rollback": 12, "undo": 18}  # points of one run


@contextmanager
def sweeping(edge: Edge, way: Way, directory: Path) -> Iterator[Sweep]:
    with running(edge, directory, **way.web) as shop, shop.load(MIX) as load:
        sweep = Sweep(shop, load, way)
        if way.verb == "rollback":
            for tag in ("2", "3"):  # so that revisions 1, 2 and 3 are known, and numbered as their versions are
                shop.tag(tag)
                shop.rollout("deploy", "web")
        load.wait_for(50)
        yield sweep
        load.wait_for(load.progress()["total"] + 50)
        report = load.report()
        print(f"{edge} {way}: {len(sweep.rows)} deaths\n{report.describe()}")
        assert report.failed == 0 or way.loses, f"{report.describe()}\n{shop.describe()}"
        assert set(report.by_class) <= {"http_503"}, report.describe()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_at_every_step(edge: Edge, way: Way, short_directory: Path) -> None:
    with sweeping(edge, way, short_directory) as sweep:
        points = sweep.points()
        assert len(points) >= FEWEST[way.name], points
        sweep.at_each(points)


@pytest.mark.daily
@pytest.mark.timeout(240)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_at_the_steps_where_most_is_at_stake(edge: Edge, short_directory: Path) -> None:
    """A few points of the sweep above, for every day: half switched, half drained, half done."""
    with sweeping(edge, ROLLING, short_directory) as sweep:
        chosen = {"3:done", "5:begun", "8:done"}
        found = [point for point in sweep.points() if point.at in chosen]
        assert [p.step for p in found] == ["switch", "stop", "switch"]
        sweep.at_each(found)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", [ROLLING, BLUE_GREEN, UNDO], ids=str)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_twice_in_a_row(edge: Edge, way: Way, short_directory: Path) -> None:
    """Killed, and the run that recovers is killed as well, at its first, second and third step in turn."""
    with sweeping(edge, way, short_directory) as sweep:
        first = [point for point in sweep.points() if point.moment == "begun"]
        twice = 0
        for turn, point in enumerate(first):
            target, other = sweep.targets()
            before = sweep.live_version()
            sweep.die_or_end(target, point.at)
            target = before if way.sick else target
            again = Point(turn % 3 + 1, ("begun", "done")[turn % 2])
            died = sweep.run_to(again.at, sweep.argv(target if turn % 2 else other))
            assert died.returncode in (-9, 0), f"{died}\n{sweep.shop.describe()}"  # 0: fewer steps were left than that
            twice += died.returncode == -9
            sweep.recover(f"{point} and {again}", (other, target)[turn % 2])
        print(f"{edge} {way}: {twice} of {len(first)} died twice")
        assert twice >= len(first) * DIED_TWICE, "hardly any was killed a second time"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_at_every_change_it_makes(edge: Edge, short_directory: Path) -> None:
    """Not only between its steps: before each request to the engine that changes something, each program it starts,
    each file it makes, writes or renames, until a run is through before its point comes."""
    with sweeping(edge, Way("rolling, all at once", {}), short_directory) as sweep:
        number = 0
        while True:
            number += 1
            target, other = sweep.targets()
            died = sweep.run_to(f"{number}:change", sweep.argv(target))
            if died.returncode == 0:
                break
            assert died.returncode == -9, f"{died}\n{sweep.shop.describe()}"
            sweep.recover(f"{number}:change", target if number % 2 else other)
        assert number > 20, "a deploy makes more changes than that: nothing was killed"

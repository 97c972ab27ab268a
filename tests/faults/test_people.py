"""People act in the middle of a deploy: a second deploy, plain Compose commands, Ctrl-C, an editor, `rm -rf .rollout`.

The program stops itself (SIGSTOP) at a point of its own work, the test does what a person would do there, to the end,
and lets it go on: the same middle every time. A deploy may fail then, but not lie, and the next one converges.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.deaths import UNANSWERED, Deaths
from tests.e2e.projects import EDGES, Container, Edge, Shop, containers, docker, running
from tests.faults.middle import (
    EDGE_PAIR,
    FIRST_SWITCH,
    HALF_DONE,
    MIDDLES,
    STEPS,
    SWITCHED,
    lossless,
    rolling,
    spawn,
    stopped_at,
    true_end,
)
from tests.faults.sweep import MIX, ROLLING, Point, Sweep, query

pytestmark = [pytest.mark.faults]

# --- two at once -----------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_a_deploy_and_a_rollback(edge: Edge, short_directory: Path) -> None:
    with rolling(edge, short_directory) as sweep:
        shop = sweep.shop
        shop.tag("2")
        shop.rollout("deploy", "web")
        shop.tag("3")
        with stopped_at(HALF_DONE, shop, "deploy", "web") as first:
            refused = shop.rollout("rollback", "web", code=3)
            assert f"pid {first.process.pid}" in refused.err
        true_end(first.end(), 0)
        sweep.converged("the refused rollback", "3", sweep.load.progress())
        shop.rollout("rollback", "web")
        sweep.converged("the rollback", "2", sweep.load.progress())
        lossless(sweep)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_two_deploys_that_wait_for_each_other(edge: Edge, short_directory: Path) -> None:
    """Begun in the same instant, for different versions: one after the other, and the last one's version, wholly."""
    with rolling(edge, short_directory) as sweep:
        images = ("rollout-test/app:2", "rollout-test/app:3")
        runs = [sweep.shop.spawn("deploy", "web", "--image", image, "--wait-lock", "2m") for image in images]
        for run in runs:
            true_end(run.end(120), 0)
        last = max(range(2), key=lambda i: runs[i].wait_for("rollout_started")["rollout"])
        sweep.converged("both", ("2", "3")[last], sweep.load.progress())
        lossless(sweep)


# --- plain Compose in the middle -------------------------------------------------------------------------------

COMMANDS = {
    "up": ["up", "-d", "web"],
    "restart": ["restart", "-t", "2", "web"],
    "stop": ["stop", "-t", "2", "web"],
    "rm": ["rm", "-sf", "web"],
    "scale": ["up", "-d", "--no-recreate", "--scale", "web=5", "web"],
}
STOPS_NOTHING = {"scale"}
HINDER_NOTHING = {"scale", "restart"}  # what was there is there again


def have_swapped(before: list[Container], after: list[Container]) -> bool:
    """Whether one that was there has an address that another of them had."""
    had = {one.id: set(one.addresses.values()) for one in before}
    return any(
        own & set(one.addresses.values())
        for one in after
        for other, own in had.items()
        if one.id in had and other != one.id
    )


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("point", MIDDLES, ids=str)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_compose_commands_in_the_middle(edge: Edge, point: Point, short_directory: Path) -> None:
    """What Compose stops here was in use, and is the person's to lose; what rollout makes of it has to be whole, and
    what rollout stops has drained all the same."""
    ended: dict[str, int] = {}
    with running(edge, short_directory, **ROLLING.web) as shop:
        for name, argv in COMMANDS.items():
            with shop.load(MIX) as load:
                sweep = Sweep(shop, load, ROLLING)
                target, _ = sweep.targets()
                shop.tag(target)
                deaths = Deaths(MIX, grace=UNANSWERED)  # what was removed answers no more
                stopped = [len(shop.term_lines())]
                with deaths.now():
                    with stopped_at(point, shop, "deploy", "web") as run:
                        assert load.progress()["failed"] == 0, "nobody has done anything yet"
                        stopped.append(len(shop.term_lines()))
                        there = shop.containers()
                        shop.compose(*argv)
                        restarted = shop.containers()
                        stopped.append(len(shop.term_lines()))
                    done = true_end(run.end(), 0, 1, 5)
                    ended[name] = done.code
                    if done.code == 0:
                        assert sweep.live_version() == target, f"{name} {point}: {done}\n{shop.describe()}"
                    else:
                        shop.rollout("deploy", "web")
                shop.rollout("deploy", "web")
                assert sweep.live_version() == target
                by_rollout = (lines := shop.term_lines())[stopped[0] : stopped[1]] + lines[stopped[2] :]
                # docs/guarantees.md: what was sent to an address under its former holder's name
                inexact = edge.type == "haproxy" and have_swapped(there, restarted)
                assert inexact or {line["in_flight"] for line in by_rollout} <= {0}, f"{name}: {by_rollout}"
                sweep.only_what_is_wanted(f"{name} at {point}: {done}\n{shop.describe()}")
                with shop.load(MIX) as after:  # of the other, some may still wait for what Compose has stopped
                    after.wait_for(50)
                    report = after.report()
                assert report.failed == 0, f"{name} at {point}: {report.describe()}\n{shop.describe()}"
                lost = load.report()
                print(f"{edge} | compose {name} | {point} | exit {done.code} | {lost.failed} failed, {lost.by_class}")
                unexplained = [failure for failure in lost.failures if not deaths.explain(failure)]
                assert unexplained == [], f"{name} at {point}: {lost.describe()}\n{shop.describe()}"
                assert lost.failed == 0 or name not in STOPS_NOTHING, f"{name} at {point}: {lost.describe()}"
            shop.settled()
    assert {name for name, code in ended.items() if code == 0} >= HINDER_NOTHING, ended


# --- Ctrl-C ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_ctrl_c_at_every_step(edge: Edge, short_directory: Path) -> None:
    with rolling(edge, short_directory) as sweep:
        for number in range(1, len(STEPS) + 1):
            interrupt(sweep, Point(number, "begun", STEPS[number - 1]))


@pytest.mark.daily
@pytest.mark.timeout(240)
def test_ctrl_c_before_and_after_the_first_switch(short_directory: Path) -> None:
    with rolling(EDGES[1], short_directory) as sweep:
        interrupt(sweep, Point(3, "begun", "switch"))
        interrupt(sweep, Point(3, "done", "switch"))


def interrupt(sweep: Sweep, point: Point) -> None:
    shop = sweep.shop
    target, _ = sweep.targets()
    before, version = shop.snapshot(), sweep.live_version()
    shop.tag(target)
    done = spawn(shop, point.at, "INT", "deploy", "web").end()
    switched = point.number > FIRST_SWITCH or point.at == f"{FIRST_SWITCH}:done"
    true_end(done, 0 if switched else 130)
    print(f"{shop.edge} | Ctrl-C | {point} | exit {done.code} | {done.seconds:.1f} s")
    if not switched:
        assert shop.snapshot() == before, f"{point}: {done}\n{shop.describe()}"
    sweep.converged(str(point), target if switched else version, sweep.load.progress())
    lossless(sweep)


# --- the Compose file is edited --------------------------------------------------------------------------------


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_compose_file_edited_in_the_middle(edge: Edge, short_directory: Path) -> None:
    """Another image and another environment, at every step: one of the versions wholly, never a mixture."""
    with rolling(edge, short_directory) as sweep:
        for number in range(1, len(STEPS) + 1):
            point = Point(number, "begun", STEPS[number - 1])
            shop, version = sweep.shop, sweep.live_version()
            target, third = sweep.targets()
            shop.tag(target)
            with stopped_at(point, shop, "deploy", "web") as run:
                shop.service("web", environment={"EDITED": point.at})
                shop.tag(third)
            done = true_end(run.end(), 0, 1)
            if done.code:
                assert "changed while the deploy was under way" in done.said, done
            print(f"{edge} | edited | {point} | exit {done.code} | {done.seconds:.1f} s")
            sweep.converged(str(point), version if done.code else target, sweep.load.progress())
            assert len({c.config_hash for c in shop.containers()}) == 1
            shop.rollout("deploy", "web")
            sweep.converged(f"{point}, the next run", third, sweep.load.progress())
            lossless(sweep)


# --- the state directory ---------------------------------------------------------------------------------------


def delete_it(state: Path) -> None:
    shutil.rmtree(state)


def garbage(state: Path) -> None:
    (state / "state.db").write_bytes(b"\x07not a database" * 1000)


def empty(state: Path) -> None:
    (state / "state.db").write_bytes(b"")


def torn(state: Path) -> None:
    file = state / "state.db"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 + 100])


def holes(state: Path) -> None:
    """The header is whole, the pages behind it are not: sqlite finds it out only when it reads them."""
    file = state / "state.db"
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def locks_gone(state: Path) -> None:
    shutil.rmtree(state / "locks")
    (state / "proxy.lock").unlink()
    (state / "project").unlink()


def locks_garbage(state: Path) -> None:
    for file in (state / "proxy.lock", *(state / "locks").iterdir()):
        file.write_bytes(b"\xff{garbage" * 100)


DAMAGES = (delete_it, garbage, empty, torn, holes, locks_gone, locks_garbage)
TOLD = (garbage, torn, holes)  # what is not simply a first run


@pytest.mark.daily
@pytest.mark.timeout(240)
def test_state_damaged_between_deploys(short_directory: Path) -> None:
    between(EDGES[2], short_directory, (delete_it, torn))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_state_damaged_in_every_way_between_deploys(edge: Edge, short_directory: Path) -> None:
    between(edge, short_directory, DAMAGES)


def between(edge: Edge, directory: Path, damages: Sequence[Callable[[Path], None]]) -> None:
    with rolling(edge, directory) as sweep:
        for damage in damages:
            target, _ = sweep.targets()
            damage(sweep.shop.directory / ".rollout")
            sweep.shop.tag(target)
            done = true_end(sweep.shop.rollout("deploy", "web", code=None), 0)
            assert ("damaged" in done.said) == (damage in TOLD), f"{damage.__name__}: {done}"
            put_aside(sweep.shop, damage in TOLD)
            sweep.converged(damage.__name__, target, sweep.load.progress())
            lossless(sweep)


def put_aside(shop: Shop, expected: bool) -> None:
    """The damaged file is kept for whoever wants to know; out of the way of the look for left-over files."""
    aside = list((shop.directory / ".rollout").glob("state.db.broken-*"))
    assert bool(aside) == expected, aside
    for file in aside:
        file.unlink()


@pytest.mark.daily
@pytest.mark.timeout(240)
@pytest.mark.parametrize("damage", [delete_it, garbage])
def test_state_damaged_after_the_switch(damage: Callable[[Path], None], short_directory: Path) -> None:
    in_the_middle(EDGES[2], short_directory, damage, [SWITCHED])


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("damage", [delete_it, garbage, holes, locks_gone])
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_state_damaged_in_the_middle(edge: Edge, damage: Callable[[Path], None], short_directory: Path) -> None:
    in_the_middle(edge, short_directory, damage, MIDDLES)


def in_the_middle(edge: Edge, directory: Path, damage: Callable[[Path], None], points: Sequence[Point]) -> None:
    with rolling(edge, directory) as sweep:
        for point in points:
            target, _ = sweep.targets()
            shop, version = sweep.shop, sweep.live_version()
            shop.tag(target)
            with stopped_at(point, shop, "deploy", "web") as run:
                damage(shop.directory / ".rollout")
                another = shop.rollout("deploy", "web", code=None)
                assert another.code == 3 and "another rollout is under way" in another.err, another
            done = true_end(run.end(), 0, 4)  # 4: taken back, as what it must remember cannot be written down
            print(f"{edge} | {damage.__name__} | {point} | exit {done.code} | {done.seconds:.1f} s")
            if done.code:
                assert "deleted while it was in use" in done.said or "not a database" in done.said, done
                assert sweep.live_version() == version, done
            shop.rollout("deploy", "web")
            with contextlib.suppress(AssertionError):
                put_aside(shop, True)
            sweep.converged(f"{point} {damage.__name__}", target, sweep.load.progress())
            lossless(sweep)


# --- an address changes hands ----------------------------------------------------------------------------------


@pytest.mark.daily
@pytest.mark.timeout(240)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_a_stranger_at_a_freed_address_gets_no_request(edge: Edge, short_directory: Path) -> None:
    """The engine gives a freed address to the next container that starts. Whoever that is: nothing is sent to it."""
    strangers: list[str] = []
    with rolling(edge, short_directory) as sweep:
        try:
            meet_strangers(sweep, strangers)
        finally:
            if strangers:
                docker("rm", "-f", *strangers)
        sweep.converged("the strangers", "3", sweep.load.progress())
        lossless(sweep)


def meet_strangers(sweep: Sweep, strangers: list[str]) -> None:
    shop = sweep.shop
    shop.tag("2")
    old = {next(iter(c.addresses.values())) for c in shop.containers()}
    with stopped_at(Point(5, "done", "stop"), shop, "deploy", "web") as run:
        freed = old - {next(iter(c.addresses.values())) for c in shop.running()}
        assert len(freed) == 1
        take(shop, freed, strangers)
    true_end(run.end(), 0)
    sweep.load.wait_for(sweep.load.progress()["total"] + 100)
    assert begun(strangers) == 0, shop.describe()
    shop.tag("3")
    sweep.die("5:done", ["deploy", "web"])  # and where the run that freed it is dead
    take(shop, old_addresses(shop), strangers)
    shop.rollout("deploy", "web")
    sweep.load.wait_for(sweep.load.progress()["total"] + 100)
    assert begun(strangers) == 0, shop.describe()


def old_addresses(shop: Shop) -> set[str]:
    """The addresses of the last journalled pool that nothing has any more."""
    known = {address.partition(":")[0] for address in pools(shop)}
    return known - {a for c in containers(shop.name) for a in c.addresses.values()}


def pools(shop: Shop) -> set[str]:
    rows = query(shop, "SELECT previous FROM rollout ORDER BY id DESC LIMIT 1")
    return {upstream["host"] for upstream in json.loads(rows[0][0])["upstreams"]}


def take(shop: Shop, wanted: set[str], strangers: list[str]) -> None:
    """Start containers, none of the project's, until they have every wanted address. Adds their ids."""
    taken: set[str] = set()
    while not wanted <= taken:
        assert len(taken) < 8, f"{wanted} are not given out again: {taken}"
        strangers.append(docker("run", "-d", "--network", f"{shop.name}_default", "rollout-test/app:1"))
        taken.add(docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", strangers[-1]))


def begun(ids: list[str]) -> int:
    """Requests that these applications have begun, by their own count."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/stats').read().decode())"
    return sum(int(json.loads(docker("exec", i, "python3", "-c", ask))["begun"]) for i in ids)
